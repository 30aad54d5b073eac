"""Ctrl-C and a batch system's signals during training: the iteration is finished on all ranks, then the model saves and the run ends.

A signal only leaves a note. Models ask for it (:meth:`StopRequest.due`) at the end of every iteration, since only there a state can be
saved that repeats the unbroken run. Before the first iteration has ended, and in models that never ask, signals do what they always did.
"""
from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch.distributed as dist

SIGNALS = tuple(getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGUSR1') if hasattr(signal, name))
"""Ctrl-C; slurm's scancel, preemption and time limit; what ``sbatch --signal=USR1@60`` sends."""
REPEATED = 0.5
"""Seconds within which a second SIGINT is the same Ctrl-C: old versions of torchrun pass on what the terminal has sent already."""
KEY = 'ibmd_basicsr/stop'
LEAD = 2
"""How many iterations ahead ranks agree to stop. One would do if every rank waited for the gradients of all before it ends an iteration; on
a GPU it may only have queued that, and wait in the next one."""


class StopRequest:
    """Whether, and after which iteration, this run shall stop.

    Ranks agree through the key-value store that the process group was made with: a request to a CPU thread of rank 0 per iteration,
    0.02 ms within a machine. Unlike an all-reduce it waits for no other rank and touches no GPU. The first rank that has been signalled
    writes down an iteration that lies :data:`LEAD` ahead. Whichever it is, the others find the note before they are past that iteration: no
    rank can be, without gradients of all ranks that were sent after the note was written.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._armed = False
        self._handlers: dict[int, Callable | int] = {}
        self._agreed: tuple[int, int] | None = None

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Within this context, which must be the main thread's, the first call of :meth:`due` takes the signals over."""
        self._forget()
        self._armed = True
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Give the signals back to whom they belonged; nothing is deferred any more."""
        self._armed = False
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def due(self, iteration: int) -> int | None:
        """Return the number of the signal if the run shall stop behind ``iteration``, else None; to be called by all ranks."""
        if not self._armed:
            return None
        if not self._handlers:
            self._listen()
        if not (dist.is_available() and dist.is_initialized()):
            return self.signal
        if self._agreed is None:
            self._agreed = self._ask(iteration)
        return self._agreed[1] if self._agreed is not None and iteration >= self._agreed[0] else None

    def takes_it(self, patience: float) -> bool:
        """Tell whether a signal that has come will be heeded: the main thread listens, and notices it within ``patience`` seconds.

        It does not while it waits inside a library, for a rank that is gone.
        """
        end = time.monotonic() + patience
        while self._handlers and self.signal is None and time.monotonic() < end:
            time.sleep(0.02)
        return bool(self._handlers) and self.signal is not None

    def _ask(self, iteration: int) -> tuple[int, int] | None:
        """Return what the ranks have agreed on: last iteration and signal. Propose one ahead if this rank was signalled."""
        store = dist.distributed_c10d._get_default_store()  # the only way to the store that every group has
        if self.signal is not None:
            noted = store.compare_set(KEY, '', f'{iteration + LEAD} {int(self.signal)}')  # the first note stays
        elif store.check([KEY]):
            noted = store.get(KEY)
        else:
            return None
        last, number = noted.decode().split()
        return int(last), int(number)

    def _listen(self) -> None:
        for number in SIGNALS:
            # ignored: jobs in the background of a script. None: a handler in C, of a debugger
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._handlers[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._since = number, now
            # not print: the signal may have come in the middle of one
            os.write(2, f'{signal.Signals(number).name}: saving a state after this iteration; Ctrl-C ends at once.\n'.encode())
        elif number == signal.SIGINT and now - self._since > REPEATED:
            raise KeyboardInterrupt


STOP = StopRequest()
"""That of this process."""
