"""Values on command lines that several commands take: numbers within bounds, and the device. Loads no torch before it is needed."""
from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ibmd_basicsr.utils.errors import OptionError, first_line

if TYPE_CHECKING:
    import torch


def _number(text: str, kind: type, least: float, what: str, most: float = float('inf')) -> int | float:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise argparse.ArgumentTypeError(f'must be {what}, got {text!r}')
    return value


def positive(text: str) -> int:
    """Read an integer of at least 1 (``type`` of an argument, like those that follow).

    Raises:
        ArgumentTypeError: something else.
    """
    return _number(text, int, 1, 'a positive integer')


def pixels(text: str) -> int:
    """Read a number of pixels, 0 or more."""
    return _number(text, int, 0, 'a number of pixels, 0 or more')


def above_zero(text: str) -> float:
    """Read a number above 0."""
    return _number(text, float, 1e-6, 'a number above 0')


def jpeg_quality(text: str) -> int:
    """Read a JPEG quality."""
    return _number(text, int, 1, 'a JPEG quality, 1 to 100', most=100)


def find_device(name: str | None) -> torch.device:
    """Return the device that ``--device`` names; without a name a GPU if there is one, else the CPU.

    Raises:
        OptionError: there is no such device, or it cannot be used.
    """
    import torch
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f'--device {name or "(default)"}: {first_line(error)}') from error
    return device
