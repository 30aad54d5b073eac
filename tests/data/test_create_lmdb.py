"""The command create_lmdb: what it writes, what it refuses, and that a failure leaves nothing behind."""
import cv2
import numpy as np
import pytest
from basicsr.utils import FileClient
from tiny import command, make_photos

from ibmd_basicsr.cli.create_lmdb import main
from ibmd_basicsr.data import lmdb_writer
from ibmd_basicsr.data.lmdb_writer import create_lmdb, image_key
from ibmd_basicsr.utils.errors import OptionError

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


@pytest.fixture
def run(capsys):
    """Run the command in this process; return its exit code and what it says on stderr, without the progress bar."""
    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, [line for line in capsys.readouterr().err.splitlines() if line.strip() and 'image/s]' not in line]

    return run


def write(path, picture=PICTURE):
    path.parent.mkdir(parents=True, exist_ok=True)
    # not imwrite, which cannot be trusted with names outside ASCII on every system
    path.write_bytes(cv2.imencode(path.suffix, picture)[1].tobytes())
    return path


def stored(path, *keys) -> list[bytes]:
    client = FileClient('lmdb', db_paths=[str(path)], client_keys=['images'])
    return [bytes(client.get(key, 'images')) for key in keys]


def everything(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


def test_help_shows_an_example():
    result = command('--help', module='create_lmdb')
    assert result.returncode == 0 and result.stderr == ''
    for text in ('examples:', 'python -m ibmd_basicsr.create_lmdb datasets/photos/train datasets/photos_train.lmdb', 'exit codes:',
                 'io_backend: {type: lmdb}'):
        assert text in result.stdout


def test_basicsr_reads_the_very_bytes_of_the_files(tmp_path, capsys):
    make_photos(tmp_path / 'photos', count=2)
    jpeg = write(tmp_path / 'photos' / 'deep' / 'er' / 'c.JPG')
    assert main([str(tmp_path / 'photos'), str(tmp_path / 'photos.lmdb')]) == 0
    assert capsys.readouterr().out.startswith(f'{tmp_path}/photos.lmdb: 3 images, ')
    photos = [tmp_path / 'photos' / f'photo_{i}.png' for i in range(2)]
    assert stored(tmp_path / 'photos.lmdb', 'photo_0', 'photo_1', 'deep/er/c') == [file.read_bytes() for file in (*photos, jpeg)]


def test_listing_is_basicsrs(tmp_path, run):
    write(tmp_path / 'in' / 'b.png')
    write(tmp_path / 'in' / 'a.jpg', PICTURE[:4])
    assert run(tmp_path / 'in', tmp_path / 'in.lmdb') == (0, [])
    assert (tmp_path / 'in.lmdb' / 'meta_info.txt').read_text() == 'a.png (4,9,3) 1\nb.png (6,9,3) 1\n'
    assert everything(tmp_path / 'in.lmdb') == ['data.mdb', 'lock.mdb', 'meta_info.txt']


@pytest.mark.parametrize('name, key', [
    ('a.png', 'a'), ('sub/a.png', 'sub/a'), ('a.b.png', 'a_b'), ('v1.0/a.tar.jpg', 'v1_0/a_tar'), ('my photo.png', 'my_photo'),
    ('a\tb.png', 'a_b'), ('Stra\u00dfe.png', 'Stra_e'), ('\u6771\u4eac/\u00e9t\u00e9 1.png', '__/_t__1'), ('a-b_(1)+~!.png', 'a-b_(1)+~!')])
def test_keys_hold_only_what_basicsr_can_read(name, key):
    assert image_key(name) == key


def test_odd_names_come_out_under_their_keys(tmp_path, run):
    written = {name: write(tmp_path / 'in' / name).read_bytes() for name in ('v1.0/my photo.png', 'Stra\u00dfe.png')}
    assert run(tmp_path / 'in', tmp_path / 'out.lmdb') == (0, [])
    assert stored(tmp_path / 'out.lmdb', 'v1_0/my_photo', 'Stra_e') == list(written.values())


def test_space_grows_with_the_files(tmp_path, run):
    """18 MiB do not fit into the space that an LMDB of small files gets; decoders pass over what follows a PNG's end."""
    file = write(tmp_path / 'in' / 'a.png')
    file.write_bytes(file.read_bytes() + bytes(18 * 2**20))
    assert run(tmp_path / 'in', tmp_path / 'out.lmdb') == (0, [])
    assert stored(tmp_path / 'out.lmdb', 'a') == [file.read_bytes()]


def test_folder_of_the_output_is_made(tmp_path, run):
    make_photos(tmp_path / 'in', count=1)
    assert run(tmp_path / 'in', tmp_path / 'new' / 'er' / 'out.lmdb') == (0, [])
    assert everything(tmp_path / 'new' / 'er') == ['out.lmdb', 'out.lmdb/data.mdb', 'out.lmdb/lock.mdb', 'out.lmdb/meta_info.txt']


def test_two_that_make_one_lmdb_do_not_meet(tmp_path, monkeypatch):
    """A second one runs from its start to its end while the first decodes its second image: the first is refused, the second is whole."""
    make_photos(tmp_path / 'first', count=3)
    make_photos(tmp_path / 'second', count=2)
    out, decode, seen = tmp_path / 'out.lmdb', lmdb_writer.decode_image, []

    def decode_with_company(content, path):
        seen.append(path)
        if len(seen) == 2:
            assert create_lmdb(tmp_path / 'second', out, progress=False) == 2
        return decode(content, path)

    monkeypatch.setattr(lmdb_writer, 'decode_image', decode_with_company)
    with pytest.raises(OptionError, match=f'^{out}: has come into being meanwhile; nothing was written.$'):
        create_lmdb(tmp_path / 'first', out, progress=False)
    assert (out / 'meta_info.txt').read_text().splitlines() == ['photo_0.png (40,48,3) 1', 'photo_1.png (40,48,3) 1']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['first', 'out.lmdb', 'second']


def test_from_python_an_existing_one_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    make_photos(tmp_path / 'in', count=1)
    (tmp_path / 'out.lmdb').mkdir()
    monkeypatch.setattr(lmdb_writer, 'list_images', None)
    with pytest.raises(OptionError, match='out.lmdb: exists already; remove it or choose another name.'):
        create_lmdb(tmp_path / 'in', tmp_path / 'out.lmdb')


def test_a_place_that_cannot_be_renamed_to_is_one_line(tmp_path, monkeypatch):
    make_photos(tmp_path / 'in', count=1)

    def refuse(self, target):
        raise OSError(18, 'Invalid cross-device link', str(self))
    monkeypatch.setattr(lmdb_writer.Path, 'rename', refuse)
    with pytest.raises(OptionError, match=r'out.lmdb: cannot be written \(Invalid cross-device link\).$'):
        create_lmdb(tmp_path / 'in', tmp_path / 'out.lmdb', progress=False)


def refuse(run, root, *arguments) -> str:
    """Run a command that must fail, check what it leaves, and return its one line."""
    before = everything(root)
    code, lines = run(*arguments)
    assert code == 2 and len(lines) == 1 and lines[0].startswith('error: ')
    assert everything(root) == before
    return lines[0]


@pytest.mark.parametrize('name', ['out', 'out.lmdb.d', 'out.LMDB', '.lmdb'])
def test_output_must_be_called_lmdb(tmp_path, run, name):
    make_photos(tmp_path / 'in', count=1)
    assert refuse(run, tmp_path, tmp_path / 'in', tmp_path / name) == (
        f'error: {tmp_path}/{name}: the name of an LMDB must end with .lmdb.')


def test_output_must_not_exist(tmp_path, run):
    make_photos(tmp_path / 'in', count=1)
    out = tmp_path / 'out.lmdb'
    assert run(tmp_path / 'in', out) == (0, [])
    before = (out / 'data.mdb').read_bytes()
    assert refuse(run, tmp_path, tmp_path / 'in', out) == f'error: {out}: exists already; remove it or choose another name.'
    assert (out / 'data.mdb').read_bytes() == before


def test_missing_folder(tmp_path, run):
    assert refuse(run, tmp_path, tmp_path / 'in', tmp_path / 'out.lmdb') == f'error: {tmp_path}/in: no such folder.'


def test_file_in_place_of_the_folder(tmp_path, run):
    file = write(tmp_path / 'a.png')
    assert refuse(run, tmp_path, file, tmp_path / 'out.lmdb') == f'error: {file}: no such folder.'


def test_folder_without_images(tmp_path, run):
    (tmp_path / 'in' / 'sub').mkdir(parents=True)
    (tmp_path / 'in' / 'notes.txt').write_text('none')
    assert refuse(run, tmp_path, tmp_path / 'in', tmp_path / 'out.lmdb').startswith(f'error: {tmp_path}/in: holds no image (.png, .jpg')


@pytest.mark.parametrize('content, reason', [
    (b'', 'is empty.'), (b'no image', 'cannot be decoded as an image, it is damaged or no PNG, JPEG, WEBP, TIFF, BMP, PPM.'),
    (cv2.imencode('.png', PICTURE)[1].tobytes()[:60], 'cannot be decoded as an image (it is cut off, or one of its lengths is damaged).'),
], ids=['empty', 'text', 'cut'])
def test_undecodable_image(tmp_path, run, content, reason):
    make_photos(tmp_path / 'in', count=2)
    bad = tmp_path / 'in' / 'photo_2.png'  # comes last, when others have been written
    bad.write_bytes(content)
    assert refuse(run, tmp_path, tmp_path / 'in', tmp_path / 'out.lmdb') == f'error: {bad}: {reason}'


@pytest.mark.parametrize('first, second, key', [
    ('a.jpg', 'a.png', 'a'), ('x y.png', 'x_y.png', 'x_y'), ('v.1/a.png', 'v_1/a.png', 'v_1/a')])
def test_images_that_would_share_a_key(tmp_path, run, first, second, key):
    for name in (first, second):
        write(tmp_path / 'in' / name)
    assert refuse(run, tmp_path, tmp_path / 'in', tmp_path / 'out.lmdb') == (
        f"error: {tmp_path}/in: {first} and {second} would share the key '{key}'; rename one.")


def test_interrupted_run_leaves_nothing(tmp_path, run, monkeypatch):
    make_photos(tmp_path / 'in')
    before = everything(tmp_path)
    decode, seen = lmdb_writer.decode_image, []

    def interrupt_the_second(content, path):
        seen.append(path)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return decode(content, path)

    monkeypatch.setattr(lmdb_writer, 'decode_image', interrupt_the_second)
    assert run(tmp_path / 'in', tmp_path / 'out.lmdb') == (130, ['error: interrupted; nothing was written.'])
    assert everything(tmp_path) == before and len(seen) == 2


def test_both_arguments_are_needed(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run('in')
    assert stop.value.code == 2 and 'OUTPUT.lmdb' in capsys.readouterr().err
