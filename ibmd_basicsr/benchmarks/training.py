"""Parts a, b and c: an iteration against its bare network passes, and against the reference."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ibmd_basicsr.benchmarks.passes import pass_cases
from ibmd_basicsr.benchmarks.reference import ReferenceIBMD, ReferenceTeacher
from ibmd_basicsr.benchmarks.sizes import IBMD, TEACHER, Iterations, Size, make_batch, make_model
from ibmd_basicsr.benchmarks.timing import Case, Row, Target, measure, total
from ibmd_basicsr.models.turns import Turns

NAMES = {IBMD: 'IBMD iteration', TEACHER: 'teacher iteration'}
REFERENCES = {IBMD: ReferenceIBMD, TEACHER: ReferenceTeacher}


def iterations(model, batch: dict) -> Iterations:
    """Return the iterations of a model, a cycle a call."""
    return Iterations(model, batch, Turns.from_options(model.opt).length)


def against_passes(size: Size, kind: str, folder: Path, device: torch.device, repeats: int, tick: Callable[[str], None],
                   how: Mapping[str, Any]) -> list[Row]:
    """Measure an iteration (the mean over a cycle) against the sum of its passes; times are seconds per iteration.

    ``how`` is here and below what :func:`~ibmd_basicsr.benchmarks.sizes.make_model` takes: gradient, amp, compiled, channels_last.
    """
    model = make_model(size, kind, folder, device, **how)
    run = iterations(model, make_batch(size, kind))
    cases = [Case(NAMES[kind], run, per=run.cycle), *(case for _, case in pass_cases(model))]
    ours, *passes = measure(cases, repeats, device, tick)
    ours.against, ours.target = total('bare passes, sum', passes), Target('at most', 1.05)
    return [ours, ours.against, *passes]


def against_unshared(size: Size, folder: Path, device: torch.device, repeats: int, tick: Callable[[str], None],
                     how: Mapping[str, Any]) -> list[Row]:
    """Measure a cycle with ``train.share_generator_pass`` (K iterations) against one without (K + 1); times are seconds per cycle."""
    cases = []
    for name, share in (('IBMD cycle, shared pass', True), ('IBMD cycle', False)):
        model = make_model(size, IBMD, folder, device, **how, share_pass=share)
        cases.append(Case(name, iterations(model, make_batch(size, IBMD))))
    shared, apart = measure(cases, repeats, device, tick)
    shared.against = apart
    return [shared, apart]


def against_reference(size: Size, folder: Path, device: torch.device, repeats: int, tick: Callable[[str], None],
                      how: Mapping[str, Any]) -> list[Row]:
    """Measure the reference's iterations against ours; times are seconds per iteration."""
    rows = []
    for kind in (IBMD, TEACHER):
        model, batch = make_model(size, kind, folder, device, **how), make_batch(size, kind)
        reference, ours = Iterations(REFERENCES[kind](model), batch, Turns.from_options(model.opt).length), iterations(model, batch)
        ours, theirs = measure([Case(f'{NAMES[kind]}, ours', ours, per=ours.cycle),
                                Case(f'{NAMES[kind]}, reference', reference, per=reference.cycle)], repeats, device, tick)
        theirs.against, theirs.target = ours, Target('at least', 1.5) if kind == IBMD else None
        rows += [theirs, ours]
    return rows
