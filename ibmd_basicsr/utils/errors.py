"""Errors that are the user's to mend: the commands print them as one line and end with ``exit_code``."""
from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class OptionError(ValueError):
    """An option file or a command line says something that cannot be done; the message names key, value and the choices."""

    exit_code = 2


class InputError(OptionError):
    """What an option file names is not there or cannot be used; on another machine of the run it may be."""


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is infinite or not a number: training stops before the step, saved states are intact."""

    exit_code = 3


class SaveError(RuntimeError):
    """A checkpoint or a training state that cannot be written (disk full, quota): what was saved before is intact."""

    exit_code = 5


class CheckpointError(ValueError):
    """A weight file that is missing, unreadable or does not fit; the message is one line with the file and the reason."""

    exit_code = 2


class DataError(ValueError):
    """A training or test image that cannot be used; the message begins with its file."""

    exit_code = 2


class WorkerError(RuntimeError):
    """A process that loads images was killed or crashed; the message names the image where it is known."""

    exit_code = 1


class Interrupted(KeyboardInterrupt):
    """A run that ended on a signal, after its state was saved.

    Args:
        message: what the user reads.
        exit_code: of the command, 128 + the number of the signal.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def exit_code(error: Exception) -> int | None:
    """Return the exit code of an error that is the user's to mend, None for a bug (which keeps its traceback)."""
    if isinstance(error, (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)):
        return 2
    return getattr(error, 'exit_code', None)


def printable(text: Any, limit: int = 80) -> str:
    """Return a name out of a file as one short line: the file may hold line ends and control characters where names are expected."""
    text = str(text)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= limit else f'{text[:limit]}...'


def value_or_type(value: Any) -> str:
    """Return a value out of a file for a message: short plain ones as they are, of others the type; a container may be endless to print."""
    if isinstance(value, (str, bytes)):
        return printable(repr(value[:100]))
    plain = isinstance(value, (bool, float, type(None))) or (isinstance(value, int) and value.bit_length() < 256)
    return repr(value) if plain else f'a {type(value).__name__}'


def one_line(error: Exception) -> str:
    """Return the message of ``error``; of one that a data loader's worker re-raised, the original message without its traceback."""
    if isinstance(error, OSError) and error.filename is not None:
        return _printable(f'{error.filename}: {error.strerror}')
    message = str(error).strip()
    if message.startswith('Caught ') and '\n' in message:
        message = message.splitlines()[-1].partition(': ')[2]
    return _printable(message) or type(error).__name__


def hint(name: Any, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: ``, did you mean 'NEAREST'?`` if one of the known names is near, else ``.``."""
    near = difflib.get_close_matches(str(name), list(map(str, known)), 1)
    return f', did you mean {near[0]!r}?' if near else '.'


def first_line(error: Exception) -> str:
    """Return the first line of :func:`one_line`, for messages that go on, or whose rest is about the inside of a library."""
    return one_line(error).splitlines()[0]


def _printable(message: str) -> str:
    """Escape what would move the cursor of a terminal or recolour it: names of files and options may hold anything."""
    return ''.join(letter if letter.isprintable() or letter == '\n' else ascii(letter)[1:-1] for letter in message)
