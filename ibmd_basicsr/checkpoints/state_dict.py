"""Safe reading, strict loading and atomic writing of checkpoints in BasicSR's form ``{'params': ..., 'params_ema': ...}``."""
from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ibmd_basicsr.utils.files import replace_file

ENTRANCE = 'input_blocks.0.0.weight'


class CheckpointError(ValueError):
    """A weight file that is missing, unreadable or does not fit; the message is one line with the file and the reason."""

    exit_code = 2


def printable(text: Any, limit: int = 80) -> str:
    """Return a name out of a file as one short line: the file may hold line ends and control characters where names are expected."""
    text = str(text)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= limit else f'{text[:limit]}...'


def load_file(path: str | os.PathLike, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without ever running code from it.

    Args:
        path: the file.
        mmap: map the file instead of reading it, where its format allows that; what is not used then takes neither time nor memory.

    Raises:
        CheckpointError: no such file, not a torch file, truncated, or only loadable by unpickling code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'{path}: no such weight file.')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about pickle protocols; what follows from them is in the exception
            content = torch.load(str(path), map_location='cpu', weights_only=True, mmap=mmap and _can_be_mapped(path))
    except Exception as error:  # torch raises many types for damaged files
        raise CheckpointError(f'{path}: {_why_unreadable(path, error)}.') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{path}: holds a {type(content).__name__}, not a dictionary of weights.')
    return content


def _can_be_mapped(path: Path) -> bool:
    """Tell whether the file is a zip archive of uncompressed records; the bytes of compressed ones would be taken for weights."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(record.compress_type == zipfile.ZIP_STORED for record in archive.infolist())


def _why_unreadable(path: Path, error: Exception) -> str:
    """Return the reason in an error of ``torch.load`` as a part of a sentence; torch's text has many lines and advises to run the code."""
    text = str(error)
    forbidden = re.search(r'GLOBAL (\S+)', text)
    if forbidden:
        return f'needs code to be run to be read (global {printable(forbidden[1])}), refused'
    if 'TorchScript' in text:
        return 'needs code to be run to be read (a TorchScript archive), refused'
    if path.stat().st_size == 0:
        return 'cannot be read as a weight file (empty)'
    if 'WeightsUnpickler error' in text:
        with open(path, 'rb') as file:
            bare_pickle = file.read(1) == b'\x80'
        reason = 'a bare pickle with more than plain data, refused' if bare_pickle else 'no torch file'
    else:
        reason = f'{type(error).__name__}: {printable(text.splitlines()[0], 160)}' if text else type(error).__name__
    return f'cannot be read as a weight file ({reason})'


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
        content = _take(content, param_key, path)
    return _without_prefix(content)


def load_preferred_params(path: str | os.PathLike,
                          param_keys: Sequence[str] = ('params_ema', 'params')) -> tuple[dict[str, Tensor], str | None]:
    """Read the first set of weights that a checkpoint holds; ``module.`` prefixes are removed.

    Args:
        path: the file.
        param_keys: names of sets, the preferred one first.

    Returns:
        the weights and the name that they were found under, None for a file that is itself a state dict.

    Raises:
        CheckpointError: as :func:`load_file`, or the file holds none of the sets.
    """
    content = load_file(path)
    for key in param_keys:
        if key in content:
            return _without_prefix(_take(content, key, path)), key
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return _without_prefix(content), None
    raise CheckpointError(f'{path}: has neither {" nor ".join(map(repr, param_keys))}; it holds {_shown_keys(content)}.')


def _take(content: Mapping[str, Any], param_key: str, path: str | os.PathLike) -> dict[str, Tensor]:
    if param_key not in content:
        raise CheckpointError(f'{path}: has no {param_key!r}; it holds {_shown_keys(content)}.')
    if not isinstance(content[param_key], dict):
        raise CheckpointError(f'{path}: {param_key!r} is a {type(content[param_key]).__name__}, not a dictionary of weights.')
    return content[param_key]


def _shown_keys(content: Mapping[str, Any]) -> str:
    return ', '.join(map(repr, list(content)[:6])) or 'nothing'


def _without_prefix(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
        CheckpointError: keys missing, superfluous or of another shape, with up to three of each.
    """
    misfits = find_misfits(params, net.state_dict())
    if misfits:
        raise CheckpointError(f'{source}: does not fit the network {type(net).__name__}: {misfits}.')
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
