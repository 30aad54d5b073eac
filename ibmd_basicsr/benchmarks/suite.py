"""The parts of the bench, one after the other."""
from __future__ import annotations

from collections.abc import Sequence

from ibmd_basicsr.benchmarks import ceiling, inference, memory, pipeline, tiles, training
from ibmd_basicsr.benchmarks.report import Part
from ibmd_basicsr.benchmarks.session import PartKind, Session

PARTS: dict[str, PartKind] = {letter: kind for module in (training, inference, pipeline, memory, tiles, ceiling)
                              for letter, kind in module.PARTS.items()}


def total_ticks(letters: Sequence[str], session: Session) -> int:
    """Return how often the parts ``letters``, keys of :data:`PARTS`, will call ``session.tick``."""
    return sum(PARTS[letter].ticks(session) for letter in letters)


def run_parts(letters: Sequence[str], session: Session) -> dict[str, Part]:
    """Measure the parts ``letters``, keys of :data:`PARTS`."""
    return {letter: Part(PARTS[letter].title, PARTS[letter].about.format(size=session.size), PARTS[letter].rows(session))
            for letter in letters}
