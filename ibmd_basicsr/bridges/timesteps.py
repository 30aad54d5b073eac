"""Training laws of t and sampling grids. Times are float64 in [0, 1]; t = 1 is the corrupted image."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def uniform_steps(u: Tensor, *, n_timestep: int, first: int = 0, last: int | Tensor | None = None) -> Tensor:
    """Map uniform draws to the discrete uniform law of I2SB.

    Args:
        u: (B,) uniform on [0, 1).
        n_timestep: N of the schedule.
        first, last: smallest and largest step that can occur; ``last`` may be (B,), one for each draw, and defaults to N - 1.
            The published distillation code uses 0..N-2.

    Returns:
        (B,) float64 times n/(N - 1), n uniform on first..last.
    """
    limit = n_timestep - 1 if last is None else last
    if at_hand(limit) and not (0 <= first and torch.as_tensor((first <= limit) & (limit < n_timestep)).all()):
        limit = torch.as_tensor(limit).tolist()
        raise ValueError(f'Steps must satisfy 0 <= first <= last < {n_timestep}, got first={first}, last={limit}.')
    n = (first + (u.double() * (limit - first + 1)).floor()).clamp(max=limit)
    return n / (n_timestep - 1)


def at_hand(value: Tensor | float) -> bool:
    """Tell whether a value can be looked at without waiting for a GPU. Times that are not at hand are not checked."""
    return not isinstance(value, Tensor) or value.device.type == 'cpu'


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


def karras_times(steps: int, *, first: float, last: float, rho: float = 7.0) -> Tensor:
    """Return ``steps`` times from ``first`` down to ``last``, evenly spaced in their rho-th root (Karras et al. 2022, eq. 5), float64."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    return (first**(1 / rho) + ramp * (last**(1 / rho) - first**(1 / rho)))**rho


def subset_of_grid(grid: Tensor, calls: int) -> Tensor:
    """Return ``calls + 1`` points of ``grid``, as evenly spaced as they lie, with both ends: a student of N steps run with fewer.

    Raises:
        ValueError: ``calls`` outside 1..N.
    """
    trained = len(grid) - 1
    if not 1 <= calls <= trained:
        raise ValueError(f'sampler.steps must lie in 1..{trained}, the steps that the student was trained with, got {calls}.')
    return grid[torch.linspace(0, trained, calls + 1, dtype=torch.float64).round().long()]


TIME_WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'uniform': lambda t, c_out: torch.ones_like(c_out),
    'inverse_variance': lambda t, c_out: c_out**-2,
    'clean_end': lambda t, c_out: 10**(2 * (1 - t)),
    'clean_end_inverse_variance': lambda t, c_out: 10**(1 - t) * c_out**-2,
}
"""Loss weights lambda in x_0 space, as functions of t and of the preconditioner's c_out, both broadcastable against the batch.

* ``inverse_variance``, 1/c_out^2, makes the loss the plain MSE of the raw network output. On I2SB c_out = -sigma_t; on DDBM this is the
  weight of its published training.
* ``uniform``, ``clean_end`` and ``clean_end_inverse_variance`` are the weights of the student in the authors' released IBMD code: for
  I2SB's SR and JPEG, for I2SB's inpainting, and for the DDBM tasks (docs/released_code.md).
"""
