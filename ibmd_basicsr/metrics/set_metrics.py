"""Metrics of *sets* of images: Frechet and kernel distance of deep features, as running statistics.

A set metric has ``update(images)``, ``compute()``, ``reset()`` and ``merge(other)``, unlike the functions of one image in BasicSR's
``METRIC_REGISTRY``; it is registered in :data:`SET_METRIC_REGISTRY`, so that an option file cannot name it where a function is called.
"""
from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, NoReturn

import numpy as np
from basicsr.utils.registry import Registry

from ibmd_basicsr.metrics.distances import Moments, Vectors, frechet_distance, kernel_distance
from ibmd_basicsr.metrics.features import FeatureExtractor, build_extractor
from ibmd_basicsr.utils.image_sets import read_images

SET_METRIC_REGISTRY = Registry('set metric')
EXTENSIONS = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')


def _is_statistics(reference: str | os.PathLike | Iterable[np.ndarray]) -> bool:
    return isinstance(reference, (str, os.PathLike)) and Path(reference).suffix == '.npz'


def _images_of(reference: str | os.PathLike | Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    return read_images(reference) if isinstance(reference, (str, os.PathLike)) else reference


class SetMetric(ABC):
    """Running distance of restored images to a reference, of their features.

    Args:
        reference: the true images: a folder, a BasicSR LMDB (``*.lmdb``), or the images themselves, one after the other as
            :meth:`update` takes them.
        features: see :func:`~ibmd_basicsr.metrics.features.build_extractor`, or an extractor.
        weights, device: see :func:`~ibmd_basicsr.metrics.features.build_extractor`.
        patch: cut images into squares of so many pixels, so that a few large images are a few hundred small ones; default whole images.

    Attributes:
        name: of the distance with these features, such as ``FD-AlexNet``.
        seen: statistics of the restored images, as ``reference`` then holds those of the true ones.

    Raises:
        CheckpointError: a weight file is missing or damaged.
        FileNotFoundError, ValueError: the reference cannot be read.
    """

    NAMES: ClassVar[tuple[str, str]]
    """Short name, which the network's follows, and the name that the published features alone may carry."""
    STATISTICS: ClassVar[type[Moments | Vectors]]
    """What is kept of the features of a set."""

    def __init__(self, reference: str | os.PathLike | Iterable[np.ndarray], features: str | FeatureExtractor = 'alexnet', *,
                 weights: str | os.PathLike | None = None, device: str | None = None, patch: int | None = None):
        self.features = features if isinstance(features, FeatureExtractor) else build_extractor(features, weights, device, patch)
        self.name = self.features.label(*self.NAMES)
        self.reference = self._read_statistics(Path(reference)) if _is_statistics(reference) else self._statistics_of(reference)
        self.reset()

    def _statistics_of(self, reference: str | os.PathLike | Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
        statistics = self.STATISTICS()
        for image in _images_of(reference):
            statistics.update(self.features(image))
        return statistics.compute()

    @abstractmethod
    def _read_statistics(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return the statistics of the true images that a file holds."""

    def update(self, images: np.ndarray) -> None:
        """Add restored images (H, W, 3) or (B, H, W, 3), BGR, uint8 or float in [0, 255]."""
        self.update_features(self.features(images))

    def update_features(self, features: np.ndarray) -> None:
        """Add restored images as their features (B, D), float64, which ``features`` has computed."""
        self.seen.update(features)

    def merge(self, other: SetMetric) -> None:
        """Add the images that another one with the same features has seen, such as that of another process."""
        self.seen.merge(other.seen)

    def reset(self) -> None:
        """Forget the images seen so far, not the reference."""
        self.seen = self.STATISTICS()

    @abstractmethod
    def compute(self) -> float:
        """Return the distance of the images seen so far to the reference.

        Raises:
            ValueError: fewer than two images, or the reference has another number of features.
        """


@SET_METRIC_REGISTRY.register()
class FrechetDistance(SetMetric):
    """Squared Frechet distance of the Gaussians fitted to two sets of features: 0 for equal sets, lower is better.

    Source: Heusel et al., arXiv 1706.08500, there with Inception features, which alone make it FID. It is biased upwards by an amount
    that shrinks with the number of images: compare sets of one size, and have more images than features.

    The other arguments are those of :class:`SetMetric`.

    Args:
        reference: the true images: a folder, a BasicSR LMDB (``*.lmdb``), an ``.npz`` with ``mu`` and ``sigma`` as pytorch-fid
            writes it, of the same features, or the images themselves, one after the other as :meth:`update` takes them.
    """

    NAMES = ('FD', 'FID')
    STATISTICS = Moments

    def _read_statistics(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        with np.load(path) as file:
            if not {'mu', 'sigma'} <= set(file):
                raise ValueError(f'{path}: must hold mu and sigma, got {", ".join(file)}.')
            mean, covariance = file['mu'].astype(np.float64), file['sigma'].astype(np.float64)
        if covariance.shape != (*mean.shape, *mean.shape) or mean.ndim != 1:
            raise ValueError(f'{path}: mu and sigma must be (D,) and (D, D), got {mean.shape} and {covariance.shape}.')
        return mean, covariance

    def compute(self) -> float:
        """Return :func:`~ibmd_basicsr.metrics.distances.frechet_distance`; at least two images."""
        return frechet_distance(*self.seen.compute(), *self.reference)


@SET_METRIC_REGISTRY.register()
class KernelDistance(SetMetric):
    """Unbiased squared maximum mean discrepancy of two sets of features, kernel (x.y / D + 1)^3: lower is better.

    About 0 for samples of one distribution, also below it; fit for a few hundred images.

    Source: Binkowski et al., arXiv 1801.01401, there with Inception features, which alone make it KID. All images enter at once, where
    the paper's tables are means over random subsets: the expectation is the same. Features are kept, 8 D bytes an image.

    The other arguments are those of :class:`SetMetric`.

    Args:
        reference: the true images, as for :class:`FrechetDistance`; mean and covariance would not be enough.
    """

    NAMES = ('KD', 'KID')
    STATISTICS = Vectors

    def _read_statistics(self, path: Path) -> NoReturn:
        raise ValueError(f'{path}: a kernel distance needs the images, a folder or an LMDB; mu and sigma are not enough.')

    def compute(self) -> float:
        """Return :func:`~ibmd_basicsr.metrics.distances.kernel_distance`; at least two images."""
        return kernel_distance(self.seen.compute(), self.reference)
