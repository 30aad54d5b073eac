"""calculate_psnrb: values by hand, PSNR where nothing is blocky, less than PSNR for JPEG."""
import math

import cv2
import numpy as np
import pytest
from basicsr.metrics import calculate_metric, calculate_psnr
from tiny import REPOSITORY

from ibmd_basicsr.metrics.psnrb_metric import blocking_effect_factor, calculate_psnrb

PHOTO = cv2.imread(str(REPOSITORY / 'datasets/photos/test/chelsea.png'))[:160, :128]


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def checks(height: int, width: int, low: int = 100, high: int = 110) -> np.ndarray:
    """A chessboard of flat 8x8 blocks."""
    rows, columns = np.indices((height, width)) // 8
    return np.where((rows + columns) % 2, high, low)[..., None].repeat(3, 2).astype(np.uint8)


def test_blocky_image_by_hand():
    """Every block edge has a step of 10, nothing else: D_B = 100, D_BC = 0, BEF = 100 log2(8) / log2(32)."""
    image = checks(32, 64)
    assert blocking_effect_factor(image.astype(float)) == pytest.approx(100 * 3 / 5)
    truth = np.full_like(image, 105)  # MSE 25
    assert calculate_psnrb(image, truth) == pytest.approx(10 * math.log10(255**2 / (25 + 60)))


def test_edges_within_blocks_count_against_it_by_hand():
    """16x16: columns 3 and 7 end with steps of 4 and 10, rows with none; an image has 16 (+ 16) block edges and 224 (+ 224) others."""
    image = np.zeros((16, 16, 1))
    image[:, 4:] += 4
    image[:, 8:] += 10
    assert blocking_effect_factor(image) == pytest.approx((16 * 100 / 32 - 16 * 16 / 448) * 3 / 4)


@pytest.mark.parametrize('y', [False, True])
def test_it_is_psnr_where_block_edges_are_no_steeper(y):
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(40), np.arange(48))[..., None].repeat(3, 2).astype(np.uint8)
    other = rng.integers(0, 256, ramp.shape).astype(np.uint8)
    assert blocking_effect_factor(ramp.astype(float)) == 0
    assert calculate_psnrb(ramp, other, test_y_channel=y) == pytest.approx(calculate_psnr(ramp, other, 0, test_y_channel=y), abs=1e-5)


@pytest.mark.parametrize('y', [False, True])
def test_jpeg_is_below_psnr_the_more_the_coarser(y):
    gaps = [calculate_psnr(x, PHOTO, 0, test_y_channel=y) - calculate_psnrb(x, PHOTO, test_y_channel=y)
            for x in (jpeg(PHOTO, 10), jpeg(PHOTO, 90))]
    assert gaps[0] > 1 > gaps[1] >= 0


def test_blocks_of_the_reference_do_not_count():
    assert calculate_psnrb(PHOTO, jpeg(PHOTO, 10)) > calculate_psnrb(jpeg(PHOTO, 10), PHOTO)


def test_equal_smooth_images_are_infinitely_good_and_equal_blocky_ones_are_not():
    flat = np.full((32, 32, 3), 7, np.uint8)
    assert calculate_psnrb(flat, flat) == math.inf
    assert calculate_psnrb(checks(32, 32), checks(32, 32)) == pytest.approx(10 * math.log10(255**2 / 60))


def test_other_grids_are_possible():
    image = checks(64, 64)[:, :, :1].astype(float)
    assert blocking_effect_factor(image, 16) == pytest.approx((100 - 100 * 4 / 60) * 4 / 6)


def test_host_calls_it_and_whole_blocks_are_left_out():
    worse = jpeg(PHOTO, 10)
    value = calculate_metric({'img': worse, 'img2': PHOTO}, {'type': 'calculate_psnrb', 'crop_border': 8, 'better': 'higher'})
    assert value == calculate_psnrb(worse[8:-8, 8:-8], PHOTO[8:-8, 8:-8])


def test_what_it_refuses():
    with pytest.raises(ValueError, match='one size'):
        calculate_psnrb(PHOTO[1:], PHOTO)
    with pytest.raises(ValueError, match='crop_border must be a multiple of 8, so that the block grid stays, got 4'):
        calculate_psnrb(PHOTO, PHOTO, crop_border=4)
    with pytest.raises(ValueError, match='at least 9 pixels a side, got 8x20'):
        calculate_psnrb(PHOTO[:20, :8], PHOTO[:20, :8])
