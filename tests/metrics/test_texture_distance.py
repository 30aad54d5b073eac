"""calculate_texture_distance: blur costs, displaced texture hardly does."""
import cv2
import numpy as np
import pytest
from basicsr.metrics import calculate_metric
from tiny import REPOSITORY

from ibmd_basicsr.metrics.texture_metric import calculate_texture_distance


@pytest.fixture(scope='module')
def photo() -> np.ndarray:
    return cv2.imread(str(REPOSITORY / 'datasets/photos/test/chelsea.png'))[:160, :160]


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def test_equal_images_are_at_zero_and_the_value_repeats(photo):
    assert calculate_texture_distance(photo, photo) == 0
    assert calculate_texture_distance(blur(photo, 1), photo) == calculate_texture_distance(blur(photo, 1), photo)


def test_more_blur_is_worse(photo):
    values = [calculate_texture_distance(blur(photo, sigma), photo) for sigma in (0.4, 0.7, 1.2, 2, 4)]
    assert values == sorted(values)
    assert values[0] > 10 and values[-1] > 3 * values[0]


def test_displaced_texture_is_far_better_than_blurred(photo):
    moved = calculate_texture_distance(np.roll(photo, 5, axis=(0, 1)), photo)
    assert moved < calculate_texture_distance(blur(photo, 1), photo) / 5


def test_lost_contrast_is_seen(photo):
    """Normalising each patch set by itself would give 0 here."""
    paler = photo.astype(np.float32) * 0.5 + 60
    assert calculate_texture_distance(paler, photo) > 100


def test_noise_is_seen(photo):
    noisy = photo + np.random.default_rng(0).normal(0, 15, photo.shape)
    assert calculate_texture_distance(noisy.clip(0, 255), photo) > 50


def test_border_is_left_out(photo):
    spoilt = photo.copy()
    spoilt[:6] = 255
    options = {'type': 'calculate_texture_distance', 'better': 'lower', 'crop_border': 6}
    assert calculate_metric({'img': spoilt, 'img2': photo}, options) == 0
    assert calculate_texture_distance(spoilt, photo) > 0


def test_wrong_sizes_are_refused(photo):
    with pytest.raises(ValueError, match='one size'):
        calculate_texture_distance(photo[1:], photo)
    with pytest.raises(ValueError, match='at least 32 pixels'):
        calculate_texture_distance(photo, photo, crop_border=70)
