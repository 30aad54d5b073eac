"""Published checkpoints of bridges and of ADM: which family a file belongs to, and its weights by name.

Works on what :func:`~ibmd_basicsr.checkpoints.state_dict.load_file` returns; nothing is executed, nothing guessed silently.

======  =================================================================================  =============================
family  file                                                                               attention order
======  =================================================================================  =============================
i2sb    ``net`` (names with ``diffusion_model.``) and ``ema`` (a list without names)       legacy
adm     flat                                                                               legacy; new in the 64x64 network
ddbm    flat, attention weights (3C, C, 1, 1)                                              new
dbim    as ddbm, also squeezed; for inpainting flat with six inputs and class labels       new; legacy for inpainting
======  =================================================================================  =============================
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ibmd_basicsr.checkpoints.state_dict import ENTRANCE, check_tensors, find_misfits
from ibmd_basicsr.utils.errors import CheckpointError, printable, value_or_type

EXIT = ('out.2.weight', 'out.2.bias')


@dataclass(frozen=True)
class Published:
    """The weights of a published file.

    Attributes:
        family: ``i2sb``, ``adm``, ``ddbm`` or ``dbim``; None if the file could be of two families with different attention orders.
        reason: what the family was told from.
        weights: ``params``, ``params_ema`` or both; names without prefixes, attention weights with three dimensions.
        positional: one of the sets came as a list, its names are the other's: their order must be the network's.
    """

    family: str | None
    reason: str
    weights: dict[str, dict[str, Tensor]]
    positional: bool = False

    @property
    def main(self) -> dict[str, Tensor]:
        """The set from whose shapes the network is derived."""
        return next(iter(self.weights.values()))


def recognise(content: Mapping[str, Any], source: str) -> Published:
    """Find the family of a file and its weights.

    Args:
        content: what the file holds.
        source: what messages call it, usually its path.

    Raises:
        CheckpointError: not a file of these families, or its parts do not fit each other.
    """
    own = [key for key in ('params', 'params_ema') if isinstance(content.get(key), Mapping)]
    if own:
        raise CheckpointError(f"{source}: is in BasicSR's form already ({', '.join(own)}), there is nothing to import; "
                              'name it in path.pretrain_network_g.')
    if isinstance(content.get('net'), Mapping):
        return _recognise_i2sb(content, source)
    state, prefixes = _plain_names(content, source)
    if 'time_embed.0.weight' not in state:
        raise CheckpointError(f'{source}: holds no network of i2sb, adm, ddbm or dbim: no time_embed.0.weight among its {len(state)} '
                              f'entries ({", ".join(printable(key) for key in list(state)[:3])}).')
    family, reason = _recognise_flat(state, prefixes, source)
    return Published(family, reason, {'params' if family in ('adm', 'i2sb') else 'params_ema': _three_dimensional(state)})


def _recognise_i2sb(content: Mapping[str, Any], source: str) -> Published:
    state, prefixes = _plain_names(content['net'], f'{source}: net')
    weights = {'params': _three_dimensional(state)}
    ema = content.get('ema')
    if ema is not None:
        weights['params_ema'] = _three_dimensional(_named_shadow(ema, state, source))
    # an I2SB container with DDBM's weights inside is nothing that was ever published
    family = None if _has_four_dimensions(state) else 'i2sb'
    reason = f"network under 'net'{'' if ema is None else ', EMA as a list under ema'}{f', names with {prefixes}' if prefixes else ''}"
    return Published(family, reason, weights, positional=ema is not None)


def _named_shadow(ema: Any, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the positional EMA list with the names of ``state``, number and shapes checked."""
    shadow = ema.get('shadow_params') if isinstance(ema, Mapping) else None
    if not isinstance(shadow, (list, tuple)):
        raise CheckpointError(f"{source}: 'ema' has no list 'shadow_params'.")
    if len(shadow) != len(state):
        raise CheckpointError(f'{source}: the EMA list has {len(shadow)} tensors, the network {len(state)}.')
    named = dict(zip(state, shadow))
    _check_tensors(named, f'{source}: ema')
    misfits = find_misfits(named, state)
    if misfits:
        raise CheckpointError(f'{source}: the EMA list does not follow the order of the network: {misfits}.')
    return named


def _recognise_flat(state: dict[str, Tensor], prefixes: str, source: str) -> tuple[str | None, str]:
    """Return the family of a flat state dict, None if it cannot be told, and the evidence."""
    for key in (ENTRANCE, EXIT[0]):
        if key not in state or state[key].ndim != 4:
            raise CheckpointError(f'{source}: is not a U-Net of guided-diffusion, it has no {key} with four dimensions.')
    inputs, outputs = state[ENTRANCE].shape[1], state[EXIT[0]].shape[0]
    four, labels = _has_four_dimensions(state), 'label_emb.weight' in state
    evidence = (f'flat, {inputs} inputs, {outputs} outputs, {"four" if four else "three"}-dimensional attention weights, '
                f'{"with" if labels else "no"} class labels{f", names with {prefixes}" if prefixes else ""}')
    if 'diffusion_model.' in prefixes:
        return (None if four else 'i2sb'), evidence
    if four:
        return 'ddbm', evidence
    if inputs != 2 * outputs:
        return 'adm', evidence
    return ('dbim' if labels else None), evidence


def _plain_names(state: Mapping[str, Any], source: str) -> tuple[dict[str, Tensor], str]:
    """Return a state dict without the prefixes that all its names share, and these prefixes; everything in it must be a tensor."""
    if not state:
        raise CheckpointError(f'{source}: is empty.')
    odd = [key for key in state if not isinstance(key, str)]
    if odd:
        raise CheckpointError(f'{source}: has {value_or_type(odd[0])} in place of a name.')
    state, found = dict(state), ''
    for prefix in ('module.', 'diffusion_model.'):
        if all(key.startswith(prefix) for key in state):
            state, found = {key.removeprefix(prefix): value for key, value in state.items()}, found + prefix
    _check_tensors(state, source)
    return state, found


def _check_tensors(state: Mapping[str, Any], source: str) -> None:
    """Refuse everything but dense floating-point tensors whose values are really in the file."""
    check_tensors(state, source)
    for key, value in state.items():
        if not value.is_floating_point():
            raise CheckpointError(f'{source}: {printable(key)} is a tensor of {value.dtype}, not of floating-point numbers.')


def _is_attention(key: str) -> bool:
    return key.endswith(('.qkv.weight', '.proj_out.weight'))


def _has_four_dimensions(state: Mapping[str, Tensor]) -> bool:
    return any(_is_attention(key) and value.ndim == 4 for key, value in state.items())


def _three_dimensional(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict with attention weights (3C, C, 1, 1) as (3C, C, 1)."""
    return {key: value[..., 0] if _is_attention(key) and value.ndim == 4 and value.shape[-1] == 1 else value
            for key, value in state.items()}
