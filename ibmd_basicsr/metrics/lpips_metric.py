"""calculate_lpips: learned perceptual distance (LPIPS v0.1, AlexNet), offline."""
from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY

from ibmd_basicsr.checkpoints.lpips_network import ALEXNET_FEATURES, build_lpips
from ibmd_basicsr.metrics.pairs import crop_pair

SMALLEST = 32
"""Smallest side for which AlexNet's features have a pixel left."""


@METRIC_REGISTRY.register()
def calculate_lpips(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, weights: str | None = None,
                    device: str | None = None, **kwargs: Any) -> float:
    """Return LPIPS between two images: 0 for equal ones, lower is better, rarely above 1.

    Source: Zhang et al., arXiv 1801.03924; network and heads of the ``lpips`` package, version 0.1, on torchvision's AlexNet features,
    which ship with this package in half precision (values differ from float32 weights by about 5e-5). No judge of networks trained
    with a loss on the same features (:class:`~ibmd_basicsr.losses.lpips_loss.LPIPSLoss` with ``net: alex``).

    Args:
        img, img2: (H, W, 3), BGR, uint8 or float in [0, 255], of one size.
        crop_border: pixels left out on each side.
        weights: another file of AlexNet features, with the keys of torchvision's ``features``.
        device: where to run; default the GPU if there is one.
        kwargs: further keys of the host's metric block, not used.

    Raises:
        ValueError: the sizes differ or are below 32 pixels.
        CheckpointError: the weight file is missing or damaged.
    """
    img, img2 = crop_pair('calculate_lpips', img, img2, crop_border, SMALLEST)
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    model = _load(str(weights or ALEXNET_FEATURES), device)
    pair = (torch.from_numpy(np.ascontiguousarray(x[:, :, ::-1], dtype=np.float32)).permute(2, 0, 1)[None].to(device) / 127.5 - 1
            for x in (img, img2))
    with torch.no_grad():
        return model(*pair).item()


@lru_cache(maxsize=2)
def _load(weights: str, device: str) -> torch.nn.Module:
    return build_lpips('alex', weights).to(device)
