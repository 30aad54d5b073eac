"""Standard errors of numbers that belong to a whole set of images, such as Frechet distances, by the jackknife.

Source: Quenouille 1956, Tukey 1958; Efron and Stein, Annals of Statistics 9 (1981), 586-596: it errs on the large side.
"""
from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

GROUPS = 24
"""Groups that a set is dealt into at most: every one of them costs a computation of the number."""
FEWEST = 3
"""Photographs of the smallest set: what is left without one must still have a spread."""


def deal_out(photographs: Sequence[Hashable], most: int = GROUPS) -> list[list[int]]:
    """Deal images into groups, one photograph each or, from ``most`` on, as equal numbers of them as can be.

    Args:
        photographs: of each image, which it is a crop of. Crops of one photograph are alike and stay together: apart, they would make
            the error too small.
        most: number of groups.

    Returns:
        The groups, sorted places of images; none where there are fewer than :data:`FEWEST` photographs.
    """
    order = list(dict.fromkeys(photographs))
    count = min(len(order), most)
    groups = [set(order[group::count]) for group in range(count)] if len(order) >= FEWEST else []
    return [[place for place, photograph in enumerate(photographs) if photograph in group] for group in groups]


def jackknife_error(left_out: Sequence[float]) -> float:
    """Return the standard error of a number from its values without each of G groups: sqrt((G - 1) / G sum (x_g - mean)^2).

    For the mean of G numbers that is their standard deviation over sqrt(G).

    Raises:
        ValueError: fewer than two values.
    """
    if len(left_out) < 2:
        raise ValueError(f'a jackknife needs at least 2 groups, got {len(left_out)}.')
    mean = math.fsum(left_out) / len(left_out)
    return math.sqrt((len(left_out) - 1) / len(left_out) * math.fsum((value - mean)**2 for value in left_out))
