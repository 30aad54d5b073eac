"""Errors that are the user's to mend: the commands print them as one line and end with ``exit_code``."""
from __future__ import annotations


class OptionError(ValueError):
    """An option file or a command line says something that cannot be done; the message names key, value and the choices."""

    exit_code = 2


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is infinite or not a number: training stops before the step, saved states are intact."""

    exit_code = 3
