"""YAML without code, and without what a small file can do to a large machine."""
from __future__ import annotations

from typing import Any

import yaml

from ibmd_basicsr.utils.errors import printable

DEPTH = 50
"""Blocks and lists may lie so deep in one another."""
LONGEST_TEXT = 4096
"""Characters of a single value."""
MERGE, TEXT = 'tag:yaml.org,2002:merge', 'tag:yaml.org,2002:str'
VALUES = 100_000
"""A file may hold so many values, each alias counted as what it stands for."""


class OptionLoader(yaml.SafeLoader):
    """PyYAML's safe loader without the silent loss of a key that is given twice, with keys that are text, and with limits.

    Aliases of aliases (nine lines can stand for a billion values), an alias of the block that it lies in, and thousands of brackets are
    errors with their place in the file; so is text that Python does not take for the number or date that it looks like. An alias becomes a
    copy: who changes one block does not change those written alike.
    """

    def __init__(self, stream: str):
        super().__init__(stream)
        self._depth = 0

    def get_single_data(self):
        return _unshared(super().get_single_data())

    def compose_node(self, parent, index):
        self._depth += 1
        if self._depth > DEPTH:
            raise yaml.composer.ComposerError(None, None, f'nested deeper than {DEPTH}', self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_document(self):
        node = super().compose_document()
        _count(node, {}, set())
        return node

    def construct_object(self, node, deep=False):
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # 2026-13-45, !!int x, !!timestamp x
            raise yaml.constructor.ConstructorError(None, None, f'{printable(node.value)!r}: {printable(error)}',
                                                    node.start_mark) from error

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag == MERGE:
                continue
            if key.tag != TEXT or not isinstance(key.value, str) or not key.value.isprintable() or not key.value:
                raise yaml.constructor.ConstructorError(None, None, f'keys must be printable text, found {printable(key.value)!r}',
                                                        key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f'key {key.value!r} is given twice', key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_options(text: str) -> Any:
    """Return what the text of an option file holds.

    Raises:
        YAMLError: not YAML, or beyond the limits of :class:`OptionLoader`.
    """
    return yaml.load(text, Loader=OptionLoader)  # a SafeLoader


def _unshared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _count(node: yaml.Node, counts: dict[int, int], around: set[int]) -> int:
    """Return the number of values that a node stands for; ``counts`` holds those that are known, ``around`` the nodes that it lies in.

    Raises:
        ComposerError: an alias of a node around it, more than :data:`VALUES`, or a value longer than :data:`LONGEST_TEXT`.
    """
    if id(node) in around:
        raise yaml.composer.ComposerError(None, None, 'an alias stands for the block or list that it lies in', node.start_mark)
    if id(node) not in counts:
        children = ()
        if isinstance(node, yaml.ScalarNode) and len(node.value) > LONGEST_TEXT:
            raise yaml.composer.ComposerError(None, None, f'a text of {len(node.value)} characters, more than {LONGEST_TEXT}',
                                              node.start_mark)
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        around.add(id(node))
        counts[id(node)] = 1 + sum(_count(child, counts, around) for child in children)
        around.remove(id(node))
        if counts[id(node)] > VALUES:
            raise yaml.composer.ComposerError(None, None, f'with its aliases this stands for more than {VALUES} values', node.start_mark)
    return counts[id(node)]
