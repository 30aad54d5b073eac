"""Bridge mathematics: torch in, torch out. Knows nothing of BasicSR, datasets, optimisers or option files."""
from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ibmd_basicsr.bridges.denoiser import Denoiser
from ibmd_basicsr.bridges.precond import I2SBPrecond, Scalings
from ibmd_basicsr.bridges.samplers import ancestral_sample, few_step_sample, ode_sample
from ibmd_basicsr.bridges.schedules import Coefficients, I2SBSchedule, Posterior, interpolate
from ibmd_basicsr.bridges.timesteps import TIME_WEIGHTS, sampling_grid, spaced_steps, uniform_steps

__all__ = [
    'Bridge', 'Coefficients', 'Denoiser', 'I2SBPrecond', 'I2SBSchedule', 'Posterior', 'SCHEDULES', 'Scalings', 'TIME_WEIGHTS',
    'ancestral_sample', 'build_bridge', 'few_step_sample', 'interpolate', 'ode_sample', 'sampling_grid', 'spaced_steps',
    'uniform_steps'
]

SCHEDULES = {'I2SB': (I2SBSchedule, I2SBPrecond)}
"""Bridge types of the option files: schedule and the preconditioner that its teachers use."""


@dataclass(frozen=True)
class Bridge:
    """What a network must be joined with to become a :class:`Denoiser`: schedule, preconditioner, conditional or not."""

    schedule: I2SBSchedule
    precond: I2SBPrecond
    conditional: bool = False

    def denoiser(self, net: nn.Module) -> Denoiser:
        """Return ``net`` as an estimator of the clean image."""
        return Denoiser(net=net, precond=self.precond, conditional=self.conditional)


def build_bridge(*, type: str, conditional: bool = False, **options) -> Bridge:
    """Build a bridge from the ``bridge`` block of an option file.

    Args:
        type: a key of :data:`SCHEDULES`.
        conditional: x_T is an extra input of the networks.
        options: keyword arguments of the schedule.

    Raises:
        ValueError: unknown type, or a value out of range.
        TypeError: an option that the schedule does not have.
    """
    if type not in SCHEDULES:
        raise ValueError(f'bridge.type must be one of {tuple(SCHEDULES)}, got {type!r}.')
    schedule_class, precond_class = SCHEDULES[type]
    schedule = schedule_class(**options)
    return Bridge(schedule=schedule, precond=precond_class(schedule), conditional=conditional)
