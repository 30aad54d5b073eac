"""mean_pairwise_lpips: 0 for equal images, the LPIPS of a pair, the mean over all pairs of more."""
import cv2
import pytest
from tiny import REPOSITORY

from ibmd_basicsr.metrics.diversity import Diversity, mean_pairwise_lpips
from ibmd_basicsr.metrics.lpips_metric import calculate_lpips

PHOTO = cv2.imread(str(REPOSITORY / 'datasets/photos/test/coffee.png'))[:64, :64]
OTHERS = [cv2.GaussianBlur(PHOTO, (0, 0), sigma) for sigma in (1, 2, 3)]


def test_equal_images_have_none():
    assert mean_pairwise_lpips([PHOTO] * 3) == 0


def test_two_images_give_their_lpips():
    assert mean_pairwise_lpips([PHOTO, OTHERS[0]]) == calculate_lpips(PHOTO, OTHERS[0]) > 0


def test_more_images_give_the_mean_over_all_pairs():
    a, b, c, d = images = [PHOTO, *OTHERS]
    pairs = [calculate_lpips(*pair, crop_border=8) for pair in ((a, b), (a, c), (a, d), (b, c), (b, d), (c, d))]
    value = Diversity(crop_border=8)(images)
    assert value == pytest.approx(sum(pairs) / 6, rel=1e-12)
    assert min(pairs) < value < max(pairs)


def test_what_is_refused():
    with pytest.raises(ValueError, match='at least 2 images, got 1'):
        mean_pairwise_lpips([PHOTO])
    with pytest.raises(ValueError, match='one size'):
        mean_pairwise_lpips([PHOTO, PHOTO[1:]])
    for samples in (1, 2.0, True):
        with pytest.raises(ValueError, match='samples must be an integer of at least 2'):
            Diversity(samples=samples)
