"""From option blocks to built objects: networks with weights, and restorers."""
from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

import ibmd_basicsr.archs  # noqa: F401  (option blocks name our networks)
from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.bridges import SCHEDULES, Bridge, bridge_options, build_bridge
from ibmd_basicsr.checkpoints.state_dict import load_params, load_strictly
from ibmd_basicsr.restorer import Restorer, SamplerOptions, make_grid
from ibmd_basicsr.utils.errors import OptionError, printable
from ibmd_basicsr.utils.frozen import ready_to_restore
from ibmd_basicsr.utils.memory import physical_memory
from ibmd_basicsr.utils.option_check import build_from_options, check_keys
from ibmd_basicsr.utils.option_problems import shown


def find_arch(name: str) -> type[nn.Module] | None:
    """Return the architecture that the host builds for ``type: name``, None if there is none.

    BasicSR registers its copies of Real-ESRGAN's with a suffix, and prints a line whenever it falls back on one.
    """
    return next((ARCH_REGISTRY.get(key) for key in (name, f'{name}_basicsr') if key in ARCH_REGISTRY), None)


def build_quietly(options: dict[str, Any]) -> nn.Module:
    """Build the network of a ``network`` block on the current device, without a line in the log (the host writes one).

    Raises:
        OptionError: a key or value that the network does not take.
    """
    return build_from_options(find_arch(options['type']), options, options['type'])


def build_frozen_network(options: dict[str, Any], weights: str, param_key: str, device: torch.device) -> nn.Module:
    """Build a network, load its weights strictly and freeze it: eval mode, no parameter gradients.

    Gradients to its *inputs* still flow, which inverse bridge matching needs.

    Args:
        options: a ``network`` block, ``{type: ADMUNet, ...}``.
        weights: BasicSR checkpoint.
        param_key: ``params`` or ``params_ema``.
        device: where the network shall live.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit.
    """
    net = build_network(deepcopy(options))
    load_strictly(net, load_params(weights, param_key), str(weights))
    return net.to(device).eval().requires_grad_(False)


def checked_network(block: dict[str, Any], where: str, this_machine: bool = True) -> ADMUNet:
    """Return the network of a ``network`` block on the meta device, built without memory or arithmetic.

    Args:
        block: ``{type: ADMUNet, ...}``.
        where: what messages call the block.
        this_machine: refuse weights that are larger than the memory here.

    Raises:
        OptionError: not a block, another type, or a key or value that the network does not take.
    """
    _check_type(block, where, (ADMUNet.__name__,))
    try:
        with torch.device('meta'):
            net = build_from_options(ADMUNet, block, where)
    except RuntimeError as error:  # torch's, for sizes that no number can hold
        raise OptionError(f'{where}: a network of such sizes cannot be built ({printable(error, 160)}).') from error
    size = sum(parameter.numel() * parameter.element_size() for parameter in net.parameters())
    if this_machine and size > physical_memory():
        raise OptionError(f'{where}: its weights take {size / 2**30:.0f} GiB, more than the memory of this machine.')
    return net


def checked_bridge(block: dict[str, Any], where: str) -> Bridge:
    """Build the bridge of a ``bridge`` block.

    Args:
        block: ``{type: I2SB, ...}``.
        where: what messages call the block.

    Raises:
        OptionError: not a block, an unknown type, or a key or value that such a bridge does not take or cannot compute with.
    """
    _check_type(block, where, tuple(SCHEDULES))
    check_keys(where, block, {*bridge_options(block['type']), 'type', 'conditional', 'hole'})
    try:
        return build_bridge(**block)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise OptionError(f'{where}: {error}') from error


def checked_sampler(block: dict[str, Any], bridge: Bridge | None, where: str) -> SamplerOptions:
    """Return the options of a ``sampler`` block for a bridge.

    Args:
        block: ``{type: one_step, ...}``; empty for one step.
        bridge: what it shall sample; None leaves open whether it can.
        where: what messages call the block.

    Raises:
        OptionError: not a block, a key or value that there is not, or a type or a number of steps that the bridge does not know.
    """
    options = build_from_options(SamplerOptions, block, where)
    try:
        if bridge is not None:
            make_grid(options, bridge)
    except (ArithmeticError, ValueError) as error:
        raise OptionError(f'{where}: {error}') from error
    return options


def _check_type(block: dict[str, Any], where: str, types: tuple[str, ...]) -> None:
    if not isinstance(block, dict):
        raise OptionError(f'{where}: must be a block of keys, got {shown(block)}.')
    if block.get('type') not in types:
        raise OptionError(f'{where}.type: must be one of {", ".join(map(repr, types))}, got {shown(block.get("type"))}.')


def build_restorer(*, network: dict[str, Any], bridge: dict[str, Any], weights: str, param_key: str = 'params_ema',
                   sampler: dict[str, Any] | None = None, scale: int = 1, device: torch.device | str = 'cpu',
                   precision: str = 'fp32', compile: bool | str = False) -> Restorer:
    """Build a :class:`~ibmd_basicsr.restorer.Restorer` from option blocks.

    Args:
        network: ``network_g`` block.
        bridge: ``bridge`` block.
        weights: BasicSR checkpoint.
        param_key: which weights of the file.
        sampler: ``sampler`` block; default one step.
        scale: enlargement of the input.
        device: where to run.
        precision, compile: see :class:`~ibmd_basicsr.restorer.Restorer`.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit.
        OptionError: a block that cannot be built, or a precision that the device does not have.
        ValueError: ``compile`` with a torch that cannot.
    """
    checked_network(network, 'network')
    built = checked_bridge(bridge, 'bridge')
    options = checked_sampler(sampler or {}, built, 'sampler')
    net = ready_to_restore(build_frozen_network(network, weights, param_key, torch.device(device)), device)
    return Restorer(net=net, bridge=built, sampler=options, scale=scale, precision=precision, compile=compile)
