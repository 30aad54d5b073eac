"""How a run ends from outside: another of its processes is lost, or it is told to stop (SIGTERM). One line, an exit code, no hang."""
from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

LOST = 4
"""Exit code of a process whose fellow is gone."""
TERMINATED = 128 + signal.SIGTERM
GRACE = 3.0
"""Seconds between SIGTERM and the end of one of several processes. torchrun sends it when another one has ended; a connection that breaks
tells the reason within that time."""

_GLOO = re.compile(r'gloo[/\\]')  # its messages begin with the place in its source
_TIMEOUT = re.compile(r'timed? ?out', re.IGNORECASE)
_NCCL = re.compile(rf'ncclRemoteError|remote process|{_TIMEOUT.pattern}', re.IGNORECASE)

_STOP = bytes([0])  # no signal has this number
_states: Path | None = None
_once = threading.Lock()
_watching = False


def note_states(folder: str | os.PathLike | None) -> None:
    """Tell where this run keeps its training states, for what :func:`how_to_go_on` says; None for a run that keeps none."""
    global _states
    _states = None if folder is None else Path(folder)


def how_to_go_on() -> str:
    """Return what a message about an end that is nobody's fault adds: from where ``--auto_resume`` continues; empty without states.

    States are renamed into place when they are complete, so the newest is one that can be read.
    """
    if _states is None:
        return ''
    saved = [int(path.stem) for path in _states.glob('*.state') if path.stem.isdigit()]
    return f'; --auto_resume continues from iteration {max(saved)}' if saved else '; no state was saved yet, --auto_resume starts anew'


def loss_of_a_process(error: BaseException) -> str | None:
    """Tell in words that ``error`` means that this process waits for another one in vain; None if it does not.

    gloo raises bare ``RuntimeError``s, which are known by their text. Of nccl's errors only those count that lay it on the other side.
    """
    import torch.distributed as dist
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return None
    text = str(error)
    if not (isinstance(error, (dist.DistNetworkError, dist.DistStoreError)) or (isinstance(error, RuntimeError) and _GLOO.search(text))
            or (isinstance(error, dist.DistBackendError) and _NCCL.search(text))):
        return None
    if _TIMEOUT.search(text):
        return 'another process of this run did not answer in time (dist_params.timeout_minutes)'
    return 'another process of this run ended'


def end(message: str, code: int, rank: int) -> NoReturn:
    """Print the message and end this process at once, the first time; threads that come later wait for the end.

    Not by returning: with a dead fellow, what torch does at an orderly exit may wait for it.
    """
    _once.acquire()
    sys.stdout.flush()
    sys.stderr.write(f'error: {message}\n' if rank == 0 else f'error (rank {rank}): {message}\n')
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def sigterm_ends(rank: int, grace: float, taken: Callable[[float], bool] = lambda patience: False) -> Iterator[None]:
    """Within this block SIGTERM ends the process with a line and :data:`TERMINATED`, even while it waits inside a library.

    Handlers of Python run between steps of the main thread, which may never come: a collective with a dead fellow does not return.
    So a thread waits for the byte that the interpreter writes for each signal. Forked processes are not concerned. Main thread only.

    Args:
        rank: of this process, for the line.
        grace: seconds to wait for a better reason.
        taken: tells whether the main thread takes the signal, so that it will save and end by itself; may wait the given number of seconds.
    """
    global _watching
    if os.name == 'nt':  # nobody can send it there
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    handler = signal.signal(signal.SIGTERM, lambda *_: None)  # without a handler no byte is written
    descriptor = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    thread = threading.Thread(target=_wait_for_sigterm, args=(read, rank, grace, taken), name='SIGTERM', daemon=True)
    _watching = True
    thread.start()
    try:
        yield
    finally:
        _watching = False
        signal.set_wakeup_fd(descriptor)
        signal.signal(signal.SIGTERM, handler)
        os.write(write, _STOP)
        thread.join()
        os.close(read)
        os.close(write)


def _wait_for_sigterm(read: int, rank: int, grace: float, taken: Callable[[float], bool]) -> None:
    while (byte := os.read(read, 1)) != _STOP:
        if byte == bytes([signal.SIGTERM]):
            time.sleep(grace)
            if taken(GRACE):
                continue
            end(f'told to stop (SIGTERM), as launchers do when another process has ended or time is up{how_to_go_on()}.', TERMINATED, rank)


def _forget_sigterm() -> None:
    if _watching:  # the pipe is the parent's, too
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_forget_sigterm)
