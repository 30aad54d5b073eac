"""Decoding of image files for data sets: fast, and what is no single picture of 8 or 16 bits is refused before its pixels are decoded."""
from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ibmd_basicsr.utils.errors import DataError, printable
from ibmd_basicsr.utils.image_claims import false_claim

# OpenCV would tell of damaged files on the standard error output, beside the line that names them
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
FORMATS = ('PNG', 'JPEG', 'WEBP', 'TIFF', 'BMP', 'PPM')
"""What Pillow may take a file for."""


def decode_image(content: bytes | None, path: str) -> np.ndarray:
    """Decode the bytes of an image file to (H, W, 3), RGB, uint8; grey becomes RGB, transparency is dropped, 16 bits become 8.

    Raises:
        DataError: not an image, damaged, animated or of several pages, of floats, or of more pixels than Pillow takes for an image
            (179 million); the message names ``path``.
    """
    check_header(content or b'', path)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # claims more pixels than OpenCV takes
        image = None
    if image is None:
        raise DataError(f'{path}: cannot be decoded as an image, it is damaged or truncated.')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def image_size(path: str) -> tuple[int, int] | None:
    """Return width and height of an image file by its header, before any rotation that its metadata ask for; None if it tells none.

    Only the header is read: 0.1 ms.
    """
    if not os.path.isfile(path):  # a pipe would be waited for
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(path, formats=FORMATS) as image:
                return image.size
    except Exception:  # Pillow's many; decoding tells what is wrong
        return None


def read_photo(path: Path) -> Image.Image:
    """Return a photograph in RGB, by Pillow.

    Raises:
        OSError: it is not there, or may not be read.
        DataError: it holds no picture, or half of one.
    """
    try:
        return Image.open(path).convert('RGB')
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(f'{path}: is no readable picture ({error}).') from error


def check_header(content: bytes, path: str) -> None:
    """Look at what a file says of itself, which takes a small part of the time of decoding it.

    Raises:
        DataError: as :func:`decode_image`, but for damage further on.
    """
    if not content:
        raise DataError(f'{path}: is empty.')
    claim = false_claim(content)
    if claim is not None:
        raise DataError(f'{path}: cannot be decoded as an image (it {claim}).')
    if content[8:16] == b'WEBPVP8 ' or content[8:16] == b'WEBPVP8L':
        return  # a single picture of at most 16383 pixels a side: OpenCV will see the rest, and Pillow takes longest for this format
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # large images, odd metadata
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                frames, mode = getattr(image, 'n_frames', 1), image.mode
    except Image.UnidentifiedImageError as error:
        kind = 'a TIFF of a kind that is not read, such as floats' if content[:4] in (b'II*\0', b'MM\0*') else f'no {", ".join(FORMATS)}'
        raise DataError(f'{path}: cannot be decoded as an image, it is damaged or {kind}.') from error
    except Exception as error:  # Pillow's for too many pixels, and the many types of damaged files
        raise DataError(f'{path}: cannot be decoded as an image ({printable(str(error) or type(error).__name__, 160)}).') from error
    if frames > 1 and image.format != 'MPO':  # phones' JPEG files with previews behind the picture
        raise DataError(f'{path}: has {frames} frames or pages, not one picture.')
    if mode == 'F':
        raise DataError(f'{path}: has float samples; 8 and 16 bit integers are read.')
