"""How much memory there is, and how much restoring takes."""
from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

MAPS = 26
"""Feature maps of the first level's width that a pass of ADMUNet is taken to hold, float32: the 801 MiB that the nano student takes for
1024x1024 pixels on a CPU (docs/bench/nano_cpu.md) are 25. Not measured for other sizes; where it is wrong, smaller tiles follow."""
RESULT_BYTES = 60
"""Bytes of a pixel of a whole result: noise field, samples as read, as computed and as written, their file, and what the allocator keeps.
Measured on 24 megapixels of 8 bits at scale 1: 53 (tests/restore/test_large_photo.py)."""
SHARE = 0.6
"""Of the free memory: other programs want some, too, and estimates err."""
SMALLEST_TILE = 32
"""In pixels of the result; networks of few levels could do with less, and nobody has so little memory."""


def free_memory(device: torch.device, root: Path = Path('/')) -> int | None:
    """Return the bytes that could be allocated on a device; None where that cannot be told (CPUs beside Linux, other accelerators).

    Args:
        device: ``cuda`` or ``cpu``; on Linux, the limits of the process's control group count, too (containers).
        root: of the file system.
    """
    if device.type == 'cuda':
        free, _ = torch.cuda.mem_get_info(device if device.index is not None else None)  # torch 2.3 refuses a device without
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != 'cpu' or not sys.platform.startswith('linux'):
        return None
    found = [_available_of_the_machine(root), _left_of_the_group(root)]
    return min((number for number in found if number is not None), default=None)


def _available_of_the_machine(root: Path) -> int | None:
    try:
        lines = (root / 'proc/meminfo').read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith('MemAvailable:'))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _left_of_the_group(root: Path) -> int | None:
    """Return what a control group of version 2, as containers see their own, may still take; the page cache in it gives way."""
    group = root / 'sys/fs/cgroup'
    try:
        limit, used = int((group / 'memory.max').read_text()), int((group / 'memory.current').read_text())
        statistics = dict(line.split() for line in (group / 'memory.stat').read_text().splitlines())
        return max(0, limit - used + int(statistics.get('inactive_file', 0)))
    except (OSError, ValueError):  # no such group, or its limit is "max"
        return None


def bytes_per_pixel(network: Mapping[str, Any]) -> float:
    """Estimate the bytes that a pass of ``ADMUNet`` takes for each pixel of its input: :data:`MAPS` at the first level."""
    return 4 * MAPS * network.get('model_channels', 256) / network.get('patch_size', 1)**2


def fitting_side(side: int, per_pixel: float, free: int | None) -> int:
    """Return the largest of ``side``, half of it, a quarter ... whose square fits into the free memory; at least :data:`SMALLEST_TILE`."""
    while free is not None and side > SMALLEST_TILE and side * side * per_pixel > SHARE * free:
        side //= 2
    return side
