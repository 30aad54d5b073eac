"""What a user can say about a published checkpoint; needs no torch, so that the command's ``--help`` is quick."""
from __future__ import annotations

import os
from dataclasses import dataclass

from ibmd_basicsr.utils.errors import OptionError

FAMILIES = ('i2sb', 'adm', 'ddbm', 'dbim')
ATTENTION_ORDERS = ('legacy', 'new')
CONDITIONS = ('zero', 'duplicate')
SCHEDULES = ('vp', 've')
NOT_READ = 'none'
"""In place of the file with I2SB's settings: do not look for one."""


@dataclass(frozen=True, kw_only=True)
class ImportChoices:
    """What shapes do not show, and what shall be changed; by default all follows from the file. Messages name them as the command does.

    Attributes:
        family: one of :data:`FAMILIES`, instead of the one detected.
        attention_order: ``legacy`` or ``new``, instead of the order that the family uses.
        num_head_channels: width of an attention head; default 64.
        num_heads: number of attention heads, in place of their width.
        cond_channels: input channels for x_T, the last ones; default: half of six, else none.
        dropout: for training on.
        half: weights in float16 instead of float32.
        drop_sigma: leave out the outputs for ADM's learned variance.
        add_cond: add input channels for x_T, with ``zero`` weights or a ``duplicate`` of those of the image channels.
        options: file with I2SB's settings; default ``options.pkl`` beside the checkpoint if it is there, ``none``: not read.
        beta_max: of an I2SB bridge; default what the settings say, else 0.3.
        ot_ode: of an I2SB bridge; likewise, else false.
        schedule: of a DDBM bridge, ``vp`` or ``ve``; default ``vp``.

    Raises:
        OptionError: none of the values that there are, or both ways to say the heads.
    """

    family: str | None = None
    attention_order: str | None = None
    num_head_channels: int | None = None
    num_heads: int | None = None
    cond_channels: int | None = None
    dropout: float = 0.0
    half: bool = False
    drop_sigma: bool = False
    add_cond: str | None = None
    options: str | os.PathLike | None = None
    beta_max: float | None = None
    ot_ode: bool | None = None
    schedule: str | None = None

    def __post_init__(self):
        for name, known in (('family', FAMILIES), ('attention_order', ATTENTION_ORDERS), ('add_cond', CONDITIONS), ('schedule', SCHEDULES)):
            if getattr(self, name) not in (None, *known):
                raise OptionError(f'{name} must be one of {", ".join(map(repr, known))}, got {getattr(self, name)!r}.')
        if self.num_head_channels is not None and self.num_heads is not None:
            raise OptionError('num_head_channels and num_heads: give one of them.')
