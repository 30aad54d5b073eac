"""ADMRegressor: the U-Net of our restorers behind the contract of BasicSR's architectures, image in, image out."""
from __future__ import annotations

import inspect
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.utils.endpoints import lq_to_x_T, pad_to_multiple, x_0_to_gt
from ibmd_basicsr.utils.numbers import is_integer


@ARCH_REGISTRY.register()
class ADMRegressor(nn.Module):
    """An :class:`ADMUNet` that predicts the clean image in one call, for training by BasicSR's own models (``SRModel``, ``ESRGANModel``).

    The baseline of a distilled student: same network, size and latency, trained on pairs with a regression loss. The time is always 0,
    and the network's output is added to the (enlarged) input.

    Args (keyword only):
        scale: enlargement, by nearest neighbour before the network.
        network: arguments of :class:`ADMUNet`; without ``cond_channels``, ``noise_channels``, ``out_channels`` and ``num_classes``.

    Raises:
        ValueError: ``scale`` is not a positive integer, or ``network`` asks for inputs that an image restorer does not have.
    """

    INPUTS = ('cond_channels', 'noise_channels', 'out_channels', 'num_classes')

    def __init__(self, *, scale: int = 1, **network: Any):
        super().__init__()
        if not is_integer(scale, least=1):
            raise ValueError(f'ADMRegressor: scale must be a positive integer, got {scale!r}.')
        for name in self.INPUTS:
            if network.get(name):
                raise ValueError(f'ADMRegressor: an image is all it takes and gives, {name} must be left out, got {network[name]!r}.')
        self.scale = scale
        self.unet = ADMUNet(**network)

    def forward(self, lq: Tensor) -> Tensor:
        """Return the restored image (B, C, scale h, scale w), not clamped, of ``lq`` (B, C, h, w) in [0, 1], any size."""
        height, width = lq.shape[-2] * self.scale, lq.shape[-1] * self.scale
        x = pad_to_multiple(lq_to_x_T(lq, self.scale), self.unet.size_multiple)
        residual = self.unet(x, torch.zeros(len(x), device=x.device))
        return x_0_to_gt(x + residual)[..., :height, :width]


# what checks of option files see: the network's own arguments by name
ADMRegressor.__signature__ = inspect.Signature([
    inspect.Parameter('scale', inspect.Parameter.KEYWORD_ONLY, default=1),
    *(argument for name, argument in inspect.signature(ADMUNet).parameters.items() if name not in ADMRegressor.INPUTS)])
