"""Networks that turn images into vectors of features, which distances between sets compare; all from local files."""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ibmd_basicsr.metrics.backbones import ImageNetNorm, find_torchvision, load_features, load_script, to_rgb_batch
from ibmd_basicsr.metrics.lpips_metric import ALEXNET_FEATURES
from ibmd_basicsr.utils.errors import CheckpointError

SMALLEST = 32
"""Smallest side for which every backbone's features have a pixel left."""
INCEPTION_FEATURES = 2048
NAMES = {'alexnet': 'AlexNet', 'vgg16': 'VGG16'}
PATCHES_AT_ONCE = 32
"""Patches that go through a feature network together, so that large images do not fill the memory."""


class FeatureExtractor:
    """A network that turns images into vectors, and the name that its distances carry.

    Args:
        network: (B, 3, H, W), RGB, float32 in [0, 1] to (B, D).
        name: such as ``AlexNet``: distances are called ``FD-AlexNet`` and ``KD-AlexNet``. None is for the Inception network of the
            published FID and KID alone, whose distances may be called so.
        device: where the network lies.
        patch: side of the square patches that images are cut into, each with features of its own; None: whole images.

    Raises:
        ValueError: ``patch`` is not an integer of at least :data:`SMALLEST`.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], name: str | None, device: str = 'cpu', patch: int | None = None):
        if patch is not None and (not isinstance(patch, int) or isinstance(patch, bool) or patch < SMALLEST):
            raise ValueError(f'patch must be an integer of at least {SMALLEST}, got {patch!r}.')
        self.network = network
        self.name = name
        self.device = device
        self.patch = patch

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return features (B, D), float64, of images (H, W, 3) or (B, H, W, 3), BGR, uint8 or float in [0, 255].

        With ``patch``, (B P, D): P patches side by side from the upper left of each image; what is left at the right and the bottom is
        left out.

        Raises:
            ValueError: another shape, an image smaller than a patch, or the network's features are not (B, D).
        """
        if images.ndim not in (3, 4) or images.shape[-1] != 3:
            raise ValueError(f'images must be (H, W, 3) or (B, H, W, 3), got {images.shape}.')
        batch = to_rgb_batch(images, self.device)
        if self.patch is not None:
            batch = cut_patches(batch, self.patch)
        with torch.no_grad():
            features = torch.cat([self.network(part) for part in batch.split(PATCHES_AT_ONCE)]) if self.patch else self.network(batch)
        if features.ndim != 2 or len(features) != len(batch):
            raise ValueError(f'a feature extractor must return (B, D), got {tuple(features.shape)} for {len(batch)} images.')
        return features.double().cpu().numpy()

    def label(self, short: str, published: str) -> str:
        """Return the name of a distance: ``published`` if the features are those of the publication, else with the network's name."""
        name = published if self.name is None else f'{short}-{self.name}'
        return name if self.patch is None else f'{name}/{self.patch}'


def cut_patches(batch: Tensor, side: int) -> Tensor:
    """Cut (B, C, H, W) into the P = (H // side) (W // side) squares of each image, row by row: (B P, C, side, side).

    Raises:
        ValueError: no square fits.
    """
    height, width = batch.shape[-2:]
    if min(height, width) < side:
        raise ValueError(f'patches of {side} pixels do not fit into an image of {width}x{height}.')
    squares = batch.unfold(2, side, side).unfold(3, side, side)  # (B, C, rows, columns, side, side)
    return squares.permute(0, 2, 3, 1, 4, 5).reshape(-1, batch.shape[1], side, side)


class PooledFeatures(nn.Module):
    """Mean over the positions of the last convolution's output, after its ReLU: (B, 3, H, W) in [0, 1] to (B, channels)."""

    def __init__(self, features: nn.Sequential):
        super().__init__()
        self.normalise = ImageNetNorm()
        self.features = features[:-1]  # without the last pooling, whose maxima would depend on the size of the image

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < SMALLEST:
            raise ValueError(f'the features need images of at least {SMALLEST} pixels a side, got {x.shape[-1]}x{x.shape[-2]}.')
        return self.features(self.normalise(x)).mean((2, 3))


class InceptionFeatures(nn.Module):
    """The TorchScript form of the Inception network of FID (``inception-2015-12-05.pt`` of StyleGAN): it takes images as uint8."""

    def __init__(self, script: nn.Module):
        super().__init__()
        self.script = script

    def forward(self, x: Tensor) -> Tensor:
        features = self.script((x * 255).round().to(torch.uint8), return_features=True)
        if features.shape[-1] != INCEPTION_FEATURES:
            raise ValueError(f'the Inception network of FID has {INCEPTION_FEATURES} features, this file gives {features.shape[-1]}.')
        return features


def build_extractor(features: str = 'alexnet', weights: str | os.PathLike | None = None, device: str | None = None,
                    patch: int | None = None) -> FeatureExtractor:
    """Build a feature extractor from local files.

    Args:
        features: ``alexnet`` (256 features; the weights ship with this package), ``vgg16`` (512), ``inception`` (2048; distances are
            called FID and KID), or the path of a TorchScript file that maps (B, 3, H, W), RGB, float32 in [0, 1] to (B, D). TorchScript
            is code: use files of people you trust.
        weights: file of the named network. ``vgg16``: default torch's cache. ``inception``: needed. Not for a TorchScript path.
        device: where to run; default the GPU if there is one.
        patch: see :class:`FeatureExtractor`.

    Raises:
        CheckpointError: a file is missing or damaged.
        ValueError: no such network, ``weights`` beside a TorchScript path, or a wrong ``patch``.
    """
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    file = find_features(features, weights)
    if features in NAMES:
        return FeatureExtractor(PooledFeatures(load_features(features, file)).to(device), NAMES[features], device, patch)
    if features == 'inception':
        return FeatureExtractor(InceptionFeatures(load_script(file, device)), None, device, patch)
    return FeatureExtractor(load_script(file, device), file.stem, device, patch)


def find_features(features: str = 'alexnet', weights: str | os.PathLike | None = None) -> Path:
    """Return the file that a feature extractor will be read from; arguments as of :func:`build_extractor`.

    Raises:
        CheckpointError: the file is missing.
        ValueError: no such network, or ``weights`` beside a TorchScript path.
    """
    if features in NAMES:
        return find_torchvision(features, weights or (ALEXNET_FEATURES if features == 'alexnet' else None), 'weights')
    if features == 'inception':
        if weights is None:
            raise CheckpointError('features inception: FID\'s Inception network as TorchScript (inception-2015-12-05.pt) is needed. '
                                  'Nothing is downloaded or looked for: give its path as weights.')
        if not Path(weights).is_file():
            raise CheckpointError(f'{weights}: no such TorchScript file.')
        return Path(weights)
    if not Path(features).is_file():
        raise ValueError(f"features must be 'alexnet', 'vgg16', 'inception' or a TorchScript file, got {features!r}.")
    if weights is not None:
        raise ValueError(f'features {features}: a TorchScript file holds its weights, leave weights out.')
    return Path(features)
