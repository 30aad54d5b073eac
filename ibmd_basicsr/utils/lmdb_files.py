"""Reading of BasicSR's LMDBs: what is missing or damaged is a line, and not the end of the process.

LMDB maps its file into memory. Of a file that was cut off it would read behind the end, and the system kills such a process (SIGBUS).
"""
from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ibmd_basicsr.utils.errors import DataError, printable

if TYPE_CHECKING:
    import lmdb

LISTING = 'meta_info.txt'
_SIZE = re.compile(r' \((\d+),(\d+),\d+\)')  # height, width, channels
_opened: dict[tuple[int, str], lmdb.Environment] = {}


def list_keys(root: Path) -> list[str]:
    """Return the keys that the list of an LMDB names, in its order.

    Raises:
        FileNotFoundError: there is no list.
        DataError: it is not text, or a line of it names no key.
    """
    listing = root / LISTING
    if not listing.is_file():
        raise FileNotFoundError(f'{root}: not an LMDB of BasicSR ({LISTING} is missing).')
    try:
        lines = listing.read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f'{listing}: is not text in UTF-8 (byte {error.start}: {error.reason}).') from error
    keys = []
    for number, line in enumerate(lines, 1):
        key = line.split('.')[0]
        if line.strip() and (not key.strip() or not (key.isascii() and key.isprintable())):
            raise DataError(f'{listing}: line {number} names no key of printable ASCII: {printable(line)!r}.')
        if line.strip():
            keys.append(key)
    return keys


def list_sizes(root: Path) -> dict[str, tuple[int, int]]:
    """Return width and height of the images of an LMDB by key, as its list tells; without those of which it tells none.

    Raises:
        FileNotFoundError: there is no list.
    """
    lines = (root / LISTING).read_text(encoding='utf-8').splitlines()
    sizes = {line.split('.')[0]: _SIZE.search(line) for line in lines}
    return {key: (int(size[2]), int(size[1])) for key, size in sizes.items() if size}


def read_value(root: Path, key: str) -> bytes:
    """Return the value of a key. The LMDB stays open: one process may not open it twice, and it must not cross a fork.

    Raises:
        DataError: the LMDB cannot be opened or is damaged, or it has no such key.
    """
    import lmdb
    place = (os.getpid(), str(root))
    if place not in _opened:
        _opened[place] = _open(str(root))
    try:
        with _opened[place].begin() as transaction:
            value = transaction.get(key.encode('ascii'))
    except lmdb.Error as error:
        raise DataError(f'{root}: {printable(key)!r} cannot be read, the LMDB is damaged ({printable(error, 160)}).') from error
    if value is None:
        raise DataError(f'{root}: has no image {printable(key)!r}, which its {LISTING} names.')
    return value


def check_lmdb(root: Path) -> None:
    """Open an LMDB, look at what can be seen without reading its images, and close it.

    Raises:
        DataError: it cannot be opened, or its file is shorter than it says itself.
    """
    if (os.getpid(), str(root)) not in _opened:
        _open(str(root)).close()


def _open(path: str) -> lmdb.Environment:
    import lmdb
    data = Path(path) / 'data.mdb'
    size = data.stat().st_size if data.is_file() else 0
    if not size:
        raise DataError(f'{path}: not an LMDB (data.mdb is {"empty" if data.is_file() else "missing"}).')
    try:
        environment = lmdb.open(path, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        reason = str(error).removeprefix(f'{path}: ').rstrip('.')
        raise DataError(f'{path}: cannot be opened as an LMDB ({printable(reason, 160)}).') from error
    needed = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
    if size < needed:
        environment.close()
        raise DataError(f'{path}: is truncated, data.mdb has {size} bytes of {needed}.')
    return environment
