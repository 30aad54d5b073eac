"""The images of a folder or an LMDB: one list of endings, and one order, for data sets, metrics and the packing of LMDBs."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ibmd_basicsr.utils.files import find_files
from ibmd_basicsr.utils.image_files import decode_image, image_size
from ibmd_basicsr.utils.lmdb_files import list_keys, list_sizes, read_value

EXTENSIONS = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff', '.ppm')
"""Endings of the files that are images, in any case of letters."""

HEADERS = 10_000
"""Of so many images :func:`small_images` reads the headers: some seconds."""


def list_images(folder: str | os.PathLike) -> list[str]:
    """Return the images of a folder and its subfolders: sorted paths relative to it, chosen by :data:`EXTENSIONS`.

    Raises:
        OSError: a folder that cannot be read.
    """
    return find_files(folder, EXTENSIONS)


def without_ending(name: str) -> str:
    """Return the path of an image without its ending, if it is one of :data:`EXTENSIONS`; LMDB keys, which have none, stay as they are."""
    return os.path.splitext(name)[0] if name.lower().endswith(EXTENSIONS) else name


def small_images(root: str | os.PathLike, keys: list[str], least: int, packed: bool) -> list[str]:
    """Return the images with a side of less than ``least`` pixels, each as ``PATH (WIDTHxHEIGHT)``, by their headers.

    Of more than :data:`HEADERS` images at most as many are looked at, from all over the list. What tells no size is left to decoding.

    Args:
        root: folder or LMDB.
        keys: the images' paths below it, or keys in it.
        least: pixels.
        packed: ``root`` is an LMDB, whose list tells the sizes.

    Raises:
        FileNotFoundError: an LMDB without a list.
    """
    root = Path(root).absolute()
    listed = list_sizes(root) if packed else None
    small = []
    for key in keys[::-(-len(keys) // HEADERS)]:
        size = image_size(str(root / key)) if listed is None else listed.get(key)
        if size is not None and min(size) < least:
            small.append(f'{root / key} ({size[0]}x{size[1]})')
    return small


def read_images(root: str | os.PathLike) -> Iterator[np.ndarray]:
    """Yield the images of a folder (and its subfolders) or of a BasicSR LMDB (``*.lmdb``), sorted: (H, W, 3), BGR, uint8.

    An LMDB must not be open in this process already, for instance by a data set of BasicSR.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
        DataError: a file that is not an image, an LMDB that is damaged.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such image folder or LMDB.')
    packed = root.suffix == '.lmdb'
    names = list_keys(root) if packed else list_images(root)
    if not names:
        raise FileNotFoundError(f'{root}: holds no image{"" if packed else " (" + ", ".join(EXTENSIONS) + ")"}.')
    for name in sorted(names):
        content = read_value(root, name) if packed else (root / name).read_bytes()
        yield cv2.cvtColor(decode_image(content, str(root / name)), cv2.COLOR_RGB2BGR)
