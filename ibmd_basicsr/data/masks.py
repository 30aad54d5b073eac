"""Holes of inpainting. Masks are float32 (1, H, W): 1 in the hole, 0 where the image is known."""
from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor


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
