"""Photographs in, restored photographs out: files, metadata and networks by name, for the command ``python -m ibmd_basicsr.restore``."""
