"""The folder of a run: one training at a time writes to it, and an older one is archived under a name that is free."""
from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from ibmd_basicsr.utils.errors import OptionError, printable

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None

LOCK = 'training.lock'
"""File in a run's folder that the process which trains there has locked; it holds its number and machine."""


class RunFolder:
    """The folder that this process trains in, locked against others as long as the process lives.

    The lock is the system's (``lockf``): it ends with the process, however that ends, is not handed on to processes that load images, and
    works on shared file systems. Where a file system has no locks, nothing is locked.
    """

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def claim(self, folder: Path) -> None:
        """Lock ``folder``, which exists; what was locked before is let go.

        Raises:
            OptionError: another process trains there.
        """
        self.release()
        if fcntl is None:
            return
        file = open(folder / LOCK, 'a+', encoding='utf-8')
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = printable(file.read(200).strip())
            file.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return
            raise OptionError(f'{folder}: another training is writing there ({holder}). Wait for it or stop it, or give this one another '
                              'name, --force_yml name=OTHER.') from error
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        self._file = file

    def release(self) -> None:
        """Let the folder go, and take the lock's file away."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):  # the folder may have been moved or deleted meanwhile
            os.unlink(self._file.name)
        self._file.close()
        self._file = None

    @contextlib.contextmanager
    def let_go_after(self) -> Iterator[None]:
        """Release what was claimed within the block at its end."""
        try:
            yield
        finally:
            self.release()

    def claiming(self, load_resume_state: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
        """Return a ``load_resume_state`` (host) that claims the run's folder first, if there is one."""
        def load(opt: dict[str, Any]) -> Any:
            folder = Path(opt['path']['experiments_root'])
            if opt['rank'] == 0 and folder.is_dir():
                self.claim(folder)
            return load_resume_state(opt)
        return load

    def making(self, make_exp_dirs: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
        """Return a ``make_exp_dirs`` (host) that archives no folder another training writes to, and claims the new one of a training.

        The host names an archive by the second: it waits until the name of this second is free.
        """
        def make(opt: dict[str, Any]) -> None:
            if opt['rank'] != 0:
                return make_exp_dirs(opt)
            folder = Path(opt['path']['experiments_root' if opt['is_train'] else 'results_root'])
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _alone_in(folder.parent):
                if opt['is_train'] and folder.is_dir():
                    self.claim(folder)
                    self.release()
                from basicsr.utils import get_time_str
                while folder.with_name(f'{folder.name}_archived_{get_time_str()}').exists():
                    time.sleep(0.05)
                make_exp_dirs(opt)
                if opt['is_train']:
                    self.claim(folder)
        return make


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """While the block runs, other processes wait here for the same ``folder``, where its file system has locks."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


RUN_FOLDER = RunFolder()
"""That of this process."""
