"""DBIM samplers of conditional bridges (arXiv 2405.15885): non-Markovian steps of orders 1 to 3 after one stochastic booting step."""
from __future__ import annotations

import torch
from torch import Tensor

from ibmd_basicsr.bridges.samplers import Denoise, OnStep, RandnLike, estimate
from ibmd_basicsr.bridges.schedules import BridgeSchedule, Coefficients, interpolate

BOOT_GAP = 1e-3
"""Native time between t = 1 and the first state of the walk, as published."""


def dbim_grid(schedule: BridgeSchedule, calls: int) -> Tensor:
    """Return the published grid for a number of network calls: (calls + 1,) float64 times, 1 and then evenly spaced down to t_min.

    The first call is at t = 1 on x_T; the walk begins just below it. With one call there is no walk.

    Raises:
        ValueError: ``calls`` is below 1, or not below the number of steps of a discrete schedule.
    """
    if calls < 1 or (schedule.max_calls is not None and calls > schedule.max_calls):
        limit = f'1..{schedule.max_calls}' if schedule.max_calls is not None else 'at least 1'
        raise ValueError(f'sampler.steps must be {limit} for this bridge, got {calls}.')
    start = 1 - BOOT_GAP / schedule.t_max
    walk = torch.linspace(start, schedule.t_min, calls, dtype=torch.float64) if calls > 1 else torch.tensor([schedule.t_min],
                                                                                                           dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), walk])


def check_dbim(eta: float = 0.0, order: int = 1) -> None:
    """Refuse what :func:`dbim_sample` does not offer.

    Raises:
        ValueError: an eta or an order that is not offered.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f'sampler.eta must lie in [0, 1], got {eta}.')
    if order not in (1, 2, 3):
        raise ValueError(f'sampler.order must be 1, 2 or 3, got {order!r}.')
    if order > 1 and eta:
        raise ValueError(f'sampler.order {order} needs eta 0, got {eta}.')


def dbim_sample(denoise: Denoise, schedule: BridgeSchedule, x_T: Tensor, grid: Tensor, *, randn_like: RandnLike, eta: float = 0.0,
                order: int = 1, clip_denoised: bool = False, mask: Tensor | None = None, on_step: OnStep | None = None) -> Tensor:
    """Sample a conditional bridge in ``len(grid) - 1`` network calls.

    Booting: ``x = a x_T + b x0_hat(x_T, 1) + c eps`` at ``grid[1]``; without this noise the bridge cannot leave x_T. Then, order 1 (DBIM
    eq. 13) from time t to s: ``x_s = a_s x_T + b_s x0_hat + sqrt(c_s^2 - omega^2) eps_hat + omega eps`` with
    ``omega = eta std(x_s | x_t, x_0)``, where eps_hat is the noise that x_t holds. Orders 2 and 3 extrapolate x0_hat in
    ``lambda = ln(b/c)`` from earlier calls (DBIM section 4.3); their first and last steps are of order 1.

    Args:
        grid: from :func:`dbim_grid`.
        eta: 0 is deterministic after booting, 1 is the Markovian bridge; orders 2 and 3 know 0 alone.
        order: 1, 2 or 3.

    Other arguments as for :func:`~ibmd_basicsr.bridges.samplers.ancestral_sample`; with a mask the known pixels of every estimate are
    x_T's. The result is the state at t_min, with one call the estimate itself.

    Raises:
        ValueError: an eta or an order that is not offered.
    """
    check_dbim(eta, order)
    end = x_T.double()
    x, walk = end, grid[1:].to(x_T.device)
    x0_hat = estimate(denoise, x, grid[0], x_T, clip_denoised=clip_denoised, mask=mask)
    if len(walk) == 1:
        x = x0_hat
    else:
        x = interpolate(schedule.coefficients(walk[:1].expand(len(x)), x.ndim), x0_hat, end, randn_like(x.float()))
    if on_step is not None:
        on_step(x0_hat, x)

    history: list[tuple[Tensor, Tensor]] = []  # (lambda, x0_hat) of earlier calls, newest last
    for i in range(len(walk) - 1):
        t, s = (time.expand(len(x)) for time in (walk[i], walk[i + 1]))
        at_t, at_s = schedule.coefficients(t, x.ndim), schedule.coefficients(s, x.ndim)
        x0_hat = estimate(denoise, x, walk[i], x_T, clip_denoised=clip_denoised, mask=mask)
        last = i == len(walk) - 2
        if order == 1:
            omega = eta * schedule.posterior(s, t, x.ndim).std
            kept = (at_s.c_t.square() - omega.square()).clamp_min(0).sqrt() / at_t.c_t
            x = (at_s.b_t - kept * at_t.b_t) * x0_hat + (at_s.a_t - kept * at_t.a_t) * end + kept * x
            if eta and not last:
                x = x + omega * randn_like(x.float()).double()
        else:
            usable = 0 if last else min(order - 1, len(history))
            x = _exponential_step(x, end, x0_hat, at_t, at_s, history[len(history) - usable:])
            history = [*history, (_log_ratio(at_t), x0_hat)][-2:]
        if on_step is not None:
            on_step(x0_hat, x)
    return x.to(x_T.dtype)


def _log_ratio(c: Coefficients) -> Tensor:
    """Return lambda = ln(b/c)."""
    return (c.b_t / c.c_t).log()


def _exponential_step(x: Tensor, end: Tensor, x0_hat: Tensor, at_t: Coefficients, at_s: Coefficients,
                      history: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Integrate the ODE from t to s exactly but for x0_hat, a polynomial in lambda through the given earlier estimates (up to two)."""
    lambda_t, lambda_s = _log_ratio(at_t), _log_ratio(at_s)
    h = lambda_s - lambda_t
    decay = (-h).exp()
    integral = (1 - decay) * x0_hat
    if history:
        lambda_1, x_1 = history[-1]
        h_1 = lambda_t - lambda_1
        slope = (x0_hat - x_1) / h_1
        if len(history) > 1:
            lambda_2, x_2 = history[-2]
            h_2 = lambda_1 - lambda_2
            second = (slope - (x_1 - x_2) / h_2) / (h_1 + h_2)  # half of the second derivative
            slope = slope + h_1 * second
            integral = integral + (h.square() / 2 - h + 1 - decay) * 2 * second
        integral = integral + (decay + h - 1) * slope
    ratio = at_s.c_t / at_t.c_t
    return ratio * x + (at_s.a_t - at_t.a_t * ratio) * end + at_s.b_t * integral
