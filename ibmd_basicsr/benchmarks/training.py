"""Parts a, b and c: an iteration against its bare network passes, and against the reference."""
from __future__ import annotations

from ibmd_basicsr.benchmarks.passes import pass_cases
from ibmd_basicsr.benchmarks.reference import ReferenceIBMD, ReferenceTeacher
from ibmd_basicsr.benchmarks.session import PartKind, Session
from ibmd_basicsr.benchmarks.sizes import IBMD, TEACHER, Iterations, make_batch, training_options
from ibmd_basicsr.benchmarks.timing import Case, Row, Target, total
from ibmd_basicsr.models.turns import Turns, training_passes

NAMES = {IBMD: 'IBMD iteration', TEACHER: 'teacher iteration'}
REFERENCES = {IBMD: ReferenceIBMD, TEACHER: ReferenceTeacher}


def iterations(model, batch: dict) -> Iterations:
    """Return the iterations of a model, a cycle a call."""
    return Iterations(model, batch, Turns.from_options(model.opt).length)


def against_passes(session: Session, kind: str) -> list[Row]:
    """Measure an iteration (the mean over a cycle) against the sum of its passes; times are seconds per iteration."""
    model = session.make_model(kind)
    run = iterations(model, make_batch(session.size, kind))
    cases = [Case(NAMES[kind], run, per=run.cycle), *(case for _, case in pass_cases(model))]
    ours, *passes = session.measure(cases)
    ours.against, ours.target = total('bare passes, sum', passes), Target('at most', 1.05)
    return [ours, ours.against, *passes]


def against_unshared(session: Session) -> list[Row]:
    """Measure a cycle with ``train.share_generator_pass`` (K iterations) against one without (K + 1); times are seconds per cycle."""
    cases = []
    for name, share in (('IBMD cycle, shared pass', True), ('IBMD cycle', False)):
        model = session.make_model(IBMD, share_pass=share)
        cases.append(Case(name, iterations(model, make_batch(session.size, IBMD))))
    shared, apart = session.measure(cases)
    shared.against = apart
    return [shared, apart]


def against_reference(session: Session) -> list[Row]:
    """Measure the reference's iterations against ours; times are seconds per iteration."""
    rows = []
    for kind in (IBMD, TEACHER):
        model, batch = session.make_model(kind), make_batch(session.size, kind)
        ours = iterations(model, batch)
        reference = Iterations(REFERENCES[kind](model), batch, ours.cycle)
        ours, theirs = session.measure([Case(f'{NAMES[kind]}, ours', ours, per=ours.cycle),
                                        Case(f'{NAMES[kind]}, reference', reference, per=reference.cycle)])
        theirs.against, theirs.target = ours, Target('at least', 1.5) if kind == IBMD else None
        rows += [theirs, ours]
    return rows


def _ticks_of_passes(session: Session, kind: str) -> int:
    """Return the number of ticks of :func:`against_passes`."""
    opt = training_options(session.size, kind, session.folder, gpu=False, choices=session.training)
    return (1 + len(training_passes(opt))) * (session.repeats + 1)


PARTS = {
    'a': PartKind(
        'IBMD iteration against its bare network passes',
        'Learning rates, feed_data and optimize_parameters, over a cycle of K + 1 iterations; below it every pass of the cycle, timed '
        'alone. Seconds per iteration. Last, a cycle with train.share_generator_pass, K iterations, in seconds per cycle.',
        lambda session: _ticks_of_passes(session, IBMD) + 2 * (session.repeats + 1),
        lambda session: [*against_passes(session, IBMD), *against_unshared(session)]),
    'b': PartKind(
        'teacher iteration against its bare network passes', 'As (a).',
        lambda session: _ticks_of_passes(session, TEACHER), lambda session: against_passes(session, TEACHER)),
    'c': PartKind(
        'the iterations as the published programs write them',
        'REFERENCE: ibmd_basicsr/benchmarks/reference.py, written here from facts about those programs, against ours; equal losses in '
        'float32. Seconds per iteration.',
        lambda session: 4 * (session.repeats + 1), against_reference),
}
