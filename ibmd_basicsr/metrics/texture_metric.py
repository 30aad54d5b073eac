"""calculate_texture_distance: do the restored patches follow the statistics of the true ones, wherever they lie?"""
from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from basicsr.utils.registry import METRIC_REGISTRY
from torch import Tensor

from ibmd_basicsr.metrics.pairs import crop_pair

SMALLEST = 32
"""Least side, in pixels: what two levels of patches need."""
PATCH = 7
LEVELS = 2
PROJECTIONS = 128
MOST_PATCHES = 16384
"""Patches of a level beyond this number are thinned out at random, at the same places in both images."""


@METRIC_REGISTRY.register()
def calculate_texture_distance(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, **kwargs: Any) -> float:
    """Return the sliced Wasserstein distance of Laplacian-pyramid patches, x 1000: 0 for equal images, lower is better.

    As in Karras et al. (arXiv 1710.10196, section 5) - 7x7 patches (up to 16384 a level), random projections, sorted differences - but
    between the patches of one image and of its own reference, and normalised by the mean and standard deviation of the *reference*'s
    level per colour: a normalisation of each set by itself would hide the loss of contrast that blur is. Mean over the two finest
    levels. Projections and patches are drawn with a fixed seed, so the value is deterministic. Unlike PSNR it forgives texture that is
    right but elsewhere.

    Args:
        img: (H, W, 3), restored, BGR, uint8 or float in [0, 255].
        img2: the reference, of the same size.
        crop_border: pixels left out on each side.
        kwargs: further keys of the host's metric block, not used.

    Raises:
        ValueError: the sizes differ or are below 32 pixels.
    """
    pair = crop_pair('calculate_texture_distance', img, img2, crop_border, SMALLEST)
    restored, reference = (np.ascontiguousarray(x, dtype=np.float32) for x in pair)
    generator = torch.Generator().manual_seed(0)
    distances = []
    for ours, theirs in zip(laplacian_pyramid(restored), laplacian_pyramid(reference), strict=True):
        directions = torch.randn(PROJECTIONS, 3 * PATCH**2, generator=generator, dtype=torch.float64)
        directions = (directions / directions.norm(dim=1, keepdim=True)).float()
        count = (theirs.shape[1] - PATCH + 1) * (theirs.shape[2] - PATCH + 1)
        chosen = torch.randperm(count, generator=generator)[:MOST_PATCHES]
        std, mean = torch.std_mean(theirs, dim=(1, 2), keepdim=True, unbiased=False)
        a, b = (_project((level - mean) / (std + 1e-3), directions, chosen) for level in (ours, theirs))
        distances.append((a - b).abs().mean().item())
    return 1000 * sum(distances) / len(distances)


def laplacian_pyramid(image: np.ndarray) -> list[Tensor]:
    """Return the ``LEVELS`` finest bands of an image (H, W, 3) as tensors (3, H / 2^i, W / 2^i)."""
    bands = []
    for _ in range(LEVELS):
        smaller = cv2.pyrDown(image)
        band = image - cv2.pyrUp(smaller, dstsize=image.shape[1::-1])
        bands.append(torch.from_numpy(band).permute(2, 0, 1))
        image = smaller
    return bands


def _project(band: Tensor, directions: Tensor, chosen: Tensor) -> Tensor:
    """Project the chosen patches of a band (3, H, W) onto the directions (P, 147) and sort each projection: (P, patches)."""
    patches = F.unfold(band[None], PATCH)[0][:, chosen]
    return (directions @ patches).sort(dim=1).values
