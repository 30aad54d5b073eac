"""What is on the disk at any moment can be resumed from: complete saves, a full disk, damage, old files removed."""
import os
import resource
import signal
import time
from contextlib import contextmanager
from functools import partial

import pytest
from helpers import assert_equal, build, contents, train
from tiny import REPOSITORY, forked_command, load_script, options, write

from ibmd_basicsr.checkpoints.state_dict import load_file
from ibmd_basicsr.utils.errors import SaveError
from ibmd_basicsr.utils.files import file_digest, replace_file


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@contextmanager
def files_no_larger_than(size):
    """A disk that is full: the system refuses to write behind ``size`` bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_state_names_its_networks(world):
    model = build(world, 'IBMDModel')
    for iteration in (3, 4):
        model.save(0, iteration)
        names = [f'net_bridge_{iteration}.pth', f'net_g_{iteration}.pth']
        assert load_file(world / f'{iteration}.state')['sha256'] == {name: file_digest(world / name) for name in names}


@pytest.mark.parametrize('limit', [1000, 20_000])
def test_full_disk_leaves_what_was_there(world, limit):
    """The limits stop the first file in its header and between its tensors."""
    model = build(world, 'IBMDModel')
    model.save(0, 1)
    before = files(world)
    with files_no_larger_than(limit), pytest.raises(SaveError, match=r'net_bridge_2\.pth: cannot be written \(File too large\)\.'):
        model.save(0, 2)
    assert files(world) == before
    with files_no_larger_than(limit), pytest.raises(SaveError):
        model.save(0, 1)  # over a file that is there
    assert files(world) == before


def test_digest_of_what_was_written(tmp_path):
    assert replace_file(tmp_path / 'a', lambda file: [file.write(b'ab'), file.write(b'c')]) == file_digest(tmp_path / 'a')
    assert (tmp_path / 'a').read_bytes() == b'abc'
    with pytest.raises(SaveError, match='no/a: cannot be written .No such file'):
        replace_file(tmp_path / 'no/a', lambda file: None)


def test_a_file_that_is_there_stays_unless_it_may_be_replaced(tmp_path):
    def made_meanwhile(file):
        (tmp_path / 'a').write_bytes(b'old')
        file.write(b'new')
    with pytest.raises(SaveError, match='a: exists already'):
        replace_file(tmp_path / 'a', made_meanwhile, overwrite=False)
    assert (tmp_path / 'a').read_bytes() == b'old' and [path.name for path in tmp_path.iterdir()] == ['a']
    replace_file(tmp_path / 'a', made_meanwhile)
    assert (tmp_path / 'a').read_bytes() == b'new'


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    def write(file):
        file.write(b'outer')
        assert replace_file(tmp_path / 'a', lambda inner: inner.write(b'inner')) == file_digest(tmp_path / 'a')
    replace_file(tmp_path / 'a', write)
    assert (tmp_path / 'a').read_bytes() == b'outer' and [path.name for path in tmp_path.iterdir()] == ['a']


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ('ä' * 127)  # 254 of 255 bytes
    replace_file(path, lambda file: file.write(b'x'))
    assert path.read_bytes() == b'x'


def test_keep_checkpoints_removes_older_ones(world):
    model = build(world, 'BridgeModel', logger__keep_checkpoints=2)
    model.save(0, 99)  # of a run that went further
    model._complete = []
    kept = []
    for iteration in (1, 2, 10, 11):
        model.save(0, iteration)
        kept.append(sorted(int(path.stem) for path in world.glob('*.state')))
    assert kept == [[1, 99], [1, 2, 99], [2, 10, 99], [10, 11, 99]]
    model.save(-1, -1)
    assert {path.name for path in world.glob('net_*')} == {f'net_g_{name}.pth' for name in (10, 11, 99, 'latest')}


def test_states_of_unknown_health_do_not_count(world):
    """Iteration 3 is damaged and was passed over: while the run has saved nothing anew, the state it came from stays."""
    model = build(world, 'BridgeModel', logger__keep_checkpoints=2)
    for iteration in (1, 2, 3):
        model.save(0, iteration)
    resumed = build(world, 'BridgeModel', logger__keep_checkpoints=2)
    resumed.resume_training(load_file(world / '2.state'))
    (world / '3.state').write_bytes(b'')
    resumed.save(0, 4)
    assert sorted(path.name for path in world.glob('*.state')) == ['2.state', '3.state', '4.state']
    resumed.save(0, 5)
    assert sorted(path.name for path in world.glob('*.state')) == ['4.state', '5.state']


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {'truncated': lambda path: path.write_bytes(path.read_bytes()[:-100]), 'empty': lambda path: path.write_bytes(b''),
           'bit flipped': flip_a_bit}


@pytest.mark.parametrize('file', ['training_states/6.state', 'models/net_g_6.pth'])
@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_is_passed_over_in_a_line(trained, file, damage):
    """The newest save of a finished run of 6 iterations is damaged, then the run goes on to 8 as the unbroken one had."""
    from ibmd_basicsr.compat.resume import load_resume_state
    DAMAGES[damage](trained / file)
    messages = []
    opt = {'auto_resume': True, 'rank': 0, 'name': 'x', 'network_g': {}, 'datasets': {'train': {}},
           'path': {'models': str(trained / 'models'), 'training_states': str(trained / 'training_states'), 'resume_state': None}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('logging.Logger.warning', lambda self, text, *values: messages.append(text % values))
        assert load_resume_state(opt)['iter'] == 4
    assert len(messages) == 1 and '\n' not in messages[0]
    assert messages[0].startswith(f'--auto_resume passes over iteration 6: {trained / file}')


@pytest.fixture(scope='module')
def run_of_six(tmp_path_factory):
    from tiny import make_photos
    root = tmp_path_factory.mktemp('six')
    make_photos(root / 'photos')
    return train(root, 'six', model='BridgeModel', logger__save_checkpoint_freq=2, train__total_iter=6)


@pytest.fixture
def trained(run_of_six, tmp_path):
    """A copy of a run with states of the iterations 2, 4 and 6."""
    import shutil
    return shutil.copytree(run_of_six, tmp_path / 'copy')


def test_half_written_files_of_a_killed_run_are_removed(trained):
    from ibmd_basicsr.compat.resume import _newest_whole
    for name in ('training_states/.8.state.0a1b2c3d.tmp', 'models/.net_g_8.pth.0a1b2c3d.tmp'):
        (trained / name).write_bytes(b'half')
    opt = {'rank': 0, 'network_g': {}, 'path': {'models': trained / 'models', 'training_states': trained / 'training_states'}}
    assert _newest_whole(opt)['iter'] == 6
    assert not list(trained.rglob('*.tmp'))


def test_a_run_resumes_behind_damage_as_the_unbroken_one(world):
    common = dict(model='BridgeModel', logger__save_checkpoint_freq=2)
    whole = train(world, 'whole', **common)
    broken = train(world, 'broken', **common, train__total_iter=6)
    flip_a_bit(broken / 'models/net_g_6.pth')
    assert_equal(contents(whole, 8), contents(train(world, 'broken', '--auto_resume', **common), 8))


@pytest.mark.parametrize('workers', [0, 1])
def test_an_unreadable_image_is_named_in_a_line(world, workers):
    broken = world / 'photos/photo_1.png'
    broken.write_bytes(broken.read_bytes()[:20])
    result = forked_command('-opt', write(world, options(world, datasets__train__num_worker_per_gpu=workers)))
    reason = 'cannot be decoded as an image (it is cut off, or one of its lengths is damaged).'
    assert (result.returncode, result.stderr.splitlines()[-1]) == (2, f'error: {broken}: {reason}')
    assert 'Traceback' not in result.stderr


def die_of_the_sixth_image(note):
    """Let a process that loads images be killed, as by a system that is out of memory, while the main process waits for its third batch.

    Not at the first images: torch raises from a signal handler, and what it interrupts at the start of an epoch may be the starting of
    processes.
    """
    from ibmd_basicsr.data import degraded_image_dataset
    decode, paths = degraded_image_dataset.decode_image, []

    def decode_image(content, path):
        paths.append(path)
        if len(paths) == 6:
            note.write_text(path)
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(content, path)

    degraded_image_dataset.decode_image = decode_image


def test_the_image_that_a_process_died_of_is_named(world):
    file = write(world, options(world, datasets__train__num_worker_per_gpu=1))
    result = forked_command('-opt', file, before=partial(die_of_the_sixth_image, world / 'note'))
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert result.stderr.splitlines()[-1].startswith('error: DataLoader worker (pid')
    assert f'It was reading {(world / "note").read_text()}. Out of memory' in result.stderr


def test_killed_at_random_and_resumed_equals_unbroken(tmp_path, capsys, monkeypatch):
    """The short form of scripts/fault_test.py: SIGKILL, training and saving, until it is through."""
    monkeypatch.syspath_prepend(REPOSITORY / 'scripts')  # its processes import it
    assert load_script('fault_test').main(['--kills', '2', '--iterations', '24', '--folder', str(tmp_path), '--seed', '1']) == 0
    assert 'bit for bit' in capsys.readouterr().out
