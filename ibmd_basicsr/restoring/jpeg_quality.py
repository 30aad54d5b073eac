"""The quality that a JPEG file was written with, from its quantisation tables.

The Independent JPEG Group's library, whose scale of qualities everybody quotes, multiplies the tables of ITU-T T.81 annex K by s / 100,
s = 5000 // q below quality 50, else 200 - 2 q (``jcparam.c``). All hundred tables differ, so one that was made so says its quality
exactly; of others, such as those of cameras and Photoshop, the nearest is named.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ibmd_basicsr.data.jpeg import CHROMA_TABLE, LUMA_TABLE


@dataclass(frozen=True)
class JpegQuality:
    """A quality on the IJG scale.

    Attributes:
        value: 1..100.
        exact: the tables are those of this quality; else it is the nearest.
    """

    value: int
    exact: bool

    def __str__(self) -> str:
        return f'{self.value}' if self.exact else f'about {self.value}'


def ijg_tables(quality: int) -> np.ndarray:
    """Return the IJG's luma and chroma tables of a quality, (2, 64) integers in 1..255, row by row of the 8x8 blocks."""
    factor = 5000 // quality if quality < 50 else 200 - 2 * quality
    base = np.stack([LUMA_TABLE.numpy().ravel(), CHROMA_TABLE.numpy().ravel()]).astype(np.int64)
    return ((base * factor + 50) // 100).clip(1, 255)


def estimate_quality(tables: Mapping[int, Sequence[int]]) -> JpegQuality | None:
    """Return the quality behind quantisation tables.

    Args:
        tables: by number, 64 positive integers each, row by row of the blocks (Pillow's ``image.quantization``). Number 0 is taken for
            luma and number 1, if it is there, for chroma, as all encoders that we know have it.

    Returns:
        the quality whose tables are these or, by the mean absolute logarithm of the ratios, nearest to them; None without a usable table.
    """
    given = [np.asarray(tables[number], np.float64) for number in (0, 1) if number in tables]
    if not given or any(table.shape != (64,) or (table < 1).any() for table in given):
        return None
    found = np.stack(given)
    candidates = np.stack([ijg_tables(quality)[:len(found)] for quality in range(1, 101)])
    distances = np.abs(np.log(candidates / found)).mean((1, 2))
    best = int(distances.argmin())
    return JpegQuality(best + 1, bool(distances[best] == 0))
