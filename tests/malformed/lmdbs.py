"""LMDBs: incomplete, damaged, or with another content than their list says; each as the pictures of a command."""
from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import numpy as np
import yaml
from tiny import options, write

from malformed.case import Case, compare_options, test_options
from malformed.files import encoded

SPACE = 2**20


def make_lmdb(folder: Path, images: dict[str, bytes]) -> None:
    """Write an LMDB of images by key, and BasicSR's list of them."""
    with lmdb.open(str(folder), map_size=SPACE) as environment, environment.begin(write=True) as transaction:
        for key, content in images.items():
            transaction.put(key.encode(), content)
    (folder / 'meta_info.txt').write_text(''.join(f'{key}.png (40,50,3) 1\n' for key in images))


def _change(value: bytes | None) -> Callable[[Path], None]:
    """Return a function that gives the image ``b`` another content; None takes it away."""
    def damage(folder: Path) -> None:
        with lmdb.open(str(folder), map_size=SPACE) as environment, environment.begin(write=True) as transaction:
            transaction.delete(b'b')
            if value is not None:
                transaction.put(b'b', value)
    return damage


def _list(text: str | bytes | None) -> Callable[[Path], None]:
    """Return a function that replaces the list of images; None takes it away."""
    def damage(folder: Path) -> None:
        listing = folder / 'meta_info.txt'
        listing.unlink()
        if text is not None:
            listing.write_bytes(text.encode() if isinstance(text, str) else text)
    return damage


def _data(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return a function that changes the bytes of the data file."""
    def damage(folder: Path) -> None:
        data = folder / 'data.mdb'
        data.write_bytes(change(data.read_bytes()))
    return damage


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _folder_in_place_of(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()
    return damage


def _overwrite(place: int, content: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + content + data[place + len(content):]


PAGE = 4096
DAMAGE = {
    'no folder': (shutil.rmtree, 'no such image LMDB'),
    'a file in its place': (lambda folder: (shutil.rmtree(folder), folder.write_bytes(b'text')), 'no such image LMDB'),
    'nothing in it': (lambda folder: (shutil.rmtree(folder), folder.mkdir()), 'is missing'),
    'no list': (_list(None), 'meta_info.txt is missing'),
    'empty list': (_list(''), 'no image'),
    'blank list': (_list('\n \n'), 'no image'),
    'list of noise': (_list(np.random.default_rng(0).bytes(500)), 'meta_info.txt'),
    'list in UTF-16': (_list('a.png (40,50,3) 1\n'.encode('utf-16')), 'meta_info.txt'),
    'list is a folder': (_folder_in_place_of('meta_info.txt'), 'meta_info.txt is missing|Is a directory'),
    'list names what is not there': (_list('a.png (40,50,3) 1\nb.png (40,50,3) 1\nnothing.png (40,50,3) 1\n'), 'nothing'),
    'list names what no key can be': (_list('a.png (40,50,3) 1\nb\u00e4r.png (40,50,3) 1\n'), 'line 2 names no key'),
    'list without a name': (_list('a.png (40,50,3) 1\n.png (40,50,3) 1\n'), 'line 2 names no key'),
    'list with a key that is too long': (_list(f'a.png (40,50,3) 1\n{"k" * 600}.png (40,50,3) 1\n'), 'kkkk'),
    'no data': (_remove('data.mdb'), 'data.mdb is missing'),
    'data is a folder': (_folder_in_place_of('data.mdb'), 'data.mdb is missing'),
    'empty data': (_data(lambda data: b''), 'data.mdb is empty'),
    'data of noise': (_data(lambda data: np.random.default_rng(0).bytes(len(data))), 'cannot be opened'),
    'data of zeros': (_data(lambda data: bytes(len(data))), 'cannot be opened'),
    'data is text': (_data(lambda data: b'This is not a database.\n' * 500), 'cannot be opened'),
    'data cut off in its head': (_data(lambda data: data[:100]), 'cannot be opened'),
    'data cut off behind its head': (_data(lambda data: data[:2 * PAGE]), 'is truncated'),
    'data cut off in the middle': (_data(lambda data: data[:len(data) // 2]), 'is truncated'),
    'data of another version': (_data(lambda data: data.replace(struct.pack('<I', 0xBEEFC0DE) + struct.pack('<I', 1),
                                                               struct.pack('<I', 0xBEEFC0DE) + struct.pack('<I', 7))), 'not supported'),
    'pages of zeros': (_data(lambda data: data[:2 * PAGE] + bytes(len(data) - 2 * PAGE)), 'cannot be'),
    'pages of noise': (_data(lambda data: data[:2 * PAGE] + np.random.default_rng(0).bytes(len(data) - 2 * PAGE)), 'cannot be'),
    'image is gone': (_change(None), "has no image 'b'"),
    'image is empty': (_change(b''), 'is empty'),
    'image is text': (_change(b'This is not an image.\n'), 'cannot be decoded'),
    'image is cut off': (_change(encoded('PNG')[:-2000]), 'cannot be decoded'),
    'image is too small': (_change(encoded('PNG', np.zeros((1, 1, 3), np.uint8))), 'is smaller'),
}
"""What is done to a good LMDB of the images ``a`` and ``b``, and the reason that is given."""
WITHOUT_DISK = {'list names what is not there', 'image is empty', 'no data', 'data cut off in the middle', 'data of noise'}
"""Those that the other commands are given, too."""


def cases() -> Iterator[Case]:
    """Yield the LMDBs."""
    for name, (damage, says) in DAMAGE.items():
        yield Case(f'lmdb/train: {name}', 'train', _with(damage, _train), 'pictures.lmdb', says)
        if name in WITHOUT_DISK:
            yield Case(f'lmdb/test: {name}', 'test', _with(damage, _test), 'pictures.lmdb', says)
            yield Case(f'lmdb/compare: {name}', 'compare', _with(damage, _compare), 'pictures.lmdb', says)
            yield Case(f'lmdb/pairs: {name}', 'test', _with(damage, _pairs), 'pictures.lmdb', says)
    yield Case('lmdb/name without .lmdb', 'test', _pairs_misnamed, 'pictures', 'lmdb')
    yield Case('lmdb/read as a folder', 'train', _as_folder, 'pictures.lmdb', 'no image')
    yield Case('lmdb/folder read as an LMDB', 'train', _folder, 'photos', 'meta_info.txt is missing')


def _with(damage: Callable[[Path], object], call: Callable[[Path, Path], list]) -> Callable[[Path], list]:
    def make(folder: Path) -> list:
        pictures = folder / 'pictures.lmdb'
        make_lmdb(pictures, {key: encoded('PNG') for key in 'ab'})
        damage(pictures)
        return call(folder, pictures)
    return make


LMDB = {'type': 'lmdb'}


def _train(folder: Path, pictures: Path) -> list:
    return ['-opt', write(folder, options(folder, datasets__train__dataroot_gt=str(pictures), datasets__train__io_backend=LMDB))]


def _test(folder: Path, pictures: Path) -> list:
    opt = test_options(folder)
    opt['datasets']['test'] |= {'dataroot_gt': str(pictures), 'io_backend': LMDB}
    return ['-opt', write(folder, opt)]


def _pairs(folder: Path, pictures: Path) -> list:
    opt = test_options(folder, pairs=True)
    other = folder / 'whole.lmdb'
    make_lmdb(other, {key: encoded('PNG') for key in 'ab'})
    if (pictures / 'meta_info.txt').is_file():  # else the lists would differ, which is another fault
        shutil.copy(pictures / 'meta_info.txt', other)
    opt['datasets']['test'] |= {'dataroot_gt': str(other), 'dataroot_lq': str(pictures), 'io_backend': LMDB}
    return ['-opt', write(folder, opt)]


def _compare(folder: Path, pictures: Path) -> list:
    opt = compare_options(folder)
    opt['dataset'] |= {'dataroot_gt': str(pictures), 'io_backend': LMDB}
    (folder / 'compare.yml').write_text(yaml.safe_dump(opt))
    return ['-opt', 'compare.yml', '--device', 'cpu']


def _pairs_misnamed(folder: Path) -> list:
    make_lmdb(folder / 'pictures', {'a': encoded('PNG')})
    return _pairs(folder, folder / 'pictures')


def _as_folder(folder: Path) -> list:
    make_lmdb(folder / 'pictures.lmdb', {'a': encoded('PNG')})
    return ['-opt', write(folder, options(folder, datasets__train__dataroot_gt=str(folder / 'pictures.lmdb')))]


def _folder(folder: Path) -> list:
    return ['-opt', write(folder, options(folder, datasets__train__io_backend=LMDB))]
