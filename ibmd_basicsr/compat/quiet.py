"""BasicSR's log where other lines matter more."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

from basicsr.utils import get_root_logger


@contextlib.contextmanager
def quiet_host() -> Iterator[None]:
    """While open, BasicSR's log shows warnings only: a line for each network would tear the progress bar."""
    logger = get_root_logger()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)
