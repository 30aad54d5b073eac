"""Reading of photographs: pixels, transparency, EXIF, colour profile; whatever cannot be read is one clear line.

Files are read by Pillow, restricted to formats whose decoders run nothing but themselves; of files with 16 bits a channel, which Pillow
cuts to 8 where there are three channels, the samples are OpenCV's.
"""
from __future__ import annotations

import io
import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms

from ibmd_basicsr.restoring.jpeg_quality import JpegQuality, estimate_quality
from ibmd_basicsr.restoring.metadata import read_exif, turn_upright
from ibmd_basicsr.utils.errors import printable

FORMATS = ('PNG', 'JPEG', 'WEBP', 'TIFF', 'BMP', 'GIF')
"""What Pillow may take a file for. Not among them: EPS, whose reader starts another program."""
TIFF_BITS, TIFF_PHOTOMETRIC = 258, 262  # tags
SPARE_BYTES = 2**26
"""A file may be so much longer than its pixels at 8 bytes each: metadata."""


class ImageError(ValueError):
    """An image that cannot be read, restored or written; the message is the reason, one line, without the name of the file."""


@dataclass
class Photo:
    """A decoded photograph, upright.

    Attributes:
        colour: (h, w, 3) RGB or (h, w, 1) grey, uint8 or uint16 of the full range.
        alpha: (h, w) of the same type, or None.
        kind: Pillow's name of the file's format.
        exif: block of metadata without orientation, or None.
        icc: colour profile that ``colour`` is in, or None (sRGB).
        quality: of JPEG files, from their tables.
        notes: what the user should know about how the file was read.
    """

    colour: np.ndarray
    alpha: np.ndarray | None = None
    kind: str = 'PNG'
    exif: Image.Exif | None = None
    icc: bytes | None = None
    quality: JpegQuality | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.colour.shape[:2]


def read_photo(path: Path | None, max_megapixels: float) -> Photo:
    """Read a photograph.

    Args:
        path: the file; None for the standard input.
        max_megapixels: limit of height x width / 10^6; files that are longer than such an image could need are not read either.

    Raises:
        ImageError: nothing that can be read, with the reason.
    """
    try:
        data = _read_bytes(path, max_megapixels)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_header(image, max_megapixels)
            image.load()  # fails for files that are cut off
            return _to_photo(image, data)
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(_why_unidentified(data)) from error
    except MemoryError as error:
        raise ImageError('does not fit into the memory.') from error
    except OSError as error:
        # of the file system with a number, of Pillow's decoders with a text
        raise ImageError(f'{error.strerror}.' if error.errno is not None else _damaged(error)) from error
    except Exception as error:  # decoders raise many types for damaged files
        raise ImageError(_damaged(error)) from error


def _damaged(error: Exception) -> str:
    reason = printable(str(error).split('\n')[0].rstrip('.'), 160)
    return f'cannot be decoded ({reason or type(error).__name__}).'


def _read_bytes(path: Path | None, max_megapixels: float) -> bytes:
    limit = int(max_megapixels * 8e6) + SPARE_BYTES
    if path is None:
        if sys.stdin.isatty():
            raise ImageError('the standard input is a terminal; send an image: < FILE.')
        data = sys.stdin.buffer.read(limit + 1)
    else:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):  # opening a pipe could wait for ever
            raise ImageError('is a folder, not an image.' if stat.S_ISDIR(mode) else 'is not a regular file (a pipe or a device).')
        with open(path, 'rb') as file:
            data = file.read(limit + 1)
    if not data:
        raise ImageError('is empty.')
    if len(data) > limit:
        raise ImageError(f'is longer than {limit / 1e6:.0f} MB, too long for an image of --max-megapixels {max_megapixels:g}.')
    return data


def _why_unidentified(data: bytes) -> str:
    if data[:4] in (b'II*\0', b'MM\0*'):
        return 'is a TIFF that is damaged or of a kind that is not read, such as several floats a pixel; 8 and 16 bit integers are.'
    return 'is not an image that is read here (PNG, JPEG, WebP, TIFF, BMP, GIF).'


def _check_header(image: Image.Image, max_megapixels: float) -> None:
    """Refuse, before pixels are decoded, what would be too large or is no single picture of 8 or 16 bits."""
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        raise ImageError(f'has {width}x{height} pixels, more than --max-megapixels {max_megapixels:g}.')
    frames = getattr(image, 'n_frames', 1)
    if frames > 1 and image.format != 'MPO':  # phones' JPEG files with previews behind the picture
        raise ImageError(f'has {frames} frames or pages; single images are restored.')
    if image.mode == 'F' or (image.mode == 'I' and image.format != 'PNG'):
        raise ImageError(f'has 32 bit {"float" if image.mode == "F" else "integer"} samples; 8 and 16 bit integers are restored.')
    if image.mode in ('LAB', 'HSV'):
        raise ImageError(f'is in the colour space {image.mode}; grey, RGB and CMYK are restored.')
    if image.format == 'TIFF':
        bits, photometric = set(image.tag_v2.get(TIFF_BITS, (1,))), image.tag_v2.get(TIFF_PHOTOMETRIC)
        if not bits <= {1, 2, 4, 8, 16}:
            raise ImageError(f'has {max(bits)} bit samples; 8 and 16 bit integers are restored.')
        if bits == {16} and photometric not in (1, 2):  # 0: white is zero; 5: CMYK
            raise ImageError('is a TIFF of 16 bits that is neither RGB nor grey with black at zero.')


def _to_photo(image: Image.Image, data: bytes) -> Photo:
    photo = Photo(np.empty(0), kind=image.format, icc=image.info.get('icc_profile'))
    orientation, photo.exif, note = read_exif(image)
    photo.notes += [note] if note else []
    if image.format in ('JPEG', 'MPO'):
        photo.quality = estimate_quality(image.quantization)
    if image.format == 'MPO':
        photo.notes.append('the first of several pictures in the file, the others are previews.')
    if _is_16_bit(image, data):
        samples = _decode_16_bit(data)
    else:
        samples = np.asarray(_to_grey_or_rgb(image, photo))
    samples = turn_upright(np.atleast_3d(samples), orientation)
    channels = samples.shape[2]
    photo.colour = np.ascontiguousarray(samples[..., :1 if channels < 3 else 3])
    if channels in (2, 4):
        photo.alpha = np.ascontiguousarray(samples[..., -1])
    return photo


def _is_16_bit(image: Image.Image, data: bytes) -> bool:
    if image.format == 'PNG':
        return data[24] == 16  # bit depth in IHDR, the first chunk
    return image.format == 'TIFF' and 16 in image.tag_v2.get(TIFF_BITS, ())


def _decode_16_bit(data: bytes) -> np.ndarray:
    """Return (h, w, 1 to 4) uint16, RGB."""
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16:
        raise ImageError('has 16 bit samples in a form that is not read.')
    samples = np.atleast_3d(samples)
    order = {1: [0], 2: [0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]
    samples = samples[..., order]
    # OpenCV has no grey with transparency
    grey = samples.shape[2] == 4 and data[25:26] == b'\x04' and data[:4] == b'\x89PNG'
    return samples[..., [0, 3]] if grey else samples


def _to_grey_or_rgb(image: Image.Image, photo: Photo) -> Image.Image:
    """Convert to one of the modes L, LA, RGB, RGBA."""
    transparent = 'transparency' in image.info or image.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa')
    if image.mode == 'CMYK':
        profile, photo.icc = photo.icc, None
        if profile is not None:
            try:
                return ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile('sRGB'),
                                                 outputMode='RGB')
            except (ImageCms.PyCMSError, OSError, ValueError) as error:
                photo.notes.append(f'its CMYK profile cannot be used ({printable(error)}), converted without.')
        return image.convert('RGB')
    if image.mode in ('1', 'L', 'LA', 'La'):
        return image.convert('LA' if transparent else 'L')
    return image.convert('RGBA' if transparent else 'RGB')
