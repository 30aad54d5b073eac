"""Times of several cases, taken in turns: what else the machine does then meets all of them alike."""
from __future__ import annotations

import operator
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

WALL, CPU = 'wall', 'processor'


@dataclass(frozen=True)
class Case:
    """Something to be timed.

    Attributes:
        name: of the row.
        run: one repeat.
        per: how many iterations, images or passes a repeat makes; times are divided by it.
    """

    name: str
    run: Callable[[], Any]
    per: float = 1


@dataclass(frozen=True)
class Target:
    """What a row should reach: ``at most`` or ``at least`` a value, of the ratio, or of the median in a row without one."""

    relation: str
    value: float

    RELATIONS = {'at most': operator.le, 'at least': operator.ge}

    def met(self, value: float) -> bool:
        """Tell whether ``value`` reaches the target."""
        return self.RELATIONS[self.relation](value, self.value)

    def __str__(self) -> str:
        return f'{"≤" if self.relation == "at most" else "≥"} {self.value:g}'


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return median and quartiles of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method='inclusive')
        return cls(median, low, high)


@dataclass
class Row:
    """A line of the report.

    Attributes:
        name: what was measured.
        unit: of ``values``.
        values: one a repeat.
        cpu_values: the same in seconds of the processors; empty where that says nothing (GPUs, memory).
        against: the row that this one is divided by, repeat by repeat.
        target: for the ratio, or for the median where there is no ``against``.
        notes: anything else, for the JSON file.
    """

    name: str
    unit: str
    values: list[float]
    cpu_values: list[float] = field(default_factory=list)
    against: Row | None = None
    target: Target | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def spread(self) -> Spread:
        """Median and quartiles of the values."""
        return Spread.of(self.values)

    def ratio(self, clock: str = WALL) -> Spread | None:
        """Return the ratio to ``against``, formed within each repeat; None where there is none."""
        if self.against is None:
            return None
        ours, theirs = (row.values if clock == WALL else row.cpu_values for row in (self, self.against))
        if not ours or not theirs:
            return None
        return Spread.of([a / b for a, b in zip(ours, theirs)])

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.target.met((self.ratio() or self.spread).median)


def total(name: str, rows: Sequence[Row]) -> Row:
    """Return the sum of rows, repeat by repeat."""
    return Row(name, rows[0].unit, [sum(values) for values in zip(*(row.values for row in rows))],
               [sum(values) for values in zip(*(row.cpu_values for row in rows))])


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def measure(cases: Sequence[Case], repeats: int, device: torch.device, tick: Callable[[str], None] = lambda name: None) -> list[Row]:
    """Run every case once to warm up, then all of them in turn, ``repeats`` times; return their seconds.

    Args:
        cases: what to run, in this order.
        repeats: number of rounds.
        device: is waited for before and after each repeat.
        tick: called with the name of each repeat that is done, warm-ups included.
    """
    rows = [Row(case.name, 's', []) for case in cases]
    for round_number in range(repeats + 1):
        for case, row in zip(cases, rows):
            synchronise(device)
            wall, cpu = time.perf_counter(), time.process_time()
            case.run()
            synchronise(device)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if round_number:
                row.values.append(wall / case.per)
                if device.type == 'cpu':
                    row.cpu_values.append(cpu / case.per)
            tick(case.name)
    return rows
