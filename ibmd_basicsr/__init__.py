"""ibmd_basicsr: one-step image restorers distilled from diffusion bridges, as a plugin of BasicSR."""
from ibmd_basicsr.version import __version__

__all__ = ['__version__']
