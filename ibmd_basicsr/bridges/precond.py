"""Preconditioners: how a raw network becomes an estimate of the clean image, ``x0_hat = c_skip x_t + c_out F(c_in x_t, c_noise)``."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ibmd_basicsr.bridges.schedules import BridgeSchedule, I2SBSchedule


@dataclass(frozen=True)
class Scalings:
    """Scalars of the preconditioner at the times of a batch, float64; ``c_noise`` is (B,), the others broadcast against the batch."""

    c_skip: Tensor | float
    c_out: Tensor
    c_in: Tensor | float
    c_noise: Tensor


class Precond(Protocol):
    """Anything that gives :class:`Scalings`."""

    def scalings(self, t: Tensor, ndim: int = 4) -> Scalings:
        """Return the scalars for times t (B,) in [0, 1]."""


class I2SBPrecond:
    """I2SB: the network regresses ``F = (x_t - x_0)/sigma_t``, so ``x0_hat = x_t - sigma_t F`` (I2SB eq. 12)."""

    def __init__(self, schedule: I2SBSchedule):
        self.schedule = schedule

    def scalings(self, t: Tensor, ndim: int = 4) -> Scalings:
        """Return the scalars for times t (B,) in [0, 1]."""
        return Scalings(c_skip=1.0, c_out=-self.schedule.sigma(t, ndim), c_in=1.0, c_noise=self.schedule.network_time(t))


class DDBMPrecond:
    """DDBM: the preconditioner that gives network input and target unit variance along the bridge (DDBM section 4.2, appendix A.5).

    With ``A = sigma_data^2 (a^2 + b^2) + 2 a b cov_xy + c^2``: ``c_in = A^(-1/2)``, ``c_skip = (b sigma_data^2 + a cov_xy)/A``,
    ``c_out = sqrt(a^2 (sigma_data^4 - cov_xy^2) + sigma_data^2 c^2) c_in``.

    Args:
        schedule: gives a_t, b_t, c_t and the network's time.
        sigma_data: std of x_0 and of x_T.
        cov_xy: covariance of x_0 and x_T. The published checkpoints use 0; the paper's text suggests sigma_data^2/2.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(self, schedule: BridgeSchedule, *, sigma_data: float = 0.5, cov_xy: float = 0.0):
        if not sigma_data > 0:
            raise ValueError(f'bridge.sigma_data must be positive, got {sigma_data}.')
        if not abs(cov_xy) < sigma_data**2:
            raise ValueError(f'bridge.cov_xy must be smaller in size than sigma_data^2 = {sigma_data**2:g}, got {cov_xy}.')
        self.schedule = schedule
        self.sigma_data = sigma_data
        self.cov_xy = cov_xy

    def scalings(self, t: Tensor, ndim: int = 4) -> Scalings:
        """Return the scalars for times t (B,) in [0, 1]."""
        k = self.schedule.coefficients(t, ndim)
        variance, cov = self.sigma_data**2, self.cov_xy
        A = variance * (k.a_t.square() + k.b_t.square()) + 2 * cov * k.a_t * k.b_t + k.c_t.square()
        c_in = A.rsqrt()
        c_out = (k.a_t.square() * (variance**2 - cov**2) + variance * k.c_t.square()).sqrt() * c_in
        return Scalings(c_skip=(variance * k.b_t + cov * k.a_t) / A, c_out=c_out, c_in=c_in, c_noise=self.schedule.network_time(t))
