"""``python -m ibmd_basicsr.restore``: which files, where to, what is told, exit codes."""
import io
import os
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny import REPOSITORY, forked_command
from tiny_zoo import add_network, picture

from ibmd_basicsr.data.degradations import sr_bicubic
from ibmd_basicsr.data.tensors import quantize_uint8
from ibmd_basicsr.models.recipes import recipes_in
from ibmd_basicsr.restoring import engine as engine_module
from ibmd_basicsr.restoring import runner as runner_module
from ibmd_basicsr.restoring.runner import Files, Listener, run_jobs
from ibmd_basicsr.restoring.sources import Plan, find_sources, plan_jobs


@pytest.fixture
def photos(tmp_path):
    """Three JPEG files, one of them in a folder below, and a text."""
    folder = tmp_path / 'photos'
    (folder / 'sub').mkdir(parents=True)
    for seed, name in enumerate(('a.jpg', 'b.JPG', 'sub/c.jpeg')):
        Image.fromarray(picture(20, 24, seed=seed)).save(folder / name, 'JPEG', quality=10)
    (folder / 'notes.txt').write_text('no image')
    return folder


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def test_a_folder(restore, photos, tmp_path):
    code, told, errors = restore(photos, '-o', tmp_path / 'out')
    assert code == 0 and errors == ''
    assert told.splitlines() == [
        f'{photos}: 1 file left out, not images by their endings.',
        f'{photos}/a.jpg: JPEG of quality 10, jpeg10_tiny_student, 24x20 -> {tmp_path}/out/a.png',
        f'{photos}/b.JPG: JPEG of quality 10, jpeg10_tiny_student, 24x20 -> {tmp_path}/out/b.png', '2 restored, 0 failed.']
    assert tree(tmp_path / 'out') == ['a.png', 'b.png']


def test_a_folder_with_those_below(restore, photos, tmp_path):
    out = photos / 'out'  # is not searched in turn
    assert restore(photos, '-o', out, '--recursive', '--format', 'same', '--suffix', '_x')[0] == 0
    assert tree(out) == ['a_x.jpg', 'b_x.JPG', 'sub/c_x.jpeg']
    code, told, _ = restore(photos, '-o', out, '-r', '--format', 'same', '--suffix', '_x', '--skip-existing')
    assert code == 0 and told.splitlines()[-1] == '0 restored, 3 there already, 0 failed.'


def test_patterns_files_and_names_that_are_no_patterns(restore, photos, tmp_path):
    shutil.copy(photos / 'a.jpg', photos / '[x].jpg')
    code, _, errors = restore(f'{photos}/**/*.jp*g', photos / 'b.JPG', photos / '[x].jpg', f'{photos}/*.tif', '-o', tmp_path / 'out')
    assert code == 1 and errors.splitlines() == [f'error: {photos}/*.tif: no file fits this pattern.']
    assert tree(tmp_path / 'out') == ['[x].png', 'a.png', 'b.png', 'c.png']


def test_one_file(restore, photos, tmp_path):
    assert restore(photos / 'a.jpg', '-o', tmp_path / 'new' / 'x.WEBP')[0] == 0
    with Image.open(tmp_path / 'new' / 'x.WEBP') as image:
        assert image.format == 'WEBP'


class Pipe(io.TextIOWrapper):
    """A standard stream that is no terminal."""

    def __init__(self, data: bytes = b''):
        super().__init__(io.BytesIO(data))


def test_from_the_standard_input_to_the_standard_output(restore, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'stdin', Pipe((photos / 'a.jpg').read_bytes()))
    assert restore('-', '-o', tmp_path / 'out')[0] == 0
    assert tree(tmp_path / 'out') == ['stdin.png']
    output = Pipe()
    monkeypatch.setattr(sys, 'stdin', Pipe((photos / 'a.jpg').read_bytes()))
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'stdout', output)
        code, _, errors = restore('-', '-o', '-')
    assert code == 0 and errors.splitlines() == ['standard input: JPEG of quality 10, jpeg10_tiny_student, 24x20', '1 restored, 0 failed.']
    assert output.buffer.getvalue() == (tmp_path / 'out' / 'stdin.png').read_bytes()


def test_existing_results(restore, photos, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'a.png').write_text('mine')
    code, told, errors = restore(photos, '-o', out)
    assert code == 1 and (out / 'a.png').read_text() == 'mine' and (out / 'b.png').exists()
    assert errors == f'error: {photos}/a.jpg: {out}/a.png exists already; --overwrite replaces it, --skip-existing leaves it.\n'
    assert told.splitlines()[-1] == f'1 restored, 1 failed: {photos}/a.jpg'
    code, told, _ = restore(photos, '-o', out, '--skip-existing')
    assert code == 0 and (out / 'a.png').read_text() == 'mine' and told.splitlines()[-1] == '0 restored, 2 there already, 0 failed.'
    assert restore(photos, '-o', out, '--overwrite')[0] == 0
    assert (out / 'a.png').read_bytes()[:4] == b'\x89PNG'


@pytest.mark.parametrize('link', ['same', 'symbolic', 'hard', 'linked folder'])
def test_inputs_are_never_overwritten(link, restore, photo, tmp_path):
    out, before = tmp_path / 'out', photo.read_bytes()
    if link == 'same':
        out = photo.parent
    elif link == 'linked folder':
        out.symlink_to(photo.parent)
    else:
        out.mkdir()
        (out / 'good.png').symlink_to(photo) if link == 'symbolic' else os.link(photo, out / 'good.png')
    code, _, errors = restore(photo, '-o', out, '--task', 'jpeg', '--overwrite')
    assert code == 1 and photo.read_bytes() == before
    assert f'would be written to {out}/good.png, which is an input' in errors
    code, *_ = restore(photo, '-o', out, '--task', 'jpeg', '--overwrite', '--suffix', '_x')
    assert code == 0 and photo.read_bytes() == before and (out / 'good_x.png').exists()


def test_a_result_is_not_written_over_another_input(restore, photos):
    Image.fromarray(picture()).save(photos / 'a.png')
    before = (photos / 'a.png').read_bytes()
    code, _, errors = restore(photos / 'a.jpg', photos / 'a.png', '-o', photos, '--task', 'jpeg', '--overwrite')
    assert code == 1 and len(errors.splitlines()) == 2 and (photos / 'a.png').read_bytes() == before


def test_two_inputs_for_one_result_and_one_input_twice(restore, photos, tmp_path):
    shutil.copy(photos / 'b.JPG', photos / 'sub' / 'a.jpg')
    code, told, errors = restore(photos / 'a.jpg', photos / 'a.jpg', photos / 'sub' / 'a.jpg', '-o', tmp_path / 'out')
    assert code == 1 and errors == (f'error: {photos}/sub/a.jpg: would be written to {tmp_path}/out/a.png, as {photos}/a.jpg is; '
                                    'restore them into two folders.\n')
    assert told.splitlines()[-1].startswith('1 restored, 1 failed')


def test_a_result_that_cannot_be_written(restore, photos, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'a.png').mkdir()
    (out / 'sub').write_text('a file in the place of the folder')
    code, told, errors = restore(photos, '-o', out, '-r', '--overwrite')
    assert code == 1 and tree(out) == ['b.png', 'sub'] and told.splitlines()[-1].startswith('1 restored, 2 failed')
    assert errors.splitlines() == [f'error: {photos}/a.jpg: would be written to {out}/a.png, which is a folder.',
                                   f'error: {photos}/sub/c.jpeg: {out}/sub/c.png cannot be written (File exists).']


def test_a_result_that_came_into_being_meanwhile_is_named(restore, photos, tmp_path, monkeypatch):
    original = engine_module.Engine.restore

    def overtaken(self, *arguments, **options):
        (tmp_path / 'out').mkdir()
        (tmp_path / 'out' / 'a.png').write_text('of another run')
        return original(self, *arguments, **options)
    monkeypatch.setattr(engine_module.Engine, 'restore', overtaken)
    code, _, errors = restore(photos / 'a.jpg', '-o', tmp_path / 'out')
    assert code == 1 and errors == f'error: {photos}/a.jpg: {tmp_path}/out/a.png exists already.\n'
    assert (tmp_path / 'out' / 'a.png').read_text() == 'of another run'


def test_a_folder_that_cannot_be_read_is_one_error(restore, photos, tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, 'Permission denied', str(folder))
    monkeypatch.setattr(os, 'listdir', refuse)
    code, told, errors = restore(photos, '-o', tmp_path / 'out')
    assert code == 1 and errors == f'error: {photos}: Permission denied.\n' and told == f'0 restored, 1 failed: {photos}\n'


def test_samples(restore, photos, tmp_path):
    assert restore(photos / 'a.jpg', '-o', tmp_path / 'many', '--samples', 3, '--seed', 5)[0] == 0
    assert tree(tmp_path / 'many') == ['a_s0.png', 'a_s1.png', 'a_s2.png']
    samples = [(tmp_path / f'many/a_s{number}.png').read_bytes() for number in range(3)]
    assert len(set(samples)) == 3
    assert restore(photos / 'a.jpg', '-o', tmp_path / 'one', '--seed', 5)[0] == 0
    assert (tmp_path / 'one/a.png').read_bytes() == samples[0]
    (tmp_path / 'many/a_s1.png').unlink()
    code, told, _ = restore(photos / 'a.jpg', '-o', tmp_path / 'many', '--samples', 3, '--seed', 5, '--skip-existing')
    assert code == 0 and told.splitlines()[-1] == '1 restored, 2 there already, 0 failed.'
    assert (tmp_path / 'many/a_s1.png').read_bytes() == samples[1]


def test_neither_workers_nor_company_change_a_result(restore, tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    for seed in range(6):
        Image.fromarray(picture(20 + seed, 30, seed=seed)).save(folder / f'{seed}.png')
    options = ('--task', 'sr2x', '--tile', 16, '--halo', 4)
    for workers in (1, 5):
        assert restore(folder, '-o', tmp_path / f'out{workers}', '--workers', workers, *options)[0] == 0
    assert restore(folder / '3.png', '-o', tmp_path / 'alone', *options)[0] == 0
    for seed in range(6):
        assert (tmp_path / f'out1/{seed}.png').read_bytes() == (tmp_path / f'out5/{seed}.png').read_bytes()
    assert (tmp_path / 'alone/3.png').read_bytes() == (tmp_path / 'out1/3.png').read_bytes()


def test_an_interruption_leaves_whole_files_alone(restore, photos, tmp_path, monkeypatch):
    original, seen = engine_module.Engine.restore, []

    def interrupted(self, *arguments, **options):
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)
    monkeypatch.setattr(engine_module.Engine, 'restore', interrupted)
    code, _, errors = restore(photos, '-o', tmp_path / 'out', '-r')
    assert code == 130 and errors == 'error: interrupted; finished files stay, --skip-existing goes on.\n'
    for name in os.listdir(tmp_path / 'out') if (tmp_path / 'out').exists() else ():
        assert name == 'a.png'
        Image.open(tmp_path / 'out' / name).load()


def test_a_failure_to_write_is_named(restore, photos, tmp_path, monkeypatch):
    def full(*arguments):
        raise runner_module.ImageError('cannot be written (No space left on device).')
    monkeypatch.setattr(runner_module, 'write_atomically', full)
    code, told, errors = restore(photos / 'a.jpg', '-o', tmp_path / 'out')
    assert code == 1 and errors == f'error: {photos}/a.jpg: cannot be written (No space left on device).\n'
    assert told == f'0 restored, 1 failed: {photos}/a.jpg\n'


def test_progress_reaches_its_end_by_fractions(zoo, photos):
    (photos / 'bad.jpg').write_bytes(b'')
    plan, parts = Plan(), []
    plan_jobs(find_sources([str(photos)], False, None, plan), plan, output=str(photos / 'out'), samples=2)
    recipe = recipes_in(zoo / 'weights')['jpeg10_tiny_student']
    engine = engine_module.Engine(recipes=[recipe], device=torch.device('cpu'), tile=12, halo=0)
    quiet = Listener(note=print, done=print, failed=print, progress=parts.append)
    outcome = run_jobs(plan.jobs, engine, Files(), quiet)
    assert outcome.restored == 4 and len(outcome.failures) == 1
    assert parts == sorted(parts) and parts[-1] == 6  # 20x24 pixels: four tiles
    assert parts[:5] == [0.25, 0.5, 0.75, 1, 1.25]


def test_a_quality_far_from_the_training_is_warned_of(restore, photos, tmp_path):
    Image.fromarray(picture()).save(photos / 'fine.jpg', quality=95)
    code, told, errors = restore(photos / 'fine.jpg', '-o', tmp_path / 'out')
    assert code == 0 and 'JPEG of quality 95, jpeg40_tiny_student' in told
    assert errors == (f'warning: {photos}/fine.jpg: JPEG quality 95, but jpeg40_tiny_student was trained on 40; it will remove much '
                      'detail.\n')
    assert 'jpeg10_tiny_student' in restore(photos / 'fine.jpg', '-o', tmp_path / 'told', '--input-quality', 12)[1]


def test_networks_by_name_and_by_file(restore, photos, zoo, tmp_path):
    for number, choice in enumerate([('--weights', 'jpeg10_tiny'), ('--weights', 'jpeg10_tiny_student'), ('--task', 'jpeg'),
                                     ('-opt', zoo / 'options/jpeg10_tiny_student.yml'),
                                     ('-opt', zoo / 'options/jpeg40_tiny_student.yml', '--weights',
                                      zoo / 'weights/jpeg10_tiny_student.pth')]):
        assert restore(photos / 'a.jpg', '-o', tmp_path / f'{number}', *choice)[0] == 0
    assert len({(tmp_path / f'{number}/a.png').read_bytes() for number in range(5)}) == 1
    teachers = [restore(photos / 'a.jpg', '-o', tmp_path / f't{steps}', '--weights', 'jpeg10_tiny_teacher', '--steps', steps)[0]
                for steps in (1, 3)]
    assert teachers == [0, 0] and (tmp_path / 't1/a.png').read_bytes() != (tmp_path / 't3/a.png').read_bytes()


def test_the_list(restore):
    code, told, _ = restore('--list')
    lines = told.splitlines()
    assert code == 0 and lines[0].split() == ['name', 'task', 'steps', 'scale', 'what']
    assert re.fullmatch(r'sr2x_tiny_student +sr2x +1 +x2 +the sr2x_tiny_student', lines[4])
    assert re.fullmatch(r'inpaint_tiny_student +- +1 .*\(takes a mask, not by this command\)', lines[5])
    assert re.fullmatch(r'edges_tiny_student +- +1 +x1 +the edges_tiny_student', lines[6])


def test_the_list_of_this_repository(restore):
    code, told, _ = restore('--list', zoo=None)
    names = {line.split()[0] for line in told.splitlines()[1:-1]}
    assert code == 0 and {'sr4x_nano_student', 'jpeg10_nano_student', 'sr4x_nano_teacher'} <= names and '(file missing)' not in told


@pytest.mark.parametrize('arguments, message', [
    (['-o', 'out'], 'INPUT is missing'),
    (['x.png'], '-o OUT is missing'),
    (['x.png', '', '-o', 'out', '--task', 'jpeg'], 'INPUT: is an empty name; "." is the working directory.'),
    (['x.png', '-o', 'out', '--task', 'edges'], '--task edges: no student for it; there are some for jpeg, sr2x.'),
    (['x.png', '-o', 'out', '--task', 'sr8x'], '--task sr8x: no student for it; there are some for jpeg, sr2x.'),
    (['x.png', '-o', 'out', '--task', 'jpeg', '--weights', 'sr2x_tiny'], '--task chooses a network, and so do'),
    (['x.png', '-o', 'out', '--weights', 'jpeg10_tyni'], "--weights jpeg10_tyni: no such network, did you mean 'jpeg10_tiny"),
    (['x.png', '-o', 'out', '--weights', 'my.pth'], '--weights my.pth: a file needs the options of its network, too'),
    (['x.png', '-o', 'out', '--weights', 'inpaint_tiny'], 'inpaint_tiny_student: takes a mask beside the image'),
    (['x.png', '-o', 'out', '--weights', 'sr2x_tiny', '--steps', '2'], '2 steps with sr2x_tiny_student: sampler.steps must be 1'),
    (['x.png', '-o', 'out', '-opt', 'missing.yml'], 'missing.yml: no such option file'),
    (['x.png', '-o', 'out', '-opt', 'plain.yml'], 'plain.yml: has no block bridge and no block network_g'),
    (['x.png', '-o', 'out.tif', '--task', 'jpeg'], '-o out.tif: .tif is not written; .png, .jpg, .jpeg, .webp are.'),
    (['x.png', 'y.png', '-o', 'out.png', '--task', 'jpeg'], '-o out.png: one file for 2 images'),
    (['x.png', '-o', 'out.png', '--format', 'jpg', '--task', 'jpeg'], '-o out.png: its ending contradicts --format jpg.'),
    (['x.png', '-o', 'plain.yml', '--task', 'jpeg'], '-o plain.yml: is a file; name a folder'),
    (['x.png', '-o', '-', '--samples', '2', '--task', 'jpeg'], 'the standard output takes one image, not 2'),
    (['x.png', '-o', 'out', '--suffix', '../up', '--task', 'jpeg'], "--suffix '../up': is part of a file name"),
    (['x.png', '-o', 'out', '--task', 'jpeg', '--precision', 'fp16'], "precision: 'fp16' needs a GPU"),
    (['x.png', '-o', 'out', '--task', 'jpeg', '--device', 'abacus'], '--device: must be cpu, cuda or cuda:N'),
])
def test_wrong_commands_end_with_two_and_write_nothing(arguments, message, restore, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture()).save('x.png')
    Path('plain.yml').write_text('scale: 1\n')
    code, _, errors = restore(*arguments)
    assert code == 2 and errors.startswith('error: ') and message in errors and len(errors.splitlines()) == 1
    assert tree(tmp_path) == ['plain.yml', 'x.png']


@pytest.mark.parametrize('option', [('--quality', '101'), ('--quality', '0'), ('--samples', '0'), ('--tile', '-1'), ('--steps', 'few'),
                                    ('--max-megapixels', 'nan'), ('--format', 'gif'), ('--overwrite', '--skip-existing')])
def test_wrong_values_are_named(option, restore, capsys):
    with pytest.raises(SystemExit) as stop:
        restore('x.png', '-o', 'out', *option)
    assert stop.value.code == 2 and option[0].lstrip('-') in capsys.readouterr().err


def test_a_zoo_that_is_not_there(restore, tmp_path, monkeypatch):
    assert restore('x.png', '-o', 'out', '--task', 'jpeg', zoo=tmp_path)[2] == f'error: --zoo {tmp_path}: holds no weights/cards.yml.\n'
    monkeypatch.setattr('ibmd_basicsr.restoring.zoo.REPOSITORY', tmp_path / 'site-packages')
    monkeypatch.chdir(tmp_path)
    code, _, errors = restore('x.png', '-o', 'out', '--task', 'jpeg', zoo=None)
    assert code == 2 and '--zoo names a clone of it' in errors and len(errors.splitlines()) == 1


def test_weights_that_are_missing_or_damaged(restore, photos, tmp_path):
    zoo = tmp_path / 'zoo'
    zoo.mkdir()
    add_network(zoo, 'jpeg10_tiny_student', degradation={'type': 'jpeg', 'quality': 10})
    weights = zoo / 'weights/jpeg10_tiny_student.pth'
    weights.write_bytes(weights.read_bytes()[:1000])
    code, _, errors = restore(photos, '-o', tmp_path / 'out', zoo=zoo)
    assert code == 2 and str(weights) in errors and not (tmp_path / 'out').exists()
    weights.unlink()
    code, _, errors = restore(photos, '-o', tmp_path / 'out', zoo=zoo)
    assert code == 2 and errors == f'error: --task jpeg: {weights} is not there.\n'


@pytest.mark.parametrize('change, message', [
    ({'scale': 0}, 'scale must be an integer from 1 to 64, got 0'),
    ({'network_g': {'type': 'EDSR'}}, "network_g.type: must be one of 'ADMUNet', got 'EDSR'"),
    ({'bridge': {'type': 'I2BS'}}, "bridge.type: must be one of 'I2SB', "), ({'val': {'sampler': {'type': 'one_stp'}}}, 'val.sampler: '),
    ({'network_g': {'type': 'ADMUNet', 'model_chanels': 8}}, "unknown key 'model_chanels', did you mean 'model_channels'?")])
def test_option_files_that_cannot_be(change, message, restore, zoo, tmp_path):
    opt = yaml.safe_load((zoo / 'options/jpeg10_tiny_student.yml').read_text()) | change
    (tmp_path / 'opt.yml').write_text(yaml.safe_dump(opt))
    code, _, errors = restore('x.png', '-o', tmp_path / 'out', '-opt', tmp_path / 'opt.yml')
    assert code == 2 and message in errors and len(errors.splitlines()) == 1


@pytest.mark.parametrize('task, gain', [('jpeg', 0.5), ('sr4x', 0.5)])
def test_the_shipped_students_bring_a_photograph_nearer_to_the_truth(task, gain, restore, tmp_path):
    """Part of a test photograph: PSNR above that of the input, which for sr4x is enlarged by bicubic interpolation."""
    truth = cv2.imread(str(REPOSITORY / 'datasets/photos/test/coffee.png'))[:96, :96]
    if task == 'jpeg':
        path = tmp_path / 'x.jpg'
        cv2.imwrite(str(path), truth, [cv2.IMWRITE_JPEG_QUALITY, 10])
        start = cv2.imread(str(path))
    else:
        path = tmp_path / 'x.png'
        small = sr_bicubic(torch.from_numpy(truth).permute(2, 0, 1) / 255, 4)
        cv2.imwrite(str(path), (quantize_uint8(small) * 255).round().permute(1, 2, 0).numpy())
        start = cv2.resize(cv2.imread(str(path)), (96, 96), interpolation=cv2.INTER_CUBIC)
    assert restore(path, '-o', tmp_path / 'out', '--task', task, zoo=None)[0] == 0
    assert psnr(cv2.imread(str(tmp_path / 'out/x.png')), truth) > psnr(start, truth) + gain


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    return -10 * np.log10(np.square((image.astype(float) - truth) / 255).mean())


def test_as_a_command(photos, zoo, tmp_path):
    """In a process of its own, from another folder, paths relative to that."""
    result = forked_command('photos', '-o', 'out', '--zoo', zoo, '--device', 'cpu', cwd=tmp_path, module='restore')
    assert result.returncode == 0, result.stderr
    assert tree(tmp_path / 'out') == ['a.png', 'b.png']
