"""Degradations: pure functions on RGB tensors in [0, 1], (C, H, W) or (B, C, H, W); randomness only through an explicit generator.

The super-resolution operators and ``jpeg_i2sb`` are the published operators of I2SB (arXiv 2302.05872), ``jpeg_libjpeg`` is what a JPEG
file really holds. The two JPEGs differ by 2.5 to 3.6 grey levels on average and are never exchanged for each other.

Masks are float32 (1, H, W): 1 in the hole, 0 where the image is known.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.numbers import is_integer
from ibmd_basicsr.utils.option_check import build_from_options

# ITU-T T.81 annex K: the quantisation tables of quality 50
LUMA_TABLE = torch.tensor([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100,
    103, 99], dtype=torch.float64).reshape(8, 8)
CHROMA_TABLE = torch.full((8, 8), 99.0, dtype=torch.float64)
CHROMA_TABLE[:4, :4] = torch.tensor([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]], dtype=torch.float64)
RGB_TO_YCC = torch.tensor([[.299, .587, .114], [-.1687, -.3313, .5], [.5, -.4187, -.0813]], dtype=torch.float64)
YCC_TO_RGB = torch.tensor([[1, -3.682e-5, 1.40199], [1, -.344113, -.714104], [1, 1.77198, -1.3458e-4]], dtype=torch.float64)


def _with_batch(x: Tensor) -> Tensor:
    if x.ndim not in (3, 4):
        raise ValueError(f'Expected an image (C, H, W) or a batch (B, C, H, W), got shape {tuple(x.shape)}.')
    return x if x.ndim == 4 else x[None]


def _check_scale(x: Tensor, scale: int) -> None:
    if x.shape[-2] % scale or x.shape[-1] % scale:
        raise ValueError(f'Height and width must be multiples of the scale {scale}, got {tuple(x.shape[-2:])}.')


def quantize_uint8(x: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to the 256 levels of an 8-bit file."""
    return (x.clamp(0, 1) * 255).round() / 255


def sr_bicubic(x: Tensor, scale: int = 4) -> Tensor:
    """Downscale as MATLAB's ``imresize`` (bicubic a = -0.5, antialiased, symmetric borders), BasicSR's and I2SB's operator.

    Args:
        x: H and W multiples of ``scale``.
        scale: factor.

    Returns:
        (..., H/scale, W/scale), not clamped: bicubic overshoots.
    """
    _check_scale(x, scale)
    batch = _with_batch(x)
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
    small = F.avg_pool2d(_with_batch(x), scale)
    return small.reshape(*x.shape[:-2], *small.shape[-2:])


def _check_quality(quality: int) -> None:
    if not (isinstance(quality, np.integer) or is_integer(quality)) or not 1 <= quality <= 100:
        raise ValueError(f'JPEG quality must be an integer in 1..100, got {quality!r}.')


def jpeg_libjpeg(x: Tensor, quality: int) -> Tensor:
    """Compress with the real codec (libjpeg through OpenCV, 4:2:0 chroma) and decode again; 8-bit on both sides.

    Args:
        x: 3 channels; clamped and rounded to 8 bits first.
        quality: 1..100.
    """
    _check_quality(quality)
    out = []
    for image in _with_batch(x):
        bgr = (quantize_uint8(image) * 255).round().byte().permute(1, 2, 0).numpy(force=True)[:, :, ::-1]
        _, code = cv2.imencode('.jpg', np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
        out.append(torch.from_numpy(cv2.imdecode(code, cv2.IMREAD_COLOR)[:, :, ::-1].copy()).permute(2, 0, 1))
    return (torch.stack(out).to(x.device, x.dtype) / 255).reshape(x.shape)


def quantisation_table(table: Tensor, quality: int) -> Tensor:
    """Scale a table of quality 50 as libjpeg does: s = 5000/q below 50, else 200 - 2q; floor((s T + 50)/100) in 1..255.

    5000/q is not truncated, as in I2SB; equal to libjpeg's at the qualities 5 and 10 of the paper.
    """
    factor = 5000 / quality if quality < 50 else 200 - 2 * quality
    return ((factor * table + 50) / 100).floor().clamp(1, 255)


def jpeg_i2sb(x: Tensor, quality: int) -> Tensor:
    """Apply I2SB's JPEG operator, which its published checkpoints were trained on.

    Chroma is decimated (every second pixel, no averaging) and repeated, nothing is rounded to 8 bits or clamped, so the result
    leaves [0, 1].
    The original works in [-1, 1]; this is the same map in units of [0, 1].

    Args:
        x: 3 channels, H and W multiples of 16.
        quality: 1..100.

    Raises:
        ValueError: sizes that are not multiples of 16.
    """
    _check_quality(quality)
    if x.shape[-2] % 16 or x.shape[-1] % 16:
        raise ValueError(f"codec 'i2sb' needs height and width in multiples of 16, got {tuple(x.shape[-2:])}.")
    ycc = torch.einsum('dc,bchw->bdhw', RGB_TO_YCC.to(x.device), _with_batch(x).double() * 255)
    luma = _through_dct(ycc[:, :1], quantisation_table(LUMA_TABLE, quality).to(x.device))
    # chroma is stored with an offset of 128, which the level shift of the DCT takes away again
    chroma = _through_dct(ycc[:, 1:, ::2, ::2] + 128, quantisation_table(CHROMA_TABLE, quality).to(x.device)) - 128
    chroma = chroma.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    rgb = torch.einsum('dc,bchw->bdhw', YCC_TO_RGB.to(x.device), torch.cat([luma, chroma], dim=1))
    return (rgb / 255).to(x.dtype).reshape(x.shape)


def _through_dct(plane: Tensor, table: Tensor) -> Tensor:
    """Quantise the 8x8 block DCT of planes (B, C, H, W) in 0..255 by a table (8, 8)."""
    k = torch.arange(8, dtype=torch.float64, device=plane.device)
    basis = torch.cos(torch.pi * (2 * k[None] + 1) * k[:, None] / 16) / 2
    basis[0] /= 2**0.5
    height, width = plane.shape[-2:]
    blocks = (plane - 128).unflatten(-1, (width // 8, 8)).unflatten(-3, (height // 8, 8)).transpose(-2, -3)
    coefficients = basis @ blocks @ basis.T
    decoded = basis.T @ ((coefficients / table).round() * table) @ basis
    return decoded.transpose(-2, -3).flatten(-4, -3).flatten(-2, -1) + 128


def center_mask(height: int, width: int) -> Tensor:
    """Return the mask (1, H, W) whose hole is the middle half of rows and columns, a quarter of the area (I2SB's ``inpaint-center``)."""
    mask = torch.zeros(1, height, width)
    mask[:, height // 4:3 * height // 4, width // 4:3 * width // 4] = 1
    return mask


def freeform_mask(height: int, width: int, ratio: tuple[float, float], rng: np.random.Generator) -> Tensor:
    """Draw a mask of random brush strokes, in the spirit of the irregular masks of Palette (arXiv 2111.05826).

    The least to be covered is drawn uniformly from the band; strokes are added until it is, and those that would leave the band are
    dropped. The brush shrinks when strokes are dropped one after another, in the end to single pixels, which always fit: so the band is
    always hit.

    Args:
        height, width: size of the mask.
        ratio: bounds of the hole's share of the area, both included.
        rng: source of the randomness; equal states give equal masks.

    Returns:
        (1, H, W) float32, 1 = hole.

    Raises:
        ValueError: no whole number of pixels lies in the band.
    """
    area = height * width
    # 0.3 * 10 is not 3: without the tolerance the bounds themselves could be lost
    fewest, most = math.ceil(ratio[0] * area - 1e-6), math.floor(ratio[1] * area + 1e-6)
    if fewest > most:
        raise ValueError(f'no hole in {width}x{height} pixels covers between {ratio[0]:g} and {ratio[1]:g} of the area.')
    wanted = int(rng.integers(fewest, most, endpoint=True))
    mask = np.zeros((height, width), np.uint8)
    brush, dropped = float(min(height, width)), 0
    while np.count_nonzero(mask) < wanted:
        known = np.flatnonzero(mask == 0)
        row, column = divmod(int(known[rng.integers(len(known))]), width)
        candidate = _draw_stroke(mask.copy(), (column, row), brush, rng)
        if np.count_nonzero(candidate) <= most:
            mask, dropped = candidate, 0
        else:
            dropped += 1
            if dropped == 8:
                brush, dropped = brush / 2, 0
    return torch.from_numpy(mask)[None].float()


def _draw_stroke(mask: np.ndarray, start: tuple[int, int], brush: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a polyline with round corners into ``mask`` (H, W), uint8, from ``start`` (x, y), and return it.

    ``brush`` is the side of the picture that width and length fit; below 6 the stroke may be, below 2 it is the pixel ``start`` alone.
    """
    thickness = max(1, int(brush * rng.uniform(1 / 25, 1 / 6)))
    x, y = start
    cv2.circle(mask, start, thickness // 2, 1, -1)
    direction = rng.uniform(0, 2 * np.pi)
    for _ in range(int(rng.integers(3, 8))):
        direction += rng.uniform(-2, 2)
        length = int(brush * rng.uniform(1 / 25, 2 / 5))
        dx, dy = round(length * math.cos(direction)), round(length * math.sin(direction))
        # the border mirrors, else holes would gather there; no length is above 2/5 of a side, so the mirror image is inside
        end = (x + dx if 0 <= x + dx < mask.shape[1] else x - dx, y + dy if 0 <= y + dy < mask.shape[0] else y - dy)
        direction = math.atan2(end[1] - y, end[0] - x)
        cv2.line(mask, (x, y), end, 1, thickness)
        cv2.circle(mask, end, thickness // 2, 1, -1)
        x, y = end
    return mask


def fill_hole(x: Tensor, mask: Tensor, value: float) -> Tensor:
    """Return ``x`` (..., C, H, W) with ``value`` where ``mask`` (1, H, W) is 1; everywhere else bit-equal to ``x``."""
    return torch.where(mask.to(x.device) > 0, torch.full_like(x, value), x)


def canny_edges(x: Tensor, low: float, high: float, blur: float) -> Tensor:
    """Return the Canny edges of RGB images as black lines (0) on white (1), three equal channels; the look of edges2handbags.

    Args:
        x: 3 channels; clamped and rounded to 8 bits, turned grey and blurred first.
        low, high: thresholds of the gradient in grey levels (OpenCV's).
        blur: standard deviation of the Gaussian blur in pixels; 0 for none.
    """
    out = []
    for image in _with_batch(x):
        grey = cv2.cvtColor(np.ascontiguousarray((quantize_uint8(image) * 255).round().byte().permute(1, 2, 0).numpy(force=True)),
                            cv2.COLOR_RGB2GRAY)
        if blur:
            grey = cv2.GaussianBlur(grey, (0, 0), blur)
        out.append(torch.from_numpy(1 - cv2.Canny(grey, low, high) // 255).expand(3, -1, -1))
    return torch.stack(out).to(x.device, x.dtype).reshape(x.shape)


@dataclass(frozen=True, kw_only=True)
class SRDegradation:
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
    draws_mask = False

    KERNELS = {'bicubic': sr_bicubic, 'pool': sr_pool}

    def __post_init__(self):
        if self.kernel not in self.KERNELS:
            raise ValueError(f'degradation.kernel must be one of {tuple(self.KERNELS)}, got {self.kernel!r}.')
        if not isinstance(self.scale, int) or self.scale < 1:
            raise ValueError(f'degradation.scale must be a positive integer, got {self.scale!r}.')

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Degrade ``x``; draws nothing from ``rng``."""
        lq = self.KERNELS[self.kernel](x, self.scale)
        return quantize_uint8(lq) if self.quantize else lq


@dataclass(frozen=True, kw_only=True)
class JPEGDegradation:
    """JPEG input.

    Attributes:
        codec: ``libjpeg``, or ``i2sb`` for the operator of I2SB's published checkpoints.
        quality: 1 to 100, or [lowest, highest], between which one is drawn uniformly for each image.

    Raises:
        ValueError: a value out of range.
    """

    codec: str
    quality: int | tuple[int, int]
    scale = 1
    draws_mask = False

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
            _check_quality(quality)
        if bounds[0] > bounds[1]:
            raise ValueError(f'degradation.quality must be [lowest, highest], in this order, got {self.quality!r}.')

    def _range(self) -> tuple[int, int]:
        return tuple(self.quality) if isinstance(self.quality, (list, tuple)) else (self.quality, self.quality)

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Degrade ``x``; draws the quality from ``rng`` if it is a range."""
        lowest, highest = self._range()
        quality = lowest if lowest == highest else int(rng.integers(lowest, highest, endpoint=True))
        return self.CODECS[self.codec](x, quality)


@dataclass(frozen=True, kw_only=True)
class InpaintDegradation:
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
    scale = 1
    size_multiple = 1
    draws_mask = True

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

    def draw_mask(self, height: int, width: int, rng: np.random.Generator) -> Tensor:
        """Return a mask (1, H, W), float32, 1 = hole; draws from ``rng`` if it is freeform."""
        if self.mask == 'center':
            return center_mask(height, width)
        return freeform_mask(height, width, self.ratio or self.DEFAULT_RATIO, rng)

    def fill_hole(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return ``x`` with the hole of ``mask`` filled; see :func:`fill_hole`."""
        return fill_hole(x, mask, self.FILLS[self.fill])

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Degrade ``x``; one mask a call, also of a batch."""
        return self.fill_hole(x, self.draw_mask(*x.shape[-2:], rng))


@dataclass(frozen=True, kw_only=True)
class EdgesDegradation:
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
    scale = 1
    size_multiple = 1
    draws_mask = False

    def __post_init__(self):
        if not all(isinstance(value, (int, float)) for value in (self.low, self.high, self.blur)):
            raise ValueError(f'degradation.low, high and blur must be numbers, got {self.low!r}, {self.high!r} and {self.blur!r}.')
        if not 0 <= self.low <= self.high:
            raise ValueError(f'degradation.low and high must be thresholds with 0 <= low <= high, got {self.low!r} and {self.high!r}.')
        if not 0 <= self.blur < float('inf'):
            raise ValueError(f'degradation.blur must be a standard deviation in pixels, 0 or more, got {self.blur!r}.')

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Degrade ``x``; draws nothing from ``rng``."""
        return canny_edges(x, self.low, self.high, self.blur)


Degradation = SRDegradation | JPEGDegradation | InpaintDegradation | EdgesDegradation
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
