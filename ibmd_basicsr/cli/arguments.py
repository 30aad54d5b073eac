"""Command lines: the parser of all commands, and values that several take. Loads no torch before it is needed."""
from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ibmd_basicsr.utils.errors import OptionError, first_line, printable

if TYPE_CHECKING:
    import torch


class CommandParser(argparse.ArgumentParser):
    """Parser of a command: its epilog is printed as it stands, and what is wrong with a command line is told in one line."""

    def __init__(self, **options: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2, without the usage, which is longer than a screen for some commands."""
        self.exit(2, f'error: {printable(message.rstrip("."), 400)}; --help shows examples.\n')


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


def prepare_folder(folder: Path) -> None:
    """Make the folder of ``-o`` and see that files can be written there, before what they shall hold is computed.

    Raises:
        OptionError: there is a file, or nothing can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise OptionError(f'-o {folder}: is a file, or lies in one; name a folder.') from error
    except OSError as error:
        raise OptionError(f'-o {folder}: cannot be written to ({error.strerror}).') from error


def find_device(name: str | None) -> torch.device:
    """Return the device that ``--device`` names; without a name a GPU if there is one, else the CPU.

    Raises:
        OptionError: neither ``cpu``, ``cuda`` nor ``cuda:N``, or it cannot be used.
    """
    if name is not None and not re.fullmatch(r'cpu|cuda(:\d+)?', name):
        raise OptionError(f'--device: must be cpu, cuda or cuda:N, got {printable(repr(name))}.')
    import torch
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f'--device {name or "(default)"}: {first_line(error)}') from error
    return device
