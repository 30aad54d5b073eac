"""Process groups: BasicSR's ``init_dist`` for GPUs and CPUs, torchrun and slurm."""
from __future__ import annotations

import datetime
import os
import subprocess
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.numbers import is_integer, is_number
from ibmd_basicsr.utils.option_check import check_keys

TIMEOUT_MINUTES = 120
"""How long a rank waits for the others, unless ``dist_params.timeout_minutes`` says otherwise. torch's ten minutes are too short where
ranks do unequal work: the last image of a validation with a sampler of many steps, or rank 0 alone computing a set metric or writing a
large checkpoint. A rank that has ended is noticed at once by gloo, and by the launchers (docs/scaling.md): this is for one that hangs."""
BACKENDS = ('gloo', 'nccl')
DIST_PARAMS = ('backend', 'port', 'timeout_minutes')


def check_dist_params(block: Any) -> dict[str, Any]:
    """Return the block ``dist_params`` of an option file, checked before the process group is made of it; empty for None.

    Raises:
        OptionError: an unknown key or a wrong value.
    """
    if block is None:
        return {}
    if not isinstance(block, dict):
        raise OptionError(f'dist_params: must be a block of keys, got {block!r}.')
    check_keys('dist_params', block, DIST_PARAMS)
    backend, port, minutes = map(block.get, DIST_PARAMS)
    if backend is not None and backend not in BACKENDS:
        raise OptionError(f'dist_params.backend: must be one of {", ".join(map(repr, BACKENDS))}, got {backend!r}.')
    if port is not None and not is_integer(port, 1, 2**16 - 1):
        raise OptionError(f'dist_params.port: must be a port number, got {port!r}.')
    if minutes is not None and not (is_number(minutes) and minutes > 0):
        raise OptionError(f'dist_params.timeout_minutes: must be a positive number, got {minutes!r}.')
    return block


def init_dist(launcher: str, backend: str | None = None, port: int | None = None, timeout_minutes: float | None = None, *,
              cpu: bool = False, dist_params: dict[str, Any] | None = None) -> None:
    """Join the process group of this run.

    Args:
        launcher: ``pytorch`` (torchrun) or ``slurm`` (srun).
        backend: default nccl on GPUs and gloo on CPUs. nccl without a GPU becomes gloo, so that one option file serves both.
        port: port of rank 0, for slurm.
        timeout_minutes: how long a collective waits for the other ranks, default :data:`TIMEOUT_MINUTES`.
        cpu: the run asks for ``num_gpu: 0``.
        dist_params: the three above, by name, and stronger: the host hands them on for slurm only, and not what ``--force_yml`` says.

    Raises:
        OptionError: unknown launcher, not started by it, or more processes on this machine than GPUs.
    """
    given = dict(zip(DIST_PARAMS, (backend, port, timeout_minutes))) | (dist_params or {})
    backend, minutes = given['backend'], given['timeout_minutes'] or TIMEOUT_MINUTES
    if launcher not in ('pytorch', 'slurm'):
        raise OptionError(f"--launcher must be 'none', 'pytorch' or 'slurm', got {launcher!r}.")
    if mp.get_start_method(allow_none=True) is None:
        mp.set_start_method('spawn')  # as the host: forked workers of a process that holds CUDA and nccl threads may hang
    if launcher == 'slurm':
        _environment_from_slurm(given['port'])
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]
    if missing:
        raise OptionError(f'--launcher pytorch needs torchrun (environment lacks {", ".join(missing)}): '
                          'torchrun --nproc_per_node=2 -m ibmd_basicsr.train -opt ... --launcher pytorch')

    use_gpu = torch.cuda.is_available() and not cpu
    if use_gpu:
        local_rank, count = int(os.environ.get('LOCAL_RANK', os.environ['RANK'])), torch.cuda.device_count()
        if local_rank >= count:
            raise OptionError(f'Process {local_rank + 1} of this machine finds {count} GPU(s): start one process per GPU '
                              '(--nproc_per_node), or set num_gpu: 0.')
        torch.cuda.set_device(local_rank)
    if backend is None or (backend == 'nccl' and not use_gpu):
        backend = 'nccl' if use_gpu else 'gloo'
    timeout = datetime.timedelta(minutes=minutes)
    dist.init_process_group(backend=backend, timeout=timeout, **_meeting_place(timeout))


def _meeting_place(timeout: datetime.timedelta) -> dict[str, Any]:
    """Return where the processes find each other, if not where the environment says.

    torchrun keeps its store when it starts the processes again, and with it the addresses of those that are gone: who reads before the
    new ones are written waits at a closed door. On one machine all processes know how many times that happened. On several the agents
    may count differently; TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 gives each attempt a store of its own (docs/scaling.md).
    """
    if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True' or os.environ.get('GROUP_WORLD_SIZE') != '1':
        return {}
    store = dist.TCPStore(os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']), is_master=False, timeout=timeout)
    return {'store': dist.PrefixStore(f'attempt_{os.environ["TORCHELASTIC_RESTART_COUNT"]}', store),
            'rank': int(os.environ['RANK']), 'world_size': int(os.environ['WORLD_SIZE'])}


def _environment_from_slurm(port: int | None) -> None:
    """Translate slurm's variables to those that torch reads."""
    missing = [name for name in ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST') if name not in os.environ]
    if missing:
        raise OptionError(f'--launcher slurm needs srun (environment lacks {", ".join(missing)}).')
    rank = os.environ['SLURM_PROCID']
    if 'MASTER_ADDR' not in os.environ:
        command = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
        os.environ['MASTER_ADDR'] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    if port is not None:
        os.environ['MASTER_PORT'] = str(port)
    os.environ.setdefault('MASTER_PORT', '29500')
    os.environ.update(RANK=rank, WORLD_SIZE=os.environ['SLURM_NTASKS'], LOCAL_RANK=os.environ.get('SLURM_LOCALID', rank))
