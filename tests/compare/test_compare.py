"""The comparison from option file to table, with restorers whose results can be written down."""
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from tiny import NETWORK, REPOSITORY, command, make_photos, make_teacher

from ibmd_basicsr.cli.compare import main, make_parser
from ibmd_basicsr.compat.options import read_option_file
from ibmd_basicsr.reporting import peers, quality
from ibmd_basicsr.reporting.comparison import BUILDERS
from ibmd_basicsr.reporting.rows import read_rows
from ibmd_basicsr.utils.errors import OptionError

FILES = sorted((REPOSITORY / 'options/compare').glob('*.yml'))


def plan(**changes) -> dict:
    """Options: the input, a bridge with two numbers of steps and a student, on ``photos``, without scaling."""
    bridge = {'kind': 'bridge', 'network': dict(NETWORK), 'bridge': {'type': 'I2SB'}, 'weights': 'teacher.pth'}
    return {
        'name': 'tiny', 'scale': 1, 'output': 'out', 'speed_reference': 'teacher@4', 'grid': {'crop': 24, 'zoom': 2},
        'dataset': {'type': 'DegradedImageDataset', 'dataroot_gt': 'photos', 'io_backend': {'type': 'disk'},
                    'degradation': {'type': 'jpeg', 'quality': 90, 'codec': 'libjpeg'}},
        'restorers': [{'name': 'input', 'kind': 'input'},
                      bridge | {'name': 'teacher', 'sampler': {'type': 'ancestral'}, 'steps': [2, 4]},
                      bridge | {'name': 'student', 'sampler': {'type': 'one_step'}, 'weights': ['newest.pth', 'student.pth']}],
    } | changes


class Shift:
    """Adds (calls) / 255 to the input: its error is known."""

    parameters = 7

    def __init__(self, calls, log):
        self.calls = calls
        self.log = log

    def __call__(self, lq, noise, on_step=None, *, mask=None, labels=None):
        self.log.append(self.calls)
        for _ in range(self.calls):
            on_step(None, None)
        return (lq + self.calls / 255).clamp(0, 1)


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """A folder with two pictures and fake weights; returns run(options, *arguments) -> (code, stdout, stderr, finished restorations)."""
    make_photos(tmp_path / 'photos', count=2, size=(48, 56))
    for name in ('teacher.pth', 'student.pth'):
        (tmp_path / name).write_bytes(name.encode())
    log = []

    def build(*, network, bridge, weights, param_key, sampler, scale, device):
        return Shift(sampler.get('steps', 1), log)

    monkeypatch.setitem(BUILDERS, 'bridge', build)
    monkeypatch.chdir(tmp_path)

    def run(options, *arguments):
        file = tmp_path / 'options' / 'tiny.yml'
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(options))
        log.clear()
        code = main(['-opt', str(file), '--device', 'cpu', *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err, list(log)

    return run


def read_csv(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_table_pictures_and_means(bench, tmp_path):
    code, out, _, calls = bench(plan())
    assert code == 0
    # each bridge row: warm-up, then two images
    assert calls == [2] * 3 + [4] * 3 + [1] * 3
    records = read_csv(tmp_path / 'out/results.csv')
    assert [(r['row'], r['image']) for r in records] == [
        (row, f'photo_{i}') for row in ('input', 'teacher@2', 'teacher@4', 'student') for i in range(2)]
    for record in records:
        restored = cv2.imread(str(tmp_path / f'out/images/{record["row"]}/{record["image"]}.png')).astype(float)
        truth = cv2.imread(str(tmp_path / f'photos/{record["image"]}.png'))
        assert float(record['psnr']) == pytest.approx(10 * np.log10(255**2 / np.mean((restored - truth) ** 2)), abs=1e-6)
        assert float(record['lpips']) > 0 and record['niqe'] == ''
    table = (tmp_path / 'out/table.md').read_text()
    assert 'PSNR dB ↑' in table and 'LPIPS ↓' in table and '`student.pth`' in table and 'Means over 2 images' in table
    assert '`python -m ibmd_basicsr.compare -opt ' in table
    cells = {line.split('|')[1].strip(): [c.strip(' *') for c in line.split('|')[2:-1]] for line in table.splitlines() if line[:1] == '|'}
    for row, count in (('input', 0), ('teacher@2', 2), ('teacher@4', 4), ('student', 1)):
        psnr = np.mean([float(r['psnr']) for r in records if r['row'] == row])
        assert cells[row][0] == str(count) and cells[row][4] == f'{psnr:.2f}'
    assert cells['teacher@4'][3] == '1.0' and cells['input'][3] == ''
    assert 'teacher@4' in out and 'grid.png' in out and 'report:   out/report.html' in out
    page = (tmp_path / 'out/report.html').read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])
    assert [picture['name'] for picture in data['sets'][0]['images'][1]['pictures']] == [*[*cells][2:], 'ground truth']
    assert data['columns'][4]['key'] == 'psnr' and f'{data["sets"][0]["rows"][3]["values"][4]:.2f}' == cells['student'][4]
    assert cv2.imread(str(tmp_path / 'out/grid.png')).shape == (28 + 40 + 2 * (41 + 6 + 48 + 44 + 6), 28 + 5 * 54 - 6, 3)


def test_second_run_computes_only_what_changed(bench, tmp_path):
    bench(plan())
    table = (tmp_path / 'out/table.md').read_text()
    assert bench(plan())[3] == []
    assert (tmp_path / 'out/table.md').read_text() == table
    (tmp_path / 'student.pth').write_bytes(b'other')
    assert bench(plan())[3] == [1] * 3
    (tmp_path / 'newest.pth').write_bytes(b'newest')  # the first candidate now exists
    assert bench(plan())[3] == [1] * 3
    assert '`newest.pth`' in (tmp_path / 'out/table.md').read_text()
    (tmp_path / 'out/images/teacher@2/photo_1.png').unlink()
    assert bench(plan())[3] == [2] * 2
    make_photos(tmp_path / 'photos', count=1, size=(48, 56), seed=9)
    assert bench(plan())[3] == [2] * 2 + [4] * 2 + [1] * 2
    assert bench(plan(), '--fresh', '--limit', '1')[3] == [2] * 2 + [4] * 2 + [1] * 2
    assert len(read_csv(tmp_path / 'out/results.csv')) == 4


def test_a_damaged_picture_is_named_and_made_again_without_it(bench, tmp_path):
    bench(plan())
    picture = tmp_path / 'out/images/student/photo_1.png'
    picture.write_bytes(b'')
    code, _, err, _ = bench(plan())
    assert code == 2 and err.splitlines()[-1].endswith('images/student/photo_1.png: cannot be read; delete it, and the same command makes '
                                                       'it again.')
    picture.unlink()
    assert bench(plan())[0] == 0 and cv2.imread(str(picture)) is not None


def test_broken_row_is_reported_and_the_others_done(bench, tmp_path):
    (tmp_path / 'teacher.pth').unlink()
    code, out, err, calls = bench(plan())
    assert code == 1 and calls == [1] * 3
    assert 'error: teacher@4: no weight file: teacher.pth not found.' in err.splitlines()
    table = (tmp_path / 'out/table.md').read_text()
    assert '**teacher@2 failed**' in table and '| student' in table and '| teacher@2' not in table
    assert (tmp_path / 'out/grid.png').is_file()


def with_row(number, **changes):
    options = plan()
    options['restorers'][number] |= changes
    return options


@pytest.mark.parametrize('options, message', [
    (plan(outptu='x'), "unknown key 'outptu', did you mean 'output'?"),
    (plan(scale=0), 'scale: must be an integer from 1 to 64, got 0.'),
    (plan(speed_reference='teacher'), "speed_reference: no row 'teacher'. Names of restorers: input, teacher@2, teacher@4, student."),
    (plan(grid={'colums': []}), "grid: unknown key 'colums', did you mean 'columns'?"),
    (plan(report={'image': 3}), "report: unknown key 'image', did you mean 'images'?"),
    (plan(report={'crop': 0}), 'report: crop must be a whole number from 8, got 0.'),
    (plan(dataset={'type': 'DegradedImages'}), "dataset.type: must be one of 'DegradedImageDataset', "),
    (with_row(0, weights='x'), "restorers[0] (input): unknown key 'weights'"),
    (with_row(1, kind='bridges'), "must be one of 'input', 'bridge', 'arch', 'spandrel', 'ncnn', got 'bridges'"),
    (with_row(1, steps=[0]), 'sampler.steps must be a positive integer, got 0.'),
    (with_row(1, name='a/b'), "names a folder of images, got 'a/b'"),
    (with_row(2, name='input'), "the name 'input' is given twice"),
    (with_row(2, network=NETWORK | {'model_chanels': 8}), "did you mean 'model_channels'?"),
    (with_row(2, bridge={'type': 'VPP'}), "restorers[2] (student).bridge.type: must be one of 'I2SB', "),
    (with_row(1, bridge={'type': 'VP'}, sampler={'type': 'heun', 'churn': 0.33}, steps=[2, 40]),
     'restorers[1] (teacher).sampler: sampler.steps must be 3 N - 1 for heun with churn 0.33 (calls, not intervals), got 40; the nearest '
     'is 41.'),
    (with_row(1, sampler={'type': 'heun'}, steps=5), 'sampler.type heun needs a bridge of type VP or VE, got I2SBSchedule.'),
    (with_row(1, sampler={'type': 'dbim'}, steps=[4, 1000]), 'sampler.steps must be 1..999 for this bridge, got 1000.'),
    (with_row(1, sampler={'type': 'ancestral', 'eta': 1}), 'sampler.eta belongs to type dbim, not to ancestral.'),
    (with_row(2, precision='half'), "restorers[2] (student).precision: must be one of 'fp32', 'bf16', 'fp16', 'auto', got 'half'."),
    (with_row(0, precision='bf16'), "restorers[0] (input): unknown key 'precision'"),
    (with_row(2, sampler={'type': 'few_step', 'trained_steps': 4}, steps=[4, 5]), 'must lie in 1..4, the steps that the student was '),
])
def test_wrong_options_are_refused_in_one_line(bench, options, message):
    code, _, err, calls = bench(options)
    assert code == 2 and calls == []
    assert len(err.splitlines()) == 1 and err.startswith('error: ') and message in err


def test_precision_reaches_the_restorer_and_no_other_row():
    """Rows without it keep the options, and with them the stored results, that they had before there was such a key."""
    rows = {row.name: row.options for row in read_rows(with_row(2, precision='bf16'))}
    assert rows['student']['precision'] == 'bf16'
    assert 'precision' not in rows['teacher@2'] and set(rows['student']) - set(rows['teacher@2']) == {'precision'}


def test_missing_photographs(bench):
    options = plan()
    options['dataset']['dataroot_gt'] = 'nowhere'
    code, _, err, _ = bench(options)
    assert code == 2 and 'nowhere: no such image folder' in err


def test_input_is_enlarged_by_cubic_interpolation():
    import torch
    lq = torch.rand(1, 3, 8, 9)
    expected = cv2.resize(lq[0].permute(1, 2, 0).numpy(), (36, 32), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    np.testing.assert_allclose(peers.InputRestorer(4)(lq, None)[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)
    assert torch.equal(peers.InputRestorer(1)(lq, None), lq)


def test_niqe_where_there_are_blocks_for_it():
    image = cv2.imread(str(REPOSITORY / 'datasets/photos/test/coffee.png'))
    blurred = cv2.GaussianBlur(image, (0, 0), 2)
    values = quality.measure(blurred, image, quality.default_metrics(4, 'cpu'))
    assert set(values) == set(quality.METRICS)
    assert values['niqe'] > quality.measure(image, image, quality.default_metrics(4, 'cpu'))['niqe'] > 0
    assert quality.measure(image[:190, :190], image[:190, :190], quality.default_metrics(0, 'cpu'))['niqe'] is None


def test_command_with_a_real_network(tmp_path):
    make_photos(tmp_path / 'photos', count=1, size=(48, 56))
    make_teacher(tmp_path)
    options = plan()
    del options['restorers'][2]
    (tmp_path / 'options').mkdir()
    (tmp_path / 'options/tiny.yml').write_text(yaml.safe_dump(options))
    result = command('-opt', tmp_path / 'options/tiny.yml', '--device', 'cpu', module='compare')
    assert result.returncode == 0, result.stderr
    assert '| teacher@4' in result.stdout and 'created' not in result.stderr
    assert (tmp_path / 'out/grid.png').is_file()


def test_steps_on_the_command_line_replace_lists(bench):
    code, out, _, log = bench(plan(), '--steps', '1', '4')
    assert code == 0 and '| teacher@1 ' in out and 'teacher@2' not in out
    assert set(log) == {1, 4}


@pytest.mark.parametrize('steps, rows, notes', [
    (['2', '4', '2'], ['teacher@2', 'teacher@4'], []),
    (['1', '4'], ['teacher@1', 'teacher@4'], ['note: --steps: no rows teacher@2 (grid.columns), so no pictures of them in the grid.']),
    (['1'], ['teacher@1'], ['note: --steps: no row teacher@4 (speed_reference), so no column of speed.',
                            'note: --steps: no rows teacher@2, teacher@4 (grid.columns), so no pictures of them in the grid.'])])
def test_steps_take_rows_away_that_are_named_elsewhere(steps, rows, notes, bench, tmp_path):
    columns = ['input', 'teacher@2', 'teacher@4', 'student']
    code, out, err, _ = bench(plan(grid={'crop': 24, 'zoom': 2, 'columns': columns}), '--steps', *steps)
    assert code == 0 and [line for line in err.splitlines() if 'note' in line] == notes
    assert [line.split()[1] for line in out.splitlines()[2:] if line.startswith('| ')] == ['input', *rows, 'student']
    assert ('speed (x teacher@4)' in out) == ('teacher@4' in rows)
    kept = [name for name in columns if not name.startswith('teacher') or name in rows]
    assert cv2.imread(str(tmp_path / 'out/grid.png')).shape[1] == 28 + (len(kept) + 1) * 54 - 6


@pytest.mark.parametrize('changes, steps, message', [
    ({'speed_reference': 'techer@4'}, '4', "speed_reference: no row 'techer@4'"),
    ({'grid': {'columns': ['inptu']}}, '4', "grid.columns: no row 'inptu'"),
    ({}, '0', 'sampler.steps must be a positive integer, got 0')])
def test_steps_do_not_hide_what_is_wrong(changes, steps, message, bench):
    code, _, err, calls = bench(plan(**changes), '--steps', steps)
    assert code == 2 and calls == [] and len(err.splitlines()) == 1 and message in err


def test_a_file_is_no_folder_for_results(bench, tmp_path):
    (tmp_path / 'mine.png').write_text('mine')
    code, _, err, calls = bench(plan(), '-o', 'mine.png')
    assert code == 2 and calls == [] and err == 'error: -o mine.png: is a file; name a folder.\n'


@pytest.mark.parametrize('block, command', [({'train': {}}, 'train'), ({}, 'test')])
def test_option_files_of_other_commands_are_told(block, command, bench):
    code, _, err, _ = bench({'name': 'x', 'model_type': 'IBMDModel', 'datasets': {}, **block})
    assert code == 2 and len(err.splitlines()) == 1
    assert err.endswith(f'options/tiny.yml: is an option file for python -m ibmd_basicsr.{command}; for comparing: options/compare/.\n')


@pytest.mark.parametrize('output', [[], ['-o', 'mine']])
def test_paths_are_told_from_where_the_command_was_typed(output, bench, tmp_path, monkeypatch):
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    code, out, _, _ = bench(plan(), *output)
    told = dict(line.split(': ', 1) for line in out.splitlines() if line.startswith(('table', 'pictures', 'report')))
    monkeypatch.chdir(elsewhere)  # the command works in the project root
    assert code == 0 and set(told) == {'table', 'pictures', 'report'}
    for path in told.values():
        assert Path(path.strip()).is_file() and Path(path.strip()).is_absolute() == (not output)


def test_help_has_an_example_and_loads_no_torch():
    code = 'import sys, ibmd_basicsr.cli.compare as c; c.make_parser().format_help(); assert not {"torch", "basicsr"} & set(sys.modules)'
    subprocess.run([sys.executable, '-c', code], cwd=REPOSITORY, check=True)
    assert 'python -m ibmd_basicsr.compare -opt options/compare/sr4x.yml' in make_parser().format_help()


@pytest.mark.parametrize('file', FILES, ids=lambda path: path.name)
def test_shipped_option_file_is_accepted(file):
    opt = read_option_file(file)
    rows = {row.name: row for row in read_rows(opt)}
    assert 'teacher@1' in rows and any(name.partition('@')[0] == 'student' for name in rows)
    assert list(rows.values())[0].kind == 'input'
    if not file.name.startswith('peers_'):  # run by other libraries than torch: their seconds say little of the networks
        assert opt['speed_reference'] in rows
    with pytest.raises(OptionError, match='unknown key'):
        read_rows(opt | {'outptu': 'x'})
