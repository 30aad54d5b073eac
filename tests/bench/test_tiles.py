"""Part h: what is measured of tiles, and that memory follows the image alone."""
import cv2
import numpy as np
import pytest
import torch

from ibmd_basicsr.benchmarks import tiles
from ibmd_basicsr.benchmarks.inference import student_restorer, timed_calls
from ibmd_basicsr.benchmarks.memory import peak_rss, reset_peak
from ibmd_basicsr.benchmarks.sizes import SIZES
from ibmd_basicsr.utils.seeding import PerImageNoise
from ibmd_basicsr.utils.tiling import plan_tiles, restore_tiled

CPU = torch.device('cpu')


class Framed:
    """Adds 0.1 to a frame of 8 pixels around each tile, and nothing to the whole image of 64 pixels."""

    size_multiple = 1

    def __call__(self, lq, noise, on_step=None, *, mask=None, labels=None):
        frame = torch.full(lq.shape[-2:], 0.1)
        frame[8:-8, 8:-8] = 0
        return lq + frame * (lq.shape[-1] < 64)


def test_agreement_near_seams_and_elsewhere():
    everywhere, near, elsewhere = tiles.agreement(Framed(), torch.zeros(1, 3, 64, 64), 32, 0)
    # four tiles of 32 with 1 - (16/32)^2 of their pixels in a frame; the seam's cross is 64^2 - 48^2 pixels, all in frames
    assert near == pytest.approx(20, abs=1e-5)
    assert everywhere == pytest.approx(20 - 10 * np.log10(3 / 4), abs=1e-5)
    assert elsewhere == pytest.approx(20 - 10 * np.log10((3 / 4 * 64**2 - (64**2 - 48**2)) / 48**2), abs=1e-5)


def test_photographs_are_the_middles_of_those_that_are_large_enough(tmp_path):
    (tmp_path / 'about.txt').write_text('no picture')
    for i, (height, width) in enumerate([(40, 60), (20, 90), (44, 41), (40, 40), (50, 50)]):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((height, width, 3), (10 * i, 0, 255), np.uint8))
    found = tiles._large_photographs(tmp_path, 40)
    assert [picture.shape for picture in found] == [(3, 40, 40)] * 3
    assert [round(picture[2, 0, 0].item() * 255) for picture in found] == [0, 20, 30] and all(picture[0].min() == 1 for picture in found)


def test_memory_is_that_of_the_image():
    """3 megapixels: noise and result, 12 bytes a pixel each, and 20 MiB for 320-pixel tiles. A second copy of the noise would be 36 MiB."""
    restorer = student_restorer(SIZES['quick'], CPU, scale=1)
    restorer.net.forward = lambda x, t, cond=None, z=None: x - z  # fast, and holds z as a network does
    noise = PerImageNoise.for_images(0, ['image'])

    def peak(height, width):
        lq = torch.zeros(1, 3, height, width)
        lq += 0.5  # touched, so that it is there before
        before = reset_peak()
        restore_tiled(restorer, lq, noise, scale=1, tile=256, halo=32)
        return peak_rss() - before

    peak(384, 384)  # what torch sets up once
    assert peak(1536, 2048) < 2 * 12 * 1536 * 2048 + 20 * 2**20


@pytest.mark.parametrize('size', ['nano', 's'])
def test_large_images_are_cut_as_the_rows_say(size):
    height, width = SIZES[size].large
    tile, halo = SIZES[size].tile
    assert height * width > 7.9e6 and len(plan_tiles(height, width, tile, halo, 8)) == 5 * 7
    assert all(tile % scale == halo % scale == height % scale == width % scale == 0 for scale in tiles.SCALES)
    assert timed_calls(SIZES[size]) == 20


def test_the_large_image_is_restored(tmp_path):
    height, width = SIZES['quick'].large
    for scale in tiles.SCALES:
        assert tiles.restore_large('quick', scale, CPU, tmp_path)().shape == (1, 3, height, width)
