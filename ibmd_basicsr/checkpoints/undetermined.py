"""Options of published networks that leave no trace in names and shapes: attention order and heads. Never chosen without a reason."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ibmd_basicsr.checkpoints.published import Published
from ibmd_basicsr.utils.errors import CheckpointError

ADM_EXCEPTIONS = {
    (192, (1, 2, 3, 4)): {'attention_order': 'new', 'name': '64x64'},
    (256, (1, 1, 2, 3, 4)): {'num_heads': 4, 'name': '128x128'},
    (192, (1, 1, 2, 2, 4, 4)): {'num_heads': 4, 'name': '64 to 256 upsampling'},
}
"""ADM networks by model_channels and channel_mult that were trained with other flags than the rest (legacy order, heads of 64)."""


@dataclass(frozen=True)
class Choice:
    """An option that shapes do not determine, and why it has its value."""

    value: Any
    reason: str


def choose_attention_order(published: Published, family: str | None, architecture: Mapping[str, Any], given: str | None,
                           source: str) -> Choice:
    """Return the attention order, which neither names nor shapes show.

    Args:
        published: the file.
        family: its family, detected or given; may be None.
        architecture: what :func:`~ibmd_basicsr.checkpoints.architecture.derive_architecture` returns.
        given: the user's word, which wins.
        source: the file's name for the message.

    Raises:
        CheckpointError: neither given nor to be told from the family.
    """
    if given is not None:
        return Choice(given, 'as given on the command line')
    if family is None:
        raise CheckpointError(f'{source}: {published.reason}: an I2SB network (--attention_order legacy) and a DDBM one '
                              '(--attention_order new) look the same like this and would load either way; say which it is.')
    if family == 'dbim':
        if architecture['num_classes'] is None:
            return Choice('new', 'the family dbim uses it in networks without class labels')
        return Choice('legacy', 'the family dbim uses it in networks with class labels')
    exception = _adm_exception(family, architecture)
    if 'attention_order' in exception:
        return Choice(exception['attention_order'], f"adm's {exception['name']} network uses it, other than the rest of the family")
    return Choice('new' if family == 'ddbm' else 'legacy', f'the family {family} uses it')


def choose_heads(family: str | None, architecture: Mapping[str, Any], num_head_channels: int | None,
                 num_heads: int | None) -> tuple[str, Choice]:
    """Return the option for the attention heads, ``num_head_channels`` or ``num_heads``, and its value; shapes do not show it.

    Args:
        family: as in :func:`choose_attention_order`.
        architecture: likewise.
        num_head_channels: the user's word.
        num_heads: the user's word in guided-diffusion's other way; at most one of the two is given.
    """
    for name, value in (('num_head_channels', num_head_channels), ('num_heads', num_heads)):
        if value is not None:
            return name, Choice(value, 'as given on the command line')
    exception = _adm_exception(family, architecture)
    if 'num_heads' in exception:
        return 'num_heads', Choice(exception['num_heads'], f"adm's {exception['name']} network has them, the file does not show it")
    return 'num_head_channels', Choice(64, 'what published networks use, the file does not show it')


def _adm_exception(family: str | None, architecture: Mapping[str, Any]) -> dict[str, Any]:
    key = (architecture['model_channels'], tuple(architecture['channel_mult']))
    return ADM_EXCEPTIONS.get(key, {}) if family == 'adm' else {}
