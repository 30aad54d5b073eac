"""Files that are there as a whole or not at all, and their sha256."""
from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from ibmd_basicsr.utils.errors import SaveError

TEMPORARY = '.tmp'
"""What the name of a file ends in while it is written."""


class _Hashed:
    """A file to write to that knows the sha256 of what was written.

    A failure is kept for the end, and what follows is dropped: torch's writer is C++ and turns an exception from a file into another one
    about its own bookkeeping, or ends the process.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._digest = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.failure is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.failure = error
            self._digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: the file is flushed once, at its end."""

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def replace_file(path: str | os.PathLike, write: Callable[[BinaryIO], None], *, overwrite: bool = True) -> str:
    """Write a hidden temporary file beside ``path``, flush it to the disk and rename it into place.

    After a crash or a power cut at any moment there is the old file or the new one. Only the temporary file may be left over; its name is
    another one each time, so that two processes that write the same file do not meet in it.

    Args:
        path: the file to make or to replace.
        write: is called with a file that is open for writing bytes (it cannot seek).
        overwrite: replace a file that is there when the new one is complete.

    Returns:
        the sha256 of the file, in hexadecimal.

    Raises:
        SaveError: it cannot be written, or is there and shall not be replaced; ``path`` is as it was and the temporary file is gone.
    """
    path = Path(path)
    # the first letters of the name: a whole one may be as long as names can be
    temporary = path.with_name(f'.{path.name[:40]}.{uuid.uuid4().hex[:8]}{TEMPORARY}')
    try:
        with open(temporary, 'xb') as file:
            hashed = _Hashed(file)
            write(hashed)
            if hashed.failure is not None:
                raise hashed.failure
            file.flush()
            os.fsync(file.fileno())
        if not overwrite and os.path.lexists(path):
            raise SaveError(f'{path}: exists already.')
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # gigabytes, perhaps on a disk that is full
        if isinstance(error, OSError):
            raise SaveError(f'{path}: cannot be written ({error.strerror or error}).') from error
        raise
    return hashed.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Flush a rename to the disk, where the system can do that (not on Windows)."""
    if hasattr(os, 'O_DIRECTORY'):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def find_files(folder: str | os.PathLike, endings: tuple[str, ...]) -> list[str]:
    """Return the files of a folder and its subfolders that end so, in any case of letters: sorted paths relative to it.

    Hidden files and folders, which operating systems leave among photographs, are left out. Links to folders are followed, once to each:
    they may lead in circles.

    Raises:
        OSError: a folder that cannot be read.
    """
    def refuse(error: OSError) -> None:
        raise error
    found, seen = [], set()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        found += [os.path.relpath(os.path.join(place, name), folder) for name in files
                  if name.lower().endswith(endings) and not name.startswith('.')]
    return sorted(found)


def is_folder_name(name: Any) -> bool:
    """Tell whether a name can be that of a folder or file of results, in the folder that it is meant for."""
    return isinstance(name, str) and bool(name) and name == Path(name).name and not name.startswith('.') and name.isprintable()


def file_digest(path: Path | str) -> str:
    """Return the sha256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
