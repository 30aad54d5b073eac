"""The border between the host's images (``lq``, ``gt``: RGB in [0, 1]) and the bridge's (x_T, x_0: [-1, 1], one size).

The only lines of networks, models and restorers where ranges and sizes change.
"""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def lq_to_x_T(lq: Tensor, scale: int = 1) -> Tensor:
    """Turn a corrupted image (B, C, h, w) in [0, 1] into x_T (B, C, scale h, scale w) in [-1, 1].

    Super-resolution inputs are enlarged by nearest neighbour, as I2SB's operators do.
    """
    x_T = gt_to_x_0(lq)
    if scale == 1:
        return x_T
    # the copies that F.interpolate makes, in less time on a CPU
    height, width = lq.shape[-2:]
    return x_T[..., None, :, None].expand(*lq.shape[:2], height, scale, width, scale).reshape(*lq.shape[:2], height * scale, width * scale)


def gt_to_x_0(gt: Tensor) -> Tensor:
    """Turn a clean image in [0, 1] into x_0 in [-1, 1]."""
    return gt * 2 - 1


def x_0_to_gt(x_0: Tensor) -> Tensor:
    """Turn x_0 in [-1, 1] into an image in [0, 1], not clamped: losses need the gradient of what lies outside, too."""
    return (x_0 + 1) / 2


def x_0_to_image(x_0: Tensor) -> Tensor:
    """Turn x_0 in [-1, 1] into an image in [0, 1], clamped."""
    return x_0_to_gt(x_0).clamp(0, 1)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the bottom and the right by edge repetition up to multiples of ``multiple``.

    Edge repetition (not reflection) because it works for every size, 1x1 included.
    """
    pad_h, pad_w = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    return F.pad(x, (0, pad_w, 0, pad_h), mode='replicate') if pad_h or pad_w else x
