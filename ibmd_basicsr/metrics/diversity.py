"""How much the restorations of one image differ: mean pairwise LPIPS over draws of the noise."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from ibmd_basicsr.metrics.lpips_metric import calculate_lpips


def mean_pairwise_lpips(images: Sequence[np.ndarray], crop_border: int = 0, weights: str | None = None,
                        device: str | None = None) -> float:
    """Return the mean LPIPS over the K (K - 1) / 2 pairs of K images: 0 for equal ones, higher is more diverse.

    Args:
        images: K >= 2 images (H, W, 3), BGR, uint8 or float in [0, 255], of one size.
        crop_border, weights, device: see :func:`~ibmd_basicsr.metrics.lpips_metric.calculate_lpips`.

    Raises:
        ValueError: fewer than two images, or their sizes differ or are below 32 pixels.
        CheckpointError: the weight file is missing or damaged.
    """
    if len(images) < 2:
        raise ValueError(f'diversity needs at least 2 images, got {len(images)}.')
    return fmean(calculate_lpips(a, b, crop_border, weights, device) for a, b in combinations(images, 2))


@dataclass(frozen=True)
class Diversity:
    """The metric of that name in option files: restores each image ``samples`` times, so validation takes that much longer.

    Attributes:
        samples: K, restorations of each image with noise of their own; the first is the one that other metrics judge.
        crop_border, weights, device: see :func:`mean_pairwise_lpips`.

    Raises:
        ValueError: fewer than two samples.
    """

    samples: int = 4
    crop_border: int = 0
    weights: str | None = None
    device: str | None = None

    def __post_init__(self):
        if not isinstance(self.samples, int) or isinstance(self.samples, bool) or self.samples < 2:
            raise ValueError(f'samples must be an integer of at least 2, got {self.samples!r}.')

    def __call__(self, images: Sequence[np.ndarray]) -> float:
        """Return :func:`mean_pairwise_lpips` of the restorations of one image."""
        return mean_pairwise_lpips(images, self.crop_border, self.weights, self.device)
