"""DDBM's hybrid sampler of conditional bridges (arXiv 2309.16948, algorithm 1): an Euler step of the SDE, then a Heun step of the ODE."""
from __future__ import annotations

import torch
from torch import Tensor

from ibmd_basicsr.bridges.linear_schedules import LinearSchedule
from ibmd_basicsr.bridges.samplers import Denoise, OnStep, RandnLike, estimate
from ibmd_basicsr.bridges.schedules import BridgeSchedule, expand_time
from ibmd_basicsr.bridges.timesteps import karras_times

START_GAP = 1e-4
"""Native time between t = 1 and the first time of the grid, as published: at t = 1 the pull towards x_T is infinite."""
CHURN = 0.33
"""DDBM's share of each interval that is walked stochastically."""


def heun_grid(schedule: BridgeSchedule, calls: int | None = None, churn: float = CHURN) -> Tensor:
    """Return the published grid for a number of network calls: Karras times (rho = 7) from just below 1 to t_min, then 0; float64.

    N intervals cost 3N - 1 calls with ``churn``, 2N - 1 without: the last interval has no correction. By default there are as many as fit
    into the schedule's own number of calls, and one more.

    Raises:
        ValueError: the number of calls is not of that form, the schedule is a discrete one, or a churn out of range.
    """
    if not isinstance(schedule, LinearSchedule):
        raise ValueError(f'sampler.type heun needs a bridge of type VP or VE, got {type(schedule).__name__}.')
    cost = _interval_calls(churn)
    if calls is None:
        calls = schedule.default_calls // cost * cost + cost - 1
    if calls < cost - 1 or (calls + 1) % cost:
        near = max(1, round((calls + 1) / cost)) * cost - 1
        raise ValueError(f'sampler.steps must be {cost} N - 1 for heun with churn {churn:g} (calls, not intervals), got {calls}; '
                         f'the nearest is {near}.')
    times = karras_times((calls + 1) // cost, first=schedule.t_max - START_GAP, last=schedule.t_min * schedule.t_max)
    return torch.cat([times / schedule.t_max, torch.zeros(1, dtype=torch.float64)])


def heun_calls(grid: Tensor, churn: float = CHURN) -> int:
    """Return the number of network calls that a grid costs, see :func:`heun_grid`."""
    return (len(grid) - 1) * _interval_calls(churn) - 1


def _interval_calls(churn: float) -> int:
    if not 0 <= churn < 1:
        raise ValueError(f'sampler.churn must lie in [0, 1), got {churn}.')
    return 3 if churn else 2


def heun_sample(denoise: Denoise, schedule: LinearSchedule, x_T: Tensor, grid: Tensor, *, randn_like: RandnLike, churn: float = CHURN,
                guidance: float = 1.0, clip_denoised: bool = False, mask: Tensor | None = None, on_step: OnStep | None = None) -> Tensor:
    """Sample a conditional bridge by DDBM's hybrid of SDE and ODE.

    Between two grid times t > s: Euler-Maruyama on the reverse SDE from t to ``t + churn (s - t)``, then a Heun step of the
    probability-flow ODE on to s, a plain Euler step where s = 0.

    Args:
        grid: from :func:`heun_grid`.
        churn: share of each interval that is walked stochastically, in [0, 1); 0 is the deterministic sampler, which starts at x_T
            without noise and blurs.
        guidance: DDBM's w.
        on_step: called after each network call with (x0_hat, the state before it).

    Other arguments as for :func:`~ibmd_basicsr.bridges.samplers.ancestral_sample`; with a mask the known pixels of every estimate are
    x_T's. The published program clips (``clip_denoised: true``).

    Raises:
        ValueError: a churn out of range.
    """
    _interval_calls(churn)  # refuses what is out of range
    end = x_T.double()

    def drift(x: Tensor, t: Tensor, stochastic: bool) -> Tensor:
        x0_hat = estimate(denoise, x, t, x_T, clip_denoised=clip_denoised, mask=mask)
        if on_step is not None:
            on_step(x0_hat, x)
        return schedule.drift(x, x0_hat, end, t.to(x.device).expand(len(x)), guidance=guidance, stochastic=stochastic)

    x = end
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        if churn:
            t_hat = t + churn * (s - t)
            step = (t_hat - t) * schedule.t_max
            g2 = expand_time(schedule.diffusion(t.expand(1)), x.ndim).to(x.device)
            slope = drift(x, t, True)
            x = x + slope * step.item() + (step.abs().item() * g2).sqrt() * randn_like(x.float()).double()
            t = t_hat
        step = (s - t).item() * schedule.t_max
        slope = drift(x, t, False)
        x_next = x + slope * step
        if s > 0:
            x_next = x + (slope + drift(x_next, s, False)) / 2 * step
        x = x_next
    return x.to(x_T.dtype)
