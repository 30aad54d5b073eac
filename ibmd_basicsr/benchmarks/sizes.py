"""The runs that are measured: networks, batches and options as in the option files that they are named after."""
from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from basicsr.models import build_model
from torch import Tensor, nn

import ibmd_basicsr.models  # noqa: F401  (registers our models)
from ibmd_basicsr.compat.quiet import quiet_host
from ibmd_basicsr.models.builders import build_quietly

SCALE = 4
SEED = 0
TEACHER, IBMD = 'BridgeModel', 'IBMDModel'


@dataclass(frozen=True, kw_only=True)
class Size:
    """Networks and batches of one size.

    Attributes:
        network: block of teacher and bridge network; the student's has ``noise_channels: 3`` more.
        batches: model -> (images of a batch, side of the crop).
        updates: K, bridge updates before one of the student.
        sides: sides of the restored images that the student and its peers are timed on.
        sampler_side: side of the images that samplers are timed on, and ``calls`` their numbers of network calls.
        peers: networks of BasicSR, by name.
        repeats: how often everything is measured, unless the command line says it.
        large: height and width of the image that is restored in tiles.
        tile: side of a tile and its halo, in pixels of the result.
        agreement_side: side of the images that are restored in tiles and as a whole.
    """

    network: dict[str, Any]
    batches: dict[str, tuple[int, int]]
    updates: int
    sides: tuple[int, ...]
    sampler_side: int
    calls: tuple[int, ...]
    peers: dict[str, dict[str, Any]]
    repeats: int
    large: tuple[int, int]
    tile: tuple[int, int]
    agreement_side: int


@dataclass(frozen=True, kw_only=True)
class TrainingChoices:
    """How trainings run: ``gradient`` is that of the student's loss, the others are options of ``train`` (``compiled``: ``compile``)."""

    gradient: str = 'x0_only'
    amp: str | bool = 'auto'
    compiled: bool = False
    channels_last: str | bool = 'auto'


NANO = {'type': 'ADMUNet', 'in_channels': 3, 'model_channels': 32, 'channel_mult': [1, 2, 4], 'num_res_blocks': 1,
        'attention_resolutions': [], 'num_head_channels': 64, 'patch_size': 2}
IMAGES = {'num_in_ch': 3, 'num_out_ch': 3}
PEERS = {
    'RRDBNet (ESRGAN)': {'type': 'RRDBNet', **IMAGES, 'num_feat': 64, 'num_block': 23, 'num_grow_ch': 32, 'scale': SCALE},
    'MSRResNet': {'type': 'MSRResNet', **IMAGES, 'num_feat': 64, 'num_block': 16, 'upscale': SCALE},
    'SwinIR': {'type': 'SwinIR', 'upscale': SCALE, 'in_chans': 3, 'img_size': 48, 'window_size': 8, 'img_range': 1.0, 'depths': [6] * 6,
               'embed_dim': 180, 'num_heads': [6] * 6, 'mlp_ratio': 2, 'upsampler': 'pixelshuffle', 'resi_connection': '1conv'},
}
QUICK_PEERS = {
    'RRDBNet (ESRGAN)': PEERS['RRDBNet (ESRGAN)'] | {'num_feat': 8, 'num_block': 1, 'num_grow_ch': 4},
    'MSRResNet': PEERS['MSRResNet'] | {'num_feat': 8, 'num_block': 1},
    'SwinIR': PEERS['SwinIR'] | {'depths': [2], 'embed_dim': 12, 'num_heads': [2], 'window_size': 4, 'img_size': 8},
}

ADM256 = {'type': 'ADMUNet', 'in_channels': 3, 'model_channels': 256, 'channel_mult': [1, 1, 2, 2, 4, 4], 'num_res_blocks': 2,
          'attention_resolutions': [8, 16, 32], 'num_head_channels': 64, 'attention_order': 'legacy'}

# 8 megapixels of a camera
LARGE = {'large': (2304, 3456), 'tile': (512, 32), 'agreement_side': 768}

SIZES = {
    # options/sr4x_bridge.yml, sr4x_ibmd.yml
    'nano': Size(network=NANO, batches={TEACHER: (16, 64), IBMD: (1, 256)}, updates=1, sides=(256, 1024), sampler_side=256,
                 calls=(1, 4, 20, 100), peers=PEERS, repeats=9, **LARGE),
    # options/sr4x_s_bridge.yml, sr4x_s_ibmd.yml
    's': Size(network=NANO | {'model_channels': 64, 'channel_mult': [1, 2, 3, 4]}, batches={TEACHER: (8, 256), IBMD: (4, 256)}, updates=3,
              sides=(256, 1024), sampler_side=256, calls=(1, 4, 20, 100), peers=PEERS, repeats=5, **LARGE),
    # options/paper/sr4x_bridge.yml, sr4x_ibmd.yml: their networks and K, in bf16 and in batches that one GPU of 80 GB can hold
    'adm256': Size(network=ADM256, batches={TEACHER: (4, 256), IBMD: (2, 256)}, updates=5, sides=(256,), sampler_side=256, calls=(1, 4, 20),
                   peers={}, repeats=3, **LARGE),
    # for tests: seconds, and no figure worth keeping
    'quick': Size(network=NANO | {'model_channels': 8, 'channel_mult': [1, 2], 'num_head_channels': 8},
                  batches={TEACHER: (2, 32), IBMD: (2, 32)}, updates=2, sides=(32,), sampler_side=32, calls=(1, 2), peers=QUICK_PEERS,
                  repeats=2, large=(48, 80), tile=(16, 8), agreement_side=48),
}


def student_network(size: Size) -> dict[str, Any]:
    """Return the block of the student's network."""
    return size.network | {'noise_channels': 3}


def training_options(size: Size, model: str, folder: Path, *, gpu: bool, choices: TrainingChoices = TrainingChoices(),
                     share_pass: bool = False, data: Path | str = 'none', data_changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the options of a training run, as the host hands them to a model.

    Args:
        size: networks and batches.
        model: ``BridgeModel`` or ``IBMDModel``.
        folder: holds ``teacher.pth`` and takes what a model writes.
        gpu: run on the current GPU, else on the CPU.
        choices: precision and the like.
        share_pass: ``train.share_generator_pass``, of IBMD.
        data: folder or LMDB with the training photographs.
        data_changes: of ``datasets.train``.
    """
    images, side = size.batches[model]
    teacher = model == TEACHER
    block = {'name': 'photos', 'type': 'DegradedImageDataset', 'dataroot_gt': str(data), 'io_backend': {'type': 'disk'},
             'degradation': {'type': 'sr', 'scale': SCALE, 'kernel': 'bicubic', 'quantize': True}, 'gt_size': side,
             'detail_crops': 3 if teacher else 2, 'use_hflip': True, 'use_rot': True, 'cache': True, 'num_worker_per_gpu': 2,
             'batch_size_per_gpu': images, 'dataset_enlarge_ratio': 500, 'prefetch_mode': None, 'persistent_workers': True,
             'phase': 'train', 'scale': SCALE, 'manual_seed': SEED}
    optimizer = {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0, 'betas': [0.9, 0.99] if teacher else [0.0, 0.999]}
    train = {'ema_decay': 0.999 if teacher else 0.98, 'amp': choices.amp, 'compile': choices.compiled,
             'channels_last': choices.channels_last, 'grad_clip': 1.0, 'optim_g': optimizer, 'total_iter': 10**6, 'warmup_iter': -1,
             'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [10**6], 'restart_weights': [1], 'eta_min': 1e-6},
             'bridge_opt': {'type': 'BridgeMatchingLoss', 'time_weight': 'inverse_variance' if teacher else 'uniform'}}
    opt = {'name': 'bench', 'model_type': model, 'scale': SCALE, 'num_gpu': int(gpu), 'manual_seed': SEED, 'is_train': True, 'dist': False,
           'rank': 0, 'world_size': 1, 'auto_resume': False, 'bridge': {'type': 'I2SB', 'n_timestep': 1000, 'beta_max': 0.3},
           'network_g': size.network if teacher else student_network(size), 'datasets': {'train': block | (data_changes or {})},
           'path': {'resume_state': None, 'models': str(folder), 'training_states': str(folder)}, 'train': train,
           'logger': {'print_freq': 100, 'save_checkpoint_freq': 10**6, 'use_tb_logger': False}}
    if not teacher:
        opt |= {'teacher': {'network': size.network, 'weights': str(folder / 'teacher.pth'), 'param_key': 'params_ema'},
                'network_bridge': size.network}
        opt['datasets']['train'].setdefault('return_gt', False)
        train |= {'optim_bridge': optimizer, 'bridge_updates_per_student': size.updates, 'share_generator_pass': share_pass,
                  'ibmd_opt': {'type': 'InverseBridgeLoss', 'time_weight': 'uniform', 'gradient': choices.gradient}}
    return deepcopy(opt)


def random_network(block: dict[str, Any], seed: int = SEED) -> nn.Module:
    """Build a network on the CPU whose zero layers have small random weights, so that no gradient vanishes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build_quietly(block)
        with torch.no_grad():
            for value in net.parameters():
                if not value.any() and value.ndim > 1:
                    value.normal_(std=0.02)
    return net


def make_model(size: Size, model: str, folder: Path, device: torch.device, **options: Any):
    """Build a model for training as BasicSR's pipeline does; its teacher and start are :func:`random_network`.

    Args:
        size, model, options: as for :func:`training_options`.
        folder: likewise; it is of one size alone, and its teacher is written once.
        device: CPU or a GPU, which becomes the current one.
    """
    if device.type == 'cuda':
        if device.index is not None:
            torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True  # as the host does
    if not (folder / 'teacher.pth').is_file():  # large networks take long to draw and to write
        torch.save({'params_ema': random_network(size.network).state_dict()}, folder / 'teacher.pth')
    opt = training_options(size, model, folder, gpu=device.type == 'cuda', **options)
    if model == TEACHER:
        opt['path'] |= {'pretrain_network_g': str(folder / 'teacher.pth'), 'strict_load_g': True, 'param_key_g': 'params_ema'}
    with quiet_host():
        return build_model(opt)


def make_batch(size: Size, model: str, seed: int = SEED) -> dict[str, Any]:
    """Return a batch of random images as the loader hands it out; the clean ones for the teacher alone."""
    images, side = size.batches[model]
    generator = torch.Generator().manual_seed(seed)

    def draw(side: int) -> Tensor:
        return torch.rand(images, 3, side, side, generator=generator)

    batch = {'lq': draw(side // SCALE), 'lq_path': [f'{i}.png' for i in range(images)]}
    return batch | ({'gt': draw(side)} if model == TEACHER else {})


class Iterations:
    """The host's training loop around a model, without its data and logs.

    Args:
        model: BridgeModel, IBMDModel or what has the same methods.
        batch: the same for every iteration; for a GPU it is laid into page-locked memory, as loaders do.
        cycle: iterations of a call.
    """

    def __init__(self, model, batch: dict[str, Any], cycle: int):
        self.model = model
        self.batch = batch
        if torch.cuda.is_available() and model.device.type == 'cuda':
            self.batch = {key: value.pin_memory() if isinstance(value, Tensor) else value for key, value in batch.items()}
        self.cycle = cycle
        self.iteration = 0

    def __call__(self) -> None:
        """Make a cycle of iterations."""
        for _ in range(self.cycle):
            self.iteration += 1
            self.model.update_learning_rate(self.iteration, warmup_iter=-1)
            self.model.feed_data(self.batch)
            self.model.optimize_parameters(self.iteration)
