"""Processes that load images: they outlive the signals on which a run saves and ends, and when one dies its image is named."""
from __future__ import annotations

import importlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import RawArray, RawValue
from multiprocessing.util import Finalize
from types import FrameType

from torch.utils.data import Dataset, get_worker_info

from ibmd_basicsr.compat.interruption import SIGNALS
from ibmd_basicsr.compat.iteration_sampler import IterationSampler
from ibmd_basicsr.utils.errors import WorkerError

DIED = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\).*')
"""What torch says when a process that loads images did not end with an exception of its own."""
SLOTS = 4096
"""Places for notes. A process takes that of its number: the host starts more than ``num_worker_per_gpu`` of them in its first epoch."""


class WorkerInit:
    """Stands in for ``basicsr.data.worker_init_fn``: the host's, and what makes the processes fit for faults.

    * A terminal and slurm signal every process of a run. Without its workers the main process could not finish the iteration: torch turns
      their end into an exception. So they take no notice of :data:`~ibmd_basicsr.compat.interruption.SIGNALS`, and end with the main
      process, which says so before it waits for them.
    * They write down which image they are about to read, for :meth:`image_of`.

    Args:
        host: BasicSR's function, ``(worker_id, num_workers, rank, seed)``.
    """

    def __init__(self, host: Callable[..., None]):
        self.host = host
        # memory that the workers share
        self.leaving = RawValue('b', 0)
        self.pids, self.indices = RawArray('q', SLOTS), RawArray('q', SLOTS)
        self._announce = Finalize(None, self._leave, exitpriority=100)  # before multiprocessing terminates its children

    def __getstate__(self) -> dict:
        # not the host's function, which cannot be pickled: its name is ours now
        return {'leaving': self.leaving, 'pids': self.pids, 'indices': self.indices}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        host = importlib.import_module('basicsr.data').worker_init_fn
        self.host = host.host if isinstance(host, WorkerInit) else host

    def _leave(self) -> None:
        self.leaving.value = 1

    def __call__(self, worker_id: int, num_workers: int, rank: int, seed: int) -> None:
        self.host(worker_id, num_workers=num_workers, rank=rank, seed=seed)
        for number in SIGNALS:
            signal.signal(number, self._end if number == signal.SIGTERM else signal.SIG_IGN)
        self._take_notes(type(get_worker_info().dataset))

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self.leaving.value:
            os._exit(0)

    def _take_notes(self, kind: type[Dataset]) -> None:
        """Let this process, which has its own copy of the class, write every index down before it is read."""
        get, indices, slot = kind.__getitem__, self.indices, os.getpid() % SLOTS
        self.pids[slot] = os.getpid()

        def __getitem__(dataset: Dataset, index: int):
            indices[slot] = index
            return get(dataset, index)

        kind.__getitem__ = __getitem__

    def image_of(self, pid: int, dataset: Dataset) -> str | None:
        """Return the image that process ``pid`` read last, None if it is not known."""
        if self.pids[pid % SLOTS] != pid:
            return None
        index = self.indices[pid % SLOTS]
        if hasattr(dataset, 'keys'):
            return str(dataset.root / dataset.keys[index])
        path = dataset.paths[index] if hasattr(dataset, 'paths') else None  # BasicSR's: paths, or pairs of them
        return next(iter(path.values())) if isinstance(path, dict) else path


@contextmanager
def naming_images() -> Iterator[None]:
    """Turn torch's error about a process that died into one that names the image.

    Raises:
        WorkerError: a process that loads images was killed or crashed.
    """
    try:
        yield
    except Exception as error:
        died = _find_death(error)
        if died is None:
            raise
        init = importlib.import_module('basicsr.data').worker_init_fn
        images = {init.image_of(int(pid), IterationSampler.images) for pid in died[1].split(',')} - {None}
        raise WorkerError(f'{died[0].strip().rstrip(".")}.' + (f' It was reading {", ".join(sorted(images))}.' if images else '')
                          + ' Out of memory, or a file that its decoder dies of? Lower datasets.train.num_worker_per_gpu; 0 reads in the '
                          'main process.') from error


def _find_death(error: BaseException | None) -> re.Match | None:
    """Return the match of :data:`DIED` in an error or in what it came from.

    torch raises from a signal handler, wherever the main process is: in the middle of a library the error may end as another one.
    """
    while error is not None:
        if isinstance(error, RuntimeError) and (died := DIED.match(str(error))):
            return died
        error = error.__cause__ or error.__context__
    return None
