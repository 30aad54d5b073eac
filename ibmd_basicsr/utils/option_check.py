"""Strict checks of option blocks: nothing unknown is accepted, and the message names the nearest valid key."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ibmd_basicsr.utils.errors import OptionError, hint
from ibmd_basicsr.utils.numbers import is_number

KINDS = {'int': 'an integer', 'float': 'a finite number', 'bool': 'true or false', 'str': 'text'}
"""Annotations of parameters, and what messages call them."""


def key_problems(block: str, given: Iterable[str], allowed: Collection[str], required: Collection[str] = ()) -> list[str]:
    """Return one line for each key that a block does not have, and one for the required keys that are missing.

    Args:
        block: path of the block in the option file, such as ``train.optim_bridge``; empty for the top level.
        given: the keys that are there.
        allowed: the keys that may be there.
        required: the keys that must be.
    """
    given = list(given)
    allowed = sorted(set(allowed) | set(required))
    prefix = f'{block}: ' if block else ''
    problems = []
    for key in given:
        if key not in allowed:
            problems.append(f'{prefix}unknown key {key!r}{hint(key, allowed)} Allowed: {", ".join(allowed) or "none"}.')
    missing = [key for key in required if key not in given]
    if missing:
        problems.append(f'{prefix}missing {", ".join(map(repr, missing))}.')
    return problems


def check_keys(block: str, given: Iterable[str], allowed: Collection[str], required: Collection[str] = ()) -> None:
    """Refuse keys that a block does not have, and a block that lacks required ones.

    Raises:
        OptionError: naming block, key, nearest valid key and all valid keys; see :func:`key_problems`.
    """
    problems = key_problems(block, given, allowed, required)
    if problems:
        raise OptionError(' '.join(problems))


def option_parameters(target: Callable, hidden: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Return the names of the parameters that options can set, and of those among them without a default.

    Args:
        target: function or class.
        hidden: parameters that the caller supplies.
    """
    parameters = [p for p in inspect.signature(target).parameters.values()
                  if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in ('self', *hidden)]
    return [p.name for p in parameters], [p.name for p in parameters if p.default is p.empty]


def check_values(target: Callable, options: Mapping[str, Any], block: str) -> None:
    """Refuse text or lists where ``target`` is annotated to take a number, numbers that are not finite, and the like.

    Only parameters that are annotated as int, float, bool or str, alone or with None, are looked at. Integers may be written as 1e5.

    Raises:
        OptionError: naming block, key, value and what is wanted.
    """
    for name, parameter in inspect.signature(target).parameters.items():
        kinds = set(str(parameter.annotation).replace(' ', '').split('|'))
        if name not in options or not kinds <= {*KINDS, 'None'}:
            continue
        value = options[name]
        if not any(_fits(value, kind) for kind in kinds):
            wanted = ' or '.join(KINDS.get(kind, 'nothing (~)') for kind in sorted(kinds))
            raise OptionError(f'{block}: {name} must be {wanted}, got {value!r}.')


def _fits(value: Any, kind: str) -> bool:
    if kind in ('int', 'float'):
        return is_number(value) and (kind == 'float' or value == int(value))
    return value is None if kind == 'None' else isinstance(value, {'bool': bool, 'str': str}[kind])


def build_from_options(target: Callable, opt: dict[str, Any], block: str) -> Any:
    """Call ``target`` with the options of a block. ``type`` is left out unless ``target`` has a parameter of that name.

    Raises:
        OptionError: not a block; a key that ``target`` does not have, or lacks; or a value that it refuses or cannot compute with.
    """
    if not isinstance(opt, dict):
        raise OptionError(f'{block}: must be a block of keys, got {opt!r}.')
    names, required = option_parameters(target)
    options = {key: value for key, value in opt.items() if key != 'type' or 'type' in names}
    check_keys(block, options, names, required)
    check_values(target, options, block)
    try:
        return target(**options)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise OptionError(f'{block}: {error}') from error
