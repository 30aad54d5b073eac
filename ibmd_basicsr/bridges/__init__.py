"""Bridge mathematics: torch in, torch out. Knows nothing of BasicSR, datasets or optimisers; of option files only the ``bridge`` block."""
from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ibmd_basicsr.bridges.dbim import check_dbim, dbim_grid, dbim_sample
from ibmd_basicsr.bridges.denoiser import Denoiser
from ibmd_basicsr.bridges.heun import heun_calls, heun_grid, heun_sample
from ibmd_basicsr.bridges.linear_schedules import LinearSchedule, VESchedule, VPSchedule
from ibmd_basicsr.bridges.precond import DDBMPrecond, I2SBPrecond, Precond, Scalings
from ibmd_basicsr.bridges.samplers import ancestral_sample, few_step_sample, keep_known, ode_sample, rebridge, student_walk
from ibmd_basicsr.bridges.schedules import (
    BridgeSchedule,
    Coefficients,
    I2SBEndpointSchedule,
    I2SBSchedule,
    Posterior,
    draw_posterior,
    expand_time,
    interpolate,
)
from ibmd_basicsr.bridges.timesteps import TIME_WEIGHTS, karras_times, sampling_grid, spaced_steps, subset_of_grid, uniform_steps

__all__ = [
    'Bridge', 'BridgeSchedule', 'Coefficients', 'DDBMPrecond', 'Denoiser', 'I2SBEndpointSchedule', 'I2SBPrecond', 'I2SBSchedule',
    'LinearSchedule', 'Posterior', 'SCHEDULES', 'Scalings', 'TIME_WEIGHTS', 'VESchedule', 'VPSchedule', 'ancestral_sample',
    'bridge_options', 'build_bridge', 'check_dbim', 'dbim_grid', 'dbim_sample', 'draw_posterior', 'expand_time', 'few_step_sample',
    'heun_calls', 'heun_grid', 'heun_sample', 'interpolate', 'karras_times', 'keep_known', 'ode_sample', 'rebridge', 'sampling_grid',
    'spaced_steps', 'student_walk', 'subset_of_grid', 'uniform_steps'
]

SCHEDULES: dict[str, tuple[type[BridgeSchedule], type]] = {
    'I2SB': (I2SBSchedule, I2SBPrecond),
    'I2SB_DBIM': (I2SBEndpointSchedule, I2SBPrecond),
    'VP': (VPSchedule, DDBMPrecond),
    'VE': (VESchedule, DDBMPrecond),
}
"""Bridge types of the option files: schedule and the preconditioner that its teachers use."""

HOLES = ('keep', 'noise')


@dataclass(frozen=True)
class Bridge:
    """What a network must be joined with to become a :class:`Denoiser`.

    Attributes:
        schedule, precond: the scalars of the bridge and of the network.
        conditional: x_T is an extra input of the network.
        hole: what x_T holds where a mask says that pixels are missing: ``keep`` (what the data set filled in) or ``noise``, N(0, 1) drawn
            anew each time, as I2SB's inpainting needs it.
    """

    schedule: BridgeSchedule
    precond: Precond
    conditional: bool = False
    hole: str = 'keep'

    def denoiser(self, net: nn.Module, labels: Tensor | None = None) -> Denoiser:
        """Return ``net`` as an estimator of the clean image; ``labels`` (B,) for class-conditional networks."""
        return Denoiser(net=net, precond=self.precond, conditional=self.conditional, labels=labels)

    def fill_hole(self, x_T: Tensor, mask: Tensor | None, randn_like: Callable[[Tensor], Tensor]) -> Tensor:
        """Return x_T (B, C, H, W) as the bridge starts from it; draws noise only for ``hole: noise`` and a mask (B, 1, H, W)."""
        return x_T if mask is None or self.hole == 'keep' else torch.where(mask.bool(), randn_like(x_T), x_T)


def bridge_options(type: str) -> list[str]:
    """Return the names of the options that a bridge of a type takes beside ``type``, ``conditional`` and ``hole``."""
    schedule_class, precond_class = SCHEDULES[type]
    return [*_options(schedule_class), *_options(precond_class)]


def _options(target: type) -> list[str]:
    return [p.name for p in inspect.signature(target).parameters.values() if p.kind is p.KEYWORD_ONLY]


def build_bridge(*, type: str, conditional: bool = False, hole: str = 'keep', **options) -> Bridge:
    """Build a bridge from the ``bridge`` block of an option file.

    Args:
        type: a key of :data:`SCHEDULES`.
        conditional: x_T is an extra input of the networks.
        hole: see :class:`Bridge`.
        options: keyword arguments of the schedule and of the preconditioner.

    Raises:
        ValueError: unknown type, or a value out of range.
        TypeError: an option that the bridge does not have.
    """
    if type not in SCHEDULES:
        raise ValueError(f'bridge.type must be one of {tuple(SCHEDULES)}, got {type!r}.')
    if hole not in HOLES:
        raise ValueError(f'bridge.hole must be one of {HOLES}, got {hole!r}.')
    schedule_class, precond_class = SCHEDULES[type]
    for name, value in {'conditional': conditional, **options}.items():
        if name in ('conditional', 'ot_ode'):
            if not isinstance(value, bool):
                raise ValueError(f'bridge.{name} must be true or false, got {value!r}.')
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f'bridge.{name} must be a finite number, got {value!r}.')
    scaling = {name: options.pop(name) for name in _options(precond_class) if name in options}
    schedule = schedule_class(**options)
    return Bridge(schedule=schedule, precond=precond_class(schedule, **scaling), conditional=conditional, hole=hole)
