"""Preconditioners: how a raw network becomes an estimate of the clean image, ``x0_hat = c_skip x_t + c_out F(c_in x_t, c_noise)``."""
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ibmd_basicsr.bridges.schedules import I2SBSchedule


@dataclass(frozen=True)
class Scalings:
    """Scalars of the preconditioner at the times of a batch, float64; ``c_noise`` is (B,), the others broadcast against the batch."""

    c_skip: Tensor | float
    c_out: Tensor
    c_in: Tensor | float
    c_noise: Tensor


class I2SBPrecond:
    """I2SB: the network regresses ``F = (x_t - x_0)/sigma_t``, so ``x0_hat = x_t - sigma_t F`` (I2SB eq. 12)."""

    def __init__(self, schedule: I2SBSchedule):
        self.schedule = schedule

    def scalings(self, t: Tensor, ndim: int = 4) -> Scalings:
        """Return the scalars for times t (B,) in [0, 1]."""
        return Scalings(c_skip=1.0, c_out=-self.schedule.sigma(t, ndim), c_in=1.0, c_noise=self.schedule.network_time(t))
