"""Parts d and e: a sampler's loop against its bare network calls; the student against its teacher and against networks of BasicSR."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ibmd_basicsr.benchmarks.passes import bare_pass, network_inputs, times
from ibmd_basicsr.benchmarks.reference import I2SBTables, ReferenceSampler
from ibmd_basicsr.benchmarks.session import PartKind, Session
from ibmd_basicsr.benchmarks.sizes import SCALE, SEED, Size, random_network, student_network
from ibmd_basicsr.benchmarks.timing import Case, Row, Target
from ibmd_basicsr.bridges import build_bridge, spaced_steps
from ibmd_basicsr.models.turns import FORWARD
from ibmd_basicsr.reporting.peers import PeerRestorer
from ibmd_basicsr.restorer import Restorer, SamplerOptions
from ibmd_basicsr.utils.endpoints import lq_to_x_T
from ibmd_basicsr.utils.frozen import ready_to_restore
from ibmd_basicsr.utils.precision import multiplies_bf16
from ibmd_basicsr.utils.seeding import PerImageNoise

BRIDGE = {'type': 'I2SB', 'n_timestep': 1000, 'beta_max': 0.3}
SLOW_CALLS = 100
"""From so many network calls on, and for images of so many pixels (:data:`LARGE`), a few repeats are enough."""
LARGE = 512
BF16, OUTERMOST = 'student, bf16', 'student, channels outermost'


def input_image(side: int, device: torch.device) -> Tensor:
    """Return a random corrupted image whose restoration is ``side`` x ``side`` pixels."""
    return torch.rand(1, 3, side // SCALE, side // SCALE, generator=torch.Generator().manual_seed(SEED)).to(device)


def restore(restorer: Restorer | PeerRestorer, lq: Tensor) -> Callable[[], Tensor]:
    """Return a function that restores ``lq``, its random generator included."""
    return lambda: restorer(lq, PerImageNoise.for_images(SEED, ['image']))


def student_restorer(size: Size, device: torch.device, scale: int = SCALE, precision: str = 'fp32') -> Restorer:
    """Return the student of one step, with random weights."""
    return Restorer(net=ready_to_restore(random_network(student_network(size)), device), bridge=build_bridge(**BRIDGE),
                    sampler=SamplerOptions(type='one_step'), scale=scale, precision=precision)


def variant_names(device: torch.device) -> list[str]:
    """Return which variants of the student are measured: bf16 where the device multiplies it, channels outermost on CPUs."""
    return [BF16] * multiplies_bf16(device) + [OUTERMOST] * (device.type == 'cpu')


def student_variants(size: Size, device: torch.device) -> dict[str, Restorer]:
    """Return the same student otherwise than by default, by :func:`variant_names`."""
    variants = {name: student_restorer(size, device, precision='bf16' if name == BF16 else 'fp32') for name in variant_names(device)}
    if OUTERMOST in variants:
        variants[OUTERMOST].net.to(memory_format=torch.contiguous_format)
    return variants


def peer_restorer(block: dict, device: torch.device) -> PeerRestorer:
    """Return a network of BasicSR with random weights."""
    net = ready_to_restore(random_network(block), device)
    return PeerRestorer(net, sum(p.numel() for p in net.parameters()), scale=SCALE, size_multiple=block.get('window_size', 1))


def teacher_restorer(size: Size, device: torch.device, calls: int) -> Restorer:
    """Return the teacher with the ancestral sampler."""
    return Restorer(net=ready_to_restore(random_network(size.network), device), bridge=build_bridge(**BRIDGE),
                    sampler=SamplerOptions(type='ancestral', steps=calls), scale=SCALE)


def samplers_against_passes(session: Session) -> list[Row]:
    """Measure a whole restoration of one image against its network calls alone: seconds per image."""
    size, device = session.size, session.device
    lq = input_image(size.sampler_side, device)
    rows = []
    student = student_restorer(size, device)
    runs = [('student, 1 call', student, 1)] + [
        (f'teacher, {calls} call{"s" * (calls > 1)}', teacher_restorer(size, device, calls), calls) for calls in size.calls]
    for name, restorer, calls in runs:
        call = bare_pass(restorer.net, network_inputs(restorer.net, 1, size.sampler_side, device), FORWARD, None)
        cases = [Case(name, restore(restorer, lq)), Case(f'bare passes, {calls}', times(call, calls))]
        if restorer is not student:
            cases.append(Case(f'reference sampler, {calls}', _reference(restorer, calls, lq, device)))
        ours, bare, *reference = session.measure(cases, _sampler_repeats(session, calls))
        ours.against, ours.target = bare, Target('at most', 1.02 if calls >= 20 else 1.05)
        for row in reference:
            row.against = bare
        rows += [ours, *reference, bare]
    return rows


def _reference(restorer: Restorer, calls: int, lq: Tensor, device: torch.device) -> Callable[[], Tensor]:
    sampler = ReferenceSampler(restorer.net, I2SBTables(BRIDGE['n_timestep'], BRIDGE['beta_max'], device),
                               spaced_steps(BRIDGE['n_timestep'], calls + 1))
    return lambda: sampler(lq_to_x_T(lq, SCALE), torch.randn_like)


def student_against_peers(session: Session) -> list[Row]:
    """Measure the student, its variants and networks of BasicSR on one image of each side: seconds per image."""
    size, device = session.size, session.device
    restorers = {'student': student_restorer(size, device)} | {name: peer_restorer(block, device) for name, block in size.peers.items()}
    restorers |= student_variants(size, device)
    rows = []
    for side in size.sides:
        lq = input_image(side, device)
        student, *peers = session.measure([Case(f'{name}, {side} px', restore(restorer, lq)) for name, restorer in restorers.items()],
                                          _peer_repeats(session, side))
        for row in (student, *peers):
            row.notes['parameters'] = restorers[row.name.rpartition(',')[0]].parameters
        for row in peers:
            row.against = student
            if row.name.startswith('RRDBNet') and side == max(size.sides):
                row.target = Target('at least', 2)
        rows += [student, *peers]
    return rows


def teacher_against_student(session: Session) -> list[Row]:
    """Measure a teacher with all its calls against the student with one: seconds per image.

    All calls of a teacher cost the same (part d), so a few are timed, with the sampler around them, and multiplied up. The student makes
    as many whole restorations in that time.
    """
    size, device = session.size, session.device
    timed = timed_calls(size)
    student, teacher = student_restorer(size, device), teacher_restorer(size, device, timed)
    calls = student.bridge.schedule.default_calls
    lq = input_image(size.sampler_side, device)
    one, all_calls = session.measure(
        [Case(f'student, 1 call, {size.sampler_side} px', times(restore(student, lq), timed), per=timed),
         Case(f'teacher, {calls} calls as {calls}/{timed} of {timed} timed ones, {size.sampler_side} px', restore(teacher, lq),
              per=timed / calls)], session.few)
    all_calls.against, all_calls.target = one, Target('at least', 950)
    return [one, all_calls]


def timed_calls(size: Size) -> int:
    """Return how many calls of the teacher are timed in :func:`teacher_against_student`."""
    return max(calls for calls in size.calls if calls < SLOW_CALLS)


def _sampler_repeats(session: Session, calls: int) -> int:
    return session.few if calls >= SLOW_CALLS else session.repeats


def _peer_repeats(session: Session, side: int) -> int:
    return session.few if side >= LARGE else session.repeats


def _sampler_ticks(session: Session) -> int:
    """Return the number of ticks of :func:`samplers_against_passes`."""
    return 2 * (session.repeats + 1) + sum(3 * (_sampler_repeats(session, calls) + 1) for calls in session.size.calls)


def _peer_ticks(session: Session) -> int:
    """Return the number of ticks of :func:`student_against_peers`."""
    restorers = 1 + len(session.size.peers) + len(variant_names(session.device))
    return sum(restorers * (_peer_repeats(session, side) + 1) for side in session.size.sides)


PARTS = {
    'd': PartKind(
        'sampler against its bare network calls',
        'One image of {size.sampler_side} px, from the corrupted image to the clamped result. The reference puts EMA weights in and out '
        'and copies states to the CPU. Seconds per image.',
        _sampler_ticks, samplers_against_passes),
    'e': PartKind(
        'student against its teacher and networks of BasicSR',
        'One image, x4, random weights. Seconds per image; ratio: how much longer than the student.',
        lambda session: 2 * (session.few + 1) + _peer_ticks(session),
        lambda session: [*teacher_against_student(session), *student_against_peers(session)]),
}
