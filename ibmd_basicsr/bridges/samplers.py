"""Samplers: free functions with one signature. ``denoise`` is any callable ``(x_t, t, x_T) -> x0_hat``; randomness is passed in.

The state is float64 and is cast at the network's border only. Noise is drawn in float32 by ``randn_like`` in the order of the published
programs: one draw a step, after the network call, none at the last step.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ibmd_basicsr.bridges.schedules import I2SBSchedule

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]
RandnLike = Callable[[Tensor], Tensor]
OnStep = Callable[[Tensor, Tensor], None]


def ancestral_sample(denoise: Denoise, schedule: I2SBSchedule, x_T: Tensor, grid: Tensor, *, randn_like: RandnLike,
                     clip_denoised: bool = False, on_step: OnStep | None = None) -> Tensor:
    """Walk the bridge from t = 1 to t = 0 by the posterior q(x_s | x_t, x0_hat) (I2SB algorithm 2).

    On a schedule with ``ot_ode`` the posterior has no noise and this is I2SB's OT-ODE sampler. As in the published program the last
    state is the posterior mean at step 0, which still holds a little of x_t (I2SB's schedule does not end at the clean image).

    Args:
        denoise: estimate of x_0 from (x_t, t, x_T).
        schedule: gives ``posterior(s, t)``.
        x_T: (B, C, H, W) corrupted images in [-1, 1].
        grid: (calls + 1,) float64 times from 1 down to 0; one network call between each two.
        randn_like: standard normal of the shape of its float32 argument.
        clip_denoised: clamp each x0_hat to [-1, 1].
        on_step: called with (x0_hat, new state) after each step.

    Returns:
        (B, C, H, W) in the dtype of ``x_T``, not clamped.
    """
    x = x_T.double()
    for t_now, t_next in zip(grid[:-1], grid[1:], strict=True):
        t = t_now.to(x.device).expand(len(x))
        x0_hat = denoise(x, t, x_T)
        if clip_denoised:
            x0_hat = x0_hat.clamp(-1, 1)
        posterior = schedule.posterior(t_next.to(x.device).expand(len(x)), t, x.ndim)
        x = posterior.on_x_0 * x0_hat + posterior.on_x_t * x
        if t_next > 0 and not schedule.ot_ode:
            x = x + posterior.std * randn_like(x.float()).double()
        if on_step is not None:
            on_step(x0_hat, x)
    return x.to(x_T.dtype)


def ode_sample(denoise: Denoise, schedule: I2SBSchedule, x_T: Tensor, grid: Tensor, *, randn_like: RandnLike | None = None,
               clip_denoised: bool = False, on_step: OnStep | None = None) -> Tensor:
    """Walk the bridge along its optimal-transport ODE: the posterior means without noise (I2SB section 3.3).

    Same arguments as :func:`ancestral_sample`; ``randn_like`` is not used. On a teacher that was trained with noise the result is
    blurred; teachers trained with ``ot_ode`` need it.
    """
    def no_noise(x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    return ancestral_sample(denoise, schedule, x_T, grid, randn_like=no_noise, clip_denoised=clip_denoised, on_step=on_step)


def few_step_sample(denoise: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor], schedule: I2SBSchedule, x_T: Tensor,
                    grid: Tensor, *, randn_like: RandnLike, noise_channels: int = 0, clip_denoised: bool = False,
                    on_step: OnStep | None = None) -> Tensor:
    """Restore with a student in ``len(grid) - 1`` calls (IBMD section 3.5).

    ``x_0 = G(x_t, z, t)``, then back onto the bridge by the posterior at the next time. The last estimate is returned as it is, so one
    step is one call of ``G(x_T, z)``. ``z`` has ``noise_channels`` channels and is drawn before each call.
    """
    x = x_T.double()
    for i, t_now in enumerate(grid[:-1]):
        t = t_now.to(x.device).expand(len(x))
        z = randn_like(x_T.new_empty(len(x), noise_channels, *x.shape[2:])) if noise_channels else None
        x0_hat = denoise(x.to(x_T.dtype), t, x_T, z).double()
        if clip_denoised:
            x0_hat = x0_hat.clamp(-1, 1)
        if i + 2 < len(grid):
            posterior = schedule.posterior(grid[i + 1].to(x.device).expand(len(x)), t, x.ndim)
            noise = 0.0 if schedule.ot_ode else posterior.std * randn_like(x.float()).double()
            x = posterior.on_x_0 * x0_hat + posterior.on_x_t * x + noise
        if on_step is not None:
            on_step(x0_hat, x)
    return x0_hat.to(x_T.dtype)
