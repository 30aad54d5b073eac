"""The script that builds the zoo's photographs: disjoint from the test and tuning photographs, exact about size, clear about what fails."""
import ast
import csv
import hashlib
import io
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image
from tiny import REPOSITORY, load_script


@pytest.fixture(scope='module')
def script():
    """The script as a module."""
    return load_script('fetch_photos')


@pytest.fixture
def table(script, monkeypatch):
    """A table of three photographs from two packages."""
    photographs = {'flower': script.Photograph('one', 'usr/share/one/flower.png', 'GPL-2+', 2),
                   'stone': script.Photograph('one', 'usr/share/one/stone.png', 'GPL-2+', 1),
                   'river': script.Photograph('two', 'usr/share/two/river.png', 'CC0-1.0', 3)}
    monkeypatch.setattr(script, 'PHOTOGRAPHS', photographs)
    return photographs


@pytest.fixture(params=['dpkg-deb', 'without dpkg-deb'])
def reader(request, script, monkeypatch):
    """Both ways to open a package; neither may reach apt-get."""
    if request.param == 'dpkg-deb' and not shutil.which('dpkg-deb'):
        pytest.skip('no dpkg-deb on this machine')
    monkeypatch.setattr(script.shutil, 'which', lambda name: name if name == request.param else None)


def picture(width: int, height: int) -> bytes:
    """A PNG of smooth noise."""
    coarse = np.random.default_rng(width).integers(0, 256, (4, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, 'PNG')
    return file.getvalue()


def tar(files: dict[str, bytes], compression: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f'w:{compression}') as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f'./{name}')
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def make_deb(path, files: dict[str, bytes]) -> None:
    """Write a .deb with these files: an ar file of three members."""
    name = path.name.split('_')[0]
    control = f'Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <a@b.c>\nDescription: pictures\n'.encode()
    members = {'debian-binary': b'2.0\n', 'control.tar.gz': tar({'control': control}, 'gz'), 'data.tar.xz': tar(files, 'xz')}
    content = b'!<arch>\n'
    for member, data in members.items():
        content += f'{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n'.encode() + data + b'\n' * (len(data) % 2)
    path.write_bytes(content)


@pytest.fixture
def debs(tmp_path):
    folder = tmp_path / 'debs'
    folder.mkdir()
    make_deb(folder / 'one_1%3a2.0-1_all.deb', {'usr/share/one/flower.png': picture(61, 40), 'usr/share/one/other.png': b'no picture',
                                               'usr/share/one/stone.png': picture(33, 20)})
    make_deb(folder / 'two_3.1_all.deb', {'usr/share/two/river.png': picture(90, 64)})
    return folder


def run(script, debs, out) -> int:
    return script.main(['--debs', str(debs), '--out', str(out)])


def manifest(out) -> dict[str, dict[str, str]]:
    with (out / 'MANIFEST.csv').open(newline='') as file:
        return {line['file']: line for line in csv.DictReader(file)}


def test_no_photograph_of_the_test_and_tuning_crops_is_in_the_table(script):
    tree = ast.parse((REPOSITORY / 'scripts' / 'prepare_photos.py').read_text())
    crops = {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body
             if isinstance(node, ast.Assign) and node.targets[0].id in ('TEST_BUDGIE', 'TEST_SKIMAGE', 'TUNE_LOMIRI')}
    held_out = {photograph for table in crops.values() for photograph, *_ in table.values()}
    assert len(crops) == 3 and {'roman-colosseum', 'astronaut', 'life_by_Aitzol_Berasategi'} <= held_out
    stems = {photograph.path.rsplit('/', 1)[-1].rsplit('.', 1)[0] for photograph in script.PHOTOGRAPHS.values()}
    assert not held_out & (set(script.PHOTOGRAPHS) | stems)


def test_table_names_each_file_once(script):
    places = [(photograph.package, photograph.path) for photograph in script.PHOTOGRAPHS.values()]
    assert len(set(places)) == len(places)
    assert all(package and path.startswith('usr/share/') and '{' not in path for package, path in places)


def test_photographs_are_reduced_and_listed(script, table, reader, debs, tmp_path, capsys):
    out = tmp_path / 'zoo' / 'train'
    assert run(script, debs, out) == 0
    assert '3 of 3 photographs' in capsys.readouterr().out
    lines = manifest(out)
    assert {name: (line['size'], line['version'], line['divisor']) for name, line in lines.items()} == {
        'flower.jpg': ('30x20', '1:2.0-1', '2'), 'river.jpg': ('30x21', '3.1', '3'), 'stone.jpg': ('33x20', '1:2.0-1', '1')}
    assert sorted(path.name for path in out.iterdir()) == ['MANIFEST.csv', 'flower.jpg', 'river.jpg', 'stone.jpg']
    for name, line in lines.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == line['sha256']
    original = Image.open(io.BytesIO(picture(61, 40)))
    expected = np.asarray(original.resize((30, 20), Image.Resampling.LANCZOS), float)
    assert np.abs(np.asarray(Image.open(out / 'flower.jpg'), float) - expected).mean() < 3
    again = tmp_path / 'again'
    assert run(script, debs, again) == 0 and manifest(again) == lines  # deterministic


def test_existing_photographs_are_left_alone(script, table, reader, debs, tmp_path):
    out = tmp_path / 'train'
    assert run(script, debs, out) == 0
    lines, empty = manifest(out), tmp_path / 'empty'
    empty.mkdir()
    assert run(script, empty, out) == 0 and manifest(out) == lines  # no package is asked for, the versions stay
    (out / 'river.jpg').unlink()
    before = (out / 'flower.jpg').stat().st_mtime_ns
    assert run(script, debs, out) == 0 and manifest(out) == lines
    assert (out / 'flower.jpg').stat().st_mtime_ns == before


def test_file_missing_in_a_package_is_named_and_the_rest_is_made(script, table, reader, debs, tmp_path, capsys):
    make_deb(debs / 'one_1%3a2.0-1_all.deb', {'usr/share/one/flower.png': b'no picture'})
    assert run(script, debs, tmp_path / 'train') == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if 'error: ' in line]
    assert len(errors) == 2
    assert 'flower: usr/share/one/flower.png of package one is no readable picture' in errors[0]
    assert 'stone: package one (one_1%3a2.0-1_all.deb) holds no usr/share/one/stone.png' in errors[1]
    assert list(manifest(tmp_path / 'train')) == ['river.jpg']


def test_broken_package_is_named(script, table, reader, debs, tmp_path, capsys):
    (debs / 'two_3.1_all.deb').write_bytes(b'<html>not found</html>')
    assert run(script, debs, tmp_path / 'train') == 2
    assert 'two_3.1_all.deb: not a readable Debian package' in capsys.readouterr().err
    assert list(manifest(tmp_path / 'train')) == ['flower.jpg', 'stone.jpg']


def test_without_apt_one_line_says_which_packages_to_fetch(script, table, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script.shutil, 'which', lambda name: None)
    assert run(script, tmp_path, tmp_path / 'train') == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if 'error: ' in line]
    assert len(errors) == 1 and "'apt-get download one two'" in errors[0] and '--debs' in errors[0]


@pytest.mark.parametrize('keep', [False, True])
def test_packages_are_downloaded_one_by_one_and_an_unknown_one_is_named(script, table, debs, monkeypatch, tmp_path, capsys, keep):
    class Result:
        returncode, stderr = 0, ''

    def apt_get(command, cwd, **_):
        result = Result()
        if command[-1] == 'two':
            result.returncode, result.stderr = 100, 'W: a warning\nE: Unable to locate package two\n'
        else:
            shutil.copy(debs / 'one_1%3a2.0-1_all.deb', cwd)
        return result

    monkeypatch.setattr(script.subprocess, 'run', apt_get)
    monkeypatch.setattr(script.shutil, 'which', lambda name: 'apt-get' if name == 'apt-get' else None)
    out = tmp_path / 'zoo' / 'train'
    assert script.main(['--out', str(out), *['--keep'] * keep]) == 2
    assert 'error: two: apt-get download: E: Unable to locate package two;' in capsys.readouterr().err
    assert list(manifest(out)) == ['flower.jpg', 'stone.jpg']
    assert [path.name for path in out.parent.rglob('*.deb')] == ['one_1%3a2.0-1_all.deb'] * keep
