"""Whose turn it is: what each iteration of a training updates, and which passes of which networks it makes."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ibmd_basicsr.models.student_options import StudentOptions
from ibmd_basicsr.utils.errors import OptionError

BRIDGE, STUDENT, SHARED, DISCRIMINATOR = 'bridge update', 'student update', 'shared update', 'discriminator update'
"""Turns. ``SHARED`` is ``train.share_generator_pass``: the last bridge update of a cycle and the student's, on one pass of the student.
The discriminator's belongs to the iterations of the student's."""
BRIDGE_UPDATES = 5
"""K where the options do not say it."""

FORWARD = 'forward'
ROLLOUT = 'forward, rollout'
LEARN = 'forward, backward'
THROUGH = 'forward, backward to the input'
FORWARDS = {FORWARD: 1, ROLLOUT: 1, LEARN: 3, THROUGH: 2}
"""Kinds of passes, and what they cost in forward passes: a backward costs one for the inputs of all layers and one for the parameters."""


@dataclass(frozen=True)
class Turns:
    """The order of the updates: cycles of ``alone`` bridge updates and one iteration of the kind ``last``.

    Attributes:
        alone: iterations of a cycle that are bridge updates and nothing else.
        last: ``BRIDGE`` for a bridge's training, all of whose iterations are alike; ``STUDENT`` or ``SHARED`` for IBMD.
    """

    alone: int
    last: str

    @classmethod
    def from_options(cls, opt: dict[str, Any]) -> Turns:
        """Return the turns of a training run.

        Raises:
            OptionError: ``train.bridge_updates_per_student`` is no positive integer.
        """
        if opt['model_type'] != 'IBMDModel':
            return cls(0, BRIDGE)
        updates = opt['train'].get('bridge_updates_per_student', BRIDGE_UPDATES)
        if not isinstance(updates, int) or updates < 1:
            raise OptionError(f'train.bridge_updates_per_student must be an integer of at least 1, got {updates!r}.')
        return cls(updates - 1, SHARED) if opt['train'].get('share_generator_pass', False) else cls(updates, STUDENT)

    @property
    def bridge_updates(self) -> int:
        """K: updates of the bridge network in a cycle."""
        return self.alone + (self.last != STUDENT)

    @property
    def shared(self) -> bool:
        """Whether the last bridge update of a cycle and the student's are one iteration."""
        return self.last == SHARED

    @property
    def length(self) -> int:
        """Number of iterations after which the turns repeat: 1; for IBMD K + 1, or K if they are shared."""
        return self.alone + 1

    @property
    def per_cycle(self) -> dict[str, int]:
        """Iterations of each kind in a cycle; kinds without any are left out."""
        return {BRIDGE: self.alone, self.last: 1} if self.alone else {self.last: 1}

    def of(self, iteration: int) -> str:
        """Return the turn of an iteration; the host counts from 1."""
        return BRIDGE if iteration % self.length else self.last

    def counts(self, iterations: int) -> dict[str, int]:
        """Return how many of the first ``iterations`` are of which kind."""
        last = iterations // self.length
        return {BRIDGE: iterations - last, self.last: last} if self.alone else {self.last: last}


@dataclass(frozen=True)
class Pass:
    """Passes of one kind in a cycle.

    Attributes:
        turn: ``BRIDGE``, ``STUDENT``, ``SHARED`` or ``DISCRIMINATOR``.
        network: ``net_g`` (also where its EMA copy runs), ``net_bridge``, ``teacher`` or ``net_d``.
        kind: a key of :data:`FORWARDS`.
        count: passes of a batch per cycle; a mean where the number is drawn.
    """

    turn: str
    network: str
    kind: str
    count: float


def training_passes(opt: dict[str, Any]) -> list[Pass]:
    """Return the passes of one cycle (:class:`Turns`), by turn and network.

    A student of several steps runs without gradient to the state that an update starts from: N calls of the posterior scheme, (N - 1)/2
    in the mean of the bridge scheme.
    """
    turns = Turns.from_options(opt)
    if turns.last == BRIDGE:
        return [Pass(BRIDGE, 'net_g', LEARN, 1)]
    rollout, alone, turn = _rollout_calls(opt), turns.alone, turns.last
    full = opt['train']['ibmd_opt'].get('gradient', 'full') == 'full'
    frozen = THROUGH if full else FORWARD
    regressions = 2 if opt['train'].get('real_pairs') else 1
    passes = [Pass(BRIDGE, 'net_g', ROLLOUT, alone * rollout),
              Pass(BRIDGE, 'net_g', FORWARD, alone),
              Pass(BRIDGE, 'net_bridge', LEARN, alone * regressions),
              Pass(turn, 'net_g', ROLLOUT, rollout),
              Pass(turn, 'net_g', LEARN, 1),
              Pass(turn, 'net_bridge', LEARN, regressions * turns.shared),
              Pass(turn, 'teacher', frozen, 1),
              Pass(turn, 'net_bridge', frozen, 1)]
    if opt['train'].get('gan_opt'):
        # true and made images one after the other, each with its own backward
        passes += [Pass(turn, 'net_d', THROUGH, 1), Pass(DISCRIMINATOR, 'net_d', LEARN, 2)]
    return [one for one in passes if one.count]


def _rollout_calls(opt: dict[str, Any]) -> float:
    student = StudentOptions(**(opt['train'].get('student') or {}))
    if student.steps == 1:
        return 0
    return student.steps if student.scheme == 'posterior' else (student.steps - 1) / 2
