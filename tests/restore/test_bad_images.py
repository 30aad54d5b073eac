"""Whatever stands in the place of an image: one clear line with file and reason, the others are restored, exit code 1, nothing is left."""
import io
import os
import pickle
import re
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_zoo import picture

from ibmd_basicsr.restoring import photo as photo_module


def encoded(kind: str, samples: np.ndarray | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(40, 50) if samples is None else samples).save(buffer, kind, **options)
    return buffer.getvalue()


def frames(kind: str) -> bytes:
    first, *others = [Image.fromarray(picture(seed=seed)) for seed in range(3)]
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=others)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)) + b''.join(chunks)


def with_chunk(data: bytes, added: bytes) -> bytes:
    return data[:33] + added + data[33:]


def flipped(data: bytes, place: int) -> bytes:
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
    return np.full((8, 9, channels), value, np.float32)


class Trap:
    """Unpickling it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ('executed',)


JPEG_BOMB = encoded('JPEG').replace(struct.pack('>HH', 40, 50), struct.pack('>HH', 65500, 65500), 1)
POSTSCRIPT = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(executed) (w) file closefile\nshowpage\n'
GREY_LINES = zlib.compress(bytes(13 * 12))

CASES = {
    'empty.png': (b'', 'is empty'),
    'text.png': (b'This is not an image.\n', 'is not an image'),
    'page.jpg': (b'<!DOCTYPE html><html><img src="https://example.org/x.jpg"></html>', 'is not an image'),
    'drawing.png': (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'is not an image'),
    'postscript.jpg': (POSTSCRIPT, 'is not an image'),
    'pickle.png': (pickle.dumps(Trap()), 'is not an image'),
    'noise.jpg': (np.random.default_rng(0).bytes(5000), 'is not an image'),
    'magic_alone.png': (b'\x89PNG\r\n\x1a\n', 'is not an image|cannot be decoded'),
    'magic_then_noise.jpg': (b'\xff\xd8\xff\xe0' + np.random.default_rng(1).bytes(5000), 'is not an image|cannot be decoded'),
    'no_scan.jpg': (b'\xff\xd8\xff\xd9', 'is not an image|cannot be decoded'),
    'head_alone.png': (png(12, 12), 'cannot be decoded|is not an image'),
    'no_data.png': (png(12, 12, chunk(b'IEND', b'')), 'cannot be decoded'),
    'no_pixels.png': (png(0, 12, chunk(b'IDAT', GREY_LINES), chunk(b'IEND', b'')), 'cannot be decoded|is not an image'),
    'cut_off.png': (encoded('PNG')[:-2000], 'cannot be decoded'),
    'cut_off.jpg': (encoded('JPEG')[:-500], 'cannot be decoded .*truncated'),
    'cut_off.webp': (encoded('WEBP')[:-500], 'cannot be decoded|is not an image'),
    'cut_off.tif': (encoded('TIFF')[:-500], 'cannot be decoded|is not an image|is a TIFF'),
    'cut_off.bmp': (encoded('BMP')[:-500], 'cannot be decoded'),
    'cut_off.gif': (encoded('GIF')[:-500], 'cannot be decoded'),
    'cut_off_16_bit.png': (cv2.imencode('.png', picture(40, 50, dtype=np.uint16))[1].tobytes()[:-2000], 'cannot be decoded'),
    'cut_off_16_bit.tif': (tiff(picture(8, 9, dtype=np.uint16), 2)[:-100], 'cannot be decoded'),
    'wrong_sum.png': (flipped(encoded('PNG'), 60), 'cannot be decoded'),
    'animated.gif': (frames('GIF'), 'has 3 frames'),
    'animated.png': (frames('PNG'), 'has 3 frames'),
    'animated.webp': (frames('WEBP'), 'has 3 frames'),
    'pages.tif': (frames('TIFF'), 'has 3 frames or pages'),
    'float.tif': (tiff(floats(1), 1, 3), '32 bit float samples'),
    'nan.tif': (tiff(floats(1, np.nan), 1, 3), '32 bit float samples'),
    'float_rgb.tif': (tiff(floats(3, np.nan), 2, 3), 'is a TIFF that is damaged or of a kind that is not read'),
    'doubles.tif': (tiff(floats(1).astype(np.float64), 1, 3), 'is a TIFF that is damaged or of a kind|bit'),
    'integers.tif': (encoded('TIFF', picture(channels=1).astype(np.int32)), '32 bit integer samples'),
    'inverted_16_bit.tif': (tiff(picture(8, 9, 1, dtype=np.uint16)[..., None], 0), 'neither RGB nor grey'),
    'cmyk_16_bit.tif': (tiff(picture(8, 9, 4, dtype=np.uint16), 5), 'neither RGB nor grey|cannot be decoded|is a TIFF that is damaged'),
    'bomb.png': (png(30000, 30000, chunk(b'IDAT', zlib.compress(bytes(1000))), chunk(b'IEND', b''), depth=1),
                 'has 30000x30000 pixels, more than --max-megapixels 100'),
    'larger_than_memory.png': (png(2**31 - 1, 2**31 - 1, chunk(b'IDAT', b''), chunk(b'IEND', b'')), 'more than --max-megapixels'),
    'bomb.jpg': (JPEG_BOMB, 'has 65500x65500 pixels, more than --max-megapixels 100'),
    'bomb.gif': (b'GIF89a' + struct.pack('<HHBBB', 65535, 65535, 0, 0, 0) + b';', 'more than --max-megapixels|cannot be decoded|is not'),
    'text_bomb.png': (with_chunk(encoded('PNG'), chunk(b'zTXt', b'a\0\0' + zlib.compress(bytes(10**8)))), 'cannot be decoded'),
}


def check(restore, good: Path, bad: Path, out: Path, reason: str, *options) -> None:
    """Restore both files; ``bad`` must fail for ``reason`` and ``good`` must not."""
    code, told, errors = restore(bad, good, '-o', out, '--task', 'jpeg', *options)
    lines = [line for line in errors.splitlines() if line.startswith('error: ')]
    assert code == 1 and len(lines) == 1, errors
    assert bad.name in lines[0]
    assert re.search(reason, lines[0]), lines[0]
    assert 'Traceback' not in errors
    assert os.listdir(out) == ['good.png']
    assert told.splitlines()[-1] == f'1 restored, 1 failed: {bad}'
    assert not Path('executed').exists()


@pytest.mark.parametrize('name', CASES)
def test_a_damaged_file_is_named_and_the_others_are_restored(name, restore, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, reason = CASES[name]
    bad = tmp_path / name
    bad.write_bytes(data)
    check(restore, photo, bad, tmp_path / 'out', reason)


def make_missing(path: Path) -> None:
    """Leave it out."""


def make_dead_link(path: Path) -> None:
    path.symlink_to('nowhere')


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to('/dev/zero')


@pytest.mark.parametrize('make, reason', [
    (make_missing, 'No such file'), (make_dead_link, 'No such file'), (make_loop, 'Too many levels of symbolic links'),
    (make_pipe, 'is not a regular file'), (make_device, 'is not a regular file')])
def test_what_is_no_file_is_named(make, reason, restore, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / 'bad.png'
    make(bad)
    check(restore, photo, bad, tmp_path / 'out', reason)


def test_a_file_that_may_not_be_read_is_named(restore, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / 'secret.png'
    bad.write_bytes(photo.read_bytes())

    def refuse(file, *arguments):
        if Path(file) == bad:  # root may read all files, so permissions alone would prove nothing
            raise PermissionError(13, 'Permission denied', str(file))
        return open(file, *arguments)
    monkeypatch.setattr(photo_module, 'open', refuse, raising=False)
    check(restore, photo, bad, tmp_path / 'out', 'secret.png: Permission denied')


def test_a_folder_that_is_called_like_an_image(restore, photo, tmp_path):
    (photo.parent / 'folder.png').mkdir()
    code, _, errors = restore(photo.parent, '-o', tmp_path / 'out', '--task', 'jpeg')
    assert code == 1 and errors.splitlines() == [f'error: {photo.parent}/folder.png: is a folder, not an image.']
    assert os.listdir(tmp_path / 'out') == ['good.png']


def test_a_file_longer_than_its_image_could_be(restore, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(photo_module, 'SPARE_BYTES', 1000)
    bad = tmp_path / 'long.png'
    bad.write_bytes(photo.read_bytes() + bytes(10000))
    check(restore, photo, bad, tmp_path / 'out', 'is longer than 0 MB', '--max-megapixels', 0.001)


@pytest.mark.parametrize('name', [b'\xff\xfe.png', b'two\nlines.png', b'\x1b[31mred.png'])
def test_names_that_no_terminal_should_see_are_escaped(name, restore, photo, tmp_path):
    folder = photo.parent
    with open(os.path.join(os.fsencode(folder), name), 'wb') as file:
        file.write(b'no image')
    with open(os.path.join(os.fsencode(folder), b'good_' + name), 'wb') as file:
        file.write(photo.read_bytes())
    code, told, errors = restore(folder, '-o', tmp_path / 'out', '--task', 'jpeg')
    assert code == 1 and len(errors.splitlines()) == 1 and 'is not an image' in errors
    assert len(told.splitlines()) == 3 and (told + errors).replace('\n', '').isprintable()
    assert set(os.listdir(os.fsencode(tmp_path / 'out'))) == {b'good.png', b'good_' + name}


def test_no_thread_is_left_waiting(restore, photo, tmp_path):
    before = threading.active_count()
    (photo.parent / 'bad.png').write_bytes(b'')
    assert restore(photo.parent, '-o', tmp_path / 'out', '--task', 'jpeg', '--workers', 4)[0] == 1
    assert threading.active_count() == before


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.filterwarnings('ignore:Image size')
def test_files_with_random_damage_are_read_or_refused_and_nothing_else(tmp_path):
    """Some damage cannot be seen, such as another colour in a file without checksums; but no other error, no hang, no odd shape."""
    rng, whole = np.random.default_rng(0), [encoded(kind) for kind in ('PNG', 'JPEG', 'WEBP', 'TIFF', 'GIF', 'BMP')]
    whole += [cv2.imencode(ending, picture(20, 30, dtype=np.uint16))[1].tobytes() for ending in ('.png', '.tiff')]
    refused = 0
    for number in range(160):
        data = bytearray(whole[number % len(whole)])
        for place in rng.integers(0, min(len(data), 200 if number % 2 else len(data)), rng.integers(1, 8)):
            data[place] = rng.integers(256)
        path = tmp_path / 'x'
        path.write_bytes(data if number % 5 else data[:rng.integers(1, len(data))])
        try:
            photo = photo_module.read_photo(path, 1)
        except photo_module.ImageError as error:
            assert str(error).isprintable() and len(str(error)) < 250
            refused += 1
        else:
            assert photo.colour.ndim == 3 and photo.colour.shape[2] in (1, 3) and photo.colour.dtype in (np.uint8, np.uint16)
    assert refused > 80
