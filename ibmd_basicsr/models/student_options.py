"""StudentOptions: how many steps a student has, and on which inputs it is trained for them."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StudentOptions:
    """How many steps the student has and how it is trained for them: the block ``train.student`` (IBMD section 3.5).

    The N times t_n are those of the schedule's ``student_grid``. Training inputs x_{t_n} come from the student's own rollout without
    gradient, as inference makes them.

    Attributes:
        steps: N. With 1 the input is x_T and both schemes are the same.
        scheme: what the authors' released code does for either family of bridges.

            * ``posterior`` (I2SB): the EMA student walks all N steps to x_0; t_n is drawn for each image; x_{t_n} ~ q(. | x_0, x_T), x_T
              itself at t = 1; loss times lie before t_n and x_t ~ q(x_t | x_{t_n}, x_0').
            * ``bridge`` (DDBM): one t_n for the whole batch, on all ranks; the student itself walks down to it; loss times are all times
              and x_t ~ q(x_t | x_0', x_T).
        tell_bridge: give t_n to the bridge network, as the constant value of an extra input channel (``network_bridge.noise_channels: 1``,
            zero weights at the start). Not in the paper or the released code: there the bridge network sees the outputs of all steps at
            the same t, so the objective fixes their mixture alone, and the last step's law can differ from it (docs/released_code.md).

    Raises:
        ValueError: a value out of range.
    """

    SCHEMES = ('posterior', 'bridge')
    steps: int = 1
    scheme: str = 'posterior'
    tell_bridge: bool = False

    def __post_init__(self):
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise ValueError(f'steps must be a positive integer, got {self.steps!r}.')
        if self.scheme not in self.SCHEMES:
            raise ValueError(f'scheme must be one of {self.SCHEMES}, got {self.scheme!r}.')
        if not isinstance(self.tell_bridge, bool):
            raise ValueError(f'tell_bridge must be true or false, got {self.tell_bridge!r}.')
