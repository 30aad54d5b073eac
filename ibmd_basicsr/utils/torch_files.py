"""Reading of torch's files as data: no code in them is run, none unpacks to more than it is, and what is wrong is part of a sentence."""
from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ibmd_basicsr.utils.errors import printable

BOMB = 2**28
"""Bytes that any archive may unpack to. torch writes archives without compression, but reads others."""
PACKING = 10
"""So many times its own size a larger one may unpack to: weights hardly become smaller."""


class UnreadableFile(ValueError):
    """A file that torch cannot read, or may not; the message is the reason, without the name of the file and a full stop."""


def read_torch_file(path: Path, mmap: bool = False) -> Any:
    """Return what ``torch.save`` has written, on the CPU.

    Args:
        path: the file.
        mmap: map the file instead of reading it, where its format allows that; what is not used then takes neither time nor memory.

    Raises:
        UnreadableFile: no such file, not a torch file, truncated, a bomb, or only loadable by unpickling code.
    """
    if not path.is_file():
        raise UnreadableFile('is a folder, not a file' if path.is_dir() else 'no such file')
    try:
        mapped = _can_be_mapped(path)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about pickle protocols; what follows from them is in the exception
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mmap and mapped)
    except UnreadableFile:
        raise
    except Exception as error:  # torch raises many types for damaged files, and so does zipfile
        raise UnreadableFile(_why_unreadable(path, error)) from error


def check_records(path: str | Path) -> None:
    """Compare every record of a zip archive (the format of torch since 1.6) with its checksum, which ``torch.load`` does not do.

    Without it, a flipped bit would become a weight. Files that are no archives hold no checksums and pass.

    Raises:
        UnreadableFile: the first damaged record.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile has as many for damaged files as torch
        raise UnreadableFile(f'is damaged ({printable(error)})') from error
    if damaged is not None:
        raise UnreadableFile(f'is damaged, the checksum of {printable(damaged.partition("/")[2] or damaged)} is wrong')


def _can_be_mapped(path: Path) -> bool:
    """Tell whether the file is a zip archive of uncompressed records; the bytes of compressed ones would be taken for weights.

    Raises:
        UnreadableFile: what is compressed unpacks to :data:`BOMB` bytes and more than weights could: a few kilobytes can become all memory.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    unpacked = sum(record.file_size for record in records)
    if unpacked > max(BOMB, PACKING * path.stat().st_size):
        raise UnreadableFile(f'is a compressed archive of {path.stat().st_size} bytes that would unpack to {unpacked}, refused')
    return all(record.compress_type == zipfile.ZIP_STORED for record in records)


def _why_unreadable(path: Path, error: Exception) -> str:
    """Return the reason in an error of ``torch.load``, whose text has many lines and advises to run the code."""
    text = str(error)
    forbidden = re.search(r'GLOBAL (\S+)', text)
    if forbidden:
        return f'needs code to be run to be read (global {printable(forbidden[1])}), refused'
    if 'TorchScript' in text:
        return 'needs code to be run to be read (a TorchScript archive), refused'
    with open(path, 'rb') as file:
        head = file.read(9)
    if not head:
        reason = 'empty'
    elif head[:2] == b'PK':
        what = '' if 'Weights only' in text else text.split('\n')[0].split('. This is')[0]  # what follows is about torch's inside
        reason = f'a damaged or truncated archive: {type(error).__name__}{": " if what else ""}{printable(what, 160)}'
    elif head[8:] == b'{':
        reason = 'it looks like safetensors; files of torch.save are read'
    elif head[:1] == b'\x80' and 'WeightsUnpickler error' in text:
        reason = 'a bare pickle with more than plain data, refused'
    else:
        reason = 'no torch file'
    return f'cannot be read ({reason})'
