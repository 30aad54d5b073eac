"""A tiny world for tests: generated photographs, a network of 8 channels, option dictionaries. Everything runs on a CPU in seconds."""
from __future__ import annotations

import copy
import importlib.util
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
NETWORK = {'type': 'ADMUNet', 'in_channels': 3, 'model_channels': 8, 'channel_mult': [1, 2], 'num_res_blocks': 1,
           'attention_resolutions': [2], 'num_head_channels': 8, 'patch_size': 2}
DISCRIMINATOR = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}
GAN = {'network_d': DISCRIMINATOR, 'train__gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.1},
       'train__optim_d': {'type': 'Adam', 'lr': 1e-3, 'betas': [0.0, 0.99]}, 'datasets__train__return_gt': True}
"""Changes of :func:`options` that add a discriminator."""


def make_photos(folder: Path, count: int = 3, size: tuple[int, int] = (40, 48), seed: int = 0) -> Path:
    """Write smooth random pictures with a few edges as PNG files; return the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture = cv2.resize(rng.random((6, 6, 3)), size[::-1], interpolation=cv2.INTER_CUBIC)
        picture[size[0] // 3:, :size[1] // 2] += 0.3 * rng.random(3)
        cv2.imwrite(str(folder / f'photo_{i}.png'), (np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
    return folder


def options(root: Path, model: str = 'BridgeModel', **changes) -> dict:
    """Return options of a tiny x4 run below ``root``; ``changes`` are ``block__key=value``."""
    data = {'name': 'photos', 'type': 'DegradedImageDataset', 'dataroot_gt': str(root / 'photos'), 'io_backend': {'type': 'disk'},
            'degradation': {'type': 'sr', 'scale': 4, 'kernel': 'bicubic'}}
    optimizer = {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0}
    opt = {
        'name': 'tiny', 'model_type': model, 'scale': 4, 'num_gpu': 0, 'manual_seed': 3,
        'bridge': {'type': 'I2SB', 'n_timestep': 1000, 'beta_max': 0.3},
        'network_g': dict(NETWORK),
        'datasets': {
            'train': data | {'gt_size': 16, 'use_hflip': True, 'use_rot': True, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 2,
                             'dataset_enlarge_ratio': 3, 'prefetch_mode': None},
            'val': data | {'name': 'photos_val'}},
        'path': {'resume_state': None},
        'train': {'ema_decay': 0.9, 'grad_clip': 1.0, 'optim_g': optimizer, 'total_iter': 8,
                  'scheduler': {'type': 'MultiStepLR', 'milestones': [5], 'gamma': 0.5},
                  'bridge_opt': {'type': 'BridgeMatchingLoss'}},
        'val': {'val_freq': 1000, 'save_img': False, 'sampler': {'type': 'ancestral', 'steps': 2},
                'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 4}}},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 4, 'use_tb_logger': False},
    }
    if model == 'IBMDModel':
        opt['teacher'] = {'network': dict(NETWORK), 'weights': str(root / 'teacher.pth'), 'param_key': 'params_ema'}
        opt['network_g'] = NETWORK | {'noise_channels': 3}
        opt['datasets']['train']['return_gt'] = False
        opt['train'] |= {'optim_bridge': dict(optimizer), 'bridge_updates_per_student': 2, 'ibmd_opt': {'type': 'InverseBridgeLoss'}}
        opt['val']['sampler'] = {'type': 'one_step'}
    for path, value in changes.items():
        *blocks, key = path.split('__')
        block = opt
        for name in blocks:
            block = block[name]
        block[key] = value
    return copy.deepcopy(opt)


def parsed(opt: dict, is_train: bool = True) -> dict:
    """Return options as the host's parser leaves those of a single process: with what it adds."""
    return opt | {'is_train': is_train, 'dist': False, 'rank': 0, 'world_size': 1, 'auto_resume': False}


def make_teacher(root: Path, seed: int = 0, **network) -> None:
    """Write ``teacher.pth``: the tiny network with random (not zero) weights, under ``params_ema`` alone.

    ``network`` changes the tiny network: ``cond_channels=3`` for a conditional bridge.
    """
    import torch

    from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
    generator = torch.Generator().manual_seed(seed)
    net = ADMUNet(**{key: value for key, value in (NETWORK | network).items() if key != 'type'})
    params = {name: 0.05 * torch.randn(value.shape, generator=generator) + (value.ndim == 1 and 'norm' in name)
              for name, value in net.state_dict().items()}
    torch.save({'params_ema': params}, root / 'teacher.pth')


def write(root: Path, opt: dict) -> Path:
    """Write an option file; relative paths and outputs then start at ``root``."""
    file = root / 'options' / f'{opt["name"]}.yml'
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(opt, sort_keys=False))
    return file


def command(*arguments, cwd: Path | None = None, processes: int = 1, module: str = 'train') -> subprocess.CompletedProcess:
    """Run ``python -m ibmd_basicsr.<module>`` (under torchrun for several processes) with one thread a process.

    Most of its time goes into importing torch: see :func:`forked_command`, which is for all but a few tests.
    """
    launch = [sys.executable, '-m']
    extra = []
    if processes > 1:
        launch += ['torch.distributed.run', f'--nproc_per_node={processes}', '--rdzv-backend=c10d', '--rdzv-endpoint=127.0.0.1:0', '-m']
        extra = ['--launcher', 'pytorch']
    return subprocess.run([*launch, f'ibmd_basicsr.{module}', *map(str, arguments), *extra], cwd=cwd or REPOSITORY, env=environment(),
                          capture_output=True, text=True, timeout=300)


def environment() -> dict[str, str]:
    """Return the environment of a command: this package can be imported, one thread."""
    # what is on the path already stays: `make test-stock` puts another BasicSR there
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get('PYTHONPATH')])])
    return os.environ | {'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}


# A server that has imported torch and the package, and done nothing else: its forks are as good as processes of their own. (Forks of
# the process that runs the tests are not: that may hold threads, CUDA and what earlier tests left behind.)
FORKS = multiprocessing.get_context('forkserver')
FORKS.set_forkserver_preload([f'ibmd_basicsr.{name}' for name in ('compat', 'archs', 'data', 'losses', 'metrics', 'models')]
                             + [f'ibmd_basicsr.cli.{name}' for name in ('compare', 'restore', 'export', 'import_checkpoint', 'create_lmdb')]
                             + ['basicsr.train', 'basicsr.test', 'ibmd_basicsr.reporting.comparison', 'ibmd_basicsr.restoring.runner',
                                'ibmd_basicsr.restoring.engine', 'ibmd_basicsr.exporting.student'])


def forked_command(*arguments, cwd: Path | None = None, processes: int = 1, module: str = 'train',
                   before: Callable[[], None] | None = None) -> subprocess.CompletedProcess:
    """Run what :func:`command` runs in new processes that need not import torch; several find each other as those of torchrun do.

    As with torchrun, the first failure ends the others. The output of rank 0 comes first. ``before`` is called in each process first.
    """
    variables = [environment() for _ in range(processes)]
    if processes > 1:
        arguments = (*arguments, '--launcher', 'pytorch')
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = str(free.getsockname()[1])
        for rank, block in enumerate(variables):
            block |= {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': str(processes), 'MASTER_ADDR': '127.0.0.1',
                      'MASTER_PORT': port}
    arguments = [f'ibmd_basicsr.{module}', *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        running = [FORKS.Process(target=_run_module, args=(arguments, cwd or REPOSITORY, block, f'{folder}/{rank}', before))
                   for rank, block in enumerate(variables)]
        for rank, process in enumerate(running):
            for stream in ('out', 'err'):
                Path(f'{folder}/{rank}.{stream}').touch()
            process.start()
        deadline = time.monotonic() + 300
        waiting = {process.sentinel: process for process in running}
        while waiting:
            ended = [waiting.pop(sentinel) for sentinel in wait(list(waiting), max(0, deadline - time.monotonic()))]
            if not ended or any(process.exitcode for process in ended):
                for process in waiting.values():
                    process.kill()
                    process.join()
                if not ended:
                    raise subprocess.TimeoutExpired(arguments, 300)
                break
        outputs = [''.join(Path(f'{folder}/{rank}.{stream}').read_text() for rank in range(processes)) for stream in ('out', 'err')]
    # those that were killed follow the one that failed
    code = next((process.exitcode for process in running if process.exitcode and process not in waiting.values()), 0)
    return subprocess.CompletedProcess(arguments, code, *outputs)


def _run_module(arguments: list[str], cwd: Path, variables: dict[str, str], output: str, before: Callable[[], None] | None) -> None:
    """Be ``python -m`` with these arguments."""
    import torch
    for number, name in ((1, 'out'), (2, 'err')):
        os.dup2(os.open(f'{output}.{name}', os.O_WRONLY), number)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(cwd)
    torch.set_num_threads(1)  # too late for OMP_NUM_THREADS
    multiprocessing.set_start_method(None, force=True)  # not this test's: the command chooses
    sys.argv = list(arguments)
    if before is not None:
        before()
    runpy.run_module(arguments[0], run_name='__main__', alter_sys=True)


def load_script(name: str) -> ModuleType:
    """Return scripts/NAME.py as a module; scripts are no package."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / 'scripts' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
