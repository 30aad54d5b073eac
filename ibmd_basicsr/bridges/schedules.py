"""Bridge schedules: the scalars of ``x_t = a_t x_T + b_t x_0 + c_t eps`` and of the reverse posterior, in float64.

Notation (docs/notation.md): x_0 clean image, x_T corrupted image, t in [0, 1] with t = 0 clean and t = 1 corrupted.

Here is what all schedules have in common, and those of I2SB; :mod:`~ibmd_basicsr.bridges.linear_schedules` holds DDBM's VP and VE.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ibmd_basicsr.bridges.timesteps import at_hand, sampling_grid, uniform_steps


def expand_time(t: Tensor, ndim: int) -> Tensor:
    """Reshape (B,) to (B, 1, ..., 1) with ``ndim`` dimensions so that it broadcasts against a batch."""
    if t.ndim != 1:
        raise ValueError(f'Times must have shape (B,), got {tuple(t.shape)}.')
    return t.reshape(-1, *([1] * (ndim - 1)))


@dataclass(frozen=True)
class Coefficients:
    """``q(x_t | x_0, x_T) = N(a_t x_T + b_t x_0, c_t^2 I)``; each float64 and broadcastable against the batch."""

    a_t: Tensor
    b_t: Tensor
    c_t: Tensor


@dataclass(frozen=True)
class Posterior:
    """``q(x_s | x_t, x_0) = N(on_x_0 x_0 + on_x_t x_t, std^2 I)`` for s < t; each float64, broadcastable against the batch."""

    on_x_0: Tensor
    on_x_t: Tensor
    std: Tensor


class BridgeSchedule(ABC):
    """What samplers, models and losses know of a schedule.

    Attributes:
        ot_ode: the deterministic variant, c_t = 0 and no noise in the posterior.
        t_max: native time of t = 1 (DDBM's sigma_max); t t_max is the time of the published program.
        t_min: smallest t that networks are trained at and samplers stop at.
        max_calls: largest number of network calls of an ancestral walk, None if there is no limit.
        default_calls: number of calls of a teacher unless something else is asked for.
    """

    ot_ode: bool = False
    t_max: float = 1.0
    t_min: float = 0.0
    max_calls: int | None = None
    default_calls: int = 100

    @abstractmethod
    def coefficients(self, t: Tensor, ndim: int = 4) -> Coefficients:
        """Return a_t, b_t, c_t for times t (B,) in [0, 1]."""

    @abstractmethod
    def posterior(self, s: Tensor, t: Tensor, ndim: int = 4) -> Posterior:
        """Return q(x_s | x_t, x_0) for times s < t, both (B,): of the Markov bridge, hence without x_T."""

    @abstractmethod
    def network_time(self, t: Tensor) -> Tensor:
        """Return what the network is given as its time, (B,) float64 (c_noise)."""

    @abstractmethod
    def training_times(self, u: Tensor, below: Tensor | None = None) -> Tensor:
        """Map uniform draws u (B,) on [0, 1) to training times; only times before ``below`` (B,), if given."""

    @abstractmethod
    def ancestral_grid(self, calls: int) -> Tensor:
        """Return (calls + 1,) times from 1 down to 0 for a walk by posteriors.

        Raises:
            ValueError: more calls than the schedule has steps.
        """

    @abstractmethod
    def student_grid(self, steps: int) -> Tensor:
        """Return (steps + 1,) times from 1 down: those at which a student of so many steps is called, and the end."""


class I2SBSchedule(BridgeSchedule):
    """The discrete schedule of I2SB (arXiv 2302.05872) as its published checkpoints use it.

    With N steps, ``beta_i = linspace(sqrt(1e-4), sqrt(beta_max/N), N)_i^2`` for the first half, mirrored for the second;
    ``sigma_n^2 = sum_{i<=n} beta_i`` and ``sbar_n^2 = sum_{i>=n} beta_i``, *both inclusive*. Hence at the ends the weights miss 0 and 1
    by 7e-4 and the std is 0.01, not 0 (N = 1000, beta_max = 0.3): a property of the published teachers, kept.

    Times are fractions t in [0, 1]; index n = round(t (N - 1)).

    Args (keyword only):
        n_timestep: N, even, 2 to a million.
        beta_max: peak of the quadratic schedule in units of 1/N; 0.3 for SR and JPEG, 1.0 for inpainting.
        ot_ode: the deterministic variant: the same means, c_t = 0.

    Raises:
        ValueError: an argument out of range.
    """

    LINEAR_START = 1e-4
    """First value of beta, fixed in the published code."""
    FIRST_LEVEL = 1e-4
    """Network time of index 0 in units of N: noise levels are ``linspace(1e-4, 1, N) * N``."""
    MOST_STEPS = 10**6
    """The tables of more are a slip that fills the memory."""

    def __init__(self, *, n_timestep: int = 1000, beta_max: float = 0.3, ot_ode: bool = False):
        if n_timestep < 2 or n_timestep % 2:
            raise ValueError(f'bridge.n_timestep must be even and at least 2 (the schedule is mirrored), got {n_timestep}.')
        if n_timestep > self.MOST_STEPS:
            raise ValueError(f'bridge.n_timestep must be at most {self.MOST_STEPS}, got {n_timestep}.')
        if not beta_max > 0:
            raise ValueError(f'bridge.beta_max must be positive, got {beta_max}.')
        self.n_timestep = n_timestep
        self.beta_max = beta_max
        self.ot_ode = ot_ode
        self.max_calls = self.default_calls = n_timestep - 1

        half = torch.linspace(self.LINEAR_START**0.5, (beta_max / n_timestep)**0.5, n_timestep, dtype=torch.float64)[:n_timestep // 2]**2
        self.betas = torch.cat([half, half.flip(0)])
        self.variance_fwd = self.betas.cumsum(0)  # sigma_n^2
        self.variance_bwd = self.betas.flip(0).cumsum(0).flip(0)  # sbar_n^2
        self.noise_levels = torch.linspace(self.FIRST_LEVEL, 1.0, n_timestep, dtype=torch.float64) * n_timestep
        self._copies: dict[tuple[str, torch.device], Tensor] = {}

    def index(self, t: Tensor) -> Tensor:
        """Return the integer steps n, (B,) int64, of times t (B,) in [0, 1].

        Raises:
            ValueError: a time outside [0, 1], on the CPU.
        """
        t = t.detach().double()
        if at_hand(t) and t.numel() and not (t.min() >= 0 and t.max() <= 1):
            raise ValueError(f'Times must lie in [0, 1], got {t.min().item():.6g} to {t.max().item():.6g}.')
        return (t * (self.n_timestep - 1)).round().long()

    def time(self, n: Tensor) -> Tensor:
        """Return the times t, float64 in [0, 1], of integer steps n in 0..N-1."""
        return n.double() / (self.n_timestep - 1)

    def coefficients(self, t: Tensor, ndim: int = 4) -> Coefficients:
        """Return a_t, b_t, c_t for times t (B,): the product of the two Gaussians with variances sigma^2 and sbar^2 (I2SB eq. 11)."""
        n = self.index(t)
        fwd, bwd = self._read('variance_fwd', n), self._read('variance_bwd', n)
        std = (fwd * bwd / (fwd + bwd)).sqrt()
        return Coefficients(a_t=expand_time(fwd / (fwd + bwd), ndim), b_t=expand_time(bwd / (fwd + bwd), ndim),
                            c_t=expand_time(torch.zeros_like(std) if self.ot_ode else std, ndim))

    def sigma(self, t: Tensor, ndim: int = 4) -> Tensor:
        """Return sigma_t, the std accumulated from the clean end up to t: the scale of the network's target (x_t - x_0)/sigma_t."""
        return expand_time(self._read('variance_fwd', self.index(t)).sqrt(), ndim)

    def network_time(self, t: Tensor) -> Tensor:
        """Return the time that the network is given, (B,) float64: ``linspace(1e-4, 1, N)[n] * N``, 0.1 to 1000 for N = 1000."""
        return self._read('noise_levels', self.index(t))

    def posterior(self, s: Tensor, t: Tensor, ndim: int = 4) -> Posterior:
        """Return the posterior q(x_s | x_t, x_0) for times s < t, both (B,) (I2SB eq. 4).

        With ``delta^2 = sigma_t^2 - sigma_s^2`` the mean is ``(delta^2 x_0 + sigma_s^2 x_t)/(delta^2 + sigma_s^2)`` and the variance
        ``delta^2 sigma_s^2/(delta^2 + sigma_s^2)``, zero for ``ot_ode``.

        Raises:
            ValueError: some s is not below its t, on the CPU.
        """
        n_s, n_t = self.index(s), self.index(t)
        if at_hand(n_t) and not (n_s < n_t).all():
            raise ValueError(f'The posterior needs steps s < t, got s={n_s.tolist()}, t={n_t.tolist()}.')
        var_s, var_t = self._read('variance_fwd', n_s), self._read('variance_fwd', n_t)
        delta = var_t - var_s
        std = torch.zeros_like(delta) if self.ot_ode else (delta * var_s / var_t).sqrt()
        return Posterior(on_x_0=expand_time(delta / var_t, ndim), on_x_t=expand_time(var_s / var_t, ndim), std=expand_time(std, ndim))

    def training_times(self, u: Tensor, below: Tensor | None = None) -> Tensor:
        """Return times uniform over all steps 0..N-1, or over those before the step of ``below`` (see :class:`BridgeSchedule`)."""
        last = self.n_timestep - 1 if below is None else self.index(below).to(u.device) - 1
        return uniform_steps(u, n_timestep=self.n_timestep, last=last)

    def ancestral_grid(self, calls: int) -> Tensor:
        """Return the published grid: steps 0..N-1 as evenly spaced as I2SB spaces them (see :class:`BridgeSchedule`)."""
        return sampling_grid(self.n_timestep, calls)

    def student_grid(self, steps: int) -> Tensor:
        """Return the ancestral grid: a student of 4 steps is called at the steps 999, 749, 500 and 250."""
        return self.ancestral_grid(steps)

    def _read(self, table: str, n: Tensor) -> Tensor:
        """Return the values at steps n (B,) of the table of that name, which is copied to the device of n once."""
        if (table, n.device) not in self._copies:
            self._copies[table, n.device] = getattr(self, table).to(n.device)
        return self._copies[table, n.device][n]


class I2SBEndpointSchedule(I2SBSchedule):
    """I2SB's variances in the parametrisation of DBIM (arXiv 2405.15885), whose inpainting checkpoint was trained with it.

    With ``rho_n = sigma_n``, ``rhobar_n = sbar_n`` and ``rho_T = sigma_{N-1}``: ``a = rho^2/rho_T^2``, ``b = rhobar^2/rho_T^2``,
    ``c = rho rhobar/rho_T``. Since both sums are inclusive, a + b exceeds 1 by up to 1.8e-3 (beta_max = 0.3). Times are drawn from the
    continuum [1e-4, 1] and rounded to steps where a scalar is read. Arguments as for :class:`I2SBSchedule`.
    """

    t_min = 1e-4
    default_calls = 100

    def __init__(self, *, n_timestep: int = 1000, beta_max: float = 1.0):
        super().__init__(n_timestep=n_timestep, beta_max=beta_max)
        self.default_calls = min(type(self).default_calls, n_timestep - 1)

    def coefficients(self, t: Tensor, ndim: int = 4) -> Coefficients:
        """Return a_t, b_t, c_t for times t (B,) (DBIM table of schedules)."""
        n = self.index(t)
        fwd, bwd, end = self._read('variance_fwd', n), self._read('variance_bwd', n), self.variance_fwd[-1].item()
        return Coefficients(a_t=expand_time(fwd / end, ndim), b_t=expand_time(bwd / end, ndim),
                            c_t=expand_time((fwd * bwd / end).sqrt(), ndim))

    def training_times(self, u: Tensor, below: Tensor | None = None) -> Tensor:
        """Return times uniform on [t_min, 1], or over the steps before that of ``below``."""
        return continuous_times(u, self.t_min) if below is None else super().training_times(u, below)


def continuous_times(u: Tensor, t_min: float, below: Tensor | None = None) -> Tensor:
    """Map uniform draws u (B,) on [0, 1) to times uniform on [t_min, 1], or on [t_min, below] with ``below`` (B,)."""
    top = 1.0 if below is None else below.to(u.device, torch.float64)
    return t_min + u.double() * (top - t_min)


def interpolate(coefficients: Coefficients, x_0: Tensor, x_T: Tensor, eps: Tensor) -> Tensor:
    """Draw a bridge sample ``x_t = a_t x_T + b_t x_0 + c_t eps`` in float64, returned in the dtype of ``x_0``.

    Args:
        coefficients: of the times of the batch.
        x_0, x_T, eps: (B, C, H, W); images in [-1, 1], eps ~ N(0, I).
    """
    c = coefficients
    return (c.a_t * x_T.double() + c.b_t * x_0.double() + c.c_t * eps.double()).to(x_0.dtype)


def draw_posterior(posterior: Posterior, x_0: Tensor, x_t: Tensor, eps: Tensor | None) -> Tensor:
    """Draw ``x_s = on_x_0 x_0 + on_x_t x_t + std eps``, float64.

    Args:
        posterior: q(x_s | x_t, x_0) at the times of the batch.
        x_0, x_t, eps: (B, C, H, W); images in [-1, 1], eps ~ N(0, I). Without eps (None) the mean is returned.
    """
    q = posterior
    mean = q.on_x_0 * x_0.double() + q.on_x_t * x_t.double()
    return mean if eps is None else mean + q.std * eps.double()
