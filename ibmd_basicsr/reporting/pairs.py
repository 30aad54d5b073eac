"""Two rows of a comparison, image by image: their means differ by how much, with what error, and on how many images."""
from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Scores = Mapping[tuple[str, str], float]
"""Values of a metric by test set and image."""


@dataclass(frozen=True)
class Row:
    """A row of results.csv: network calls an image, and the metric's value for each image."""

    name: str
    calls: int
    scores: Scores

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores.values())


@dataclass(frozen=True)
class Pair:
    """``first`` against ``second`` on the same images, for a metric whose lower values are better.

    Attributes:
        difference: mean of first minus second; negative where ``first`` is better.
        standard_error: of that mean, from the spread of the images' differences; None for a single image. It takes the images for
            independent draws: with several crops of one photograph it is too small.
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
    calls = {}
    for record in records:
        if not record.get(metric):
            raise ValueError(f'{path}: no {metric} of {record["row"]} on {record["image"]}.')
        scores.setdefault(record['row'], {})[record['dataset'], record['image']] = float(record[metric])
        calls[record['row']] = int(float(record['calls']))
    return {name: Row(name, calls[name], values) for name, values in scores.items()}


def paired(first: Row, second: Row) -> Pair:
    """Compare two rows on the images that both were measured on.

    Raises:
        ValueError: they were not measured on the same images.
    """
    if first.scores.keys() != second.scores.keys():
        raise ValueError(f'{first.name} has {len(first.scores)} images, {second.name} has {len(second.scores)} or others: '
                         'run the comparison to its end.')
    differences = [value - second.scores[image] for image, value in first.scores.items()]
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return Pair(first, second, statistics.fmean(differences), error, sum(d < 0 for d in differences), len(differences))
