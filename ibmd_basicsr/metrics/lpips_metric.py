"""calculate_lpips: learned perceptual distance (LPIPS v0.1, AlexNet), offline."""
from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY

from ibmd_basicsr.checkpoints.state_dict import load_file, load_strictly
from ibmd_basicsr.metrics.pairs import crop_pair

ALEXNET_FEATURES = Path(__file__).parent / 'weights' / 'alexnet_features_fp16.pth'
SMALLEST = 32
"""Smallest side for which AlexNet's features have a pixel left."""


@METRIC_REGISTRY.register()
def calculate_lpips(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, weights: str | None = None,
                    device: str | None = None, **kwargs: Any) -> float:
    """Return LPIPS between two images: 0 for equal ones, lower is better, rarely above 1.

    Source: Zhang et al., arXiv 1801.03924; network and heads of the ``lpips`` package, version 0.1, on torchvision's AlexNet features,
    which ship with this package in half precision (values differ from float32 weights by about 5e-5).

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
    """Build LPIPS without a download: heads from the ``lpips`` package, features from ``weights``."""
    # lpips fills AlexNet with random numbers first: that must not move the random state of a training run
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torchvision's deprecated argument names, inside lpips
        import lpips
        model = lpips.LPIPS(net='alex', pnet_rand=True, verbose=False)
    features = {name.removeprefix('features.'): value.float() for name, value in load_file(weights).items()}
    for part in (model.net.slice1, model.net.slice2, model.net.slice3, model.net.slice4, model.net.slice5):
        # the slices keep torchvision's layer numbers as names
        load_strictly(part, {name: features[name] for name in part.state_dict() if name in features}, weights)
    return model.eval().requires_grad_(False).to(device)
