"""Safe reading, strict loading and atomic writing of checkpoints in BasicSR's form ``{'params': ..., 'params_ema': ...}``."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ENTRANCE = 'input_blocks.0.0.weight'


class CheckpointError(ValueError):
    """A weight file that is missing, unreadable or does not fit; the message is one line with the file and the reason."""

    exit_code = 2


def load_file(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without ever running code from it.

    Raises:
        CheckpointError: no such file, not a torch file, truncated, or only loadable by unpickling code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'{path}: no such weight file.')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises many types for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f'{path}: cannot be read as a weight file ({reason}).') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{path}: holds a {type(content).__name__}, not a dictionary of weights.')
    return content


def load_params(path: str | os.PathLike, param_key: str | None = 'params') -> dict[str, Tensor]:
    """Read one set of weights from a BasicSR checkpoint; ``module.`` prefixes are removed.

    Args:
        path: the file.
        param_key: ``params``, ``params_ema``, or None for a file that is itself a state dict.

    Raises:
        CheckpointError: as :func:`load_file`, or the key is missing (another key is never taken in its place).
    """
    content = load_file(path)
    if param_key is not None:
        if param_key not in content:
            raise CheckpointError(f'{path}: has no {param_key!r}; it holds {", ".join(map(repr, list(content)[:6])) or "nothing"}.')
        content = content[param_key]
    return {key.removeprefix('module.'): value for key, value in content.items()}


def load_strictly(net: nn.Module, params: dict[str, Tensor], source: str) -> None:
    """Load ``params`` into ``net``; every key and every shape must match. Half-precision files are cast to the network's dtype.

    Args:
        source: what the message calls the weights, usually the file.

    Raises:
        CheckpointError: keys missing, superfluous or of another shape, with up to three of each.
    """
    own = net.state_dict()
    problems = []
    for title, names in (('missing', [k for k in own if k not in params]), ('unknown', [k for k in params if k not in own]),
                         ('of another shape', [f'{k} {tuple(params[k].shape)}, network {tuple(own[k].shape)}'
                                               for k in own if k in params and params[k].shape != own[k].shape])):
        if names:
            problems.append(f'{len(names)} {title} ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})')
    if problems:
        raise CheckpointError(f'{source}: does not fit the network {type(net).__name__}: {"; ".join(problems)}.')
    net.load_state_dict(params)


def widen_entrance(params: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Return ``params`` with zero weights for the input channels (x_T, z) that ``net`` has beyond those of the file.

    The widened network computes what the narrow one does until training moves the new weights.
    """
    have, want = params[ENTRANCE], net.state_dict()[ENTRANCE]
    extra = want.shape[1] - have.shape[1]
    if extra <= 0:
        return params
    return params | {ENTRANCE: torch.cat([have, have.new_zeros(have.shape[0], extra, *have.shape[2:])], dim=1)}


def save_atomically(content: Any, path: str | os.PathLike) -> None:
    """Write ``content`` by ``torch.save`` to a temporary file beside ``path``, flush it to disk and rename it into place.

    A reader sees the old file or the new one, never half of it.
    """
    path = Path(path)
    temporary = path.with_name(path.name + '.tmp')
    with open(temporary, 'wb') as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
