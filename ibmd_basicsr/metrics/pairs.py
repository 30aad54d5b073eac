"""What every metric of two images does first."""
from __future__ import annotations

import numpy as np


def crop_pair(metric: str, img: np.ndarray, img2: np.ndarray, crop_border: int, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both images (H, W, C) without ``crop_border`` pixels on each side.

    Args:
        metric: name for the messages.
        img, img2: images of one size.
        crop_border: pixels to leave out.
        smallest: least side, in pixels, that must remain.

    Raises:
        ValueError: the sizes differ, or a side is too short.
    """
    if img.shape != img2.shape:
        raise ValueError(f'{metric}: the images must have one size, got {img.shape} and {img2.shape}.')
    border = slice(crop_border, -crop_border or None)
    img, img2 = img[border, border], img2[border, border]
    if min(img.shape[:2]) < smallest:
        raise ValueError(f'{metric}: needs at least {smallest} pixels a side, got {img.shape[1]}x{img.shape[0]}.')
    return img, img2
