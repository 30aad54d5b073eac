"""Restorer: a built network, a bridge and a sampler as one callable from corrupted image to restored image.

The one forward path of the package: validation, the comparison and the tools all call it.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor

from ibmd_basicsr.bridges import Bridge, ancestral_sample, few_step_sample, ode_sample, sampling_grid
from ibmd_basicsr.utils.endpoints import lq_to_x_T, pad_to_multiple, x_0_to_image
from ibmd_basicsr.utils.seeding import PerImageNoise


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """How to restore, as in the ``sampler`` block of option files.

    Attributes:
        type: ``ancestral`` (teachers), ``ode`` (teachers trained with ``ot_ode``), ``one_step`` or ``few_step`` (students).
        steps: number of network calls; 1 for ``one_step``. Default: 1 for students, N - 1 (999) for teachers.
        clip_denoised: clamp each estimate of the clean image to [-1, 1].

    Raises:
        ValueError: unknown type, or steps that do not fit it.
    """

    TYPES = ('ancestral', 'ode', 'one_step', 'few_step')
    type: str = 'one_step'
    steps: int | None = None
    clip_denoised: bool = False

    def __post_init__(self):
        if self.type not in self.TYPES:
            raise ValueError(f'sampler.type must be one of {self.TYPES}, got {self.type!r}.')
        if self.steps is not None and (not isinstance(self.steps, int) or self.steps < 1):
            raise ValueError(f'sampler.steps must be a positive integer, got {self.steps!r}.')
        if self.type == 'one_step' and self.steps not in (None, 1):
            raise ValueError(f'sampler.steps must be 1 for one_step, got {self.steps}.')


class Restorer:
    """Restore a batch of corrupted images.

    Args (keyword only):
        net: network with attributes ``size_multiple``, ``in_channels`` and ``noise_channels`` (:class:`ADMUNet`).
        bridge: schedule and preconditioner that the network was trained with.
        sampler: see :class:`SamplerOptions`.
        scale: enlargement of super-resolution inputs, else 1.

    Attributes:
        calls: network calls per image.
        parameters: number of parameters of the network.
    """

    def __init__(self, *, net: torch.nn.Module, bridge: Bridge, sampler: SamplerOptions, scale: int = 1):
        self.net = net
        self.bridge = bridge
        self.sampler = sampler
        self.scale = scale
        if sampler.steps is not None:
            self.calls = sampler.steps
        else:
            self.calls = 1 if sampler.type in ('one_step', 'few_step') else bridge.schedule.n_timestep - 1
        self.grid = sampling_grid(bridge.schedule.n_timestep, self.calls)
        self.parameters = sum(p.numel() for p in net.parameters())
        self._pad = net.size_multiple // gcd(net.size_multiple, scale)

    @torch.no_grad()
    def __call__(self, lq: Tensor, noise: PerImageNoise, on_step: Callable[[Tensor, Tensor], None] | None = None) -> Tensor:
        """Restore ``lq``.

        Args:
            lq: (B, C, h, w) RGB in [0, 1] on the network's device, any size.
            noise: one generator per image; image i's result depends on its own generator only.
            on_step: called after each network call (progress bars).

        Returns:
            (B, C, scale h, scale w) in [0, 1], clamped.

        Raises:
            ValueError: ``lq`` is not 4-D or has the wrong number of channels.
        """
        if lq.ndim != 4 or lq.shape[1] != self.net.in_channels:
            raise ValueError(f'Restorer takes (B, {self.net.in_channels}, h, w), got {tuple(lq.shape)}.')
        height, width = lq.shape[-2] * self.scale, lq.shape[-1] * self.scale
        x_T = lq_to_x_T(pad_to_multiple(lq, self._pad), self.scale)
        denoise = self.bridge.denoiser(self.net)
        common = dict(randn_like=noise.randn_like, clip_denoised=self.sampler.clip_denoised, on_step=on_step)

        was_training = self.net.training
        self.net.eval()
        try:
            if self.sampler.type in ('one_step', 'few_step'):
                x_0 = few_step_sample(denoise, self.bridge.schedule, x_T, self.grid, noise_channels=self.net.noise_channels, **common)
            else:
                sample = ancestral_sample if self.sampler.type == 'ancestral' else ode_sample
                x_0 = sample(denoise, self.bridge.schedule, x_T, self.grid, **common)
        finally:
            self.net.train(was_training)
        return x_0_to_image(x_0[..., :height, :width])
