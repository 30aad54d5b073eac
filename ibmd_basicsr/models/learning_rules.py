"""What the option files of our models may say about learning: further losses, the discriminator, optimisers and schedules."""
from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY

from ibmd_basicsr.losses.lpips_loss import LPIPSLoss
from ibmd_basicsr.models.bridge_model import OPTIMIZERS
from ibmd_basicsr.models.builders import find_arch
from ibmd_basicsr.models.extras import EXTRA_LOSSES, GAN_TYPES
from ibmd_basicsr.models.option_keys import SCHEDULERS
from ibmd_basicsr.utils.errors import first_line
from ibmd_basicsr.utils.numbers import is_number
from ibmd_basicsr.utils.option_check import option_parameters
from ibmd_basicsr.utils.option_problems import Problems, shown

LARGEST_OF_D = 4096
"""Numbers in a discriminator's block: what is larger is a slip, such as millions of blocks, which would be built."""


def check_truth(path: str, found: Problems) -> None:
    """Check that the training set hands out the clean images that the block at ``path`` needs."""
    if found.get('datasets.train.return_gt') is False:
        found.append(f'{path}: needs clean images, leave datasets.train.return_gt out.')


def check_extras(opt: dict[str, Any], found: Problems) -> None:
    """Check the losses on the student's clean images, and the discriminator. Nothing is loaded or built in memory."""
    for name, kinds in EXTRA_LOSSES.items():
        path = f'train.{name}'
        block = found.block(path)
        if block is None:
            continue
        check_truth(path, found)
        if not found.choice(f'{path}.type', kinds) or not found.signature(path, LOSS_REGISTRY.get(block['type']), {'type'}):
            continue
        if block.get('reduction', 'mean') != 'mean':
            found.append(f'{path}.reduction: must be mean, of which micro-batches take their share, got {block["reduction"]!r}.')
        if block['type'] == 'GANLoss':
            found.choice(f'{path}.gan_type', GAN_TYPES)
        if block['type'] == 'LPIPSLoss':
            _check_lpips(path, block, found)
    gan = found.get('train.gan_opt') is not None
    for path in ('network_d', 'train.optim_d'):
        if gan != (found.get(path) is not None):
            found.append(f'train.gan_opt: needs {path}.' if gan else f'{path}: needs train.gan_opt.')
    if gan and found.block('train.optim_d') is not None:
        check_optimizer('train.optim_d', found)
    if gan and found.block('network_d') is not None:
        _check_discriminator(opt, found)


def _check_lpips(path: str, block: dict[str, Any], found: Problems) -> None:
    net = block.get('net', inspect.signature(LPIPSLoss).parameters['net'].default)
    if net not in LPIPSLoss.SMALLEST:
        found.append(f'{path}.net: must be one of {", ".join(map(repr, LPIPSLoss.SMALLEST))}, got {net!r}.')
        return
    if net == 'vgg' and block.get('weights') is None:
        found.append(f"{path}: net: vgg needs weights, a file of torchvision's VGG16; nothing is downloaded. net: alex has its own.")
    size = found.get('datasets.train.gt_size')
    if isinstance(size, int) and size < LPIPSLoss.SMALLEST[net]:
        found.append(f'{path}: net: {net} needs images of at least {LPIPSLoss.SMALLEST[net]} pixels a side, '
                     f'got datasets.train.gt_size: {size}.')


def _check_discriminator(opt: dict[str, Any], found: Problems) -> None:
    kind, arch = found.get('network_d.type'), None
    if isinstance(kind, str):
        arch = find_arch(kind)
    if arch is None:
        known = ', '.join(sorted(key.removesuffix('_basicsr') for key in ARCH_REGISTRY.keys() if 'Discriminator' in key))
        found.append(f'network_d.type: no network {shown(kind)} is registered. Discriminators: {known}.')
        return
    size = found.get('datasets.train.gt_size')
    if not found.signature('network_d', arch, {'type'}) or not isinstance(size, int):
        return
    large = {key: value for key, value in opt['network_d'].items() if isinstance(value, (int, float)) and abs(value) > LARGEST_OF_D}
    if large:
        found.extend(f'network_d.{key}: must be at most {LARGEST_OF_D}, got {value!r}.' for key, value in large.items())
        return
    try:
        with torch.device('meta'):
            net = found.build('network_d', arch, opt['network_d'])
            if net is not None:
                net(torch.empty(2, 3, size, size))
    except Exception as error:  # other people's networks take types and sizes for granted
        found.append(f'network_d: {opt["network_d"]["type"]} does not take RGB images of {size}x{size} pixels ({first_line(error)}).')


def check_optimizer(path: str, found: Problems) -> None:
    """Check an optimiser's block, and build it for a single number."""
    block = found.block(path)
    if block is None or not found.choice(f'{path}.type', OPTIMIZERS):
        return
    names, _ = option_parameters(getattr(torch.optim, block['type']), ('params',))
    if not found.keys(path, {*names, 'type'}, ['lr']):
        return
    before = len(found)
    found.positive(f'{path}.lr')
    betas = block.get('betas', (0.9, 0.99))
    if not isinstance(betas, (list, tuple)) or len(betas) != 2:
        found.append(f'{path}.betas: must be a list of two numbers, got {shown(betas)}.')
    if len(found) > before:
        return
    # whether it can be fused depends on where the parameters are
    options = {key: copy.deepcopy(value) for key, value in block.items() if key not in ('type', 'fused', 'capturable')}
    try:
        getattr(torch.optim, block['type'])([torch.nn.Parameter(torch.empty(1, device='meta'))], **options)
    except Exception as error:  # torch's checks take types and lengths for granted
        found.append(f'{path}: {first_line(error)}')


def check_scheduler(found: Problems) -> None:
    """Check ``train.scheduler``, and build it."""
    block = found.block('train.scheduler')
    if block is None or not found.choice('train.scheduler.type', tuple(SCHEDULERS)):
        return
    kind = block['type']
    if found.signature('train.scheduler', SCHEDULERS[kind], {'type'}, hidden=('optimizer', 'last_epoch')):
        parts = ('periods', 'restart_weights') if kind == 'CosineAnnealingRestartLR' else ('restarts', 'restart_weights')
        given = [block.get(part) for part in parts]
        if all(isinstance(value, list) for value in given) and len(given[0]) != len(given[1]):
            found.append(f'train.scheduler: {parts[0]} and {parts[1]} must have the same length, got {given[0]} and {given[1]}.')
            return
        periods, total = block.get('periods'), found.get('train.total_iter')
        for part in ('periods', 'restarts', 'restart_weights', 'milestones'):
            numbers = block.get(part, [])
            if not isinstance(numbers, (list, tuple)) or not all(is_number(number) for number in numbers):
                found.append(f'train.scheduler.{part}: must be a list of numbers, got {shown(numbers)}.')
                return
        for part in ('gamma', 'eta_min', 'step_size'):
            if not is_number(block.get(part, 1)):
                found.append(f'train.scheduler.{part}: must be a number, got {shown(block[part])}.')
        options = {key: copy.deepcopy(value) for key, value in block.items() if key != 'type'}
        try:
            SCHEDULERS[kind](torch.optim.SGD([torch.nn.Parameter(torch.empty(1, device='meta'))], lr=1.0), **options)
        except Exception as error:  # the host's checks take types and lengths for granted
            found.append(f'train.scheduler: {first_line(error)}')
        if isinstance(periods, list) and isinstance(total, (int, float)) and sum(periods) < total:
            found.append(f'train.scheduler.periods: {periods} end at iteration {sum(periods)}, before train.total_iter ({total}).')
