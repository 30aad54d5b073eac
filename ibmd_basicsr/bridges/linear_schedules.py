"""The continuous schedules of DDBM (arXiv 2309.16948) and DBIM (arXiv 2405.15885): VP and VE, in float64.

A linear prior ``x_t | x_0 ~ N(alpha_t x_0, alpha_t^2 rho_t^2 I)``, SNR_t = 1/rho_t^2, pinned to x_T at t = 1. All scalars of its bridge
follow from alpha and rho.
"""
from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from ibmd_basicsr.bridges.schedules import BridgeSchedule, Coefficients, Posterior, continuous_times, expand_time
from ibmd_basicsr.bridges.timesteps import at_hand


class LinearSchedule(BridgeSchedule):
    """A bridge over a linear prior. Times t in [0, 1] are fractions of the native time tau = t t_max of the published programs.

    Subclasses give the prior: ``alpha(t)``, ``rho_squared(t)``, ``survival(s, t)`` and the coefficients of its SDE.
    """

    LOG_FLOOR = 1e-44
    """Added to the native time inside the logarithm of the network's time, as published: keeps t = 0 finite."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Return alpha_t of times t, in their shape."""

    @abstractmethod
    def rho_squared(self, t: Tensor) -> Tensor:
        """Return rho_t^2 = sigma_t^2/alpha_t^2 = 1/SNR_t of times t, in their shape."""

    @abstractmethod
    def survival(self, s: Tensor, t: Tensor) -> Tensor:
        """Return 1 - rho_s^2/rho_t^2 of times s <= t without cancellation (0 where both are 0)."""

    @abstractmethod
    def drift(self, x: Tensor, x0_hat: Tensor, x_T: Tensor, t: Tensor, *, guidance: float, stochastic: bool) -> Tensor:
        """Return dx/dtau of the reverse bridge in native time: of its SDE (``stochastic``) or of its probability-flow ODE (DDBM eq. 11).

        Args:
            x, x0_hat, x_T: (B, C, H, W) float64.
            t: (B,) times below 1.
            guidance: DDBM's w, weight of the pull towards x_T; 1 is the bridge that was trained.
            stochastic: SDE or ODE.
        """

    @abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        """Return g^2 per unit of native time, in the shape of t."""

    def check(self, t: Tensor) -> Tensor:
        """Return times t (B,) as float64.

        Raises:
            ValueError: a time outside [0, 1], on the CPU.
        """
        t = t.double()
        if at_hand(t) and t.numel() and not bool(((t >= 0) & (t <= 1)).all()):
            raise ValueError(f'Times must lie in [0, 1], got {t.min().item():.6g} to {t.max().item():.6g}.')
        return t

    def coefficients(self, t: Tensor, ndim: int = 4) -> Coefficients:
        """Return ``a = (alpha_t/alpha_T) SNR_T/SNR_t``, ``b = alpha_t (1 - SNR_T/SNR_t)``, ``c^2 = sigma_t^2 (1 - SNR_T/SNR_t)``."""
        t = self.check(t)
        one = torch.ones_like(t)
        alpha, remaining = self.alpha(t), self.survival(t, one)
        a = alpha / self.alpha(one) * (self.rho_squared(t) / self.rho_squared(one))
        c = alpha * (self.rho_squared(t) * remaining).sqrt()
        return Coefficients(a_t=expand_time(a, ndim), b_t=expand_time(alpha * remaining, ndim), c_t=expand_time(c, ndim))

    def posterior(self, s: Tensor, t: Tensor, ndim: int = 4) -> Posterior:
        """Return ``q(x_s | x_t, x_0)``: mean ``alpha_s ((1 - rho_s^2/rho_t^2) x_0 + rho_s^2/rho_t^2 x_t/alpha_t)``, variance
        ``alpha_s^2 rho_s^2 (1 - rho_s^2/rho_t^2)``.

        Raises:
            ValueError: some s is not below its t, on the CPU.
        """
        s, t = self.check(s), self.check(t)
        if at_hand(t) and not bool((s < t).all()):
            raise ValueError(f'The posterior needs times s < t, got s={s.tolist()}, t={t.tolist()}.')
        alpha, gone = self.alpha(s), self.survival(s, t)
        ratio = self.rho_squared(s) / self.rho_squared(t)
        return Posterior(on_x_0=expand_time(alpha * gone, ndim), on_x_t=expand_time(alpha / self.alpha(t) * ratio, ndim),
                         std=expand_time(alpha * (self.rho_squared(s) * gone).sqrt(), ndim))

    def network_time(self, t: Tensor) -> Tensor:
        """Return ``c_noise = 250 ln(tau)`` (DDBM), negative below tau = 1; (B,) float64."""
        return 250 * (self.check(t) * self.t_max + self.LOG_FLOOR).log()

    def training_times(self, u: Tensor, below: Tensor | None = None) -> Tensor:
        """Return times uniform on [t_min, 1], or on [t_min, below]."""
        return continuous_times(u, self.t_min, below)

    def ancestral_grid(self, calls: int) -> Tensor:
        """Return (calls + 1,) evenly spaced times from 1 down to 0."""
        return torch.linspace(1, 0, calls + 1, dtype=torch.float64)

    def student_grid(self, steps: int) -> Tensor:
        """Return (steps + 1,) evenly spaced times from 1 down to t_min (the authors' released code)."""
        return torch.linspace(1, self.t_min, steps + 1, dtype=torch.float64)


class VPSchedule(LinearSchedule):
    """Variance preserving: ``alpha_t = exp(-B_t/2)``, ``rho_t^2 = exp(B_t) - 1``, ``B_t = beta_min t + beta_d t^2/2``.

    Args (keyword only):
        beta_min, beta_d: the rate of noise is ``beta(t) = beta_min + beta_d t``; both published DDBM checkpoints use 0.1 and 2.
        t_min: smallest time of training and sampling.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(self, *, beta_min: float = 0.1, beta_d: float = 2.0, t_min: float = 1e-4):
        if not beta_min >= 0 or not beta_d >= 0 or not beta_min + beta_d > 0:
            raise ValueError(f'bridge.beta_min and beta_d must not be negative, nor both 0, got {beta_min} and {beta_d}.')
        _check_t_min('t_min', t_min, 1.0)
        self.beta_min = beta_min
        self.beta_d = beta_d
        self.t_min = t_min

    def _integral(self, t: Tensor) -> Tensor:
        """B_t, the rate integrated from 0 to t."""
        return self.beta_min * t + self.beta_d * t.square() / 2

    def alpha(self, t: Tensor) -> Tensor:
        """Return exp(-B_t/2)."""
        return (-self._integral(t) / 2).exp()

    def rho_squared(self, t: Tensor) -> Tensor:
        """Return exp(B_t) - 1."""
        return self._integral(t).expm1()

    def survival(self, s: Tensor, t: Tensor) -> Tensor:
        """Return 1 - rho_s^2/rho_t^2 = exp(B_s) (exp(B_t - B_s) - 1)/(exp(B_t) - 1)."""
        B_s, B_t = self._integral(s), self._integral(t)
        return B_s.exp() * (B_t - B_s).expm1() / B_t.expm1()

    def diffusion(self, t: Tensor) -> Tensor:
        """Return g^2 = beta(t)."""
        return self.beta_min + self.beta_d * t

    def drift(self, x: Tensor, x0_hat: Tensor, x_T: Tensor, t: Tensor, *, guidance: float, stochastic: bool) -> Tensor:
        """Return ``f x - g^2 ((1 or 1/2) grad_q - w grad_h)`` with f = -beta/2 (see :class:`LinearSchedule`)."""
        c = self.coefficients(t, x.ndim)
        one = torch.ones_like(t)
        shrink = expand_time(self.alpha(t) / self.alpha(one), x.ndim)
        # rho_T^2/rho_t^2 - 1 as survival/(1 - survival), in the units of sigma_t^2
        spread = expand_time(self.alpha(t).square() * self.rho_squared(one) * self.survival(t, one), x.ndim)
        grad_q = -(x - c.a_t * x_T - c.b_t * x0_hat) / c.c_t.square()
        grad_h = -(x - shrink * x_T) / spread
        beta = expand_time(self.diffusion(t), x.ndim)
        return -beta / 2 * x - beta * ((1.0 if stochastic else 0.5) * grad_q - guidance * grad_h)


class VESchedule(LinearSchedule):
    """Variance exploding: ``alpha_t = 1``, ``rho_t = sigma_max t``; the native time is the noise level itself.

    Args (keyword only):
        sigma_max: noise level at t = 1 (DDBM: 80 for edges to handbags, 20 for DIODE).
        sigma_min: smallest noise level of training and sampling.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(self, *, sigma_max: float = 80.0, sigma_min: float = 0.002):
        if not sigma_max > 0:
            raise ValueError(f'bridge.sigma_max must be positive, got {sigma_max}.')
        _check_t_min('sigma_min', sigma_min, sigma_max)
        self.t_max = sigma_max
        self.t_min = sigma_min / sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def rho_squared(self, t: Tensor) -> Tensor:
        """Return (sigma_max t)^2."""
        return (self.t_max * t).square()

    def survival(self, s: Tensor, t: Tensor) -> Tensor:
        """Return 1 - s^2/t^2 = (t - s)(t + s)/t^2."""
        return (t - s) * (t + s) / t.square()

    def diffusion(self, t: Tensor) -> Tensor:
        """Return g^2 = 2 tau."""
        return 2 * self.t_max * t

    def drift(self, x: Tensor, x0_hat: Tensor, x_T: Tensor, t: Tensor, *, guidance: float, stochastic: bool) -> Tensor:
        """Return ``-2 tau grad_p`` (SDE) or ``-tau (grad_p - w grad_h)`` (ODE), with ``grad_p = (x0_hat - x)/tau^2``.

        As published: the guidance acts in the ODE alone. At w = 1 this is the form of :meth:`VPSchedule.drift`, since
        grad_q = grad_p + grad_h.
        """
        tau = expand_time(t * self.t_max, x.ndim)
        grad_p = (x0_hat - x) / tau.square()
        if stochastic:
            return -2 * tau * grad_p
        grad_h = -(x - x_T) / expand_time((1 - t) * (1 + t) * self.t_max**2, x.ndim)
        return -tau * (grad_p - guidance * grad_h)


def _check_t_min(name: str, value: float, end: float) -> None:
    if not 0 < value < end:
        raise ValueError(f'bridge.{name} must lie between 0 and {end}, got {value}.')
