"""The options of a run as an option file could say them, with all defaults filled in."""
from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from basicsr.utils.registry import LOSS_REGISTRY
from basicsr.version import __version__ as basicsr_version

from ibmd_basicsr.bridges import SCHEDULES, build_bridge
from ibmd_basicsr.data.degradations import DEGRADATIONS
from ibmd_basicsr.models.builders import find_arch
from ibmd_basicsr.models.extras import EXTRA_LOSSES
from ibmd_basicsr.models.option_keys import ADDED_TO_PATH, ADDED_TO_TOP, OWN_MODELS, SCHEDULERS
from ibmd_basicsr.models.real_pairs import RealPairs
from ibmd_basicsr.models.student_options import StudentOptions
from ibmd_basicsr.models.turns import BRIDGE_UPDATES
from ibmd_basicsr.restorer import SamplerOptions
from ibmd_basicsr.version import __version__

OPTIMIZER_BLOCKS, LOSS_BLOCKS = {'optim_g', 'optim_bridge', 'optim_d'}, {'bridge_opt', 'ibmd_opt', *EXTRA_LOSSES}
DEFAULTS = {'train': {'ema_decay': 0, 'amp': False, 'grad_clip': None, 'micro_batch': None, 'shard_optimizer': False, 'warmup_iter': -1,
                      'compile': False, 'tf32': None, 'channels_last': False},
            'teacher': {'param_key': 'params_ema'}}
"""What the models assume where the file is silent and no signature says it."""


def describe_run(opt: dict[str, Any]) -> str | None:
    """Return the text of ``resolved_options.yml``: versions in comments, then :func:`resolved_options`; None for models of BasicSR.

    Args:
        opt: checked options of a training run.
    """
    if opt['model_type'] not in OWN_MODELS:
        return None
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if opt['num_gpu'] else ['CPU']
    lines = [f'ibmd_basicsr {__version__}, basicsr {basicsr_version}, torch {torch.__version__}, Python {platform.python_version()}',
             f'{platform.platform()}, {", ".join(devices)}, processes: {opt["world_size"]}']
    return ''.join(f'# {line}\n' for line in lines) + yaml.safe_dump(resolved_options(opt), sort_keys=False, allow_unicode=True, width=120)


def resolved_options(opt: dict[str, Any]) -> dict[str, Any]:
    """Return the options as an option file could say them: with the defaults of what they build, without what the host notes down.

    Options of datasets have their defaults where they are read, so those blocks are returned as given, but for the degradation.
    """
    opt = _plain(opt)
    _forget_the_hosts_notes(opt)
    for name, values in DEFAULTS.items():
        if name in opt:
            opt[name] = {**opt[name], **{key: value for key, value in values.items() if key not in opt[name]}}
    for block in opt['datasets'].values():
        if block.get('degradation') is not None:
            _fill(block['degradation'], DEGRADATIONS[block['degradation']['type']])
    for target in (*SCHEDULES[opt['bridge']['type']], build_bridge):
        _fill(opt['bridge'], target)
    for network in (opt['network_g'], opt.get('network_bridge'), (opt.get('teacher') or {}).get('network'), opt.get('network_d')):
        if network is not None:
            _fill(network, find_arch(network['type']))
    if opt['model_type'] == 'IBMDModel':
        _fill_distillation(opt['train'])
    _fill_learning(opt['train'])
    if opt.get('val') is not None:
        opt['val']['sampler'] = opt['val'].get('sampler') or {}
        _fill(opt['val']['sampler'], SamplerOptions)
    return opt


def _forget_the_hosts_notes(opt: dict[str, Any]) -> None:
    """Take out what the host adds to the options that it has read."""
    for key in ADDED_TO_TOP & opt.keys():
        del opt[key]
    for key in ADDED_TO_PATH & opt['path'].keys():
        del opt['path'][key]
    # the host has added the name of the run
    opt['path']['experiments_root'] = str(Path(opt['path']['experiments_root']).parent)
    for block in opt['datasets'].values():
        for key in ('phase', 'scale'):
            block.pop(key, None)
        if block['manual_seed'] == opt['manual_seed']:
            del block['manual_seed']


def _fill_distillation(train: dict[str, Any]) -> None:
    """Add the defaults of the keys of ``train`` that IBMD alone has."""
    train.setdefault('share_generator_pass', False)
    train.setdefault('bridge_updates_per_student', BRIDGE_UPDATES)
    train['student'] = train.get('student') or {}
    _fill(train['student'], StudentOptions)
    if train.get('real_pairs'):
        _fill(train['real_pairs'], RealPairs)


def _fill_learning(train: dict[str, Any]) -> None:
    """Add the defaults of losses, optimisers and scheduler."""
    for name in (name for name in LOSS_BLOCKS if train.get(name)):
        _fill(train[name], LOSS_REGISTRY.get(train[name]['type']))
    for name in (name for name in OPTIMIZER_BLOCKS if train.get(name)):
        _fill(train[name], getattr(torch.optim, train[name]['type']))
    _fill(train['scheduler'], SCHEDULERS[train['scheduler']['type']], hidden=('last_epoch',))


def _fill(block: dict[str, Any], target: Callable, hidden: Sequence[str] = ()) -> None:
    """Add the defaults of ``target``'s parameters that ``block`` does not set."""
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.default is not parameter.empty and name not in hidden:
            block.setdefault(name, _plain(parameter.default))


def _plain(value: Any) -> Any:
    """Copy into dicts and lists of their own, which YAML writes without tags and anchors."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
