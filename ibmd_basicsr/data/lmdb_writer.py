"""Packing of a folder of images into an LMDB that BasicSR reads."""
from __future__ import annotations

import re
import shutil
import uuid
from pathlib import Path

from basicsr.utils.lmdb_util import LmdbMaker
from tqdm import tqdm

from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.image_files import decode_image
from ibmd_basicsr.utils.image_sets import EXTENSIONS, list_images

PAGE = 4096
"""LMDB stores values in whole pages of this size."""


def image_key(name: str) -> str:
    """Return the LMDB key of an image: its path without ending; ``.``, blanks and non-ASCII, which BasicSR cannot read, become ``_``."""
    return re.sub(r'[^!-\-/-~]', '_', str(Path(name).with_suffix('').as_posix()))


def create_lmdb(folder: Path, output: Path, progress: bool = True) -> int:
    """Write the images below ``folder`` to ``output`` with BasicSR's ``LmdbMaker`` and return their number.

    The files go in as they are, after each has been decoded once; ``output`` appears when it is complete. It is written under a hidden
    name of its own, another one each time, so that two that make the same LMDB do not meet in it.

    Args:
        folder: images, also in subfolders.
        output: the LMDB to make, ``*.lmdb``; must not exist.
        progress: show a bar.

    Raises:
        OptionError: ``output`` exists, or came into being meanwhile; no image, or two images with one key.
        DataError: an image that cannot be decoded.
    """
    if output.exists():
        raise OptionError(f'{output}: exists already; remove it or choose another name.')
    names = list_images(folder)
    if not names:
        raise OptionError(f'{folder}: holds no image ({", ".join(EXTENSIONS)}).')
    keys: dict[str, str] = {}
    for name in names:
        key = image_key(name)
        if key in keys:
            raise OptionError(f'{folder}: {keys[key]} and {name} would share the key {key!r}; rename one.')
        keys[key] = name

    partial = output.with_name(f'.{output.stem[:40]}.{uuid.uuid4().hex[:8]}.partial.lmdb')
    output.parent.mkdir(parents=True, exist_ok=True)
    map_size = sum((folder / name).stat().st_size + 2 * PAGE for name in names) + 2**24
    try:
        maker = LmdbMaker(str(partial), map_size=map_size)
        try:
            for key, name in tqdm(keys.items(), unit='image', dynamic_ncols=True, disable=not progress):
                content = (folder / name).read_bytes()
                maker.put(content, key, decode_image(content, str(folder / name)).shape)
        finally:
            maker.close()
        _rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(names)


def _rename(partial: Path, output: Path) -> None:
    try:
        partial.rename(output)
    except OSError as error:
        reason = 'has come into being meanwhile; nothing was written' if output.exists() else f'cannot be written ({error.strerror})'
        raise OptionError(f'{output}: {reason}.') from error
