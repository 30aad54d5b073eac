"""Qualities read from quantisation tables: exact for files of Pillow and OpenCV, near for others."""
import io

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_zoo import picture

from ibmd_basicsr.restoring.jpeg_quality import JpegQuality, estimate_quality, ijg_tables


def test_the_table_of_quality_fifty_is_annex_k_and_that_of_a_hundred_is_one():
    assert ijg_tables(50)[0, :8].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
    assert ijg_tables(50)[1, :8].tolist() == [17, 18, 24, 47, 99, 99, 99, 99]
    assert (ijg_tables(100) == 1).all()
    assert ijg_tables(10)[0, 0] == 80  # (16 * 500 + 50) // 100


@pytest.mark.parametrize('channels', [1, 3])
def test_files_of_pillow_say_their_quality(channels):
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.fromarray(picture(8, 8, channels)).save(buffer, 'JPEG', quality=quality)
        assert estimate_quality(Image.open(buffer).quantization) == JpegQuality(quality, True), quality


def test_files_of_opencv_say_their_quality():
    for quality in range(5, 96):
        _, code = cv2.imencode('.jpg', picture(8, 8), [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert estimate_quality(Image.open(io.BytesIO(code.tobytes())).quantization) == JpegQuality(quality, True), quality


def test_other_tables_get_the_nearest_quality():
    rng = np.random.default_rng(0)
    for quality in range(5, 96):
        table = (ijg_tables(quality)[0] + rng.integers(0, 2, 64)).clip(1, 255)
        found = estimate_quality({0: table.tolist()})
        assert abs(found.value - quality) <= max(3, quality // 25), (quality, found)
    assert str(JpegQuality(85, False)) == 'about 85'


@pytest.mark.parametrize('tables', [{}, {2: [1] * 64}, {0: [0] * 64}, {0: [1] * 63}])
def test_without_a_usable_table_there_is_no_quality(tables):
    assert estimate_quality(tables) is None
