"""Restorer: a built network, a bridge and a sampler as one callable from corrupted image to restored image.

The one forward path of the package: validation, the comparison and the tools all call it.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import gcd

import torch
from torch import Tensor

from ibmd_basicsr.bridges import (
    Bridge,
    BridgeSchedule,
    ancestral_sample,
    check_dbim,
    dbim_grid,
    dbim_sample,
    few_step_sample,
    heun_calls,
    heun_grid,
    heun_sample,
    keep_known,
    ode_sample,
    subset_of_grid,
)
from ibmd_basicsr.utils.endpoints import lq_to_x_T, pad_to_multiple, x_0_to_image
from ibmd_basicsr.utils.precision import restoring_dtype
from ibmd_basicsr.utils.seeding import PerImageNoise
from ibmd_basicsr.utils.tiling import NoiseWindow


@dataclass(frozen=True)
class Sampler:
    """A type of sampler.

    Attributes:
        sample: see :func:`~ibmd_basicsr.bridges.samplers.ancestral_sample`.
        grid: (options, schedule) -> its times, float64, first 1.
        own: options of its own, handed to ``sample``.
        grid_own: options of its own for ``grid`` alone.
        student: of networks that were distilled, which take z.
        calls: (options, grid) -> number of network calls.
    """

    sample: Callable[..., Tensor]
    grid: Callable[[SamplerOptions, BridgeSchedule], Tensor]
    own: tuple[str, ...] = ()
    grid_own: tuple[str, ...] = ()
    student: bool = False
    calls: Callable[[SamplerOptions, Tensor], int] = lambda options, grid: len(grid) - 1


def _student_grid(options: SamplerOptions, schedule: BridgeSchedule) -> Tensor:
    trained = options.trained_steps or options.steps or 1
    return subset_of_grid(schedule.student_grid(trained), options.steps or trained)


def _ancestral_grid(options: SamplerOptions, schedule: BridgeSchedule) -> Tensor:
    return schedule.ancestral_grid(options.steps or schedule.default_calls)


def _dbim_grid(options: SamplerOptions, schedule: BridgeSchedule) -> Tensor:
    check_dbim(**options.extras())
    return dbim_grid(schedule, options.steps or schedule.default_calls)


def _churn(options: SamplerOptions) -> dict[str, float]:
    return {} if options.churn is None else {'churn': options.churn}


SAMPLERS = {
    'ancestral': Sampler(ancestral_sample, _ancestral_grid),
    'ode': Sampler(ode_sample, _ancestral_grid),
    'dbim': Sampler(dbim_sample, _dbim_grid, own=('eta', 'order')),
    'heun': Sampler(heun_sample, lambda options, schedule: heun_grid(schedule, options.steps, **_churn(options)),
                    own=('churn', 'guidance'), calls=lambda options, grid: heun_calls(grid, **_churn(options))),
    'one_step': Sampler(few_step_sample, _student_grid, student=True),
    'few_step': Sampler(few_step_sample, _student_grid, grid_own=('trained_steps',), student=True),
}
"""``sampler.type`` of option files -> what it stands for."""


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """How to restore, as in the ``sampler`` block of option files.

    Attributes:
        type: for teachers ``ancestral``, ``ode`` (those trained with ``ot_ode``), ``dbim`` or ``heun`` (conditional bridges, the latter
            VP and VE alone); for students ``one_step`` or ``few_step``.
        steps: number of network calls; 1 for ``one_step``. Default: 1 for ``one_step``, ``trained_steps`` for ``few_step``, for teachers
            as many as the schedule suggests (I2SB: N - 1 = 999).
        clip_denoised: clamp each estimate of the clean image to [-1, 1].
        trained_steps: the N of a ``few_step`` student; with fewer ``steps`` it is called at N's times only. Default: ``steps``, or 1.
        eta, order: of ``dbim``, see :func:`~ibmd_basicsr.bridges.dbim.dbim_sample`; default 0 and 1.
        churn, guidance: of ``heun``, see :func:`~ibmd_basicsr.bridges.heun.heun_sample`; default 0.33 and 1.

    Raises:
        ValueError: unknown type, an option of another type, or steps that do not fit it.
    """

    TYPES = tuple(SAMPLERS)
    MOST_STEPS = 10**6
    type: str = 'one_step'
    steps: int | None = None
    clip_denoised: bool = False
    trained_steps: int | None = None
    eta: float | None = None
    order: int | None = None
    churn: float | None = None
    guidance: float | None = None

    def __post_init__(self):
        if self.type not in self.TYPES:
            raise ValueError(f'sampler.type must be one of {self.TYPES}, got {self.type!r}.')
        for name in ('steps', 'trained_steps'):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f'sampler.{name} must be a positive integer, got {value!r}.')
            if value is not None and value > self.MOST_STEPS:
                raise ValueError(f'sampler.{name} must be at most {self.MOST_STEPS}, got {value}.')
        if self.type == 'one_step' and self.steps not in (None, 1):
            raise ValueError(f'sampler.steps must be 1 for one_step, got {self.steps}.')
        for owner, sampler in SAMPLERS.items():
            for name in sampler.own + sampler.grid_own:
                if owner != self.type and getattr(self, name) is not None:
                    raise ValueError(f'sampler.{name} belongs to type {owner}, not to {self.type}.')

    @property
    def of_student(self) -> bool:
        """Whether this is for networks that were distilled to few steps."""
        return SAMPLERS[self.type].student

    def extras(self) -> dict[str, float | int]:
        """Return the options of this type that are set and that its sampling function takes."""
        return {name: getattr(self, name) for name in SAMPLERS[self.type].own if getattr(self, name) is not None}


def make_grid(options: SamplerOptions, bridge: Bridge) -> Tensor:
    """Return the times of a sampler, float64, first 1; what they cost says :func:`network_calls`.

    Raises:
        ValueError: a number of steps, or an option of the sampler, that sampler or bridge do not know.
    """
    return SAMPLERS[options.type].grid(options, bridge.schedule)


def network_calls(options: SamplerOptions, grid: Tensor) -> int:
    """Return how often a sampler calls the network on a grid of :func:`make_grid`: ``steps``, where they are given."""
    return SAMPLERS[options.type].calls(options, grid)


class Restorer:
    """Restore a batch of corrupted images.

    Args (keyword only):
        net: network with attributes ``size_multiple``, ``in_channels`` and ``noise_channels`` (:class:`ADMUNet`).
        bridge: schedule and preconditioner that the network was trained with.
        sampler: see :class:`SamplerOptions`.
        scale: enlargement of super-resolution inputs, else 1.
        precision: of the network's matrix products and convolutions: ``fp32``; ``bf16``; ``fp16`` (GPUs alone); ``auto``, bf16 where the
            network's device is faster with it. Weights, states of samplers and images stay as wide as they are.
        compile: compile the network, in place: True for torch's default backend, or the name of another backend of ``torch.compile``.
            The first call compiles, which can take minutes; sizes that differ from the first are compiled once more, for any size.
            Tiles have one size.

    Attributes:
        calls: network calls per image.
        parameters: number of parameters of the network.
        size_multiple: images are padded to multiples of it, in pixels of ``lq``.

    Raises:
        ValueError: sampler and bridge do not fit; a precision that is unknown, or not to be had on the network's device; ``compile`` with
            a torch that has no ``nn.Module.compile``.
    """

    def __init__(self, *, net: torch.nn.Module, bridge: Bridge, sampler: SamplerOptions, scale: int = 1, precision: str = 'fp32',
                 compile: bool | str = False):
        self.net = net
        self.bridge = bridge
        self.sampler = sampler
        self.scale = scale
        self.grid = make_grid(sampler, bridge)
        self.calls = network_calls(sampler, self.grid)
        self.parameters = sum(p.numel() for p in net.parameters())
        self.size_multiple = net.size_multiple // gcd(net.size_multiple, scale)
        self.dtype = restoring_dtype(precision, next(net.parameters(), torch.empty(0)).device)
        if compile:
            if not hasattr(net, 'compile'):
                raise ValueError(f'compile needs nn.Module.compile, which torch {torch.__version__} does not have; a newer one does.')
            net.compile(**({} if compile is True else {'backend': compile}))

    @torch.no_grad()
    def __call__(self, lq: Tensor, noise: PerImageNoise | NoiseWindow | int = 0,
                 on_step: Callable[[Tensor, Tensor], None] | None = None, *, mask: Tensor | None = None,
                 labels: Tensor | None = None) -> Tensor:
        """Restore ``lq``.

        Args:
            lq: (B, C, h, w) RGB in [0, 1] on the network's device, any size.
            noise: one generator per image; image i's result depends on its own generator only. For tiles the window on such noise. Or a
                seed: image i draws from ``PerImageNoise.for_images(seed, [str(i)])`` then.
            on_step: called after each network call (progress bars).
            mask: (B, 1, h, w), 1 in the hole, of inpainting tasks: all other pixels of the result are those of ``lq``, bit for bit.
            labels: (B,) class indices for class-conditional networks.

        Returns:
            (B, C, scale h, scale w) in [0, 1], clamped.

        Raises:
            ValueError: ``lq`` is not 4-D or has the wrong number of channels, or a mask does not fit it.
        """
        if lq.ndim != 4 or lq.shape[1] != self.net.in_channels:
            raise ValueError(f'Restorer takes (B, {self.net.in_channels}, h, w), got {tuple(lq.shape)}.')
        if mask is not None and (self.scale != 1 or mask.shape != (len(lq), 1, *lq.shape[2:])):
            raise ValueError(f'Restorer takes masks of {(len(lq), 1, *lq.shape[2:])} at scale 1, got {tuple(mask.shape)} at scale '
                             f'{self.scale}.')
        if isinstance(noise, int):
            noise = PerImageNoise.for_images(noise, [str(place) for place in range(len(lq))])
        height, width = lq.shape[-2] * self.scale, lq.shape[-1] * self.scale
        hole = None if mask is None else pad_to_multiple(mask, self.size_multiple)
        x_T = self.bridge.fill_hole(lq_to_x_T(pad_to_multiple(lq, self.size_multiple), self.scale), hole, noise.randn_like)

        was_training = self.net.training
        if any(module.training for module in self.net.modules()):  # to set hundreds of modules takes longer than to ask
            self.net.eval()
        try:
            x_0 = self._sampler(labels)(schedule=self.bridge.schedule, x_T=x_T, grid=self.grid, randn_like=noise.randn_like, mask=hole,
                                        clip_denoised=self.sampler.clip_denoised, on_step=on_step)
        finally:
            if was_training:
                self.net.train()
        image = x_0_to_image(x_0[..., :height, :width])
        return image if mask is None else keep_known(image, lq, mask)

    def _sampler(self, labels: Tensor | None) -> Callable[..., Tensor]:
        """Return the sampling function with what only it takes."""
        exact = self.bridge.denoiser(self.net, labels)

        def lowered(x_t: Tensor, *args: Tensor | None) -> Tensor:
            # matrix products and convolutions alone: there are none outside the network
            with torch.autocast(x_t.device.type, dtype=self.dtype):
                return exact(x_t, *args)

        denoise = exact if self.dtype is None else lowered
        options = self.sampler.extras() | ({'noise_channels': self.net.noise_channels} if self.sampler.of_student else {})
        return partial(SAMPLERS[self.sampler.type].sample, denoise, **options)
