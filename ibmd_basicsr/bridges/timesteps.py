"""Training laws of t and sampling grids. Times are float64 in [0, 1]; t = 1 is the corrupted image."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def uniform_steps(u: Tensor, *, n_timestep: int, first: int = 0, last: int | None = None) -> Tensor:
    """Map uniform draws to the discrete uniform law of I2SB.

    Args:
        u: (B,) uniform on [0, 1).
        n_timestep: N of the schedule.
        first, last: smallest and largest step that can occur; ``last`` defaults to N - 1. The published distillation code
            uses 0..N-2.

    Returns:
        (B,) float64 times n/(N - 1), n uniform on first..last.
    """
    last = n_timestep - 1 if last is None else last
    if not 0 <= first <= last < n_timestep:
        raise ValueError(f'Steps must satisfy 0 <= first <= last < {n_timestep}, got first={first}, last={last}.')
    n = (first + (u.double() * (last - first + 1)).floor()).clamp(max=last)
    return n / (n_timestep - 1)


def spaced_steps(n_timestep: int, count: int) -> list[int]:
    """Return ``count`` steps from 0 to N-1, as evenly spaced as I2SB spaces them: a running float sum, rounded half to even.

    ``spaced_steps(1000, 5)`` is [0, 250, 500, 749, 999].
    """
    if not 2 <= count <= n_timestep:
        raise ValueError(f'The number of grid points must lie in 2..{n_timestep}, got {count}.')
    stride = (n_timestep - 1) / (count - 1)
    position, steps = 0.0, []
    for _ in range(count):
        steps.append(round(position))
        position += stride
    return steps


def sampling_grid(n_timestep: int, calls: int) -> Tensor:
    """Return the I2SB sampling grid for a number of network calls: (calls + 1,) float64 times from 1 down to 0.

    Raises:
        ValueError: ``calls`` outside 1..N-1.
    """
    if not 1 <= calls <= n_timestep - 1:
        raise ValueError(f'sampler.steps must lie in 1..{n_timestep - 1} for this bridge, got {calls}.')
    steps = spaced_steps(n_timestep, calls + 1)
    return torch.tensor(steps[::-1], dtype=torch.float64) / (n_timestep - 1)


TIME_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    'uniform': torch.ones_like,
    'inverse_variance': lambda sigma: sigma**-2,
}
"""Loss weights lambda(t) in x_0 space, as functions of sigma_t. ``inverse_variance`` makes the loss the plain MSE of I2SB's raw
network output; ``uniform`` is what the published distillation of I2SB uses."""
