"""Findings: a line each, with a remedy where something is wrong. A check that breaks is a finding, too."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

OK, WARN, FAIL = 'OK', 'WARN', 'FAIL'


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        level: ``OK``; ``WARN``, which may bite later; ``FAIL``, nothing will work before it is mended.
        topic: what was looked at.
        text: what was found.
        remedy: what to do about it; empty for ``OK``.
    """

    level: str
    topic: str
    text: str
    remedy: str = ''


def collect(checks: Iterable[tuple[str, Callable[[], Iterable[Finding]]]]) -> Iterator[Finding]:
    """Run the checks, ``(topic, function)``, one after the other and yield what they find."""
    for topic, check in checks:
        try:
            yield from check()
        except Exception as error:  # whatever a broken package raises: that is what is looked for
            reason = next(iter(str(error).strip().splitlines()), '')
            yield Finding(FAIL, topic, f'{type(error).__name__}: {reason}', f'repair the installation; then look at this again: {topic}')
