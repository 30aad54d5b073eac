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
from ibmd_basicsr.bridges import build_bridge
from ibmd_basicsr.checkpoints.state_dict import load_params, load_strictly
from ibmd_basicsr.restorer import Restorer, SamplerOptions
from ibmd_basicsr.utils.errors import OptionError, printable
from ibmd_basicsr.utils.frozen import ready_to_restore
from ibmd_basicsr.utils.memory import physical_memory
from ibmd_basicsr.utils.option_check import build_from_options


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


def check_network(options: dict[str, Any], block: str, this_machine: bool = True) -> ADMUNet:
    """Return an ``ADMUNet`` on the meta device, built without memory or arithmetic.

    Args:
        options: a ``network`` block.
        block: what messages call it.
        this_machine: refuse weights that are larger than the memory here.

    Raises:
        OptionError: a key or value that the network does not take.
    """
    try:
        with torch.device('meta'):
            net = build_from_options(ADMUNet, options, block)
    except RuntimeError as error:  # torch's, for sizes that no number can hold
        raise OptionError(f'{block}: a network of such sizes cannot be built ({printable(error, 160)}).') from error
    size = sum(parameter.numel() * parameter.element_size() for parameter in net.parameters())
    if this_machine and size > physical_memory():
        raise OptionError(f'{block}: its weights take {size / 2**30:.0f} GiB, more than the memory of this machine.')
    return net


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
        CheckpointError, ValueError, TypeError: see the parts.
    """
    net = ready_to_restore(build_frozen_network(network, weights, param_key, torch.device(device)), device)
    return Restorer(net=net, bridge=build_bridge(**bridge), sampler=SamplerOptions(**(sampler or {})), scale=scale, precision=precision,
                    compile=compile)
