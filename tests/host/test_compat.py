"""What is put right in the host: the missing torchvision module, the patched functions, process groups on CPUs."""
import datetime
import importlib
import logging
import os
import re
import subprocess
import sys
import textwrap

import pytest
import torch
from basicsr.utils import get_root_logger
from tiny import REPOSITORY, parsed, write
from tiny import options as tiny_options

from ibmd_basicsr import compat
from ibmd_basicsr.compat import distributed, options
from ibmd_basicsr.compat.iteration_sampler import IterationSampler
from ibmd_basicsr.compat.quiet import quiet_host
from ibmd_basicsr.models.option_rules import check_options, prepare_options
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
    assert train.load_resume_state.__module__ == train.make_exp_dirs.__module__ == 'ibmd_basicsr.compat.run_folder'
    assert train.parse_options.func is test.parse_options.func is options.parse_options


def test_the_host_is_quiet_only_while_it_is_asked_to_be():
    level = get_root_logger().level
    with pytest.raises(RuntimeError), quiet_host():
        assert not get_root_logger().isEnabledFor(logging.INFO) and get_root_logger().isEnabledFor(logging.WARNING)
        raise RuntimeError
    assert get_root_logger().level == level


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


@pytest.mark.parametrize('block, message', [
    ({'timeout_minuts': 5}, "dist_params: unknown key 'timeout_minuts', did you mean 'timeout_minutes'?"),
    ({'timeout_minutes': 0}, 'dist_params.timeout_minutes: must be a positive number, got 0.'),
    ({'backend': 'mpi'}, "dist_params.backend: must be one of 'gloo', 'nccl', got 'mpi'."),
    ({'port': 99999}, 'dist_params.port: must be a port number, got 99999.'),
    (['nccl'], "dist_params: must be a block of keys, got ['nccl']."),
])
def test_dist_params_are_checked_before_the_group_is_made(tmp_path, monkeypatch, block, message):
    opt = tiny_options(tmp_path, dist_params=block)
    monkeypatch.setattr(sys, 'argv', ['train', '-opt', str(write(tmp_path, opt))])
    with pytest.raises(OptionError, match=re.escape(message)):
        options.parse_options(str(tmp_path), prepare=prepare_options)
    with pytest.raises(OptionError, match=re.escape(message)):
        check_options(parsed(opt))


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm'])
def test_timeout_and_backend_reach_the_group(tmp_path, monkeypatch, launcher):
    """Of the file, and of the command line, which is stronger; the host hands the file's on for slurm."""
    made = []
    monkeypatch.setattr(distributed.dist, 'init_process_group', lambda **given: made.append(given))
    for name, value in {'RANK': '0', 'WORLD_SIZE': '1', 'LOCAL_RANK': '0', 'MASTER_ADDR': 'here', 'MASTER_PORT': '1', 'SLURM_PROCID': '0',
                        'SLURM_NTASKS': '1', 'SLURM_NODELIST': 'here', 'SLURM_LOCALID': '0'}.items():
        monkeypatch.setenv(name, value)
    opt = tiny_options(tmp_path, manual_seed=1, dist_params={'backend': 'nccl', 'timeout_minutes': '1e1', 'port': 3})
    arguments = ['train', '-opt', str(write(tmp_path, opt)), '--launcher', launcher]
    for forced, minutes in (([], 10), (['--force_yml', 'dist_params:timeout_minutes=0.5'], 0.5)):
        monkeypatch.setattr(sys, 'argv', arguments + forced)
        options.parse_options(str(tmp_path), prepare=prepare_options)
        assert made.pop() == {'backend': 'gloo', 'timeout': datetime.timedelta(minutes=minutes)}  # a machine without GPUs


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
