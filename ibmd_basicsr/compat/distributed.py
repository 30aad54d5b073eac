"""Process groups: BasicSR's ``init_dist`` for GPUs and CPUs, torchrun and slurm."""
from __future__ import annotations

import datetime
import os
import subprocess

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ibmd_basicsr.utils.errors import OptionError

TIMEOUT = datetime.timedelta(hours=2)
"""How long a rank waits for the others. Samplers with many steps make validation longer than torch's ten minutes."""


def init_dist(launcher: str, backend: str | None = None, port: int | None = None, *, cpu: bool = False,
              default_backend: str | None = None) -> None:
    """Join the process group of this run.

    Args:
        launcher: ``pytorch`` (torchrun) or ``slurm`` (srun).
        backend: default ``default_backend``, else nccl on GPUs and gloo on CPUs. nccl without a GPU becomes gloo, so that one option
            file serves both.
        port: port of rank 0, for slurm.
        cpu: the run asks for ``num_gpu: 0``.
        default_backend: ``dist_params.backend``, which the host hands on for slurm only.

    Raises:
        OptionError: unknown launcher, not started by it, or more processes on this machine than GPUs.
    """
    if launcher not in ('pytorch', 'slurm'):
        raise OptionError(f"--launcher must be 'none', 'pytorch' or 'slurm', got {launcher!r}.")
    if mp.get_start_method(allow_none=True) is None:
        mp.set_start_method('spawn')  # as the host: forked workers of a process that holds CUDA and nccl threads may hang
    if launcher == 'slurm':
        _environment_from_slurm(port)
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
    backend = backend or default_backend
    if backend is None or (backend == 'nccl' and not use_gpu):
        backend = 'nccl' if use_gpu else 'gloo'
    dist.init_process_group(backend=backend, timeout=TIMEOUT)


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
