"""Part h: a large photograph in tiles, its seconds and memory; how far tiles are from the image that is restored as a whole."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import torch
from torch import Tensor

from ibmd_basicsr.benchmarks import memory
from ibmd_basicsr.benchmarks.inference import student_restorer
from ibmd_basicsr.benchmarks.pipeline import make_photographs
from ibmd_basicsr.benchmarks.session import PartKind, Session
from ibmd_basicsr.benchmarks.sizes import SCALE, SEED, SIZES
from ibmd_basicsr.benchmarks.timing import Row, Target
from ibmd_basicsr.checkpoints.state_dict import load_params, load_strictly
from ibmd_basicsr.data.jpeg import jpeg_libjpeg
from ibmd_basicsr.restorer import Restorer
from ibmd_basicsr.utils.seeding import PerImageNoise
from ibmd_basicsr.utils.tiling import Tile, plan_tiles, restore_tiled

SCALES = (SCALE, 1)
"""Super-resolution, and JPEG restoration."""
TARGET_MIB = 2048
PHOTOGRAPHS = 3
WEIGHTS = {'nano': Path('weights/jpeg10_nano_student.pth')}
"""Students whose statistics are those of photographs, by size; random weights where the file is not there."""
NEAR = 8
"""Pixels to either side of a seam that count as near it."""


def tile_rows(session: Session) -> list[Row]:
    """Measure the student in tiles, of photographs of ``session.data`` or, where too few of them are large, of random pictures.

    Returns:
        For each of :data:`SCALES` the seconds (one call; on a GPU after one to warm up) and the peak memory of the large image, each in a
        process of its own; then the PSNR of tiles against the whole image, a value for each photograph: all pixels, those near a seam,
        the others.
    """
    height, width = session.size.large
    tile, halo = session.size.tile
    rows = []
    for scale in SCALES:
        peak, before, seconds = memory.in_a_process(restore_large, session.size_name, scale, device=str(session.device))
        name = f'x{scale}, {width} x {height} px, tiles of {tile} + 2 x {halo}'
        tiles = len(plan_tiles(height // scale, width // scale, tile // scale, halo // scale))
        rows += [Row(name, 's', [seconds], notes={'tiles': tiles}),
                 Row(f'{name}, peak memory', 'MiB', [peak / memory.MIB], target=Target('at most', TARGET_MIB),
                     notes={'before_mib': before / memory.MIB})]
        session.tick(name)
    return rows + _agreement(session)


def restore_large(size_name: str, scale: int, device: torch.device, folder: Path) -> Callable[[], Tensor]:
    """Return a function that restores a large random image in tiles with the student of random weights; ``folder`` is not used."""
    size = SIZES[size_name]
    lq = torch.rand(1, 3, *(side // scale for side in size.large), generator=torch.Generator().manual_seed(SEED)).to(device)
    restorer = student_restorer(size, device, scale)
    tile, halo = (side // scale for side in size.tile)
    return lambda: restore_tiled(restorer, lq, _noise(), scale=scale, tile=tile, halo=halo)


def _noise() -> PerImageNoise:
    return PerImageNoise.for_images(SEED, ['image'])


def _agreement(session: Session) -> list[Row]:
    size, device = session.size, session.device
    tile, halo = size.tile
    restorer = student_restorer(size, device, scale=1)
    weights = WEIGHTS.get(session.size_name)
    trained = weights is not None and weights.is_file()
    if trained:
        load_strictly(restorer.net, load_params(str(weights), 'params_ema'), str(weights))
    pictures = _large_photographs(session.data, size.agreement_side) if session.data else []
    photographs = len(pictures) == PHOTOGRAPHS
    if not photographs:
        pictures = _large_photographs(make_photographs(session.folder / 'pictures', PHOTOGRAPHS, size.agreement_side), size.agreement_side)
    name = (f'tiles of {tile} + 2 x {halo} against whole {"photographs" if photographs else "random pictures"} of '
            f'{size.agreement_side} px, JPEG 10, {"shipped" if trained else "random"} weights')
    rows = [Row(f'{name}: {part}', 'dB', []) for part in ('all pixels', f'within {NEAR} px of a seam', 'elsewhere')]
    for picture in pictures:
        for row, value in zip(rows, agreement(restorer, jpeg_libjpeg(picture, 10)[None].to(device), tile, halo)):
            row.values.append(value)
        session.tick('tiles against whole images')
    return rows


def _large_photographs(folder: Path, side: int) -> list[Tensor]:
    """Return the middles, (3, side, side) RGB in [0, 1], of the first photographs of a folder that are large enough."""
    found = []
    for path in sorted(folder.iterdir()):
        image = cv2.imread(str(path)) if len(found) < PHOTOGRAPHS else None
        if image is not None and min(image.shape[:2]) >= side:
            top, left = ((length - side) // 2 for length in image.shape[:2])
            found.append(torch.from_numpy(image[top:top + side, left:left + side, ::-1].copy()).permute(2, 0, 1) / 255)
    return found


def agreement(restorer: Restorer, lq: Tensor, tile: int, halo: int) -> tuple[float, float, float]:
    """Return the PSNR, in dB for values in [0, 1], of an image in tiles against the same restored as a whole.

    Args:
        restorer: of scale 1.
        lq: (1, C, h, w).
        tile, halo: see :func:`~ibmd_basicsr.utils.tiling.restore_tiled`.

    Returns:
        Of all pixels; of those within :data:`NEAR` of a seam; of the others.
    """
    tiled = restore_tiled(restorer, lq, _noise(), scale=1, tile=tile, halo=halo)
    near = near_seams(plan_tiles(*lq.shape[-2:], tile, halo, restorer.size_multiple), 1)
    return agreement_by_place(tiled, restorer(lq, _noise()), near.to(lq.device))


def near_seams(tiles: Sequence[Tile], scale: int) -> Tensor:
    """Return a mask (H, W) of the pixels of the result, ``scale`` times the input, that lie within :data:`NEAR` of a seam."""
    near = torch.zeros([scale * max(part.core[axis].stop for part in tiles) for axis in (0, 1)], dtype=torch.bool)
    for part in tiles:
        top, left = (scale * core.start for core in part.core)
        if top:
            near[top - NEAR:top + NEAR] = True
        if left:
            near[:, left - NEAR:left + NEAR] = True
    return near


def agreement_by_place(tiled: Tensor, whole: Tensor, near: Tensor) -> tuple[float, float, float]:
    """Return the PSNR in dB of ``tiled`` against ``whole``, (1, C, H, W) in [0, 1]: all pixels, those near seams, the others."""
    error = (tiled - whole).double().square()
    return tuple(-10 * error[..., pixels].mean().log10().item() for pixels in (torch.ones_like(near), near, ~near))


PARTS = {
    'h': PartKind(
        'a large image in tiles',
        'The student, one call a tile. Seconds and memory: each row in a process of its own, first run. dB: PSNR of the image in tiles '
        'against the same restored as a whole, whose normalisation sees all of it; one value a picture.',
        lambda session: len(SCALES) + PHOTOGRAPHS, tile_rows),
}
