"""calculate_psnrb: PSNR that counts JPEG's block edges (PSNR-B)."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
from basicsr.metrics.metric_util import to_y_channel
from basicsr.utils.registry import METRIC_REGISTRY

from ibmd_basicsr.metrics.pairs import crop_pair


@METRIC_REGISTRY.register()
def calculate_psnrb(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, block: int = 8, test_y_channel: bool = False,
                    **kwargs: Any) -> float:
    """Return PSNR-B in dB: higher is better, at most PSNR, and equal to it where block edges are no steeper than the rest.

    10 log10(255^2 / (MSE + BEF)), with the blocking effect factor of ``img`` alone. Source: Yim and Bovik, *Quality assessment of
    deblocked images*, IEEE Transactions on Image Processing 20(1), 2011. The MSE is that of BasicSR's ``calculate_psnr`` with the same
    options, so that both may stand side by side; code that takes the mean of the three colours' dB gives other digits.

    Args:
        img: (H, W, 3), restored, BGR, uint8 or float in [0, 255]; its corner is a corner of JPEG's grid.
        img2: the reference, of the same size.
        crop_border: pixels left out on each side, a multiple of ``block``: the grid must stay where it is.
        block: side of a block.
        test_y_channel: on Y of YCbCr, as in BasicSR (16 to 235), instead of RGB.
        kwargs: further keys of the host's metric block, not used.

    Raises:
        ValueError: the sizes differ or are not above a block, or the border moves the grid.
    """
    if crop_border % block:
        raise ValueError(f'calculate_psnrb: crop_border must be a multiple of {block}, so that the block grid stays, got {crop_border}.')
    img, img2 = crop_pair('calculate_psnrb', img, img2, crop_border, block + 1)
    if test_y_channel:
        img, img2 = to_y_channel(img), to_y_channel(img2)
    img, img2 = img.astype(np.float64), img2.astype(np.float64)
    error = np.mean((img - img2)**2) + blocking_effect_factor(img, block)
    return float(10 * np.log10(255**2 / error)) if error else math.inf


def blocking_effect_factor(image: np.ndarray, block: int = 8) -> float:
    """Return how much steeper the block edges of an image (H, W, C), float, are than its other pixel edges: 0 or a squared difference.

    BEF = log2(B) / log2(min(H, W)) (D_B - D_BC), or 0 where D_B <= D_BC: the mean squared differences of neighbours across a block edge
    and of all others, here over all channels. Both are means over the pairs there are, as in FBCNN's and SwinIR's code; torchmetrics counts
    N_V (N_H / B) - 1 pairs across the edges of columns, one edge too many, and comes out up to 0.1 dB higher.
    """
    across, within = [], []
    for axis in (0, 1):
        difference = np.moveaxis(np.diff(image, axis=axis), axis, 0)**2
        edge = np.arange(1, len(difference) + 1) % block == 0
        across.append(difference[edge].ravel())
        within.append(difference[~edge].ravel())
    excess = np.concatenate(across).mean() - np.concatenate(within).mean()
    return max(0.0, float(excess)) * math.log2(block) / math.log2(min(image.shape[:2]))
