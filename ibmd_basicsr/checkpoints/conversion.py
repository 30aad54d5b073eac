"""From the weights of a published file to those of a BasicSR checkpoint: checks, changes of width, copies."""
from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibmd_basicsr.checkpoints.published import EXIT, Published
from ibmd_basicsr.checkpoints.state_dict import ENTRANCE, find_misfits
from ibmd_basicsr.utils.errors import CheckpointError, printable


def check_records(path: str | Path) -> None:
    """Compare every record of a zip archive (the format of torch since 1.6) with its checksum, which ``torch.load`` does not do.

    Raises:
        CheckpointError: the first damaged record.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile has as many for damaged files as torch
        raise CheckpointError(f'{path}: is damaged ({printable(error)}).') from error
    if damaged is not None:
        raise CheckpointError(f'{path}: is damaged, the checksum of {printable(damaged)} is wrong.')


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

    Raises:
        CheckpointError: values that are infinite or not a number, or become so in ``dtype``.
    """
    copies = {}
    for name in names:
        copies[name] = params[name].detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
        if not copies[name].isfinite().all():
            raise CheckpointError(f'{source}: {name} has values that are not finite{" as float16" if dtype == torch.float16 else ""}.')
    return copies
