"""Writing of restored photographs: encoded in memory, then renamed into place, so that nobody meets half a file."""
from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ibmd_basicsr.restoring.metadata import exif_bytes
from ibmd_basicsr.restoring.photo import ImageError, Photo
from ibmd_basicsr.utils.errors import SaveError, printable
from ibmd_basicsr.utils.files import replace_file

ENDINGS = {'.png': 'png', '.jpg': 'jpg', '.jpeg': 'jpg', '.webp': 'webp'}
"""Formats by the endings of files that can be written."""
LARGEST_SIDE = {'jpg': 65500, 'webp': 16383}
LONGEST_EXIF = 65533  # of a JPEG segment
PNG_HEAD = 33  # signature and IHDR


def check_writable(photo: Photo, scale: int, form: str) -> None:
    """Refuse, before anything is computed, what a format cannot hold.

    Args:
        photo: as read.
        scale: enlargement to come.
        form: one of the values of :data:`ENDINGS`.

    Raises:
        ImageError: transparency in a JPEG file, or sides that are too long.
    """
    if photo.alpha is not None and form == 'jpg':
        raise ImageError('has transparency, which JPEG files cannot hold; --format png or webp.')
    if scale * max(photo.size) > LARGEST_SIDE.get(form, 2**31 - 1):
        raise ImageError(f'the result has a side of {scale * max(photo.size)} pixels, {form} holds {LARGEST_SIDE[form]} at most; '
                         '--format png.')


def encode(photo: Photo, form: str, quality: int) -> bytes:
    """Return the file of a photograph. 16 bits are kept in PNG files and rounded to 8 in the others.

    Args:
        photo: its metadata is written, too.
        form: ``png``, ``jpg`` (4:4:4) or ``webp``.
        quality: of jpg and webp, 1..100.

    Raises:
        ImageError: metadata that is too long for the format.
    """
    exif = exif_bytes(photo.exif, *photo.size)
    if photo.colour.dtype == np.uint16:
        if form == 'png':
            return _encode_png_16(photo, exif)
        photo = Photo(_to_8_bit(photo.colour), None if photo.alpha is None else _to_8_bit(photo.alpha), icc=photo.icc)
    samples = photo.colour if photo.alpha is None else np.dstack([photo.colour, photo.alpha])
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    options = {'png': {}, 'jpg': {'quality': quality, 'subsampling': 0}, 'webp': {'quality': quality}}[form]
    if photo.icc:
        options['icc_profile'] = photo.icc
    if exif:
        if form == 'jpg' and len(exif) > LONGEST_EXIF:
            raise ImageError(f'its EXIF block of {len(exif)} bytes is longer than those of JPEG files; --format png or webp.')
        options['exif'] = exif
    buffer = io.BytesIO()
    try:
        image.save(buffer, {'png': 'PNG', 'jpg': 'JPEG', 'webp': 'WEBP'}[form], **options)
    except (OSError, ValueError, TypeError, OverflowError) as error:  # about metadata that other formats took
        raise ImageError(f'cannot be encoded as {form} ({printable(error, 160)}).') from error
    return buffer.getvalue()


def _to_8_bit(samples: np.ndarray) -> np.ndarray:
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _encode_png_16(photo: Photo, exif: bytes | None) -> bytes:
    """Encode by OpenCV, since Pillow has no 16 bit colour, and add the chunks of metadata behind the head."""
    samples = photo.colour[..., ::-1]
    if photo.alpha is not None:
        samples = np.dstack([np.broadcast_to(samples, (*photo.size, 3)), photo.alpha])
    ok, code = cv2.imencode('.png', np.ascontiguousarray(samples))
    if not ok:
        raise ImageError('cannot be encoded as PNG of 16 bits.')
    code = code.tobytes()
    chunks = _chunk(b'iCCP', b'ICC Profile\0\0' + zlib.compress(photo.icc)) if photo.icc and not _misfits(photo) else b''
    chunks += _chunk(b'eXIf', exif.removeprefix(b'Exif\0\0')) if exif else b''
    return code[:PNG_HEAD] + chunks + code[PNG_HEAD:]


def _misfits(photo: Photo) -> bool:
    """Tell whether a grey profile would come to stand in a colour file: grey with transparency is written as RGBA."""
    return photo.icc[16:20] == b'GRAY' and photo.alpha is not None


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG chunk: length, kind, content, CRC-32 (PNG specification, 5.3)."""
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def write_atomically(data: bytes, path: Path, overwrite: bool) -> None:
    """Write by :func:`~ibmd_basicsr.utils.files.replace_file`; folders are made.

    Raises:
        ImageError: the file has come into being meanwhile and shall not be replaced, or it cannot be written; the message names it.
    """
    shown = printable(path, 400)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda file: file.write(data), overwrite=overwrite)
    except SaveError as error:
        raise ImageError(f'{shown} {str(error).removeprefix(f"{path}: ")}') from error
    except OSError as error:
        raise ImageError(f'{shown} cannot be written ({error.strerror or error}).') from error
