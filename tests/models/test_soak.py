"""scripts/soak_test.py: a short run of a tiny network whose memory may not grow, and one that does grow and is found out."""
import subprocess
import sys

import pytest
from tiny import REPOSITORY, environment, load_script, make_photos, options, write

SCRIPT = REPOSITORY / 'scripts/soak_test.py'


@pytest.fixture(scope='module')
def soak():
    return load_script('soak_test')


def periods(soak, memory, files):
    return [soak.Period([value, value + 1], [count, count]) for value, count in zip([50, *memory, 50], [3, *files, 3])]


@pytest.mark.parametrize('memory, files, code', [
    ([90, 100, 100, 100, 100], [9] * 5, 0),
    ([100, 100, 100, 100.4, 100.8], [9] * 5, 0),
    ([100, 100, 101, 101, 102], [9] * 5, 1),
    ([100] * 5, [9, 9, 10, 10, 10], 1),
    ([100] * 10, [9] * 9 + [10], 0),  # read once, while a checkpoint was written
    ([100] * 10, [9] * 5 + [10] * 5, 1),
    ([100] * 10, list(range(9, 19)), 1),  # a file for every period
    ([100] * 3, [9] * 3, 2),
])
def test_verdict(soak, memory, files, code, capsys):
    assert soak.judge(periods(soak, memory, files)[1:], limit=1.0) == code


@pytest.mark.slow
def test_a_short_run_neither_grows_nor_opens_files(tmp_path):
    make_photos(tmp_path / 'photos')
    file = write(tmp_path, options(tmp_path, train__scheduler={'type': 'MultiStepLR', 'milestones': [1000]}))
    command = [sys.executable, SCRIPT, '-opt', file, '--iterations', '600', '--every', '30', '--limit', '2', '--log', tmp_path / 'log']
    run = subprocess.run(list(map(str, command)), env=environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr[-1000:]
    assert 'files that stay open: ' in run.stdout


def test_high_is_what_a_twentieth_exceeds(soak):
    assert soak.high([3.0, 1.0, 2.0]) == 3.0
    assert soak.high([float(value) for value in range(100)]) == 94.0


def test_too_few_periods_are_refused():
    run = subprocess.run([sys.executable, str(SCRIPT), '--iterations', '100', '--every', '50'], env=environment(), capture_output=True,
                         text=True, check=False)
    assert (run.returncode, run.stderr.count('\n')) == (2, 1) and 'error: --iterations 100' in run.stderr
