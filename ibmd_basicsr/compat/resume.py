"""Finding the state to resume from: BasicSR's ``load_resume_state`` for any device and working directory, wary of damaged files."""
from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from ibmd_basicsr.utils.errors import OptionError, value_or_type
from ibmd_basicsr.utils.files import TEMPORARY, file_digest
from ibmd_basicsr.utils.numbers import is_integer
from ibmd_basicsr.utils.torch_files import UnreadableFile, check_records, read_torch_file

STATE_KEYS = ('epoch', 'iter', 'optimizers', 'schedulers')


class _Damaged(Exception):
    """A state, or a network that belongs to it, that cannot be used; the message is the file and the reason."""


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Return the training state to resume from, on the CPU, or None for a new run.

    With ``--auto_resume``, the newest iteration whose state and networks are whole (:func:`_read`); each one that is passed over is a
    logged line. Of several ranks, the first one chooses. Without (or when the run has no states yet), ``path.resume_state``. As in the
    host, ``path.pretrain_network_*`` then point to the networks of that iteration; besides, ``datasets.train.start_iter`` tells the
    sampler how many batches were consumed.

    Raises:
        OptionError: ``path.resume_state`` is damaged, what the user names is never replaced by something older; or this rank cannot read
            what rank 0 has read.
    """
    state = None
    if opt['auto_resume']:
        state = _newest_whole(opt) if opt['rank'] == 0 else None
        if opt.get('dist'):
            state = _share_choice(opt, state)
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


def _newest_whole(opt: dict[str, Any]) -> dict[str, Any] | None:
    logger = logging.getLogger('basicsr')  # not get_root_logger(): the run's log file does not exist yet
    folder = Path(opt['path']['training_states'])
    for unfinished in (*folder.glob(f'*{TEMPORARY}'), *Path(opt['path']['models']).glob(f'*{TEMPORARY}')):
        unfinished.unlink(missing_ok=True)  # gigabytes of a run that was killed while it saved
    states = sorted((path for path in folder.glob('*.state') if path.stem.isdigit()), key=lambda path: int(path.stem), reverse=True)
    for path in states:
        try:
            state = _read(opt, path)
        except _Damaged as error:
            logger.warning('--auto_resume passes over iteration %s: %s', path.stem, error)
            continue
        opt['path']['resume_state'] = str(path)
        return state
    if states:
        logger.warning('--auto_resume found no readable state among %d in %s.', len(states), folder)
    return None


def _share_choice(opt: dict[str, Any], state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the state that rank 0 has chosen: shared folders may show the newest files to some machines later than to others."""
    choice = [opt['path']['resume_state'] if state else None]
    torch.distributed.broadcast_object_list(choice, src=0)
    if choice[0] is None or state is not None:
        return state
    opt['path']['resume_state'] = choice[0]
    try:
        return _read(opt, Path(choice[0]), check=False)  # rank 0 has checked the contents
    except _Damaged as error:
        raise OptionError(f'--auto_resume: rank 0 has read this state, rank {opt["rank"]} cannot: {error} All machines need the same '
                          'experiments folder.') from error


def _read(opt: dict[str, Any], path: Path, check: bool = True) -> dict[str, Any]:
    """Return the state at ``path``, having looked at every network that the host will load with it.

    Args:
        check: compare all bytes, with the checksums in the state's own archive and with the sha256 of the networks that it holds. States
            of other makes hold none: then the archives' checksums must do.
    """
    state = _load(path, check)
    missing = [key for key in STATE_KEYS if key not in state]
    if missing:
        raise _Damaged(f'{path}: is no training state, it lacks {", ".join(missing)}.')
    for key in ('epoch', 'iter'):
        if not is_integer(state[key], least=0):
            raise _Damaged(f'{path}: is no training state, its {key} is {value_or_type(state[key])}, not a number from 0.')
    if not isinstance(state.get('sha256', {}), dict):
        raise _Damaged(f'{path}: is no training state, its sha256 is a {type(state["sha256"]).__name__}, not a dictionary.')
    ignored = opt['path'].get('ignore_resume_networks') or ()
    for key in opt:
        if key.startswith('network_') and key not in ignored:
            file = Path(opt['path']['models']) / f'net_{key.removeprefix("network_")}_{state["iter"]}.pth'
            digest = state.get('sha256', {}).get(file.name)
            _load(file, check and digest is None, mmap=True)  # mmap: the weights are not read twice
            if check and digest is not None and file_digest(file) != digest:
                raise _Damaged(f'{file}: is not the file that was saved with this state (its sha256 is another), or is damaged.')
    return state


def _load(path: Path, check: bool, mmap: bool = False) -> dict[str, Any]:
    size = f' ({path.stat().st_size} bytes)' if path.is_file() else ''
    try:
        content = read_torch_file(path, mmap)
        if check:
            check_records(path)
    except UnreadableFile as error:
        raise _Damaged(f'{path}{size}: {error}.') from error
    if not isinstance(content, dict):
        raise _Damaged(f'{path}: holds a {type(content).__name__}, not a dictionary.')
    return content
