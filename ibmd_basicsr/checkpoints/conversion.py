"""From the weights of a file to those of a BasicSR checkpoint: checks, changes of width, copies, half precision."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibmd_basicsr.checkpoints.published import EXIT, Published
from ibmd_basicsr.checkpoints.state_dict import ENTRANCE, find_misfits, load_params, save_atomically
from ibmd_basicsr.utils.errors import CheckpointError


def check_weights(published: Published, own: Mapping[str, Tensor], source: str) -> None:
    """Compare the names and shapes of all weights with the state dict of the network built for them; for positional lists their order too.

    Args:
        published: the file.
        own: the network's state dict, which may be on the meta device.
        source: the file's name for the message.

    Raises:
        CheckpointError: what does not fit, in one line.
    """
    for name, params in published.weights.items():
        misfits = find_misfits(params, own)
        if misfits:
            raise CheckpointError(f'{source}: {name} do not fit the network that its shapes tell of: {misfits}.')
    if published.positional:
        for theirs, ours in zip(published.main, own):
            if theirs != ours:
                raise CheckpointError(f'{source}: the EMA list has no names and the weights are not in the order of the network '
                                      f'({theirs} where {ours} belongs), so it cannot be assigned.')


def drop_sigma(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without the outputs for ADM's learned variance: the first half of the last layer, as bridges are started from ADM."""
    return {**params, **{key: params[key][:len(params[key]) // 2] for key in EXIT}}


def add_condition(params: Mapping[str, Tensor], how: str) -> dict[str, Tensor]:
    """Return weights with as many input channels again, for the condition x_T.

    Args:
        params: weights of a network without condition.
        how: ``zero``: the network computes what it did until training moves the new weights; ``duplicate``: the new channels start with the
            weights of the image's.
    """
    entrance = params[ENTRANCE]
    return {**params, ENTRANCE: torch.cat([entrance, entrance if how == 'duplicate' else torch.zeros_like(entrance)], dim=1)}


def stand_alone(params: Mapping[str, Tensor], names: Mapping[str, Any], dtype: torch.dtype, source: str) -> dict[str, Tensor]:
    """Return copies of weights in the order of ``names``, each contiguous with a storage of its own (DDBM's share two for everything).

    Integers, such as the batches that a batch normalisation has counted, stay integers.

    Raises:
        CheckpointError: values that are infinite or not a number, or become so in ``dtype``.
    """
    copies = {}
    for name in names:
        kept = dtype if params[name].is_floating_point() else params[name].dtype
        copies[name] = params[name].detach().to(kept, copy=True, memory_format=torch.contiguous_format)
        if not copies[name].isfinite().all():
            raise CheckpointError(f'{source}: {name} has values that are not finite{" as float16" if dtype == torch.float16 else ""}.')
    return copies


def export_half(checkpoint: Path, output: Path, param_key: str = 'params_ema') -> str:
    """Write a small weight file for distribution: one set of weights of a checkpoint, as ``params_ema``, in half precision.

    Args:
        checkpoint: a file of BasicSR.
        output: the file to make or to replace; its folder is made.
        param_key: which weights.

    Returns:
        the sha256 of the file, in hexadecimal.

    Raises:
        CheckpointError: the checkpoint cannot be read, lacks these weights, or has values that half precision cannot hold.
        SaveError: the file cannot be written.
    """
    params = load_params(checkpoint, param_key)
    half = stand_alone(params, params, torch.float16, str(checkpoint))
    output.parent.mkdir(parents=True, exist_ok=True)
    return save_atomically({'params_ema': half}, output)
