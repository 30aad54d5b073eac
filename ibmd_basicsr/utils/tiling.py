"""Large images in tiles that overlap: each tile is restored with a halo around it, and only its core is kept.

Exact where no pixel of a network's output sees further than the halo and the network treats all places alike. Attention over the whole
image, and normalisation by its statistics, see further: there tiles give another result, and may leave seams.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ibmd_basicsr.utils.seeding import PerImageNoise


@dataclass(frozen=True)
class Tile:
    """A tile, in pixels of the input; ``image[..., *outer]`` is what it is computed from.

    Attributes:
        core: rows and columns that it gives to the result.
        outer: rows and columns of the core and its halo.
    """

    core: tuple[slice, slice]
    outer: tuple[slice, slice]


def plan_tiles(height: int, width: int, tile: int, halo: int, multiple: int = 1) -> list[Tile]:
    """Cut an image into tiles, row by row; their cores cover it without overlap.

    Args:
        height, width: of the image.
        tile: side of a core; 0 for the whole image.
        halo: pixels around a core, fewer at the edges of the image.
        multiple: corners of ``outer`` lie on multiples of it, or at the image's end: networks that halve the sides see their grid where
            it is in the whole image.
    """
    rows, columns = (_plan_axis(side, tile or side, halo, multiple) for side in (height, width))
    return [Tile((row[0], column[0]), (row[1], column[1])) for row in rows for column in columns]


def _plan_axis(side: int, tile: int, halo: int, multiple: int) -> list[tuple[slice, slice]]:
    spans = []
    for start in range(0, side, tile):
        stop = min(start + tile, side)
        first = max(0, start - halo) // multiple * multiple
        last = min(side, _round_up(stop + halo, multiple))
        spans.append((slice(start, stop), slice(first, last)))
    return spans


def _round_up(side: int, multiple: int) -> int:
    return side + -side % multiple


class NoiseWindow(PerImageNoise):
    """The noise of a whole image as one of its tiles sees it.

    Every draw is made for the whole image and cut, from a copy of the image's generators: all tiles see one field, the one that the image
    has without tiles. That costs each tile the random numbers of a whole image, which are cheap beside a network.

    Args:
        noise: of the whole image; its generators stay where they are.
        whole: height and width of the fields that are drawn.
        corner: top and left of the tile in them.
    """

    def __init__(self, noise: PerImageNoise, whole: tuple[int, int], corner: tuple[int, int]):
        super().__init__([_copy(generator) for generator in noise.generators])
        self.whole = whole
        self.corner = corner

    def randn_like(self, x: Tensor) -> Tensor:
        """Return the part of a standard normal field (B, C, *whole) that lies behind ``x`` (B, C, h, w)."""
        field = super().randn_like(x.new_empty(()).expand(*x.shape[:2], *self.whole))
        top, left = self.corner
        return field[..., top:top + x.shape[-2], left:left + x.shape[-1]]


def _copy(generator: torch.Generator) -> torch.Generator:
    copy = torch.Generator(generator.device)
    copy.set_state(generator.get_state())
    return copy


def restore_tiled(restorer: Callable[..., Tensor], lq: Tensor, noise: PerImageNoise,
                  on_step: Callable[[Tensor, Tensor], None] | None = None, *, scale: int, tile: int = 0, halo: int = 0,
                  mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
    """Call ``restorer``, in tiles where the image is larger than one.

    Args:
        restorer: called as a :class:`~ibmd_basicsr.restorer.Restorer`; with tiles, it also has its attribute ``size_multiple``.
        lq: (B, C, h, w) in [0, 1].
        noise: of the whole image.
        on_step: called after each network call, of each tile.
        scale: what ``restorer`` enlarges by.
        tile, halo: pixels of ``lq``; 0 for the whole image.
        mask: (B, 1, h, w), cut as ``lq`` is.
        labels: (B,), for all tiles.

    Returns:
        (B, C, scale h, scale w).
    """
    height, width = lq.shape[-2:]
    if not tile or max(height, width) <= tile:
        return restorer(lq, noise, on_step=on_step, mask=mask, labels=labels)
    multiple = restorer.size_multiple
    whole = tuple(scale * _round_up(side, multiple) for side in (height, width))
    result = lq.new_empty(*lq.shape[:2], scale * height, scale * width)
    for part in plan_tiles(height, width, tile, halo, multiple):
        corner = tuple(scale * side.start for side in part.outer)
        restored = restorer(lq[(..., *part.outer)], NoiseWindow(noise, whole, corner), on_step=on_step,
                            mask=None if mask is None else mask[(..., *part.outer)], labels=labels)
        inside = tuple(slice(scale * (core.start - outer.start), scale * (core.stop - outer.start))
                       for core, outer in zip(part.core, part.outer))
        result[(..., *(slice(scale * core.start, scale * core.stop) for core in part.core))] = restored[(..., *inside)]
    return result
