"""The parts of the bench, one after the other."""
from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Mapping, Sequence

import torch

from ibmd_basicsr.benchmarks import ceiling, inference, memory, pipeline, tiles, training
from ibmd_basicsr.benchmarks.report import Part
from ibmd_basicsr.benchmarks.session import PartKind, Session
from ibmd_basicsr.utils.errors import one_line

PARTS: dict[str, PartKind] = {letter: kind for module in (training, inference, pipeline, memory, tiles, ceiling)
                              for letter, kind in module.PARTS.items()}


def total_ticks(letters: Sequence[str], session: Session) -> int:
    """Return how often the parts ``letters``, keys of :data:`PARTS`, will call ``session.tick``."""
    return sum(PARTS[letter].ticks(session) for letter in letters)


def run_parts(letters: Sequence[str], session: Session, on_part: Callable[[Mapping[str, Part]], None] = lambda parts: None
              ) -> dict[str, Part]:
    """Measure parts. One that fails, for want of memory perhaps, leaves a line in its place, and the others are measured.

    Args:
        letters: keys of :data:`PARTS`, in their order.
        session: see :class:`~ibmd_basicsr.benchmarks.session.Session`.
        on_part: called after each part with all so far.
    """
    parts: dict[str, Part] = {}
    for letter in letters:
        kind = PARTS[letter]
        parts[letter] = Part(kind.title, kind.about.format(size=session.size))
        _start_afresh(session)
        try:
            parts[letter].rows = kind.rows(session)
        except Exception as error:  # whatever it is, what was measured is not lost for it
            traceback.print_exc()
            parts[letter].failure = f'{type(error).__name__}: {one_line(error).splitlines()[0]}'
        on_part(parts)
    return parts


def _start_afresh(session: Session) -> None:
    """Let a part depend on none before it: memory that they kept, graphs that they compiled, cuDNN's search that trainings switch on."""
    gc.collect()
    if session.device.type == 'cuda':
        torch.cuda.empty_cache()  # part g's processes need it
    if session.training.compiled:
        torch._dynamo.reset()  # it compiles a network for a few combinations of gradients, then gives up
    torch.backends.cudnn.benchmark = False
