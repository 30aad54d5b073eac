"""Shapes and ranges that the degradations share."""
from __future__ import annotations

import numpy as np
from torch import Tensor


def with_batch(x: Tensor) -> Tensor:
    """Return an image (C, H, W) or a batch (B, C, H, W) as a batch.

    Raises:
        ValueError: another shape.
    """
    if x.ndim not in (3, 4):
        raise ValueError(f'Expected an image (C, H, W) or a batch (B, C, H, W), got shape {tuple(x.shape)}.')
    return x if x.ndim == 4 else x[None]


def quantize_uint8(x: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to the 256 levels of an 8-bit file."""
    return (x.clamp(0, 1) * 255).round() / 255


def to_uint8(image: Tensor) -> np.ndarray:
    """Return an image (3, H, W), clamped to [0, 1] and rounded, as (H, W, 3), uint8; the order of the channels stays."""
    return (quantize_uint8(image) * 255).round().byte().permute(1, 2, 0).numpy(force=True)
