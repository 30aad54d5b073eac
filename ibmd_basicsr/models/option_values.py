"""Types and ranges of option values, by the schema that editors use: what it refuses, a run refuses, too.

A validator of the few words of JSON schema that :mod:`~ibmd_basicsr.models.option_schema` writes, so that running needs no further package
and messages read like those of the rules. Keys are left to the rules, which name the nearest valid one.
"""
from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

from ibmd_basicsr.models.option_schema import SIMPLE, Schema, option_schema
from ibmd_basicsr.utils.option_problems import shown

NAMES = {'integer': 'an integer', 'number': 'a number', 'string': 'text', 'boolean': 'true or false', 'object': 'a block of keys',
         'array': 'a list', 'null': '~'}
LARGEST_INTEGER = 2**63 - 1
"""torch and numpy take no larger one."""


def value_problems(opt: dict[str, Any], types_only: bool) -> list[str]:
    """Return one line for each value that the schema of option files refuses.

    Args:
        opt: the options, as read or as the host's parser leaves them.
        types_only: look for values of a wrong type and for numbers that are not finite, which other checks need not expect then; leave
            ranges and choices to them.
    """
    checker = _Checker(types_only)
    checker.numbers('', opt)
    checker.value('', opt, checker.schema)
    # the host copies the scale into every data set
    copies = {f'datasets.{phase}.scale' for phase, block in _parts(opt.get('datasets')) if isinstance(block, dict)
              and block.get('scale') is opt.get('scale')} if 'scale' in checker.found else set()
    return [line for path, line in checker.found.items() if path not in copies]


def dataset_problems(path: str, block: dict[str, Any]) -> list[str]:
    """Return one line for each value that the schema refuses in the block of a data set, which stands at ``path``."""
    checker = _Checker(types_only=False)
    checker.numbers(path, block)
    checker.value(path, block, checker.schema['$defs']['dataset'])
    return list(checker.found.values())


def make_whole(opt: dict[str, Any]) -> None:
    """Turn floats without a fraction (``1e5``, ``4.0``) into integers, in place, where the schema wants an integer."""
    checker = _Checker(types_only=True)
    checker.value('', opt, checker.schema)
    for block, key in checker.wholes:
        block[key] = int(block[key])


class _Checker:
    """Walks options and schema together.

    Attributes:
        found: a line for each place.
        wholes: block and key of each float that stands for an integer.
    """

    def __init__(self, types_only: bool):
        self.schema = option_schema()
        self.types_only = types_only
        self.found: dict[str, str] = {}
        self.wholes: list[tuple[Any, str | int]] = []

    def numbers(self, path: str, value: Any) -> None:
        """Find numbers that cannot be computed with, wherever they are."""
        if isinstance(value, float) and not math.isfinite(value):
            self._object(path, 'a finite number', value)
        elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            self._object(path, 'an integer of at most 64 bits', value)
        for key, item in _parts(value):
            self.numbers(_join(path, key), item)

    def value(self, path: str, value: Any, schema: Schema) -> None:
        """Find what ``schema`` refuses in ``value``, which stands at ``path``."""
        if '$ref' in schema:
            schema = self.schema['$defs'][schema['$ref'].rpartition('/')[2]]
        # rules take ~ for a key that is left out, and name choices in their own way
        if path in self.found or (self.types_only and value is None):
            return
        kinds = _kinds(schema)
        known = 'type' in schema or not self.types_only or isinstance(value, (dict, list))
        if kinds and known and not any(_is(value, kind) for kind in kinds):
            names = ' or '.join(NAMES[kind] for kind in kinds if kind != 'null' or len(kinds) == 1)
            self._object(path, names if 'type' in schema else _one_of(schema), value)
            return
        for word in ('anyOf', 'enum', 'const'):
            if word in schema and not self.types_only and not _matches(value, {word: schema[word]}):
                self._object(path, _one_of(schema), value)
        if _is(value, 'number') and not self.types_only:
            for word, text, fits in (('minimum', 'at least', value >= schema.get('minimum', value)),
                                     ('exclusiveMinimum', 'above', value > schema.get('exclusiveMinimum', value - 1)),
                                     ('exclusiveMaximum', 'below', value < schema.get('exclusiveMaximum', value + 1))):
                if word in schema and not fits:
                    self._object(path, f'{text} {schema[word]}', value)
        for key, item in _parts(value):
            inner = schema.get('items')
            if isinstance(value, dict):
                inner = schema.get('properties', {}).get(key, schema.get('additionalProperties'))
            if isinstance(inner, dict):
                if isinstance(item, float) and item.is_integer() and {*_kinds(inner)} & {'integer', 'number'} == {'integer'}:
                    self.wholes.append((value, key))
                self.value(_join(path, key), item, inner)
        for part in [*schema.get('allOf', ()), *([schema] if 'if' in schema else [])]:
            if _matches(value, part['if']):
                self.value(path, value, part['then'])

    def _object(self, path: str, wanted: str, value: Any) -> None:
        self.found.setdefault(path, f'{path}: must be {wanted}, got {shown(value)}.')


def _parts(value: Any) -> Iterator[tuple[str | int, Any]]:
    return iter(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ())


def _join(path: str, key: str | int) -> str:
    return f'{path}[{key}]' if isinstance(key, int) else f'{path}.{key}' if path else str(key)


def _kinds(schema: Schema) -> list[str]:
    """Return the types that a schema admits, empty for any: those it names, else those of its choices."""
    if 'type' in schema:
        return schema['type'] if isinstance(schema['type'], list) else [schema['type']]
    if 'anyOf' in schema:
        parts = [_kinds(part) for part in schema['anyOf']]
        return list(dict.fromkeys(kind for part in parts for kind in part)) if all(parts) else []
    return list(dict.fromkeys(SIMPLE[type(choice)] for choice in _choices(schema)))


def _choices(schema: Schema) -> list[Any]:
    parts = [choice for part in schema.get('anyOf', ()) for choice in _choices(part) or _kinds(part)]
    return parts or [*schema.get('enum', ()), *([schema['const']] if 'const' in schema else [])]


def _one_of(schema: Schema) -> str:
    return f'one of {", ".join(repr(choice) for choice in _choices(schema) if choice is not None)}'


def _is(value: Any, kind: str) -> bool:
    """Tell whether a value is of one of JSON schema's types: true is no number there, 5.0 is an integer."""
    if isinstance(value, bool) or value is None:
        return kind == SIMPLE[type(value)]
    if kind == 'integer':
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    types = {'number': (int, float), 'string': (str, os.PathLike), 'object': dict, 'array': (list, tuple)}
    return kind in types and isinstance(value, types[kind])


def _matches(value: Any, schema: Schema) -> bool:
    """Tell whether a value satisfies a condition or one of several choices."""
    if 'anyOf' in schema:
        return any(_matches(value, part) for part in schema['anyOf'])
    if 'properties' in schema:
        return isinstance(value, dict) and value.keys() >= set(schema.get('required', ())) and all(
            _matches(value[key], part) for key, part in schema['properties'].items() if key in value)
    choices = _choices(schema)
    if choices and not any(type(value) is type(choice) and value == choice for choice in choices):
        return False
    kinds = _kinds(schema)
    return (not kinds or any(_is(value, kind) for kind in kinds)) and not (_is(value, 'number') and value < schema.get('minimum', value))
