"""RealPairs: clean images in the distillation, as RealUID adds them to matching models."""
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ibmd_basicsr.utils.numbers import is_number


@dataclass(frozen=True, kw_only=True)
class RealPairs:
    """The block ``train.real_pairs``: the bridge network learns from real pairs, too (RealUID, arXiv 2509.22459, appendix C, on bridges).

    With y = (x_t - x_0) / sigma_t, the bridge network f minimises ``alpha |f - ratio y_student|^2 + (1 - alpha) |f - c y_real|^2``,
    c = (1 - alpha ratio) / (1 - alpha), and the student ``alpha (|r - ratio y_student|^2 - |f - ratio y_student|^2)``. Where the student's
    law is the real one, f is the teacher and the gradient vanishes, as without real pairs. Not in the IBMD paper; needs ``gt`` in the
    training set.

    Attributes:
        alpha: weight of the student's pairs, in (0, 1); RealUID used 0.85 to 0.98.
        ratio: beta / alpha; RealUID used 0.98 and 1.02. With 1 real pairs enter the bridge network's regression alone.

    Raises:
        ValueError: a value out of range.
    """

    alpha: float
    ratio: float = 1.0

    def __post_init__(self):
        for name in ('alpha', 'ratio'):
            value = getattr(self, name)
            if not is_number(value) or not value > 0:
                raise ValueError(f'{name} must be a positive number, got {value!r}.')
        if self.alpha >= 1:
            raise ValueError(f'alpha must lie below 1, got {self.alpha!r}.')

    @property
    def real_ratio(self) -> float:
        """The factor c of the real targets."""
        return (1 - self.alpha * self.ratio) / (1 - self.alpha)


def scale_target(x_0: Tensor, x_t: Tensor, factor: float) -> Tensor:
    """Return the clean image whose y = (x_t - x_0) / sigma_t is ``factor`` times that of ``x_0``; all (B, C, H, W)."""
    return x_t + factor * (x_0 - x_t) if factor != 1 else x_0
