"""Safe reading, strict loading and atomic writing of checkpoints in BasicSR's form ``{'params': ..., 'params_ema': ...}``."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ibmd_basicsr.utils.errors import CheckpointError, printable, value_or_type
from ibmd_basicsr.utils.files import replace_file
from ibmd_basicsr.utils.torch_files import UnreadableFile, read_torch_file

ENTRANCE = 'input_blocks.0.0.weight'


def load_file(path: str | os.PathLike, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without ever running code from it.

    Args:
        path: the file.
        mmap: map the file instead of reading it, where its format allows that; what is not used then takes neither time nor memory.

    Raises:
        CheckpointError: as :func:`~ibmd_basicsr.utils.torch_files.read_torch_file`, or not a dictionary.
    """
    try:
        content = read_torch_file(Path(path), mmap)
    except UnreadableFile as error:
        raise CheckpointError(f'{path}: {error}.') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{path}: holds a {type(content).__name__}, not a dictionary of weights.')
    return content


def load_params(path: str | os.PathLike, param_key: str | None = 'params') -> dict[str, Tensor]:
    """Read one set of weights from a BasicSR checkpoint; ``module.`` prefixes are removed.

    Args:
        path: the file.
        param_key: ``params``, ``params_ema``, or None for a file that is itself a state dict.

    Raises:
        CheckpointError: as :func:`load_file` and :func:`check_tensors`, or the key is missing (another key is never taken in its place).
    """
    content = load_file(path)
    if param_key is not None:
        content = _take(content, param_key, path)
    return _without_prefix(content, path)


def load_preferred_params(path: str | os.PathLike,
                          param_keys: Sequence[str] = ('params_ema', 'params')) -> tuple[dict[str, Tensor], str | None]:
    """Read the first set of weights that a checkpoint holds; ``module.`` prefixes are removed.

    Args:
        path: the file.
        param_keys: names of sets, the preferred one first.

    Returns:
        the weights and the name that they were found under, None for a file that is itself a state dict.

    Raises:
        CheckpointError: as :func:`load_file` and :func:`check_tensors`, or the file holds none of the sets.
    """
    content = load_file(path)
    for key in param_keys:
        if key in content:
            return _without_prefix(_take(content, key, path), path), key
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return _without_prefix(content, path), None
    raise CheckpointError(f'{path}: has neither {" nor ".join(map(repr, param_keys))}; it holds {_shown_keys(content)}.')


def _take(content: Mapping[str, Any], param_key: str, path: str | os.PathLike) -> dict[str, Tensor]:
    if param_key not in content:
        raise CheckpointError(f'{path}: has no {param_key!r}; it holds {_shown_keys(content)}.')
    if not isinstance(content[param_key], dict):
        raise CheckpointError(f'{path}: {param_key!r} is a {type(content[param_key]).__name__}, not a dictionary of weights.')
    return content[param_key]


def _shown_keys(content: Mapping[str, Any]) -> str:
    return ', '.join(map(repr, list(content)[:6])) or 'nothing'


def check_tensors(state: Mapping[Any, Any], source: str | os.PathLike) -> None:
    """Refuse everything but named dense tensors whose values are really in the file.

    Raises:
        CheckpointError: the first that is something else; ``source`` is what the message calls the file.
    """
    for key, value in state.items():
        if not isinstance(key, str):
            raise CheckpointError(f'{source}: has {value_or_type(key)} in place of a name.')
        if not isinstance(value, Tensor):
            problem = f'is a {type(value).__name__}, not a tensor'
        elif value.layout != torch.strided:
            problem = f'is a sparse tensor ({value.layout}), not a dense one'
        elif value.is_meta or value.untyped_storage().nbytes() < value.numel() * value.element_size():
            # a few bytes with stride 0 could claim any size, and would be written out in full
            problem = f'claims the shape {tuple(value.shape)}, but its values are not in the file'
        else:
            continue
        raise CheckpointError(f'{source}: {printable(key)} {problem}.')


def _without_prefix(params: Mapping[str, Tensor], source: str | os.PathLike) -> dict[str, Tensor]:
    check_tensors(params, source)
    return {key.removeprefix('module.'): value for key, value in params.items()}


def find_misfits(params: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Compare weights with the state dict of the network that shall take them.

    Args:
        params: the weights by name.
        own: the network's; its tensors may be on the meta device.

    Returns:
        keys missing, superfluous or of another shape, with up to three of each, in one line; empty if everything fits.
    """
    problems = []
    for title, names in (('missing', [k for k in own if k not in params]), ('unknown', [k for k in params if k not in own]),
                         ('of another shape', [f'{k} {tuple(params[k].shape)}, network {tuple(own[k].shape)}'
                                               for k in own if k in params and params[k].shape != own[k].shape])):
        if names:
            shown = ', '.join(printable(name, 160) for name in names[:3])
            problems.append(f'{len(names)} {title} ({shown}{", ..." if len(names) > 3 else ""})')
    return '; '.join(problems)


def load_strictly(net: nn.Module, params: dict[str, Tensor], source: str) -> None:
    """Load ``params`` into ``net``; every key and every shape must match. Half-precision files are cast to the network's dtype.

    Args:
        source: what the message calls the weights, usually the file.

    Raises:
        CheckpointError: keys missing, superfluous or of another shape, with up to three of each; numbers of another kind than the
            network's (integers for floats), or values that are infinite or not a number.
    """
    own = net.state_dict()
    misfits = find_misfits(params, own)
    if misfits:
        raise CheckpointError(f'{source}: does not fit the network {type(net).__name__}: {misfits}.')
    for name, value in params.items():
        if value.is_floating_point() != own[name].is_floating_point() or value.is_complex():
            raise CheckpointError(f'{source}: {printable(name)} has values of {value.dtype}, the network {type(net).__name__} has '
                                  f'{own[name].dtype}.')
        if not value.isfinite().all():
            raise CheckpointError(f'{source}: {printable(name)} has values that are not finite (infinite or not a number).')
    net.load_state_dict(params)


def widen_entrance(params: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Return ``params`` with zero weights for the input channels (x_T, z) that ``net`` has beyond those of the file.

    The widened network computes what the narrow one does until training moves the new weights. Networks of another kind than ADM's get
    ``params`` back.
    """
    if ENTRANCE not in params or ENTRANCE not in net.state_dict():
        return params
    have, want = params[ENTRANCE], net.state_dict()[ENTRANCE]
    extra = want.shape[1] - have.shape[1]
    if extra <= 0:
        return params
    return params | {ENTRANCE: torch.cat([have, have.new_zeros(have.shape[0], extra, *have.shape[2:])], dim=1)}


def save_atomically(content: Any, path: str | os.PathLike) -> str:
    """Write ``content`` by ``torch.save``; a reader sees the old file or the new one, never half of it.

    Returns:
        the sha256 of the file, in hexadecimal.

    Raises:
        SaveError: disk full, no permission; the old file is intact.
    """
    return replace_file(path, lambda file: torch.save(content, file))
