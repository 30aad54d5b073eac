"""Distances between two *sets* of images: Frechet and kernel distance of deep features, as running statistics.

A set metric has ``update(images)``, ``compute()``, ``reset()`` and ``merge(other)``, unlike the functions of one image in BasicSR's
``METRIC_REGISTRY``; it is registered in :data:`SET_METRIC_REGISTRY`, so that an option file cannot name it where a function is called.
"""
from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from basicsr.utils.registry import Registry
from torch import Tensor, nn

from ibmd_basicsr.metrics.backbones import ImageNetNorm, find_torchvision, load_features, load_script, to_rgb_batch
from ibmd_basicsr.metrics.lpips_metric import ALEXNET_FEATURES
from ibmd_basicsr.utils.errors import CheckpointError
from ibmd_basicsr.utils.image_sets import read_images

SET_METRIC_REGISTRY = Registry('set metric')
SMALLEST = 32
"""Smallest side for which every backbone's features have a pixel left."""
INCEPTION_FEATURES = 2048
NAMES = {'alexnet': 'AlexNet', 'vgg16': 'VGG16'}
PATCHES_AT_ONCE = 32
"""Patches that go through a feature network together, so that large images do not fill the memory."""
BLOCK = 1024
"""Rows of a kernel matrix that are computed at once."""


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


class RememberingExtractor(FeatureExtractor):
    """Another extractor that keeps the features of every image it has seen, 8 D bytes each: several distances cost one pass.

    Args:
        extractor: what computes them.
    """

    def __init__(self, extractor: FeatureExtractor):
        super().__init__(extractor.network, extractor.name, extractor.device, extractor.patch)
        self._known: dict[tuple, np.ndarray] = {}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return what the other extractor returns; see there."""
        key = (images.shape, images.dtype.str, hashlib.blake2b(np.ascontiguousarray(images)).digest())
        if key not in self._known:
            self._known[key] = super().__call__(images)
        return self._known[key]


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


def _is_statistics(reference: str | os.PathLike | Iterable[np.ndarray]) -> bool:
    return isinstance(reference, (str, os.PathLike)) and Path(reference).suffix == '.npz'


def _images_of(reference: str | os.PathLike | Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    return read_images(reference) if isinstance(reference, (str, os.PathLike)) else reference


class Moments:
    """Running mean and covariance of vectors: count, sum and sum of outer products in float64, so that parts add up to the whole."""

    def __init__(self):
        self.count = 0
        self.total: np.ndarray | float = 0.0
        self.outer: np.ndarray | float = 0.0

    def update(self, features: np.ndarray) -> None:
        """Add vectors (B, D), float64."""
        self.count += len(features)
        self.total = self.total + features.sum(0)
        self.outer = self.outer + features.T @ features

    def merge(self, other: Moments) -> None:
        """Add what another has seen."""
        self.count += other.count
        self.total = self.total + other.total
        self.outer = self.outer + other.outer

    def compute(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (D,) and unbiased covariance (D, D).

        Raises:
            ValueError: fewer than two vectors were seen.
        """
        if self.count < 2:
            raise ValueError(f'a covariance needs at least 2 images, got {self.count}.')
        mean = self.total / self.count
        return mean, (self.outer - self.count * np.outer(mean, mean)) / (self.count - 1)


@SET_METRIC_REGISTRY.register()
class FrechetDistance:
    """Squared Frechet distance of the Gaussians fitted to two sets of features: 0 for equal sets, lower is better.

    Source: Heusel et al., arXiv 1706.08500, there with Inception features, which alone make it FID. It is biased upwards by an amount
    that shrinks with the number of images: compare sets of one size, and have more images than features.

    Args:
        reference: the true images: a folder, a BasicSR LMDB (``*.lmdb``), an ``.npz`` with ``mu`` and ``sigma`` as pytorch-fid
            writes it, of the same features, or the images themselves, one after the other as :meth:`update` takes them.
        features: see :func:`build_extractor`, or an extractor.
        weights, device: see :func:`build_extractor`.
        patch: cut images into squares of so many pixels, so that a few large images are a few hundred small ones; default whole images.

    Raises:
        CheckpointError: a weight file is missing or damaged.
        FileNotFoundError, ValueError: the reference cannot be read.
    """

    def __init__(self, reference: str | os.PathLike | Iterable[np.ndarray], features: str | FeatureExtractor = 'alexnet', *,
                 weights: str | os.PathLike | None = None, device: str | None = None, patch: int | None = None):
        self.features = features if isinstance(features, FeatureExtractor) else build_extractor(features, weights, device, patch)
        self.name = self.features.label('FD', 'FID')
        self.reference = self._read_reference(reference)
        self.reset()

    def _read_reference(self, reference: str | os.PathLike | Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        if not _is_statistics(reference):
            moments = Moments()
            for image in _images_of(reference):
                moments.update(self.features(image))
            return moments.compute()
        path = Path(reference)
        with np.load(path) as file:
            if not {'mu', 'sigma'} <= set(file):
                raise ValueError(f'{path}: must hold mu and sigma, got {", ".join(file)}.')
            mean, covariance = file['mu'].astype(np.float64), file['sigma'].astype(np.float64)
        if covariance.shape != (*mean.shape, *mean.shape) or mean.ndim != 1:
            raise ValueError(f'{path}: mu and sigma must be (D,) and (D, D), got {mean.shape} and {covariance.shape}.')
        return mean, covariance

    def update(self, images: np.ndarray) -> None:
        """Add restored images (H, W, 3) or (B, H, W, 3), BGR, uint8 or float in [0, 255]."""
        self.update_features(self.features(images))

    def update_features(self, features: np.ndarray) -> None:
        """Add restored images as their features (B, D), float64, which ``features`` has computed."""
        self.moments.update(features)

    def merge(self, other: FrechetDistance) -> None:
        """Add the images that another one with the same features has seen, such as that of another process."""
        self.moments.merge(other.moments)

    def compute(self) -> float:
        """Return the distance of the images seen so far to the reference.

        Raises:
            ValueError: fewer than two images, or the reference has another number of features.
        """
        return frechet_distance(*self.moments.compute(), *self.reference)

    def reset(self) -> None:
        """Forget the images seen so far, not the reference."""
        self.moments = Moments()


def frechet_distance(mean: np.ndarray, covariance: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two Gaussians; means (D,), covariances (D, D), float64.

    The trace of the root is the sum of the singular values of C1^(1/2) C2^(1/2): the same number as by ``scipy.linalg.sqrtm``, but real
    and exact to rounding for singular covariances too, which fewer images than features give.

    Raises:
        ValueError: the shapes differ.
    """
    if mean.shape != mean2.shape:
        raise ValueError(f'both sets must have the same features, got {len(mean)} and {len(mean2)} of them.')
    cross = np.linalg.svd(_root(covariance) @ _root(covariance2), compute_uv=False).sum()
    return float(np.sum((mean - mean2)**2) + np.trace(covariance) + np.trace(covariance2) - 2 * cross)


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return the symmetric root of a positive semidefinite matrix; eigenvalues that rounding made negative count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


@SET_METRIC_REGISTRY.register()
class KernelDistance:
    """Unbiased squared maximum mean discrepancy of two sets of features, kernel (x.y / D + 1)^3: lower is better.

    About 0 for samples of one distribution, also below it; fit for a few hundred images.

    Source: Binkowski et al., arXiv 1801.01401, there with Inception features, which alone make it KID. All images enter at once, where
    the paper's tables are means over random subsets: the expectation is the same. Features are kept, 8 D bytes an image.

    Args:
        reference: the true images, as for :class:`FrechetDistance`; mean and covariance would not be enough.
        features, weights, device, patch: as for :class:`FrechetDistance`.

    Raises:
        CheckpointError: a weight file is missing or damaged.
        FileNotFoundError, ValueError: the reference cannot be read.
    """

    def __init__(self, reference: str | os.PathLike | Iterable[np.ndarray], features: str | FeatureExtractor = 'alexnet', *,
                 weights: str | os.PathLike | None = None, device: str | None = None, patch: int | None = None):
        if _is_statistics(reference):
            raise ValueError(f'{reference}: a kernel distance needs the images, a folder or an LMDB; mu and sigma are not enough.')
        self.features = features if isinstance(features, FeatureExtractor) else build_extractor(features, weights, device, patch)
        self.name = self.features.label('KD', 'KID')
        self.reference = np.concatenate([self.features(image) for image in _images_of(reference)])
        self.reset()

    def update(self, images: np.ndarray) -> None:
        """Add restored images (H, W, 3) or (B, H, W, 3), BGR, uint8 or float in [0, 255]."""
        self.update_features(self.features(images))

    def update_features(self, features: np.ndarray) -> None:
        """Add restored images as their features (B, D), float64, which ``features`` has computed."""
        self.seen.append(features)

    def merge(self, other: KernelDistance) -> None:
        """Add the images that another one with the same features has seen, such as that of another process."""
        self.seen += other.seen

    def compute(self) -> float:
        """Return the distance of the images seen so far to the reference.

        Raises:
            ValueError: fewer than two images on a side.
        """
        return kernel_distance(np.concatenate([np.empty((0, self.reference.shape[1])), *self.seen]), self.reference)

    def reset(self) -> None:
        """Forget the images seen so far, not the reference."""
        self.seen: list[np.ndarray] = []


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased MMD^2 of vectors (N, D) and (M, D), float64, with the kernel (x.y / D + 1)^3.

    Mean of k(x_i, x_j) over i != j, plus the same of y, minus twice the mean of k(x_i, y_j).

    Raises:
        ValueError: fewer than two vectors on a side.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f'a kernel distance needs at least 2 images on each side, got {len(x)} and {len(y)}.')
    same = (_kernel_mean(a, a, np.sum(_kernel(np.einsum('nd,nd->n', a, a), a.shape[1])), len(a) * (len(a) - 1)) for a in (x, y))
    return math.fsum(same) - 2 * _kernel_mean(x, y, 0.0, len(x) * len(y))


def _kernel(products: np.ndarray, features: int) -> np.ndarray:
    return (products / features + 1)**3


def _kernel_mean(x: np.ndarray, y: np.ndarray, left_out: float, count: int) -> float:
    """Return the sum of k(x_i, y_j) over all pairs, by blocks of rows to save memory, less ``left_out``, over ``count``."""
    total = math.fsum(_kernel(x[i:i + BLOCK] @ y.T, x.shape[1]).sum() for i in range(0, len(x), BLOCK))
    return float(total - left_out) / count
