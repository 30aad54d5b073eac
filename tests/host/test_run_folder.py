"""A run's folder belongs to one training at a time, and archives never collide."""
import subprocess
import sys

import pytest
from basicsr.utils import get_time_str, make_exp_dirs
from tiny import forked_command, options, write

from ibmd_basicsr.compat.run_folder import LOCK, RunFolder
from ibmd_basicsr.utils.errors import OptionError

HOLD = """
import sys
from pathlib import Path
from ibmd_basicsr.compat.run_folder import RunFolder
folder = RunFolder()
folder.claim(Path(sys.argv[1]))
print('held', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def held(world):
    """The folder of the run ``tiny``, in which another process trains."""
    folder = world / 'experiments' / 'tiny'
    folder.mkdir(parents=True)
    (folder / 'result').write_text('precious')
    with subprocess.Popen([sys.executable, '-c', HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == 'held\n'
        yield folder, other
        other.stdin.close()


def experiment(folder, is_train=True):
    """Return what the host reads of the options to make a run's folders."""
    root = {'experiments_root': str(folder), 'models': str(folder / 'models')} if is_train else {'results_root': str(folder)}
    return {'is_train': is_train, 'rank': 0, 'path': root}


@pytest.mark.parametrize('flags', [[], ['--auto_resume']], ids=['anew', 'resumed'])
def test_a_second_training_in_the_same_folder_is_refused(world, held, flags):
    folder, other = held
    result = forked_command('-opt', write(world, options(world)), *flags)
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and f'{folder}: another training is writing there (process {other.pid} on ' in lines[0]
    assert 'Traceback' not in result.stderr
    assert (folder / 'result').read_text() == 'precious' and [path.name for path in folder.parent.iterdir()] == ['tiny']


def test_a_killed_training_leaves_the_folder_free(world, held):
    folder, other = held
    other.kill()
    other.wait()
    assert (folder / LOCK).is_file()
    result = forked_command('-opt', write(world, options(world, train__total_iter=1)))
    assert result.returncode == 0, result.stderr
    assert not (folder / LOCK).exists() and (folder / 'models/net_g_latest.pth').is_file()


def test_claims_end(tmp_path):
    first, second = RunFolder(), RunFolder()
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    with first.let_go_after():
        first.claim(tmp_path / 'a')
        first.claim(tmp_path / 'b')
        assert not (tmp_path / 'a' / LOCK).exists() and (tmp_path / 'b' / LOCK).is_file()
    assert not (tmp_path / 'b' / LOCK).exists()
    second.claim(tmp_path / 'b')
    second.release()
    second.release()


@pytest.mark.parametrize('is_train', [True, False])
def test_archives_of_one_second_do_not_collide(tmp_path, is_train):
    folder, run_folder = tmp_path / 'runs' / 'tiny', RunFolder()
    make = run_folder.making(make_exp_dirs)
    for number in range(3):
        make(experiment(folder, is_train))
        (folder / 'number').write_text(str(number))
    run_folder.release()
    archived = sorted(folder.parent.glob('tiny_archived_*'))
    assert [(path / 'number').read_text() for path in archived] == ['0', '1']
    assert (folder / 'number').read_text() == '2' and archived[-1].name <= f'tiny_archived_{get_time_str()}'


def test_a_new_folder_is_claimed(tmp_path):
    folder, run_folder = tmp_path / 'runs' / 'tiny', RunFolder()
    run_folder.making(make_exp_dirs)(experiment(folder))
    code = HOLD.replace('sys.stdin.read()', '')
    other = subprocess.run([sys.executable, '-c', code, str(folder)], capture_output=True, text=True)
    assert other.returncode and OptionError.__name__ in other.stderr
    run_folder.release()
    assert not subprocess.run([sys.executable, '-c', code, str(folder)], capture_output=True).returncode
