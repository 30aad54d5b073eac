"""Whatever stands in the place of an image: one clear line with file and reason, the others are restored, exit code 1, nothing is left."""
import os
import re
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from malformed.case import EXECUTED
from malformed.files import encoded
from malformed.images import DAMAGED, NOT_FILES
from tiny_zoo import picture

from ibmd_basicsr.restoring import photo as photo_module


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
    assert not Path(EXECUTED).exists()


@pytest.mark.parametrize('name', DAMAGED)
def test_a_damaged_file_is_named_and_the_others_are_restored(name, restore, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, reason = DAMAGED[name]
    bad = tmp_path / name
    bad.write_bytes(data)
    check(restore, photo, bad, tmp_path / 'out', reason)


@pytest.mark.parametrize('name', NOT_FILES)
def test_what_is_no_file_is_named(name, restore, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, reason = NOT_FILES[name]
    make(tmp_path / name)
    check(restore, photo, tmp_path / name, tmp_path / 'out', reason)


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
