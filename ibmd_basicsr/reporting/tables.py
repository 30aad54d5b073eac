"""Means over images and how they are written: a CSV file with all images, a Markdown table with the means."""
from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARROWS = {'higher': ' ↑', 'lower': ' ↓', None: ''}


@dataclass(frozen=True)
class Column:
    """A column of the table of means.

    Attributes:
        key: of the records.
        title: heading, without the arrow.
        digits: decimals.
        better: ``higher``, ``lower`` or None; decides the arrow and which value is set in bold.
    """

    key: str
    title: str
    digits: int
    better: str | None = None


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are there, None if there is none."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def median(values: Iterable[float]) -> float | None:
    """Return the median, None if there is no value."""
    values = list(values)
    return statistics.median(values) if values else None


def write_csv(path: Path, records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Write the records, one a line, with the columns ``keys``; a value that is missing leaves its cell empty."""
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, keys, extrasaction='ignore')
        writer.writeheader()
        writer.writerows(records)


def markdown_table(rows: Mapping[str, Mapping[str, float | None]], columns: Sequence[Column]) -> str:
    """Return a Markdown table, padded so that it can also be read as text.

    Args:
        rows: row name -> values by column key; None or missing values leave the cell empty.
        columns: in order. The best value of a column with a direction is bold.
    """
    best = {}
    for column in columns:
        values = [row[column.key] for row in rows.values() if _is_number(row.get(column.key))]
        if column.better and len(values) > 1:
            best[column.key] = max(values) if column.better == 'higher' else min(values)
    lines = [['restorer', *(column.title + ARROWS[column.better] for column in columns)]]
    for name, values in rows.items():
        cells = []
        for column in columns:
            value = values.get(column.key)
            text = f'{value:.{column.digits}f}' if value is not None else ''
            cells.append(f'**{text}**' if text and value == best.get(column.key) else text)
        lines.append([name, *cells])
    widths = [max(map(len, cells)) for cells in zip(*lines)]
    lines.insert(1, ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])])
    return '\n'.join('| ' + ' | '.join(cell.ljust(width) if i == 0 else cell.rjust(width)
                                       for i, (cell, width) in enumerate(zip(cells, widths))) + ' |' for cells in lines)


def _is_number(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
