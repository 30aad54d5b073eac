"""From a photograph to a restored one: network, noise, tiles; the only place here that calls networks."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ibmd_basicsr.models.recipes import Recipe
from ibmd_basicsr.restorer import Restorer
from ibmd_basicsr.restoring.memory import RESULT_BYTES, bytes_per_pixel, fitting_side, free_memory
from ibmd_basicsr.restoring.photo import ImageError, Photo
from ibmd_basicsr.restoring.zoo import nearest_quality
from ibmd_basicsr.utils.device_errors import is_out_of_memory
from ibmd_basicsr.utils.seeding import PerImageNoise
from ibmd_basicsr.utils.tiling import NoiseWindow, plan_tiles, restore_tiled

HALO_SHARE = 8
"""A tile's halo is this part of its side: with 32 of 256 pixels seams are as faint as with more, and cost is small."""
CORE_TO_HALO = HALO_SHARE - 2
LEAST_CORE = 4
"""Tiles are not made smaller, in pixels of the input."""
GREY = (0.299, 0.587, 0.114)
"""Weights of RGB in the luma of ITU-R BT.601, as in JPEG files."""
COMPUTED = {np.dtype(np.uint8): np.uint8, np.dtype(np.uint16): np.int32}
"""Integers of torch for those of images; its uint16 lacks most functions."""
FAR = 2
"""A JPEG quality is far from that of the training if the ratio of the two is larger."""


class Engine:
    """Restore photographs one by one; a result depends on photograph, name, seed and tiles alone.

    Args (keyword only):
        recipes: networks to choose from, by the quality of JPEG files.
        device: where networks run.
        seed: of the noise.
        tile, halo: pixels of the input, 0 for whole images; default: tiles of the size that a network was trained on.
        batch: tiles that go through the network together, see :func:`~ibmd_basicsr.utils.tiling.restore_tiled`.
        precision: see :class:`~ibmd_basicsr.restorer.Restorer`.
        jpeg_alone: refuse what is no JPEG file, because nobody has said what to do with it.
        input_quality: of the JPEG files, instead of the one that they say.

    Raises:
        CheckpointError: weights are missing or do not fit.
        OptionError: a precision that the device does not have.
    """

    def __init__(self, *, recipes: Sequence[Recipe], device: torch.device, seed: int = 0, tile: int | None = None,
                 halo: int | None = None, batch: int = 1, precision: str = 'fp32', jpeg_alone: bool = False,
                 input_quality: int | None = None):
        self.recipes = list(recipes)
        self.device = device
        self.seed = seed
        self.tile = tile
        self.halo = halo
        self.batch = batch
        self.jpeg_alone = jpeg_alone
        self.input_quality = input_quality
        self.restorers = {recipe.name: recipe.build(device, precision) for recipe in self.recipes}

    def choose(self, photo: Photo) -> Recipe:
        """Return the network for a photograph.

        Raises:
            ImageError: it is no JPEG file, and nobody has said what to do with it.
        """
        if self.jpeg_alone and photo.quality is None:
            raise ImageError('is not a JPEG file; say what to do with it: --task sr4x enlarges, --task jpeg removes the traces of JPEG.')
        return nearest_quality(self.recipes, self._quality(photo))

    def _quality(self, photo: Photo) -> int | None:
        return self.input_quality or (photo.quality.value if photo.quality else None)

    def warnings(self, photo: Photo, recipe: Recipe) -> list[str]:
        """Return a line where a JPEG file's quality is far from that of the network's training."""
        quality = self._quality(photo)
        if not quality or not recipe.quality or 1 / FAR <= quality / recipe.quality <= FAR:
            return []
        effect = 'much detail' if quality > recipe.quality else 'few of the traces'
        return [f'JPEG quality {quality}, but {recipe.name} was trained on {recipe.quality}; it will remove {effect}.']

    def restore(self, photo: Photo, recipe: Recipe, name: str, sample: int = 0, on_part: Callable[[float], None] = lambda part: None,
                on_note: Callable[[str], None] = lambda text: None) -> Photo:
        """Restore a photograph; tiles become smaller where memory does not suffice.

        Args:
            photo: as read.
            recipe: one of ``recipes``.
            name: keys the noise, with the seed and, from 1 on, ``sample``.
            sample: number of the restoration.
            on_part: called with the part of the work that is done, 0 to 1.
            on_note: called with what the user should know.

        Returns:
            the restored photograph: colour from the network (grey stays grey), transparency enlarged by bicubic interpolation, the same
            metadata and bit depth.

        Raises:
            ImageError: it does not fit into the memory in any way.
        """
        restorer = self.restorers[recipe.name]
        self._check_result(photo, recipe)
        lq = torch.from_numpy(photo.colour.transpose(2, 0, 1).astype(COMPUTED[photo.colour.dtype], order='C'))[None]
        samples = _OfSamples(restorer, np.iinfo(photo.colour.dtype).max)
        tile, halo = self._tiles(photo, recipe, on_note)
        while True:
            noise = PerImageNoise.for_images(self.seed, [name], sample)
            try:
                restored = self._call(samples, lq, noise, tile, halo, on_part)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # behind the handler: the error holds the frames with the tensors that were too large
            smaller = (tile or max(photo.size)) // 2
            if smaller < LEAST_CORE:
                raise ImageError(f'does not fit into the memory of {self.device}, not even in tiles of {tile} pixels.')
            tile, halo = smaller, min(smaller, self.halo if self.halo is not None else math.ceil(smaller / CORE_TO_HALO))
            if self.device.type == 'cuda':
                torch.cuda.empty_cache()
            on_part(0)
            on_note(f'not enough memory, again in tiles of {tile} pixels.')
        colour = np.ascontiguousarray(restored[0].permute(1, 2, 0).numpy(), photo.colour.dtype)
        return Photo(colour, _enlarge(photo.alpha, recipe.scale), photo.kind, photo.exif, photo.icc)

    def _call(self, samples: _OfSamples, lq: Tensor, noise: PerImageNoise, tile: int, halo: int,
              on_part: Callable[[float], None]) -> Tensor:
        """Return integers (1, 1 or 3, scale h, scale w) on the CPU."""
        restorer = samples.restorer
        parts, done = len(plan_tiles(*lq.shape[-2:], tile, halo, restorer.size_multiple)) * restorer.calls, 0

        def on_step(x0_hat: Tensor, x: Tensor) -> None:
            nonlocal done
            done += len(x)  # tiles that went through the network together
            on_part(min(done / parts, 1))

        return restore_tiled(samples, lq.to(self.device), noise, on_step, scale=restorer.scale, tile=tile, halo=halo,
                             batch=self.batch).cpu()

    def _tiles(self, photo: Photo, recipe: Recipe, on_note: Callable[[str], None]) -> tuple[int, int]:
        """Return core and halo of the tiles in pixels of the input, 0 and 0 for a whole image."""
        if self.tile is not None:
            halo = math.ceil(recipe.size / HALO_SHARE / recipe.scale) if self.halo is None else self.halo
            return self.tile, halo if self.tile else 0
        free = free_memory(self.device)
        side = fitting_side(recipe.size, self.batch * bytes_per_pixel(recipe.network), free)
        if side < recipe.size and max(photo.size) * recipe.scale > side:
            on_note(f'tiles of {side} pixels of the result in the place of {recipe.size}, since {free / 2**20:.0f} MiB of memory are free.')
        if max(photo.size) * recipe.scale <= side:
            return 0, 0
        halo = side // HALO_SHARE // recipe.scale if self.halo is None else self.halo
        return max(LEAST_CORE, side // recipe.scale - 2 * halo), halo

    def _check_result(self, photo: Photo, recipe: Recipe) -> None:
        """Refuse results that the memory cannot hold: systems would end the process rather than say so."""
        height, width = (recipe.scale * side for side in photo.size)
        for device in {torch.device('cpu'), self.device}:
            need, free = height * width * RESULT_BYTES, free_memory(device)
            if free is not None and need > free:
                raise ImageError(f'the result of {width}x{height} pixels takes about {need / 2**30:.1f} GiB of memory, '
                                 f'{free / 2**30:.1f} are free on {device}; cut the image.')


class _OfSamples:
    """A restorer of integers: a large image is never held as floats, only the tiles that are in work.

    Args:
        restorer: of (B, 3, h, w) in [0, 1].
        most: the integer of white.
    """

    def __init__(self, restorer: Restorer, most: int):
        self.restorer = restorer
        self.most = most
        self.size_multiple = restorer.size_multiple

    def __call__(self, lq: Tensor, noise: PerImageNoise | NoiseWindow, **options: Any) -> Tensor:
        """Turn integers (B, 1 or 3, h, w) into restored ones; grey is restored as three equal channels, of whose result luma is kept."""
        image = self.restorer((lq.float() / self.most).expand(-1, 3, -1, -1).contiguous(), noise, **options)
        if lq.shape[1] == 1:
            image = torch.einsum('c,bchw->bhw', torch.tensor(GREY, device=image.device), image)[:, None]
        return image.mul(self.most).round_().to(lq.dtype)


def _enlarge(alpha: np.ndarray | None, scale: int) -> np.ndarray | None:
    if alpha is None or scale == 1:
        return alpha
    return cv2.resize(alpha, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
