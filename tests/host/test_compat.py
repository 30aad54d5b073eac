"""What is put right in the host: the missing torchvision module, the patched functions, process groups on CPUs."""
import importlib
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from tiny import REPOSITORY

from ibmd_basicsr import compat
from ibmd_basicsr.compat import distributed, options
from ibmd_basicsr.compat.iteration_sampler import IterationSampler
from ibmd_basicsr.models.option_rules import prepare_options
from ibmd_basicsr.utils.errors import OptionError


def test_stand_in_for_functional_tensor(monkeypatch):
    name = 'torchvision.transforms.functional_tensor'
    monkeypatch.delitem(sys.modules, name, raising=False)
    compat._provide_functional_tensor()
    grey = importlib.import_module(name).rgb_to_grayscale(torch.ones(1, 3, 2, 2))
    assert grey.shape == (1, 1, 2, 2) and torch.allclose(grey, torch.ones(()), atol=1e-3)


def test_install_patches_what_the_host_looks_up_and_may_be_repeated():
    compat.install(prepare_options)
    train, test = importlib.import_module('basicsr.train'), importlib.import_module('basicsr.test')
    compat.install(prepare_options)
    assert train.EnlargedSampler is IterationSampler
    assert train.load_resume_state.__module__ == 'ibmd_basicsr.compat.resume'
    assert train.parse_options.func is test.parse_options.func is options.parse_options


def test_launchers_tell_what_they_need(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OptionError, match='needs torchrun'):
        distributed.init_dist('pytorch')
    with pytest.raises(OptionError, match='needs srun'):
        distributed.init_dist('slurm')
    with pytest.raises(OptionError, match="must be 'none', 'pytorch' or 'slurm'"):
        distributed.init_dist('mpi')


def test_slurm_environment(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_PORT'):
        monkeypatch.setenv(name, 'from before')  # restored at the end, whatever the function sets
    slurm = {'SLURM_PROCID': '5', 'SLURM_NTASKS': '8', 'SLURM_NODELIST': 'n[1-2]', 'SLURM_LOCALID': '1', 'MASTER_ADDR': 'n1'}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    distributed._environment_from_slurm(12345)
    assert [os.environ[name] for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_PORT')] == ['5', '8', '1', '12345']


def test_two_cpu_processes_through_torchrun(tmp_path):
    script = tmp_path / 'two.py'
    script.write_text(textwrap.dedent('''
        import torch
        import torch.distributed as dist
        from ibmd_basicsr.compat.distributed import init_dist
        if __name__ == '__main__':
            init_dist('pytorch', cpu=True, dist_params={'backend': 'nccl', 'timeout_minutes': 3})
            total = torch.tensor([dist.get_rank() + 1.0])
            dist.all_reduce(total)
            assert total.item() == 3 and dist.get_backend() == 'gloo'
            dist.destroy_process_group()
    '''))
    launch = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--rdzv-backend=c10d', '--rdzv-endpoint=127.0.0.1:0']
    environment = os.environ | {'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'}
    result = subprocess.run([*launch, str(script)], env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
