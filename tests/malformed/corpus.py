"""All cases."""
from __future__ import annotations

from collections.abc import Iterator

from malformed import checkpoints, images, lmdbs, option_files
from malformed.case import Case


def all_cases() -> Iterator[Case]:
    """Yield the cases of all families."""
    yield from images.cases()
    yield from lmdbs.cases()
    yield from option_files.cases()
    yield from checkpoints.cases()
