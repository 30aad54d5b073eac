"""Training and restoring on a GPU against the CPU, and without a wait inside an iteration; `make test-gpu`."""
import subprocess
import sys

import pytest
import torch
from helpers import FLAT, MODELS, batch, deviation, flat_model, iterate, vectors
from tiny import REPOSITORY, environment, make_photos, make_teacher, options, write

from ibmd_basicsr.checkpoints.state_dict import load_file
from ibmd_basicsr.models import build_restorer
from ibmd_basicsr.utils.seeding import PerImageNoise

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')]


@pytest.fixture
def noise_of_the_cpu(monkeypatch):
    """Training draws on the device of the networks, and a GPU draws other numbers from the same seed."""
    make = PerImageNoise.for_training.__func__
    monkeypatch.setattr(PerImageNoise, 'for_training', classmethod(lambda cls, *args, **kw: make(cls, *args, **kw | {'device': 'cpu'})))


@pytest.mark.usefixtures('noise_of_the_cpu')
@pytest.mark.parametrize(('train', 'tolerance'), [
    ({'tf32': False}, 1e-3), ({'amp': 'bf16'}, 0.05), ({'compile': True, 'tf32': False}, 1e-3)], ids=['float32', 'bf16', 'compiled'])
@pytest.mark.parametrize('model', MODELS)
def test_a_run_on_a_gpu_is_that_of_the_cpu(flat, model, train, tolerance):
    plain = flat_model(flat, model)
    start = vectors(plain)
    run = start, vectors(iterate(plain)), None
    gpu = iterate(flat_model(flat, model, num_gpu=1, **train))
    assert gpu.device.type == 'cuda'
    for net in ('net_g', 'net_bridge', 'net_g_ema'):
        if hasattr(gpu, net):
            getattr(gpu, net).cpu()
    assert deviation(run, gpu) < tolerance


@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('train', [{}, {'amp': 'bf16'}, {'share_generator_pass': True}], ids=['float32', 'bf16', 'shared'])
def test_no_iteration_waits_for_the_gpu(flat, model, train):
    if model == 'BridgeModel' and 'share_generator_pass' in train:
        train = {'grad_clip': 1.0}
    adamw = {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0}
    built = flat_model(flat, model, num_gpu=1, optim_g=adamw, **({'optim_bridge': adamw} if model == 'IBMDModel' else {}), **train)
    iterate(built)  # kernels are chosen, workspaces allocated
    data = batch(count=2, gt=model == 'BridgeModel')
    pinned = {key: value.pin_memory() if torch.is_tensor(value) else value for key, value in data.items()}
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        for iteration in range(7, 13):
            built.feed_data(pinned)
            built.optimize_parameters(iteration)
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_a_restoration_on_a_gpu_is_that_of_the_cpu(flat):
    images = []
    for device in ('cpu', 'cuda'):
        restorer = build_restorer(network=dict(FLAT), bridge={'type': 'I2SB', 'n_timestep': 1000, 'beta_max': 0.3}, param_key='params_ema',
                                  weights=str(flat / 'teacher.pth'), sampler={'type': 'ancestral', 'steps': 5}, scale=4,
                                  device=torch.device(device))
        lq = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)).to(device)
        images.append(restorer(lq, PerImageNoise.from_seeds([0])).cpu())
    torch.testing.assert_close(*images, rtol=0, atol=5e-3)  # convolutions in TF32, as torch has it


def test_a_process_with_nccl_is_a_run_without(tmp_path):
    make_photos(tmp_path / 'photos')
    make_teacher(tmp_path)
    results = []
    for name, launcher, arguments in (('plain', [], []), ('nccl', ['torch.distributed.run', '--nproc_per_node=1', '-m'],
                                                          ['--launcher', 'pytorch'])):
        opt = options(tmp_path, 'IBMDModel', name=name, num_gpu=1, train__total_iter=3, logger__save_checkpoint_freq=3, train__tf32=False)
        run = [sys.executable, '-m', *launcher, 'ibmd_basicsr.train', '-opt', str(write(tmp_path, opt)), *arguments]
        result = subprocess.run(run, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
        results.append(load_file(tmp_path / f'experiments/{name}/models/net_g_3.pth')['params'])
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=0, atol=1e-5)
