"""Images: damaged, foreign, oversized, or no images at all; one in a batch of the restore command, others in data sets."""
from __future__ import annotations

import os
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from tiny import options, write
from tiny_zoo import picture

from malformed.case import RESTORE, Case, test_options
from malformed.files import Trap, chunk, encoded, flipped, floats, frames, png, tiff, with_chunk

JPEG_BOMB = encoded('JPEG').replace(struct.pack('>HH', 40, 50), struct.pack('>HH', 65500, 65500), 1)
POSTSCRIPT = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(executed) (w) file closefile\nshowpage\n'
GREY_LINES = zlib.compress(bytes(13 * 12))

DAMAGED = {
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
    'whole_bomb.png': (png(30000, 30000, chunk(b'IDAT', zlib.compress(bytes(30000 * 3751), 1)), chunk(b'IEND', b''), depth=1),
                       'has 30000x30000 pixels, more than --max-megapixels 100'),
    'larger_than_memory.png': (png(2**31 - 1, 2**31 - 1, chunk(b'IDAT', b''), chunk(b'IEND', b'')), 'more than --max-megapixels'),
    'bomb.jpg': (JPEG_BOMB, 'has 65500x65500 pixels, more than --max-megapixels 100'),
    'bomb.gif': (b'GIF89a' + struct.pack('<HHBBB', 65535, 65535, 0, 0, 0) + b';', 'more than --max-megapixels|cannot be decoded|is not'),
    'text_bomb.png': (with_chunk(encoded('PNG'), chunk(b'zTXt', b'a\0\0' + zlib.compress(bytes(10**8)))), 'cannot be decoded'),
}

NOT_FILES = {
    'missing.png': (lambda path: None, 'No such file'),
    'dead_link.png': (lambda path: path.symlink_to('nowhere'), 'No such file'),
    'loop.png': (lambda path: path.symlink_to(path), 'Too many levels of symbolic links'),
    'pipe.png': (os.mkfifo, 'is not a regular file'),
    'device.png': (lambda path: path.symlink_to('/dev/zero'), 'is not a regular file'),
}
"""What stands in the place of a file: how to make it, and the reason."""
ODD = {
    'one_pixel.png': encoded('PNG', picture(1, 1)),
    'very_long.png': encoded('PNG', picture(3, 100000)),
    'wrong_ending.jpg': encoded('PNG'),
}
"""Images that look like mistakes and are restored."""
UNREAD = {
    'empty.png': 'is empty', 'text.png': 'cannot be decoded', 'pickle.png': 'cannot be decoded', 'noise.jpg': 'cannot be decoded',
    'head_alone.png': 'cannot be decoded', 'cut_off.png': 'cannot be decoded', 'cut_off.jpg': 'cannot be decoded',
    'cut_off.webp': 'cannot be decoded', 'cut_off.tif': 'cannot be decoded', 'cut_off.bmp': 'cannot be decoded',
    'wrong_sum.png': 'cannot be decoded', 'nan.tif': 'float', 'float_rgb.tif': 'floats', 'animated.png': 'frames', 'pages.tif': 'frames',
    'bomb.png': 'claims 30000x30000 pixels|900000000 pixels', 'bomb.jpg': 'claims 65500x65500 pixels', 'larger_than_memory.png': 'pixels',
    'whole_bomb.png': 'claims 30000x30000 pixels|900000000 pixels',
}
"""Those of :data:`DAMAGED` that a data set must refuse, too, which reads for speed and not for every kind of file; and why."""


def cases() -> Iterator[Case]:
    """Yield the images: each in a batch of the restore command with a good one, some in data sets."""
    for name, (content, says) in DAMAGED.items():
        yield Case(f'image/{name}', 'restore', _batch(name, content), name, says, 1, ('good.png',))
    for name, (make, says) in NOT_FILES.items():
        yield Case(f'image/{name}', 'restore', _batch(name, make), name, says, 1, ('good.png',))
    for name, content in ODD.items():
        yield Case(f'image/{name}', 'restore', _batch(name, content, '--tile', 4096), '', '', 0,
                   ('good.png', Path(name).with_suffix('.png').name))
    yield Case('image/folder.png', 'restore', _folder, 'in/folder.png', 'is a folder', 1, ('good.png',))
    contents = {name: content for name, (content, _) in DAMAGED.items()} | ODD
    reasons = UNREAD | {'one_pixel.png': 'smaller than', 'very_long.png': 'smaller than'}
    for name, says in reasons.items():
        yield Case(f'image/in a training set: {name}', 'train', _training(name, contents[name]), f'photos/{name}', says)
    for name in ('empty.png', 'cut_off.jpg', 'nan.tif', 'whole_bomb.png', 'one_pixel.png'):
        yield Case(f'image/in a test set: {name}', 'test', _test(name, contents[name]), f'photos/{name}', reasons[name])
    for name in ('empty.png', 'cut_off.jpg', 'nan.tif', 'whole_bomb.png'):
        yield Case(f'image/among pairs: {name}', 'test', _test(name, contents[name], True), f'photos/{name}', reasons[name])
        yield Case(f'image/to LMDB: {name}', 'create_lmdb', _packed(name, contents[name]), f'photos/{name}', reasons[name])
    yield Case('image/in a loader process: cut_off.png', 'train', _training('cut_off.png', contents['cut_off.png'], 1),
               'photos/cut_off.png', 'cannot be decoded')


def _batch(name: str, content: bytes | Callable[[Path], object], *more: str | int) -> Callable[[Path], list]:
    """Return a function that writes an image and calls the restore command with it and a good one."""
    def make(folder: Path) -> list:
        path = folder / name
        path.write_bytes(content) if isinstance(content, bytes) else content(path)
        return [name, 'good.png', '-o', 'out', *RESTORE, *more]
    return make


def _folder(folder: Path) -> list:
    (folder / 'in' / 'folder.png').mkdir(parents=True)
    (folder / 'good.png').rename(folder / 'in' / 'good.png')
    return ['in', '-o', 'out', *RESTORE]


def _training(name: str, content: bytes, workers: int = 0) -> Callable[[Path], list]:
    """Return a function that adds an image to the pictures of a training set."""
    def make(folder: Path) -> list:
        (folder / 'photos' / name).write_bytes(content)
        opt = options(folder, datasets__train__gt_size=8, datasets__train__num_worker_per_gpu=workers)
        del opt['datasets']['val']  # the same pictures
        return ['-opt', write(folder, opt)]
    return make


def _test(name: str, content: bytes, pairs: bool = False) -> Callable[[Path], list]:
    """Return a function that adds an image to the pictures of a test set, of ready-made pairs that BasicSR's own data set reads or not."""
    def make(folder: Path) -> list:
        (folder / 'photos' / name).write_bytes(content)
        return ['-opt', write(folder, test_options(folder, pairs))]
    return make


def _packed(name: str, content: bytes) -> Callable[[Path], list]:
    def make(folder: Path) -> list:
        (folder / 'photos' / name).write_bytes(content)
        return ['photos', 'out.lmdb']
    return make
