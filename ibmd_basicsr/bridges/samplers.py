"""Samplers: free functions with one signature. ``denoise`` is any callable ``(x_t, t, x_T) -> x0_hat``; randomness is passed in.

The state is float64 and is cast at the network's border only. Noise is drawn in float32 by ``randn_like`` in the order of the published
programs: one draw a step, after the network call, none at the last step.

All take a mask of an inpainting task, 1 in the hole and 0 where the pixel of x_T is known. Here are the walks by posteriors;
:mod:`~ibmd_basicsr.bridges.dbim` and :mod:`~ibmd_basicsr.bridges.heun` hold those of conditional bridges.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ibmd_basicsr.bridges.schedules import BridgeSchedule, draw_posterior

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]
RandnLike = Callable[[Tensor], Tensor]
OnStep = Callable[[Tensor, Tensor], None]


def estimate(denoise: Denoise, x: Tensor, t: Tensor, x_T: Tensor, *, clip_denoised: bool, mask: Tensor | None = None) -> Tensor:
    """Return x0_hat (float64) of the whole batch at one time t (scalar), clamped to [-1, 1] if asked, known pixels replaced by x_T's.

    The replacement is DBIM's for inpainting; pass no mask to leave the estimate as it is.
    """
    x0_hat = denoise(x, t.to(x.device).expand(len(x)), x_T).double()
    if clip_denoised:
        x0_hat = x0_hat.clamp(-1, 1)
    return x0_hat if mask is None else keep_known(x0_hat, x_T.double(), mask)


def keep_known(x: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """Return ``x`` in the hole (mask 1) and ``known`` elsewhere, bit for bit; mask (B, 1, H, W)."""
    return torch.where(mask.bool(), x, known)


def ancestral_sample(denoise: Denoise, schedule: BridgeSchedule, x_T: Tensor, grid: Tensor, *, randn_like: RandnLike,
                     clip_denoised: bool = False, mask: Tensor | None = None, on_step: OnStep | None = None) -> Tensor:
    """Walk the bridge from t = 1 to t = 0 by the posterior q(x_s | x_t, x0_hat) (I2SB algorithm 2).

    On a schedule with ``ot_ode`` the posterior has no noise and this is I2SB's OT-ODE sampler. As in the published program the last
    state is the posterior mean at step 0, which still holds a little of x_t (I2SB's schedule does not end at the clean image), and with
    a mask the known pixels of every state are those of a bridge from x_T to itself at that time: (a_t + b_t) x_T, on I2SB x_T, with noise
    of c_t, at the last step of std 0.01.

    Args:
        denoise: estimate of x_0 from (x_t, t, x_T).
        schedule: gives ``posterior(s, t)``.
        x_T: (B, C, H, W) corrupted images in [-1, 1].
        grid: (calls + 1,) float64 times from 1 down to 0; one network call between each two.
        randn_like: standard normal of the shape of its float32 argument.
        clip_denoised: clamp each x0_hat to [-1, 1].
        mask: (B, 1, H, W), 1 in the hole; None for tasks without one.
        on_step: called with (x0_hat, new state) after each step.

    Returns:
        (B, C, H, W) in the dtype of ``x_T``, not clamped.
    """
    x, times = x_T.double(), grid.to(x_T.device)
    posteriors = schedule.posterior(times[1:], times[:-1], x.ndim)  # (calls, 1, 1, 1)
    k = schedule.coefficients(times[1:], x.ndim)
    like = torch.empty_like(x, dtype=torch.float32)
    for step, t_now in enumerate(times[:-1]):
        x0_hat = estimate(denoise, x, t_now, x_T, clip_denoised=clip_denoised)
        # draw_posterior, in place where the field is this loop's own: large images cost memory traffic
        x = (posteriors.on_x_0[step] * x0_hat).add_(posteriors.on_x_t[step] * x)
        if grid[step + 1] > 0 and not schedule.ot_ode:
            x.add_(posteriors.std[step] * randn_like(like))
        if mask is not None:
            # a pixel whose x_0 is that of x_T
            known = (k.a_t[step] + k.b_t[step]) * x_T.double()
            if not schedule.ot_ode:
                known.add_(k.c_t[step] * randn_like(like))
            x = keep_known(x, known, mask)
        if on_step is not None:
            on_step(x0_hat, x)
    return x.to(x_T.dtype)


def ode_sample(denoise: Denoise, schedule: BridgeSchedule, x_T: Tensor, grid: Tensor, *, randn_like: RandnLike | None = None,
               clip_denoised: bool = False, mask: Tensor | None = None, on_step: OnStep | None = None) -> Tensor:
    """Walk the bridge along its optimal-transport ODE: the posterior means without noise (I2SB section 3.3).

    Same arguments as :func:`ancestral_sample`; ``randn_like`` is not used. On a teacher that was trained with noise the result is
    blurred; teachers trained with ``ot_ode`` need it.
    """
    def no_noise(x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    return ancestral_sample(denoise, schedule, x_T, grid, randn_like=no_noise, clip_denoised=clip_denoised, mask=mask, on_step=on_step)


def few_step_sample(denoise: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor], schedule: BridgeSchedule, x_T: Tensor,
                    grid: Tensor, *, randn_like: RandnLike, noise_channels: int = 0, clip_denoised: bool = False,
                    mask: Tensor | None = None, on_step: OnStep | None = None) -> Tensor:
    """Restore with a student in ``len(grid) - 1`` calls (IBMD section 3.5).

    ``x_0 = G(x_t, z, t)``, then back onto the bridge by the posterior at the next time. The last estimate is returned as it is, so one
    step is one call of ``G(x_T, z)``; with a mask its known pixels are x_T's. ``z`` has ``noise_channels`` channels and is drawn before
    each call.
    """
    def generate(x: Tensor, t: Tensor) -> Tensor:
        z = randn_like(x_T.new_empty(len(x), noise_channels, *x.shape[2:])) if noise_channels else None

        def student(x_t: Tensor, t: Tensor, x_T: Tensor) -> Tensor:
            return denoise(x_t.to(x_T.dtype), t, x_T, z)

        return estimate(student, x, t, x_T, clip_denoised=clip_denoised, mask=mask)

    _, x_0 = student_walk(generate, schedule, x_T, grid, len(grid) - 1, randn_like=randn_like, on_step=on_step)
    return x_0.to(x_T.dtype)


def student_walk(generate: Callable[[Tensor, Tensor], Tensor], schedule: BridgeSchedule, x_T: Tensor, grid: Tensor, calls: int, *,
                 randn_like: RandnLike, on_step: OnStep | None = None) -> tuple[Tensor, Tensor | None]:
    """Make the first ``calls`` calls of a student, from x_T, and between each two go back onto the bridge (:func:`rebridge`).

    Training and inference both walk here, so that a student is trained on what it will meet.

    Args:
        generate: ``(x_t, t) -> x_0`` of a batch, x_t float64 (B, C, H, W), at one time t (scalar).
        schedule: gives ``posterior(s, t)``.
        x_T: (B, C, H, W) corrupted images in [-1, 1].
        grid: (steps + 1,) times from 1 down, those of the calls and the end.
        calls: 0 to steps.
        randn_like: standard normal of the shape of its float32 argument.
        on_step: called with (x_0, state) after each call; the state is on the bridge at the time of the next call, if there is one.

    Returns:
        The input of the last call (x_T without calls), float64, and its x_0 (None without calls).
    """
    x, x_0 = x_T.double(), None
    for n in range(calls):
        x_0 = generate(x, grid[n])
        if n + 1 < calls:
            x = rebridge(schedule, x, x_0, grid[n], grid[n + 1], randn_like)
        if on_step is not None:
            on_step(x_0, x)
    return x, x_0


def rebridge(schedule: BridgeSchedule, x: Tensor, x_0: Tensor, t_now: Tensor, t_next: Tensor, randn_like: RandnLike) -> Tensor:
    """Draw x_s ~ q(x_s | x_t, x_0), float64, for the scalar times t = ``t_now`` and s = ``t_next`` of a whole batch."""
    posterior = schedule.posterior(t_next.to(x.device).expand(len(x)), t_now.to(x.device).expand(len(x)), x.ndim)
    return draw_posterior(posterior, x_0, x, None if schedule.ot_ode else randn_like(x.float()))
