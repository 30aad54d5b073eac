"""Finding the state to resume from: BasicSR's ``load_resume_state`` for any device and working directory, wary of damaged files."""
from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

from ibmd_basicsr.utils.errors import OptionError

STATE_KEYS = ('epoch', 'iter', 'optimizers', 'schedulers')


class _Damaged(Exception):
    """A state, or a network that belongs to it, that cannot be read; the message is the file and the reason."""


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Return the training state to resume from, on the CPU, or None for a new run.

    With ``--auto_resume``, the newest iteration whose state and networks are all readable; each one that is passed over is a logged
    line. Without (or when the run has no states yet), ``path.resume_state``. As in the host, ``path.pretrain_network_*`` then point
    to the networks of that iteration; besides, ``datasets.train.start_iter`` tells the sampler how many batches were consumed.

    Raises:
        OptionError: ``path.resume_state`` is damaged. What the user names is never replaced by something older.
    """
    state = _newest_readable(opt) if opt['auto_resume'] else None
    if state is None and opt['path'].get('resume_state'):
        try:
            state = _read(opt, Path(opt['path']['resume_state']))
        except _Damaged as error:
            raise OptionError(f'path.resume_state: {error}') from error
    if state is None:
        return None

    from basicsr.utils import check_resume
    check_resume(opt, state['iter'])
    opt['datasets']['train']['start_iter'] = state['iter']
    return state


def _newest_readable(opt: dict[str, Any]) -> dict[str, Any] | None:
    logger = logging.getLogger('basicsr')  # not get_root_logger(): the run's log file does not exist yet
    folder = Path(opt['path']['training_states'])
    states = sorted((path for path in folder.glob('*.state') if path.stem.isdigit()), key=lambda path: int(path.stem), reverse=True)
    for path in states:
        try:
            state = _read(opt, path)
        except _Damaged as error:
            if opt['rank'] == 0:
                logger.warning('--auto_resume passes over iteration %s: %s', path.stem, error)
            continue
        opt['path']['resume_state'] = str(path)
        return state
    if states and opt['rank'] == 0:
        logger.warning('--auto_resume found no readable state among %d in %s.', len(states), folder)
    return None


def _read(opt: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the state at ``path``, having opened every network that the host will load with it."""
    state = _load(path)
    missing = [key for key in STATE_KEYS if key not in state]
    if missing:
        raise _Damaged(f'{path}: is no training state, it lacks {", ".join(missing)}.')
    ignored = opt['path'].get('ignore_resume_networks') or ()
    for key in opt:
        if key.startswith('network_') and key not in ignored:
            name = key.removeprefix('network_')
            _load(Path(opt['path']['models']) / f'net_{name}_{state["iter"]}.pth', mmap=True)  # mmap: the weights are not read twice
    return state


def _load(path: Path, mmap: bool = False) -> dict[str, Any]:
    if not path.is_file():
        raise _Damaged(f'{path}: no such file.')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
    except Exception as error:  # torch raises many types for damaged files
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _Damaged(f'{path} ({os.path.getsize(path)} bytes): cannot be read ({reason}).') from error
    if not isinstance(content, dict):
        raise _Damaged(f'{path}: holds a {type(content).__name__}, not a dictionary.')
    return content
