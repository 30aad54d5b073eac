"""JPEG: the real codec, and I2SB's operator (arXiv 2302.05872), which differs from it by 2.5 to 3.6 grey levels on average."""
from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from ibmd_basicsr.data.tensors import to_uint8, with_batch
from ibmd_basicsr.utils.numbers import is_integer

# ITU-T T.81 annex K: the quantisation tables of quality 50
LUMA_TABLE = torch.tensor([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100,
    103, 99], dtype=torch.float64).reshape(8, 8)
CHROMA_TABLE = torch.full((8, 8), 99.0, dtype=torch.float64)
CHROMA_TABLE[:4, :4] = torch.tensor([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]], dtype=torch.float64)
RGB_TO_YCC = torch.tensor([[.299, .587, .114], [-.1687, -.3313, .5], [.5, -.4187, -.0813]], dtype=torch.float64)
YCC_TO_RGB = torch.tensor([[1, -3.682e-5, 1.40199], [1, -.344113, -.714104], [1, 1.77198, -1.3458e-4]], dtype=torch.float64)


def check_quality(quality: int) -> None:
    """Refuse what is no JPEG quality.

    Raises:
        ValueError: not an integer in 1..100.
    """
    if not (isinstance(quality, np.integer) or is_integer(quality)) or not 1 <= quality <= 100:
        raise ValueError(f'JPEG quality must be an integer in 1..100, got {quality!r}.')


def jpeg_libjpeg(x: Tensor, quality: int) -> Tensor:
    """Compress with the real codec (libjpeg through OpenCV, 4:2:0 chroma) and decode again; 8-bit on both sides.

    Args:
        x: 3 channels; clamped and rounded to 8 bits first.
        quality: 1..100.
    """
    check_quality(quality)
    out = []
    for image in with_batch(x):
        bgr = np.ascontiguousarray(to_uint8(image)[:, :, ::-1])
        _, code = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
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
    check_quality(quality)
    if x.shape[-2] % 16 or x.shape[-1] % 16:
        raise ValueError(f"codec 'i2sb' needs height and width in multiples of 16, got {tuple(x.shape[-2:])}.")
    ycc = torch.einsum('dc,bchw->bdhw', RGB_TO_YCC.to(x.device), with_batch(x).double() * 255)
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
