"""Distances between two sets of vectors, and the running statistics that they are computed from: NumPy alone."""
from __future__ import annotations

import math

import numpy as np

BLOCK = 1024
"""Rows of a kernel matrix that are computed at once."""


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


class Vectors:
    """Running collection of vectors, 8 D bytes each."""

    def __init__(self):
        self.parts: list[np.ndarray] = []

    def update(self, features: np.ndarray) -> None:
        """Add vectors (B, D), float64."""
        self.parts.append(features)

    def merge(self, other: Vectors) -> None:
        """Add what another has seen."""
        self.parts += other.parts

    def compute(self) -> np.ndarray:
        """Return all vectors (N, D); (0, 0) before the first."""
        return np.concatenate(self.parts) if self.parts else np.empty((0, 0))


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
