"""What there is to measure with: functions of one image in BasicSR's registry, set metrics, and the diversity of several draws."""
from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from basicsr.utils.registry import METRIC_REGISTRY

from ibmd_basicsr.metrics.diversity import Diversity
from ibmd_basicsr.metrics.set_metrics import SET_METRIC_REGISTRY
from ibmd_basicsr.utils.errors import OptionError

DIVERSITY = Diversity.__name__
DIGITS = 4
"""Decimals of metrics about which nothing else is said."""


class Facts(NamedTuple):
    """What no registry says about a metric: the better direction, ``higher`` or ``lower``, its heading and its decimals."""

    better: str | None = None
    title: str | None = None
    digits: int = DIGITS


FACTS = {
    'psnr': Facts('higher', 'PSNR dB', 2), 'psnrb': Facts('higher', 'PSNR-B dB', 2), 'ssim': Facts('higher', 'SSIM'),
    'lpips': Facts('lower', 'LPIPS'), 'dists': Facts('lower', 'DISTS'), 'niqe': Facts('lower', 'NIQE', 2),
    'texture_distance': Facts('lower', 'texture', 1), 'classifier_accuracy': Facts('higher'),
    'FrechetDistance': Facts('lower'), 'KernelDistance': Facts('lower'), DIVERSITY: Facts('higher'),
}
"""By the name that follows ``calculate_`` (BasicSR's own metrics included) or the class of another metric."""


@dataclass(frozen=True)
class MetricKind:
    """A metric that option files can name.

    Attributes:
        type: its name there.
        target: what takes its options: a function, or the class of a set metric or of the diversity.
        of_sets: it judges all restored images of a set together.
        better: ``higher``, ``lower`` or None where that is not known.
        title: heading of its column, without the arrow.
        digits: decimals.
    """

    type: str
    target: Callable
    of_sets: bool
    better: str | None
    title: str
    digits: int

    @property
    def of_draws(self) -> bool:
        """Tell whether it judges several restorations of one image."""
        return self.type == DIVERSITY

    def direction_problem(self, path: str, better: Any) -> str | None:
        """Return one line if ``better`` of the option block ``path`` is no direction or the wrong one; None stands for left out."""
        if better is None:
            return None
        if better not in ('higher', 'lower'):
            return f"{path}.better: must be one of 'higher', 'lower', got {better!r}."
        if self.better not in (None, better):
            return f'{path}.better: {self.better} is better for {self.type}, got {better!r}; leave it out.'
        return None


def short_name(kind: Any) -> str:
    """Return what follows ``calculate_`` in a metric's ``type``; of other types all."""
    return str(kind).removeprefix('calculate_')


def facts_of(kind: Any) -> Facts:
    """Return what is known about a metric by its ``type``, registered or not; BasicSR's ``_pt`` forms are those of tensors."""
    return FACTS.get(short_name(kind).removesuffix('_pt'), Facts())


def metric_types() -> list[str]:
    """Return every ``type`` that a metric's block may have, sorted."""
    return sorted([*METRIC_REGISTRY.keys(), *SET_METRIC_REGISTRY.keys(), DIVERSITY])


def find_metric(kind: Any) -> MetricKind:
    """Return the metric of a ``type``.

    Raises:
        OptionError: there is none; with the nearest name and all names.
    """
    known = metric_types()
    if kind not in known:
        near = difflib.get_close_matches(str(kind), known, 1)
        hint = f', did you mean {near[0]!r}?' if near else '.'
        raise OptionError(f'no metric {kind!r} is registered{hint} Registered: {", ".join(known)}.')
    of_sets = kind in SET_METRIC_REGISTRY
    target = Diversity if kind == DIVERSITY else (SET_METRIC_REGISTRY if of_sets else METRIC_REGISTRY).get(kind)
    facts = facts_of(kind)
    return MetricKind(kind, target, of_sets, facts.better, facts.title or short_name(kind), facts.digits)
