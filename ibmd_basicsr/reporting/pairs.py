"""Two rows of a comparison on the same images: their means, or their values of whole sets, differ by how much, with what error."""
from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ibmd_basicsr.metrics.jackknife import jackknife_error

Scores = Mapping[tuple[str, str], float]
"""Values of a metric by test set and image."""


@dataclass(frozen=True)
class Row:
    """A row of results.csv.

    Attributes:
        name: of the row.
        calls: network calls an image.
        scores: the metric's value for each image.
        photographs: of each image, which it is a crop of; without an entry, it is a photograph by itself.
    """

    name: str
    calls: int
    scores: Scores
    photographs: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores.values())


@dataclass(frozen=True)
class Pair:
    """``first`` against ``second`` on the same images, for a metric whose lower values are better.

    Attributes:
        difference: mean of first minus second; negative where ``first`` is better.
        standard_error: of that mean, from the spread of the photographs' differences; None for a single one.
        wins: images on which ``first`` is better.
        images: their number.
    """

    first: Row
    second: Row
    difference: float
    standard_error: float | None
    wins: int
    images: int


def read_rows(path: Path, metric: str) -> dict[str, Row]:
    """Read results.csv of a comparison: the rows by name, in the order of the file.

    Raises:
        ValueError: the file has no column ``metric``, or not a value for each image.
    """
    with path.open(newline='', encoding='utf-8') as file:
        records = list(csv.DictReader(file))
    scores: dict[str, dict[tuple[str, str], float]] = {}
    calls, photographs = {}, {}
    for record in records:
        if not record.get(metric):
            raise ValueError(f'{path}: no {metric} of {record["row"]} on {record["image"]}.')
        scores.setdefault(record['row'], {})[record['dataset'], record['image']] = float(record[metric])
        calls[record['row']] = int(float(record['calls']))
        photographs[record['dataset'], record['image']] = record.get('photograph') or record['image']
    return {name: Row(name, calls[name], values, photographs) for name, values in scores.items()}


def paired(first: Row, second: Row) -> Pair:
    """Compare two rows on the images that both were measured on.

    Raises:
        ValueError: they were not measured on the same images.
    """
    if first.scores.keys() != second.scores.keys():
        raise ValueError(f'{first.name} has {len(first.scores)} images, {second.name} has {len(second.scores)} or others: '
                         'run the comparison to its end.')
    differences = {image: value - second.scores[image] for image, value in first.scores.items()}
    by_photograph: dict[tuple[str, str], list[float]] = {}
    for image, difference in differences.items():
        by_photograph.setdefault((image[0], first.photographs.get(image, image[1])), []).append(difference)
    return Pair(first, second, statistics.fmean(differences.values()), clustered_error(list(by_photograph.values())),
                sum(difference < 0 for difference in differences.values()), len(differences))


def clustered_error(clusters: Sequence[Sequence[float]]) -> float | None:
    """Return the standard error of the mean of numbers that are independent between clusters alone; None for a single cluster.

    sqrt(G / (G - 1) sum_g (sum_i (x_gi - mean))^2) / n for G clusters with n numbers, the usual standard error where each has one.
    Source: Liang and Zeger, Biometrika 73 (1986), 13-22, with the correction for few clusters.
    """
    if len(clusters) < 2:
        return None
    values = [value for cluster in clusters for value in cluster]
    mean = statistics.fmean(values)
    squares = math.fsum(math.fsum(value - mean for value in cluster)**2 for cluster in clusters)
    return math.sqrt(len(clusters) / (len(clusters) - 1) * squares) / len(values)


def read_sets(path: Path) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Read sets.csv of a comparison: metric -> row -> for each test set its value (key '0') and those without a group ('1', '2', ...)."""
    with path.open(newline='', encoding='utf-8') as file:
        records = [record for record in csv.DictReader(file) if record['value']]
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for record in records:
        row = found.setdefault(record['metric'], {}).setdefault(record['row'], {})
        row.setdefault(record['dataset'], {})[record['left_out']] = float(record['value'])
    return {metric: {row: list(sets.values()) for row, sets in rows.items()} for metric, rows in found.items()}


def set_difference(first: dict[str, float], second: dict[str, float]) -> tuple[float, float | None]:
    """Return first minus second of a metric of whole sets and its standard error by the jackknife, None without groups.

    Both were restored from the same images, and the same are left out of both: what all restorers find hard cancels.

    Args:
        first, second: values of one test set, as of :func:`read_sets`.

    Raises:
        ValueError: other groups were left out of one than of the other.
    """
    if first.keys() != second.keys():
        raise ValueError(f'{len(first) - 1} and {len(second) - 1} groups were left out: run the comparison to its end.')
    left_out = [first[group] - second[group] for group in first if group != '0']
    return first['0'] - second['0'], jackknife_error(left_out) if left_out else None
