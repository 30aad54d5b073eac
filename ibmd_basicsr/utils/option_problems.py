"""Problems: what is wrong with an option file, found block by block."""
from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.numbers import is_number
from ibmd_basicsr.utils.option_check import build_from_options, key_problems, option_parameters

LONGEST = 200
"""Characters of a value in a message."""


def shown(value: Any) -> str:
    """Return a value as messages show it: one line, not longer than :data:`LONGEST`."""
    text = repr(value)
    return text if len(text) <= LONGEST else f'{text[:LONGEST]}...'


class Problems(list):
    """The lines found so far, with the checks that any block needs. Blocks are named by their path, ``train.optim_g``.

    Args:
        opt: the parsed options.
    """

    def __init__(self, opt: dict[str, Any]):
        super().__init__()
        self._opt = opt
        self._reported: set[str] = set()

    def get(self, path: str, default: Any = None) -> Any:
        """Return the value at ``path``, or ``default`` if it or a block above it is not there."""
        value: Any = self._opt
        for key in path.split('.') if path else ():
            value = value.get(key, default) if isinstance(value, dict) else default
        return value

    def block(self, path: str) -> dict[str, Any] | None:
        """Return the block at ``path``; None if it is not there or (a problem) something else than a block."""
        value = self.get(path)
        if value is None or isinstance(value, dict):
            return value
        if path not in self._reported:
            self._reported.add(path)
            self.append(f'{path}: must be a block of keys, got {shown(value)}.')
        return None

    def keys(self, path: str, allowed: set[str], required: list[str] | tuple = (), added: set[str] = frozenset()) -> bool:
        """Check the keys of a block, if it is there, except those that the host ``added``; tell whether they are right."""
        block = self.block(path)
        if block is None:
            return False
        given = [key for key, value in block.items() if key not in added and (value is not None or key not in required)]
        problems = key_problems(path, given, allowed, required)
        self.extend(problems)
        return not problems

    def signature(self, path: str, target: Callable, extra: set[str] = frozenset(), hidden: tuple[str, ...] = ()) -> bool:
        """Check the keys of a block against the parameters of what it will be handed to."""
        names, required = option_parameters(target, hidden)
        return self.keys(path, {*names, *extra}, required)

    def build(self, path: str, target: Callable, block: dict[str, Any]) -> Any:
        """Build what is cheap to build, so that its own checks of values speak; return it, or None where they object."""
        try:
            return build_from_options(target, copy.deepcopy(block), path)
        except OptionError as error:
            self.append(str(error))
            return None

    def choice(self, path: str, choices: tuple) -> bool:
        """Check that the value at ``path`` is one of ``choices``."""
        value = self.get(path)
        if value not in choices:
            self.append(f'{path}: must be one of {", ".join(map(repr, choices))}, got {shown(value)}.')
        return value in choices

    def positive(self, path: str, integer: bool = False) -> None:
        """Check that the value at ``path`` is a positive number, if it is there; ``integer`` admits 1e5 as well as 100000."""
        value = self.get(path)
        if value is None:
            return
        if not is_number(value) or not value > 0 or (integer and value != int(value)):
            self.append(f'{path}: must be a positive {"integer" if integer else "number"}, got {shown(value)}.')
