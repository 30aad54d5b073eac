"""What all parts of a run of the bench share, and what a part is."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ibmd_basicsr.benchmarks.sizes import SIZES, Size, TrainingChoices, make_model
from ibmd_basicsr.benchmarks.timing import Case, Row, measure

FEW = 3
"""Repeats of what takes long."""


def silent(name: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A run of the bench.

    Attributes:
        size_name: a key of :data:`~ibmd_basicsr.benchmarks.sizes.SIZES`.
        device: CPU or GPU.
        folder: takes what the parts write; of this session alone.
        repeats: of each measurement, after one to warm up.
        training: of all trainings.
        data: folder of photographs for parts f and h; None for random ones.
        tick: called with the name of each repeat that is done, warm-ups included.
    """

    size_name: str
    device: torch.device
    folder: Path
    repeats: int
    training: TrainingChoices = TrainingChoices()
    data: Path | None = None
    tick: Callable[[str], None] = silent

    @property
    def size(self) -> Size:
        """Networks and batches."""
        return SIZES[self.size_name]

    @property
    def few(self) -> int:
        """Repeats of what takes long."""
        return min(self.repeats, FEW)

    def make_model(self, kind: str, **changes: Any):
        """Build a model for training, ``BridgeModel`` or ``IBMDModel``; see :func:`~ibmd_basicsr.benchmarks.sizes.make_model`."""
        return make_model(self.size, kind, self.folder, self.device, choices=self.training, **changes)

    def measure(self, cases: Sequence[Case], repeats: int | None = None) -> list[Row]:
        """Time cases in turns, ``repeats`` times or as often as the session does; see :func:`~ibmd_basicsr.benchmarks.timing.measure`."""
        return measure(cases, repeats or self.repeats, self.device, self.tick)


@dataclass(frozen=True)
class PartKind:
    """A part of the bench.

    Attributes:
        title: heading.
        about: a sentence or two on what its rows are; may name fields of the size, as ``{size.sampler_side}``.
        ticks: number of ticks of ``rows``.
        rows: measures.
    """

    title: str
    about: str
    ticks: Callable[[Session], int]
    rows: Callable[[Session], list[Row]]
