"""FiniteGuard: no loss or gradient that is not finite reaches the parameters, and a GPU need not be waited for to know."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ibmd_basicsr.utils.errors import NonFiniteError


@dataclass(frozen=True)
class _Verdict:
    """What a step was made with: ``values``, loss and gradient norm on the host, valid once ``arrived`` (None: at once)."""

    label: str
    iteration: int
    values: Tensor
    arrived: torch.cuda.Event | None


class FiniteGuard:
    """Makes the steps of optimisers, except those with a loss or gradient norm that is infinite or not a number.

    * Immediate: the host looks at both numbers, and raises before the step. On a GPU it waits for all that is queued, and then the GPU
      waits for the host.
    * Deferred: the numbers stay on the device, where a fused Adam or AdamW skips such a step by itself (the attribute ``found_inf``, by
      which torch's ``GradScaler`` tells it). The host looks at them just before the next step of any optimiser. Its forward and backward
      are queued by then, so the GPU has work; and no step is made after one that was skipped. Who logs or saves calls :meth:`check` first.

    Other optimisers are checked at once in either way: without ``fused`` they refuse ``found_inf``, and a fused SGD that skips its first
    step leaves its momentum undefined.

    The time of the check depends on nothing but the order of calls. Ranks that see the same gradient norm therefore stop together.
    And no step is queued before the last one is done: BasicSR's CUDA prefetcher, which gives the memory of a batch away two iterations
    later without asking whether it has been read, relies on that.

    Args:
        deferred: see above; of use on GPUs alone.
    """

    def __init__(self, deferred: bool):
        self.deferred = deferred
        self._verdict: _Verdict | None = None

    def step(self, optimizer: torch.optim.Optimizer, label: str, iteration: int, loss: Tensor, grad_norm: Tensor) -> None:
        """Make a step unless ``loss`` or ``grad_norm``, scalars, is not finite.

        Args:
            optimizer: its gradients have been computed.
            label: what messages call the loss.
            iteration: of the host.
            loss, grad_norm: on the device of the parameters.

        Raises:
            NonFiniteError: one of them, or (deferred) of the step before, is not finite. The parameters are left as they were.
        """
        self.check()
        values = torch.stack([loss, grad_norm])
        if not (self.deferred and skips_by_itself(optimizer)):
            self._verdict = _Verdict(label, iteration, values, None)
            self.check()
            optimizer.step()
            return
        optimizer.grad_scale, optimizer.found_inf = None, (~values.isfinite().all()).float()
        try:
            optimizer.step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf
        arrived = None
        if values.is_cuda:
            values, arrived = values.to('cpu', non_blocking=True), torch.cuda.Event()  # into pinned memory
            arrived.record()
        self._verdict = _Verdict(label, iteration, values, arrived)

    def check(self) -> None:
        """Look at the last step, which may still be on its way.

        Raises:
            NonFiniteError: it was not made. Every further call says so, too.
        """
        if self._verdict is None:
            return
        if self._verdict.arrived is not None:
            self._verdict.arrived.synchronize()
        loss, grad_norm = self._verdict.values.tolist()
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise NonFiniteError(
                f'{self._verdict.label} is {loss:.6g} with gradient norm {grad_norm:.6g} at iteration {self._verdict.iteration}: training '
                f'stopped before this step. Saved states are intact; lower train.optim_*.lr or set train.grad_clip, then --auto_resume.')
        self._verdict = None


def skips_by_itself(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether a step of ``optimizer`` heeds ``found_inf`` and leaves parameters and state as they were."""
    return isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)) and all(group.get('fused') for group in optimizer.param_groups)
