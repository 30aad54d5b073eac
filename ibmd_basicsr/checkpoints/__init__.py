"""Reading and writing of weight files: torch only, never any pickled code."""
