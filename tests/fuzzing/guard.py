"""What every random case is held to: an end within seconds, bounded memory, and errors that are the user's to mend, in lines."""
from __future__ import annotations

import contextlib
import resource
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

SECONDS = 10.0
"""Of processor time that a case may take; most take milliseconds."""
MEMORY = 2**29
"""Bytes that a case may fill beyond what the process has."""
CLAIMED = 4 * 2**30
"""Bytes that it may ask for: what asks for more does without."""
LONGEST_MESSAGE = 6000
"""Characters of a line: those that list everything that is registered are the longest."""


class Fault(AssertionError):
    """A case that ended in another way than it may.

    Args:
        kind: the same for cases with the same cause.
        message: what happened.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(f'{kind}: {message}')
        self.kind = kind


class TooLong(BaseException):
    """The processor time of a case is used up. No Exception, which the program under test may catch."""


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Bound the processor time (:class:`TooLong` is raised) and the address space (allocations fail) of what runs inside.

    Raises:
        Fault: more memory was filled than a case may fill, whatever came of it.
    """
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    Path('/proc/self/clear_refs').write_text('5')  # the peak of the resident memory is now what it is
    before = peak()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    previous = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + CLAIMED, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, previous)
        filled = peak() - before
        if filled > MEMORY:  # whatever the case came to
            raise Fault('too much memory', f'{filled / 2**30:.1f} GiB')


def peak() -> int:
    """Return the largest resident memory of this process in bytes."""
    return next(int(line.split()[1]) * 1024 for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM'))


def fault_of(error: BaseException) -> Fault:
    """Return what an error that may not be is called: by its type and the line of this project, or of the host, that it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if 'basicsr' in frame.filename and 'fuzzing' not in frame.filename]
    place = f'{Path(frames[-1].filename).name}:{frames[-1].lineno}' if frames else 'elsewhere'
    return Fault(f'{type(error).__name__} at {place}', str(error)[:300])


def check_message(message: str) -> None:
    """Check that a message is of printable lines of bounded length."""
    for line in message.split('\n'):
        if not line.strip() or not line.isprintable() or len(line) > LONGEST_MESSAGE:
            raise Fault('a message that is no line', repr(line[:300]))
