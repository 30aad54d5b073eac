"""The memory that networks free on CPUs: glibc gives large blocks back to the system at once, and every pass pays to get them again."""
from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
SET_BY_USER = ('MALLOC_MMAP_MAX_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_', 'MALLOC_TOP_PAD_', 'GLIBC_TUNABLES')


def keep_freed_memory() -> bool:
    """Let this process keep up to 2 GiB of what it frees, for its next allocation; tell whether that was possible.

    A forward pass of the nano networks at 256 x 256 pixels on a CPU meets 14,000 page faults without and none with it, and takes 127 ms
    instead of 158; a distillation's iteration gains 7 %. The largest resident set grows by 4 % at most. Nothing is done outside glibc, or
    where one of :data:`SET_BY_USER` is set.
    """
    if not sys.platform.startswith('linux') or any(os.environ.get(name) for name in SET_BY_USER):
        return False
    try:
        if not (os.confstr('CS_GNU_LIBC_VERSION') or '').startswith('glibc'):
            return False
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, ValueError):
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, 2**31 - 1)])
