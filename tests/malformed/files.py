"""Bytes of image files, whole and damaged."""
from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image
from tiny_zoo import picture

from malformed.case import EXECUTED


def encoded(kind: str, samples: np.ndarray | None = None, **options) -> bytes:
    """Return an image file by Pillow; random pixels by default."""
    buffer = io.BytesIO()
    Image.fromarray(picture(40, 50) if samples is None else samples).save(buffer, kind, **options)
    return buffer.getvalue()


def frames(kind: str) -> bytes:
    """Return an image file of three frames or pages."""
    first, *others = [Image.fromarray(picture(seed=seed)) for seed in range(3)]
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=others)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """Return a PNG file with these chunks behind its head."""
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)) + b''.join(chunks)


def with_chunk(data: bytes, added: bytes) -> bytes:
    """Return a PNG file with a chunk more."""
    return data[:33] + added + data[33:]


def flipped(data: bytes, place: int) -> bytes:
    """Return the bytes with all bits of one turned over."""
    return data[:place] + bytes([data[place] ^ 0xff]) + data[place + 1:]


def tiff(samples: np.ndarray, photometric: int, sample_format: int = 1) -> bytes:
    """Return an uncompressed little-endian TIFF of one strip: header, directory, bits and formats of the samples, samples."""
    height, width, channels = samples.shape
    entries, extra = 11, 8 + 2 + 11 * 12 + 4
    after = extra + 4 * channels
    bits, formats = (struct.pack(f'<{channels}H', *[value] * channels) for value in (8 * samples.dtype.itemsize, sample_format))

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        return struct.pack('<HHII', tag, kind, count, value)

    def shorts(tag: int, place: int, values: bytes) -> bytes:
        return entry(tag, 3, channels, place) if len(values) > 4 else struct.pack('<HHI', tag, 3, channels) + values.ljust(4, b'\0')
    directory = b''.join([
        entry(256, 4, 1, width), entry(257, 4, 1, height), shorts(258, extra, bits), entry(259, 3, 1, 1), entry(262, 3, 1, photometric),
        entry(273, 4, 1, after), entry(277, 3, 1, channels), entry(278, 4, 1, height), entry(279, 4, 1, samples.nbytes),
        entry(284, 3, 1, 1), shorts(339, extra + 2 * channels, formats)])
    assert len(directory) == 12 * entries
    return struct.pack('<2sHIH', b'II', 42, 8, entries) + directory + struct.pack('<I', 0) + bits + formats + samples.tobytes()


def floats(channels: int, value: float = 0.5) -> np.ndarray:
    """Return samples (8, 9, channels) of one value, float32."""
    return np.full((8, 9, channels), value, np.float32)


class Trap:
    """Unpickling it makes a folder."""

    def __reduce__(self):
        return os.mkdir, (EXECUTED,)
