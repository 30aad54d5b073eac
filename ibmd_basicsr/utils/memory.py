"""How much memory there is."""
from __future__ import annotations

import os
import sys


def physical_memory() -> int:
    """Return the bytes of this machine's memory; ``sys.maxsize`` where the system does not tell."""
    try:
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, OSError, ValueError):
        return sys.maxsize
