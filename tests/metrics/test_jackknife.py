"""The jackknife: exact for means, about right for the distance of two Gaussians, and groups that hold each image once."""
import statistics

import numpy as np
import pytest

from ibmd_basicsr.metrics.distances import frechet_distance
from ibmd_basicsr.metrics.jackknife import deal_out, jackknife_error


@pytest.mark.parametrize('images, most, groups', [(2, 24, 0), (3, 24, 3), (24, 24, 24), (25, 24, 24), (100, 24, 24), (7, 3, 3)])
def test_groups_hold_every_image_once_and_are_of_one_size(images, most, groups):
    dealt = deal_out(range(images), most)
    assert len(dealt) == groups
    if groups:
        assert sorted(image for group in dealt for image in group) == list(range(images))
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_crops_of_a_photograph_stay_together():
    assert deal_out(['a', 'a', 'b', 'c', 'b', 'c']) == [[0, 1], [2, 4], [3, 5]]
    assert deal_out(['a', 'a', 'b', 'c', 'd', 'b'], most=2) == [[0, 1, 3], [2, 4, 5]]
    assert deal_out(['a', 'a', 'b', 'b']) == []  # what is left without one is a single photograph


def test_of_a_mean_it_is_the_standard_error():
    values = [0.3, 0.1, 0.8, 0.4, 0.9]
    left_out = [statistics.fmean(values[:i] + values[i + 1:]) for i in range(5)]
    assert jackknife_error(left_out) == pytest.approx(statistics.stdev(values) / 5**0.5, rel=1e-12)


def test_of_a_constant_it_is_zero_and_of_one_group_nothing():
    assert jackknife_error([2.0, 2.0, 2.0]) == 0
    with pytest.raises(ValueError, match='at least 2 groups, got 1'):
        jackknife_error([1.0])


def test_of_a_frechet_distance_it_is_the_spread_over_repeated_samples():
    """400 samples of two Gaussians whose means are 1 apart, in groups, two hundred times."""
    random = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(200):
        x, y = random.normal(0, 1, (400, 2)), random.normal([1, 0], 1, (400, 2))

        def distance(kept, x=x, y=y):
            (mean, mean2), (covariance, covariance2) = zip(*((part[kept].mean(0), np.cov(part[kept].T)) for part in (x, y)))
            return frechet_distance(mean, covariance, mean2, covariance2)

        values.append(distance(np.arange(400)))
        errors.append(jackknife_error([distance(np.setdiff1d(np.arange(400), group)) for group in deal_out(range(400))]))
    assert statistics.fmean(errors) == pytest.approx(statistics.stdev(values), rel=0.15)
