"""calculate_dists: deep image structure and texture similarity (DISTS), offline."""
from __future__ import annotations

import importlib.util
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from basicsr.utils.registry import METRIC_REGISTRY
from torch import Tensor, nn

from ibmd_basicsr.checkpoints.state_dict import load_file, load_strictly
from ibmd_basicsr.metrics.backbones import ImageNetNorm, find_torchvision, load_features, to_rgb_batch
from ibmd_basicsr.metrics.pairs import crop_pair
from ibmd_basicsr.utils.errors import CheckpointError

SMALLEST = 32
"""Smallest side for which the deepest stage has two positions a side, so that its variance says something."""


@METRIC_REGISTRY.register()
def calculate_dists(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, vgg_weights: str | None = None,
                    dists_weights: str | None = None, device: str | None = None, **kwargs: Any) -> float:
    """Return DISTS between two images: 0 for equal ones, lower is better, rarely above 0.6; the order of the images does not matter.

    Source: Ding et al., arXiv 2004.07728; the network is that of the authors' ``DISTS_pytorch`` package, whose constructor would
    download VGG16. Images keep their size; values of images first shrunk to a smaller side of 256, which the package offers, differ.

    Args:
        img, img2: (H, W, 3), BGR, uint8 or float in [0, 255], of one size.
        crop_border: pixels left out on each side.
        vgg_weights: file of torchvision's VGG16, whole or ``features.*`` alone, any floating type; default the one in torch's cache.
        dists_weights: file with ``alpha`` and ``beta``; default the one inside the ``dists-pytorch`` or ``torchmetrics`` package.
        device: where to run; default the GPU if there is one.
        kwargs: further keys of the host's metric block, not used.

    Raises:
        ValueError: the sizes differ or are below 32 pixels.
        CheckpointError: a weight file is missing or damaged.
    """
    img, img2 = crop_pair('calculate_dists', img, img2, crop_border, SMALLEST)
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    model = _load(*map(str, find_weights(vgg_weights, dists_weights)), device)
    with torch.no_grad():
        return model(to_rgb_batch(img, device), to_rgb_batch(img2, device)).item()


class L2Pool(nn.Module):
    """Halve the sides by a Hann-weighted root mean square over 3x3 pixels, which aliases less than a maximum."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        window = torch.tensor([0.5, 1, 0.5])  # Hann window of five points without its zeros
        window = window[:, None] * window / window.sum()**2
        self.register_buffer('window', window.repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        power = F.conv2d(x**2, self.window, stride=2, padding=1, groups=self.channels)
        return (power + 1e-12).sqrt()


class DISTS(nn.Module):
    """Weighted similarity of means (texture) and covariances (structure) of the image and of five stages of VGG16.

    ``weights`` holds alpha (texture) and beta (structure), (1, 1475, 1, 1) each: 3 colours and the channels of the stages. They are
    empty until they are loaded.

    Args:
        features: VGG16's, with torchvision's layer numbers.
    """

    STAGES = (slice(0, 4), slice(4, 9), slice(9, 16), slice(16, 23), slice(23, 30))
    """To relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3; all but the first begin with a pooling."""
    CHANNELS = (3, 64, 128, 256, 512, 512)
    C1 = C2 = 1e-6

    def __init__(self, features: nn.Sequential):
        super().__init__()
        self.normalise = ImageNetNorm()
        pools = {stage.start: L2Pool(channels) for stage, channels in zip(self.STAGES[1:], self.CHANNELS[1:])}
        self.stages = nn.ModuleList(nn.Sequential(*(pools.get(i, features[i]) for i in range(stage.start, stage.stop)))
                                    for stage in self.STAGES)
        self.weights = nn.ParameterDict({name: torch.empty(1, sum(self.CHANNELS), 1, 1) for name in ('alpha', 'beta')})

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return (B,) distances of images (B, 3, H, W), RGB in [0, 1]."""
        # per-channel values in float64: 1475 of them are summed up, and equal images then give 0 to 1e-15
        alpha, beta = self.weights['alpha'].double(), self.weights['beta'].double()
        total = alpha.sum() + beta.sum()
        similarity = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        parts = zip(self._features(x), self._features(y), alpha.split(self.CHANNELS, 1), beta.split(self.CHANNELS, 1), strict=True)
        for a, b, texture_weight, structure_weight in parts:
            mean_a, mean_b = a.mean((2, 3), keepdim=True), b.mean((2, 3), keepdim=True)
            a, b = a - mean_a, b - mean_b
            var_a, var_b, covariance = (value.mean((2, 3), keepdim=True) for value in (a * a, b * b, a * b))
            texture = (2 * mean_a * mean_b + self.C1) / (mean_a**2 + mean_b**2 + self.C1)
            structure = (2 * covariance + self.C2) / (var_a + var_b + self.C2)
            similarity += (texture_weight * texture + structure_weight * structure).sum((1, 2, 3)) / total
        return 1 - similarity

    def _features(self, x: Tensor) -> list[Tensor]:
        found, h = [x], self.normalise(x)
        for stage in self.stages:
            h = stage(h)
            found.append(h)
        return found


def find_weights(vgg_weights: str | os.PathLike | None = None, dists_weights: str | os.PathLike | None = None) -> tuple[Path, Path]:
    """Return the files of VGG16 and of alpha and beta; arguments as of :func:`calculate_dists`.

    Raises:
        CheckpointError: one is missing.
    """
    return find_torchvision('vgg16', vgg_weights, 'vgg_weights'), _find_dists(dists_weights)


def _find_dists(path: str | os.PathLike | None) -> Path:
    """Return the file of alpha and beta: ``path`` if given, else the one of an installed package, found without importing it."""
    if path:
        if not Path(path).is_file():
            raise CheckpointError(f'{path}: no such weight file.')
        return Path(path)
    for package, inside in (('DISTS_pytorch', 'weights.pt'), ('torchmetrics', 'functional/image/dists_models/weights.pt')):
        spec = importlib.util.find_spec(package)
        if spec is not None and (found := Path(spec.origin).parent / inside).is_file():
            return found
    raise CheckpointError('calculate_dists: the weights of DISTS (weights.pt, with alpha and beta) are needed, and neither package that '
                          'holds them is installed: `pip install dists-pytorch` or torchmetrics, or give their path as dists_weights.')


@lru_cache(maxsize=2)
def _load(vgg_weights: str, dists_weights: str, device: str) -> DISTS:
    """Build DISTS from its two weight files."""
    model = DISTS(load_features('vgg16', vgg_weights))
    load_strictly(model.weights, load_file(dists_weights), dists_weights)
    return model.eval().requires_grad_(False).to(device)
