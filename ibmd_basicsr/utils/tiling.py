"""Large images in tiles that overlap: each tile is restored with a halo around it, and only its core is kept.

Exact where no pixel of a network's output sees further than the halo and the network treats all places alike. Attention over the whole
image, and normalisation by its statistics, see further: there tiles give another result, and may leave seams.

Memory is bounded by the image and not by the network: the input, the result, one field of noise for each draw (up to
:data:`KEPT_BYTES`), and what the network needs for one batch of tiles.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ibmd_basicsr.utils.seeding import PerImageNoise, hand_over

KEPT_BYTES = 2**30
"""Noise fields of a whole image that are kept for all of its tiles; later draws are made anew for each batch of tiles."""


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

    All ``outer`` have one size once the image is padded to ``multiple``, so that tiles can be stacked and a compiled network sees one
    shape: at the edges of the image they reach further inwards instead of being smaller.

    Args:
        height, width: of the image.
        tile: side of a core; 0 for the whole image.
        halo: pixels around a core, at least, where the image has them.
        multiple: corners of ``outer`` lie on multiples of it, or at the image's end: networks that halve the sides see their grid where
            it is in the whole image.

    Returns:
        At least one tile; one alone, along a side, where a core and its halo would see all of it.
    """
    rows, columns = (_plan_axis(side, tile or side, halo, multiple) for side in (height, width))
    return [Tile((row[0], column[0]), (row[1], column[1])) for row in rows for column in columns]


def _plan_axis(side: int, tile: int, halo: int, multiple: int) -> list[tuple[slice, slice]]:
    padded = _round_up(side, multiple)
    cores = [slice(start, min(start + tile, side)) for start in range(0, side, tile)]
    firsts = [max(0, core.start - halo) // multiple * multiple for core in cores]
    length = max(min(padded, _round_up(core.stop + halo, multiple)) - first for core, first in zip(cores, firsts))
    if length == padded:
        return [(slice(0, side), slice(0, side))]
    firsts = [min(first, padded - length) for first in firsts]
    return [(core, slice(first, min(side, first + length))) for core, first in zip(cores, firsts)]


def _round_up(side: int, multiple: int) -> int:
    return side + -side % multiple


class NoiseField:
    """The noise of a whole image, for all of its tiles: they see the one field that the image has without tiles.

    A draw is made once and kept for all tiles, as long as the kept ones take no more than ``kept_bytes`` (the first always is kept). Later
    draws, of samplers with many calls, are made anew for each :class:`NoiseWindow`: memory stays bounded, and each batch of tiles costs
    the random numbers of a whole image per draw (8 megapixels: 0.1 s on a CPU).

    Args:
        noise: of the whole image; its generators stay where they are.
        whole: height and width of the fields that are drawn.
        kept_bytes: see above.
    """

    def __init__(self, noise: PerImageNoise, whole: tuple[int, int], kept_bytes: int = KEPT_BYTES):
        self.whole = whole
        self.room = kept_bytes
        self.kept: list[Tensor] = []
        self.source = noise.copy()  # stands behind the last draw that is kept
        self.full = False

    def draw(self, number: int, channels: int) -> Tensor | None:
        """Return draw ``number`` of the image, (B, channels, *whole) float32 on the generators' device; None if it is not kept."""
        if number == len(self.kept) and not self.full:
            size = 4 * len(self.source.generators) * channels * self.whole[0] * self.whole[1]
            if self.kept and size > self.room:
                self.full = True
            else:
                self.room -= size
                self.kept.append(self.source.randn(channels, *self.whole))
        return self.kept[number] if number < len(self.kept) else None


class NoiseWindow:
    """The noise of a whole image as a batch of its tiles sees it: a :class:`PerImageNoise` to samplers.

    Args:
        field: of the whole image.
        corners: top and left of each tile in it. A batch holds all images of the first tile, then all of the second, and so on.
    """

    def __init__(self, field: NoiseField, corners: Sequence[tuple[int, int]]):
        self.field = field
        self.corners = corners
        self.drawn = 0
        self.own: PerImageNoise | None = None

    def randn_like(self, x: Tensor) -> Tensor:
        """Return the parts of a standard normal field (B, C, *whole) that lie behind ``x`` (tiles B, C, h, w).

        Raises:
            ValueError: the batch of ``x`` is not the number of images of all tiles.
        """
        images = len(self.corners) * len(self.field.source.generators)
        if len(x) != images:
            raise ValueError(f'A batch of {len(x)} images meets the noise of {images}.')
        draw = self.field.draw(self.drawn, x.shape[1])
        if draw is None:
            self.own = self.own or self.field.source.copy()
            draw = self.own.randn(x.shape[1], *self.field.whole)
        self.drawn += 1
        cuts = [draw[..., top:top + x.shape[-2], left:left + x.shape[-1]] for top, left in self.corners]
        return hand_over(torch.cat(cuts), x)


def restore_tiled(restorer: Callable[..., Tensor], lq: Tensor, noise: PerImageNoise,
                  on_step: Callable[[Tensor, Tensor], None] | None = None, *, scale: int, tile: int = 0, halo: int = 0,
                  mask: Tensor | None = None, labels: Tensor | None = None, batch: int = 1) -> Tensor:
    """Call ``restorer``, in tiles where the image is larger than one.

    Args:
        restorer: called as a :class:`~ibmd_basicsr.restorer.Restorer`; with tiles, it also has its attribute ``size_multiple``.
        lq: (B, C, h, w) in [0, 1].
        noise: of the whole image.
        on_step: called after each network call, of each batch of tiles.
        scale: what ``restorer`` enlarges by.
        tile, halo: pixels of ``lq``; 0 for the whole image.
        mask: (B, 1, h, w), cut as ``lq`` is.
        labels: (B,), for all tiles.
        batch: so many tiles are restored at a time, as one batch of B times as many images (fewer where their number is not a multiple of
            it, or the image's sides are not multiples of ``size_multiple``). Faster on GPUs, and takes as many times the memory.
            The result is the same up to the order in which convolutions sum.

    Returns:
        (B, C, scale h, scale w).

    Raises:
        ValueError: ``batch`` is not positive.
    """
    if batch < 1:
        raise ValueError(f'batch must be at least 1, got {batch}.')
    height, width = lq.shape[-2:]
    cut = tile and max(height, width) > tile
    multiple = restorer.size_multiple if cut else 1
    tiles = plan_tiles(height, width, tile, halo, multiple) if cut else []
    if len(tiles) < 2:
        return restorer(lq, noise, on_step=on_step, mask=mask, labels=labels)
    field = NoiseField(noise, tuple(scale * _round_up(side, multiple) for side in (height, width)))
    result = lq.new_empty(*lq.shape[:2], scale * height, scale * width)
    for group in _batches(tiles, batch):
        window = NoiseWindow(field, [tuple(scale * side.start for side in part.outer) for part in group])
        restored = restorer(_cut(lq, group), window, on_step=on_step, mask=None if mask is None else _cut(mask, group),
                            labels=None if labels is None else labels.repeat(len(group)))
        for part, image in zip(group, restored.split(len(lq))):
            inside = tuple(slice(scale * (core.start - outer.start), scale * (core.stop - outer.start))
                           for core, outer in zip(part.core, part.outer))
            result[(..., *(slice(scale * core.start, scale * core.stop) for core in part.core))] = image[(..., *inside)]
    return result


def _batches(tiles: list[Tile], batch: int) -> Iterator[list[Tile]]:
    """Yield up to ``batch`` tiles of one shape at a time."""
    by_shape: dict[tuple[int, int], list[Tile]] = {}
    for part in tiles:
        by_shape.setdefault(tuple(side.stop - side.start for side in part.outer), []).append(part)
    for group in by_shape.values():
        for start in range(0, len(group), batch):
            yield group[start:start + batch]


def _cut(images: Tensor, tiles: list[Tile]) -> Tensor:
    return torch.cat([images[(..., *part.outer)] for part in tiles])
