"""Degradations: pure functions on RGB tensors in [0, 1], (C, H, W) or (B, C, H, W); randomness only through an explicit generator.

The super-resolution operators and ``jpeg_i2sb`` are the published operators of I2SB (arXiv 2302.05872), ``jpeg_libjpeg`` is what a JPEG
file really holds. The two JPEGs differ by 2.5 to 3.6 grey levels on average and are never exchanged for each other.

JPEG and masks have modules of their own; what an option file's ``degradation`` block builds is here.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ibmd_basicsr.data.jpeg import check_quality, jpeg_i2sb, jpeg_libjpeg
from ibmd_basicsr.data.masks import center_mask, fill_hole, freeform_mask
from ibmd_basicsr.data.tensors import quantize_uint8, to_uint8, with_batch
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.option_check import build_from_options


def _check_scale(x: Tensor, scale: int) -> None:
    if x.shape[-2] % scale or x.shape[-1] % scale:
        raise ValueError(f'Height and width must be multiples of the scale {scale}, got {tuple(x.shape[-2:])}.')


def sr_bicubic(x: Tensor, scale: int = 4) -> Tensor:
    """Downscale as MATLAB's ``imresize`` (bicubic a = -0.5, antialiased, symmetric borders), BasicSR's and I2SB's operator.

    Args:
        x: H and W multiples of ``scale``.
        scale: factor.

    Returns:
        (..., H/scale, W/scale), not clamped: bicubic overshoots.
    """
    _check_scale(x, scale)
    batch = with_batch(x)
    padded = _pad_symmetric(_pad_symmetric(batch, 2 * scale, -2), 2 * scale, -1)
    small = F.interpolate(padded, scale_factor=1 / scale, mode='bicubic', antialias=True)[..., 2:-2, 2:-2]
    return small.reshape(*x.shape[:-2], *small.shape[-2:])


def _pad_symmetric(x: Tensor, pad: int, dim: int) -> Tensor:
    """Pad a dimension on both sides by :func:`_symmetric_index`, which only the borders need: a tenth of the time of indexing all of x."""
    index = _symmetric_index(x.shape[dim], pad).to(x.device)
    return torch.cat([x.index_select(dim, index[:pad]), x, x.index_select(dim, index[-pad:])], dim)


def _symmetric_index(size: int, pad: int) -> Tensor:
    """Indices of a signal padded by reflection that repeats the edge sample: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ..."""
    folded = torch.arange(-pad, size + pad) % (2 * size)
    return torch.where(folded < size, folded, 2 * size - 1 - folded)


def sr_pool(x: Tensor, scale: int = 4) -> Tensor:
    """Downscale by the mean over ``scale`` x ``scale`` blocks (I2SB's ``sr4x-pool``, OpenCV's INTER_AREA)."""
    _check_scale(x, scale)
    small = F.avg_pool2d(with_batch(x), scale)
    return small.reshape(*x.shape[:-2], *small.shape[-2:])


def canny_edges(x: Tensor, low: float, high: float, blur: float) -> Tensor:
    """Return the Canny edges of RGB images as black lines (0) on white (1), three equal channels; the look of edges2handbags.

    Args:
        x: 3 channels; clamped and rounded to 8 bits, turned grey and blurred first.
        low, high: thresholds of the gradient in grey levels (OpenCV's).
        blur: standard deviation of the Gaussian blur in pixels; 0 for none.
    """
    out = []
    for image in with_batch(x):
        grey = cv2.cvtColor(np.ascontiguousarray(to_uint8(image)), cv2.COLOR_RGB2GRAY)
        if blur:
            grey = cv2.GaussianBlur(grey, (0, 0), blur)
        out.append(torch.from_numpy(1 - cv2.Canny(grey, low, high) // 255).expand(3, -1, -1))
    return torch.stack(out).to(x.device, x.dtype).reshape(x.shape)


class Degradation(ABC):
    """How a clean image becomes a corrupted one.

    Attributes:
        scale: factor of the reduction.
        size_multiple: height and width of a clean image must be multiples of it.
    """

    scale: int = 1
    size_multiple: int = 1

    @abstractmethod
    def degrade(self, x: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """Return the corrupted image and, where there is a hole, its mask.

        Args:
            x: clean image (3, H, W) or batch (B, 3, H, W), RGB, [0, 1].
            rng: source of the randomness; what is fixed draws nothing from it.

        Returns:
            lq (..., 3, H/scale, W/scale), and the mask (1, H, W), float32, 1 = hole (one for a batch), or None.
        """

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the corrupted image alone; see :meth:`degrade`."""
        return self.degrade(x, rng)[0]


@dataclass(frozen=True, kw_only=True)
class SRDegradation(Degradation):
    """Super-resolution input.

    Attributes:
        scale: factor of the reduction.
        kernel: ``bicubic`` (MATLAB's) or ``pool`` (means of squares).
        quantize: round to 8 bits afterwards; I2SB does not.

    Raises:
        ValueError: a value out of range.
    """

    scale: int = 4
    kernel: str = 'bicubic'
    quantize: bool = True
    size_multiple = property(lambda self: self.scale)

    KERNELS = {'bicubic': sr_bicubic, 'pool': sr_pool}

    def __post_init__(self):
        if self.kernel not in self.KERNELS:
            raise ValueError(f'degradation.kernel must be one of {tuple(self.KERNELS)}, got {self.kernel!r}.')
        if not isinstance(self.scale, int) or self.scale < 1:
            raise ValueError(f'degradation.scale must be a positive integer, got {self.scale!r}.')

    def degrade(self, x: Tensor, rng: np.random.Generator) -> tuple[Tensor, None]:
        """Reduce ``x``; draws nothing from ``rng``."""
        lq = self.KERNELS[self.kernel](x, self.scale)
        return (quantize_uint8(lq) if self.quantize else lq), None


@dataclass(frozen=True, kw_only=True)
class JPEGDegradation(Degradation):
    """JPEG input.

    Attributes:
        codec: ``libjpeg``, or ``i2sb`` for the operator of I2SB's published checkpoints.
        quality: 1 to 100, or [lowest, highest], between which one is drawn uniformly for each image.

    Raises:
        ValueError: a value out of range.
    """

    codec: str
    quality: int | tuple[int, int]

    CODECS = {'libjpeg': jpeg_libjpeg, 'i2sb': jpeg_i2sb}

    @property
    def size_multiple(self) -> int:
        """Sizes that the operator accepts."""
        return 16 if self.codec == 'i2sb' else 1

    def __post_init__(self):
        if self.codec not in self.CODECS:
            raise ValueError(f'degradation.codec must be one of {tuple(self.CODECS)}, got {self.codec!r}.')
        bounds = tuple(self.quality) if isinstance(self.quality, (list, tuple)) else (self.quality, self.quality)
        if len(bounds) != 2:
            raise ValueError(f'degradation.quality must be one number or two, [lowest, highest], got {self.quality!r}.')
        for quality in bounds:
            check_quality(quality)
        if bounds[0] > bounds[1]:
            raise ValueError(f'degradation.quality must be [lowest, highest], in this order, got {self.quality!r}.')

    def _range(self) -> tuple[int, int]:
        return tuple(self.quality) if isinstance(self.quality, (list, tuple)) else (self.quality, self.quality)

    def degrade(self, x: Tensor, rng: np.random.Generator) -> tuple[Tensor, None]:
        """Compress ``x``; draws the quality from ``rng`` if it is a range."""
        lowest, highest = self._range()
        quality = lowest if lowest == highest else int(rng.integers(lowest, highest, endpoint=True))
        return self.CODECS[self.codec](x, quality), None


@dataclass(frozen=True, kw_only=True)
class InpaintDegradation(Degradation):
    """Inpainting input: a hole filled with one colour. Known pixels are bit-equal to the clean image's.

    Attributes:
        mask: ``center`` (I2SB's) or ``freeform``.
        ratio: [smallest, largest] share of the area in a free-form hole; default [0.1, 0.2].
        fill: colour of the hole, ``grey`` (0.5, that is 0 in [-1, 1]) or ``white`` (1).

    Raises:
        ValueError: a value out of range.
    """

    mask: str
    ratio: tuple[float, float] | None = None
    fill: str = 'grey'

    MASKS = ('center', 'freeform')
    FILLS = {'grey': 0.5, 'white': 1.0}
    DEFAULT_RATIO = (0.1, 0.2)

    def __post_init__(self):
        if self.mask not in self.MASKS:
            raise ValueError(f'degradation.mask must be one of {self.MASKS}, got {self.mask!r}.')
        if self.fill not in self.FILLS:
            raise ValueError(f'degradation.fill must be one of {tuple(self.FILLS)}, got {self.fill!r}.')
        if self.ratio is not None:
            if self.mask != 'freeform':
                raise ValueError(f'degradation.ratio belongs to mask: freeform, not to {self.mask}.')
            numbers = isinstance(self.ratio, (list, tuple)) and all(isinstance(bound, (int, float)) for bound in self.ratio)
            if not numbers or len(self.ratio) != 2 or not 0 < self.ratio[0] < self.ratio[1] < 1:
                raise ValueError(f'degradation.ratio must be two rising numbers between 0 and 1, got {self.ratio!r}.')

    def degrade(self, x: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Fill a hole in ``x``; draws the mask from ``rng`` if it is freeform."""
        if self.mask == 'center':
            mask = center_mask(*x.shape[-2:])
        else:
            mask = freeform_mask(*x.shape[-2:], self.ratio or self.DEFAULT_RATIO, rng)
        return fill_hole(x, mask, self.FILLS[self.fill]), mask


@dataclass(frozen=True, kw_only=True)
class EdgesDegradation(Degradation):
    """Drawing input: Canny edges, see :func:`canny_edges`.

    Attributes:
        low, high: thresholds of the gradient, of 8-bit images.
        blur: standard deviation of the Gaussian before it, in pixels; 0 for none.

    Raises:
        ValueError: a value out of range.
    """

    low: float = 100
    high: float = 200
    blur: float = 1.0

    def __post_init__(self):
        if not all(isinstance(value, (int, float)) for value in (self.low, self.high, self.blur)):
            raise ValueError(f'degradation.low, high and blur must be numbers, got {self.low!r}, {self.high!r} and {self.blur!r}.')
        if not 0 <= self.low <= self.high:
            raise ValueError(f'degradation.low and high must be thresholds with 0 <= low <= high, got {self.low!r} and {self.high!r}.')
        if not 0 <= self.blur < float('inf'):
            raise ValueError(f'degradation.blur must be a standard deviation in pixels, 0 or more, got {self.blur!r}.')

    def degrade(self, x: Tensor, rng: np.random.Generator) -> tuple[Tensor, None]:
        """Draw the edges of ``x``; draws nothing from ``rng``."""
        return canny_edges(x, self.low, self.high, self.blur), None


DEGRADATIONS = {'sr': SRDegradation, 'jpeg': JPEGDegradation, 'inpaint': InpaintDegradation, 'edges': EdgesDegradation}


def build_degradation(options: dict[str, Any], block: str = 'degradation') -> Degradation:
    """Build a degradation from a ``degradation`` block: ``{type: sr | jpeg | inpaint | edges, ...}``.

    Args:
        options: the block.
        block: what messages call it.

    Raises:
        OptionError: unknown type or key (with the nearest one), a missing key, or a value out of range.
    """
    if not isinstance(options, dict):
        raise OptionError(f'{block}: must be a block with a type, one of {", ".join(map(repr, DEGRADATIONS))}, got {options!r}.')
    if options.get('type') not in DEGRADATIONS:
        raise OptionError(f'{block}.type: must be one of {", ".join(map(repr, DEGRADATIONS))}, got {options.get("type")!r}.')
    return build_from_options(DEGRADATIONS[options['type']], options, block)
