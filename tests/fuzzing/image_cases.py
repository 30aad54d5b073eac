"""Random image files: valid ones of all kinds with bytes changed at random, and valid ones of random content, and what may come of them."""
from __future__ import annotations

import functools
import io
import re
import struct
import tempfile
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from guard import Fault, check_message, fault_of, limits
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from ibmd_basicsr.restoring.jpeg_quality import JpegQuality
from ibmd_basicsr.restoring.metadata import ORIENTATION
from ibmd_basicsr.restoring.photo import FORMATS, ImageError, Photo, read_photo
from ibmd_basicsr.restoring.writing import check_writable, encode
from ibmd_basicsr.utils.errors import DataError
from ibmd_basicsr.utils.image_files import decode_image

MEGAPIXELS = 1.0
SIGNATURE = b'\x89PNG\r\n\x1a\n'


# ------------------------------------------------------------------ valid files
def smooth(height: int, width: int, channels: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    """Return a smooth random picture, (h, w) or (h, w, channels)."""
    coarse = np.random.default_rng(seed).random((3, 4, channels)).astype(np.float32)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, channels)
    picture = (picture * np.iinfo(dtype).max).astype(dtype)
    return picture[..., 0] if channels == 1 else picture


def saved(image: Image.Image, form: str, **options) -> bytes:
    """Return an image as a file of one of Pillow's formats."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def interlaced_png(picture: np.ndarray) -> bytes:
    """Return (h, w), uint8, as a PNG file in the seven passes of Adam7, which Pillow does not write."""
    lines = b''
    for top, left, down, right in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)):
        part = picture[top::down, left::right]
        lines += b''.join(b'\0' + line.tobytes() for line in part) if part.size else b''
    head = struct.pack('>IIBBBBB', picture.shape[1], picture.shape[0], 8, 0, 0, 0, 1)
    return SIGNATURE + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(lines)) + chunk(b'IEND', b'')


@functools.cache
def valid_files() -> dict[str, bytes]:
    """Return small valid files of all kinds that are read, by name."""
    grey, colour = Image.fromarray(smooth(13, 17, 1)), Image.fromarray(smooth(13, 17, 3))
    alpha, cmyk = Image.fromarray(smooth(13, 17, 4), 'RGBA'), Image.fromarray(smooth(13, 17, 4), 'CMYK')
    palette = colour.quantize(16)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    exif = Image.Exif()
    exif[ORIENTATION], exif[271], exif[306] = 6, 'Maker', '2026:01:02 03:04:05'
    exif[0x8769] = {0x829A: (1, 100), 0xA002: 17, 0xA003: 13, 0x9286: b'ASCII\0\0\0text'}
    exif[0x8825] = {1: 'N', 2: (1.0, 2.0, 3.0)}
    about = {'exif': exif.tobytes(), 'icc_profile': icc}
    files = {f'png {image.mode}': saved(image, 'PNG') for image in (grey, colour, alpha, palette, grey.convert('1'), alpha.convert('LA'))}
    files |= {'png exif': saved(colour, 'PNG', **about), 'png tRNS': saved(palette, 'PNG', transparency=3),
              'png tRNS RGB': saved(colour, 'PNG', transparency=(1, 2, 3)), 'png Adam7': interlaced_png(smooth(13, 17, 1)),
              'jpeg L': saved(grey, 'JPEG'), 'jpeg RGB': saved(colour, 'JPEG', quality=83), 'jpeg CMYK': saved(cmyk, 'JPEG'),
              'jpeg CMYK icc': saved(cmyk, 'JPEG', icc_profile=icc), 'jpeg exif': saved(colour, 'JPEG', **about),
              'jpeg progressive': saved(colour, 'JPEG', progressive=True, subsampling=0),
              'mpo': saved(colour, 'MPO', save_all=True, append_images=[grey.convert('RGB')]),
              'webp': saved(colour, 'WEBP'), 'webp lossless': saved(alpha, 'WEBP', lossless=True),
              'webp exif': saved(colour, 'WEBP', **about), 'bmp': saved(colour, 'BMP'), 'bmp L': saved(grey, 'BMP'),
              'bmp 1': saved(grey.convert('1'), 'BMP'), 'bmp P': saved(palette, 'BMP'),
              'gif': saved(palette, 'GIF'), 'gif transparent': saved(palette, 'GIF', transparency=2),
              'tiff exif': saved(colour, 'TIFF', **about)}
    files |= {f'tiff {image.mode}': saved(image, 'TIFF') for image in (grey, colour, alpha, palette, cmyk, grey.convert('1'))}
    files |= {f'tiff {kind}': saved(colour, 'TIFF', compression=kind) for kind in ('tiff_lzw', 'tiff_adobe_deflate', 'packbits', 'jpeg')}
    for ending in ('png', 'tiff'):
        for channels in (1, 3, 4):
            files[f'{ending} 16 bit {channels}'] = cv2.imencode(f'.{ending}', smooth(9, 11, channels, np.uint16))[1].tobytes()
    return files


# ------------------------------------------------------------------ damage
@dataclass(frozen=True)
class ImageCase:
    """A file to read.

    Attributes:
        origin: the valid file that it was.
        data: what it holds.
    """

    origin: str
    data: bytes


SIZES = [0, 1, 2, 3, 7, 8, 0x7f, 0x80, 0xff, 0x100, 0x3fff, 0x7fff, 0x8000, 0xffff, 0x10000, 2**24, 2**31 - 1, 2**31, 2**32 - 1]


@st.composite
def image_cases(draw: st.DrawFn) -> ImageCase:
    """Draw a valid file with one to five changes; half of the PNG files get right checksums again, so that decoders see the damage."""
    files = valid_files()
    origin = draw(st.sampled_from(sorted(files)))
    data = files[origin]
    for _ in range(draw(st.sampled_from([1, 1, 2, 3, 5]))):
        data = _damaged(draw, data)
    if origin.startswith('png') and draw(st.booleans()):
        data = with_checksums(data)
    return ImageCase(origin, data)


def _damaged(draw: st.DrawFn, data: bytes) -> bytes:
    # heads are short and say most
    place = draw(st.one_of(st.integers(0, min(len(data), 64)), st.integers(0, len(data))))
    length = draw(st.sampled_from([1, 1, 2, 4, 16, 64]))
    how = draw(st.sampled_from(['flip', 'flip', 'number', 'number', 'bytes', 'cut', 'delete', 'repeat', 'splice', 'zero']))
    if how == 'flip' and place < len(data):
        return data[:place] + bytes([data[place] ^ 1 << draw(st.integers(0, 7))]) + data[place + 1:]
    if how == 'number':
        form = draw(st.sampled_from(['<H', '>H', '<I', '>I', 'B']))
        number = struct.pack(form, draw(st.sampled_from(SIZES)) % 256**struct.calcsize(form))
        return data[:place] + number + data[place + len(number):]
    if how == 'bytes':
        return data[:place] + draw(st.binary(min_size=1, max_size=8)) + data[place + draw(st.integers(0, 8)):]
    if how == 'cut':
        return data[:place]
    if how == 'delete':
        return data[:place] + data[place + length:]
    if how == 'repeat':
        return data[:place] + data[place:place + length] * draw(st.sampled_from([2, 3, 50])) + data[place + length:]
    if how == 'splice':
        files = valid_files()
        other = files[draw(st.sampled_from(sorted(files)))]
        return data[:place] + other[draw(st.integers(0, len(other))):]
    return data[:place] + bytes(len(data[place:place + length])) + data[place + length:]


def with_checksums(data: bytes) -> bytes:
    """Return a PNG file with the checksums that its chunks should have, as far as they can be told apart."""
    if not data.startswith(SIGNATURE):
        return data
    out, place = SIGNATURE, len(SIGNATURE)
    while place + 12 <= len(data):
        length = int.from_bytes(data[place:place + 4], 'big')
        kind, content = data[place + 4:place + 8], data[place + 8:place + 8 + length]
        out += data[place:place + 4] + kind + content + struct.pack('>I', zlib.crc32(kind + content))
        place += 12 + len(content)
    return out + data[place:]


def check_image(case: ImageCase) -> str:
    """Check that a file is read as a photograph that can be written, or refused in one line; return a word for what came of it.

    Raises:
        Fault: something else.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of Pillow, about sizes and metadata
        _check_data_set(case.data)
        photo = _read(case.data)
        if isinstance(photo, str):
            return 'refused: ' + re.sub(r'\d+|\([^)]*\)?', '#', photo)[:60]
        check_photo(photo)
        for form in ('png', 'jpg', 'webp'):
            _check_writing(photo, form)
        return f'read: {photo.kind} {photo.colour.shape[2]} {photo.colour.dtype} {photo.alpha is not None}'


def _read(data: bytes) -> Photo | str:
    """Return the photograph, or why there is none."""
    with tempfile.NamedTemporaryFile(suffix='.png') as file:
        file.write(data)
        file.flush()
        try:
            with limits():
                return read_photo(Path(file.name), MEGAPIXELS)
        except ImageError as error:
            _check_line(str(error))
            return str(error)
        except Fault:
            raise
        except BaseException as error:
            raise fault_of(error) from error


def _check_data_set(data: bytes) -> None:
    """Check what data sets make of a file."""
    try:
        with limits():
            image = decode_image(data, 'x.png')
    except DataError as error:
        _check_line(str(error))
    except Fault:
        raise
    except BaseException as error:
        raise fault_of(error) from error
    else:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise Fault('an odd array', f'{image.shape} {image.dtype}')


def _check_line(message: str) -> None:
    check_message(message)
    if '\n' in message or len(message) > 300:
        raise Fault('a message that is no line', repr(message[:300]))


def check_photo(photo: Photo) -> None:
    """Check that all parts of a photograph are what they are said to be."""
    colour, alpha = photo.colour, photo.alpha
    right = {
        'colour': colour.ndim == 3 and colour.shape[2] in (1, 3) and colour.dtype in (np.uint8, np.uint16) and colour.size > 0
        and colour.flags.c_contiguous and colour.shape[0] * colour.shape[1] <= MEGAPIXELS * 1e6,
        'alpha': alpha is None or (alpha.shape == colour.shape[:2] and alpha.dtype == colour.dtype and alpha.flags.c_contiguous),
        'kind': photo.kind in (*FORMATS, 'MPO'),
        'exif': photo.exif is None or (isinstance(photo.exif, Image.Exif) and ORIENTATION not in photo.exif),
        'icc': photo.icc is None or isinstance(photo.icc, bytes),
        'quality': photo.quality is None or (isinstance(photo.quality, JpegQuality) and 1 <= photo.quality.value <= 100),
        'notes': all(note.isprintable() for note in photo.notes)}
    wrong = [name for name, good in right.items() if not good]
    if wrong:
        raise Fault(f'a photograph with a wrong {wrong[0]}', repr(photo)[:300])


def _check_writing(photo: Photo, form: str) -> None:
    """Check that a photograph can be written and, where nothing is lost, read again as it was."""
    try:
        with limits():
            check_writable(photo, 1, form)
            data = encode(photo, form, 90)
    except ImageError as error:
        _check_line(str(error))
        return
    except Fault:
        raise
    except BaseException as error:
        raise fault_of(error) from error
    again = _read(data)
    if isinstance(again, str):
        raise Fault(f'written as {form}, but not read again', again)
    check_photo(again)
    if form == 'png':
        check_equal(photo, again)


def check_equal(photo: Photo, again: Photo) -> None:
    """Check that two photographs hold the same pixels; grey with transparency may have become colour."""
    same = (photo.size == again.size and np.array_equal(np.broadcast_to(photo.colour, again.colour.shape), again.colour)
            and (photo.alpha is None) == (again.alpha is None) and (photo.alpha is None or np.array_equal(photo.alpha, again.alpha)))
    if not same:
        raise Fault('other pixels when read again', ', '.join(f'{one.colour.shape} {one.colour.dtype}' for one in (photo, again)))


# ------------------------------------------------------------------ valid files of random content
@dataclass(frozen=True)
class Picture:
    """Pixels to write and to read.

    Attributes:
        samples: (h, w, channels), uint8 or uint16; channels 1 to 4, the second or fourth is transparency.
        form: of the file, all of them lossless.
        orientation: of EXIF, 1 to 8; 1 where the form has none.
    """

    samples: np.ndarray
    form: str
    orientation: int

    def __repr__(self) -> str:
        return f'Picture({self.samples.shape}, {self.samples.dtype}, {self.form!r}, {self.orientation})'


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    """Draw noise of any size, type, number of channels and form."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    form = draw(st.sampled_from(['png', 'tiff', 'webp', 'bmp', 'png 16', 'tiff 16', 'own', 'own 16']))
    channels = draw(st.sampled_from({'bmp': [1, 3], 'webp': [3, 4], 'png 16': [1, 3, 4], 'tiff 16': [1, 3, 4]}.get(form, [1, 2, 3, 4])))
    dtype = np.uint16 if form.endswith('16') else np.uint8
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    samples = rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)
    orientation = draw(st.integers(1, 8)) if form in ('png', 'tiff', 'webp') else 1
    return Picture(samples, form, orientation)


def check_round_trip(picture: Picture) -> str:
    """Check that what was written is read, upright; return a word for what was tried.

    Raises:
        Fault: it is not.
    """
    samples, form = picture.samples, picture.form
    channels = samples.shape[2]
    flat = samples[..., 0] if channels == 1 else samples
    expected = samples
    if form.startswith('own'):
        alpha = samples[..., -1] if channels in (2, 4) else None
        data = encode(Photo(samples[..., :1 if channels < 3 else 3], alpha), 'png', 90)
    elif form.endswith('16'):
        data = cv2.imencode('.' + form[:-3], flat[..., [2, 1, 0, 3][:channels]] if channels > 1 else flat)[1].tobytes()
    else:
        image, exif = Image.fromarray(flat), Image.Exif()
        exif[ORIENTATION] = picture.orientation
        options = {'lossless': True, 'exact': True} if form == 'webp' else {}
        data = saved(image, form.upper(), **options, **({} if form == 'bmp' else {'exif': exif.tobytes()}))
        with Image.open(io.BytesIO(data)) as written:  # Pillow turns pictures in its own way
            expected = np.asarray(ImageOps.exif_transpose(written)).reshape(*_upright(samples, picture.orientation), -1)
    photo = _read(data)
    if isinstance(photo, str):
        raise Fault('a valid file was refused', photo)
    check_photo(photo)
    # without transparency where it was all opaque: WebP does not keep what says nothing
    alpha = expected[..., -1] if expected.shape[2] in (2, 4) else None
    check_equal(Photo(expected[..., :1 if expected.shape[2] < 3 else 3], alpha), photo)
    return f'{form} {channels} {picture.orientation}'


def _upright(samples: np.ndarray, orientation: int) -> tuple[int, int]:
    height, width = samples.shape[:2]
    return (width, height) if orientation >= 5 else (height, width)
