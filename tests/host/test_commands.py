"""The commands: help, errors in one line with their exit codes, the project root, and that importing the package costs nothing."""
import signal
import subprocess
import sys

import pytest
import yaml
from tiny import REPOSITORY, command, make_photos, options, write

from ibmd_basicsr.cli import pipelines
from ibmd_basicsr.utils import ending
from ibmd_basicsr.utils.errors import InputError, Interrupted, NonFiniteError, OptionError, SaveError
from ibmd_basicsr.utils.project import project_root


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a command in this process; return its exit code and the lines on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, is_train=True):
        monkeypatch.setattr(sys, 'argv', ['command', *map(str, arguments)])
        code = pipelines.main(is_train)
        return code, capsys.readouterr().err.splitlines()

    return run


@pytest.mark.parametrize('module', ['train', 'test'])
def test_help_shows_examples_exit_codes_and_outputs(module):
    result = command('--help', module=module)
    assert result.returncode == 0
    for text in ('examples:', f'python -m ibmd_basicsr.{module} -opt options/', 'exit codes:', 'outputs'):
        assert text in result.stdout


def test_import_and_help_load_no_torch():
    code = ('import sys, ibmd_basicsr.cli.pipelines, ibmd_basicsr.cli.compare, ibmd_basicsr.cli.create_lmdb, '
            'ibmd_basicsr.cli.export, ibmd_basicsr.cli.doctor, ibmd_basicsr.cli.restore, ibmd_basicsr.cli.bench, '
            'ibmd_basicsr.cli.import_checkpoint; ibmd_basicsr.cli.restore.make_parser().format_help(); '
            'assert not {"torch", "basicsr", "torchvision"} & set(sys.modules)')
    subprocess.run([sys.executable, '-c', code], cwd=REPOSITORY, check=True)


def test_unknown_argument_is_refused(run):
    with pytest.raises(SystemExit) as stop:
        run('-opt', 'x.yml', '--resume')
    assert stop.value.code == 2


def test_missing_option_file(run):
    assert run('-opt', 'absent.yml') == (2, ['error: absent.yml: no such option file.'])


def test_yaml_error_has_a_position(run, tmp_path):
    file = tmp_path / 'bad.yml'
    file.write_text('name: a\ntrain: {lr: 1\nval: 2\n')
    code, lines = run('-opt', file)
    assert code == 2 and len(lines) == 1
    assert lines[0].startswith(f'error: {file}:3:')


@pytest.mark.parametrize('text, message', [
    ('name: a\nname: b\n', "key 'name' is given twice"),
    ('name: !!python/object/apply:os.getcwd []\n', 'not valid YAML'),
    ('- a\n', 'must hold keys and values'),
    ('name: a\n', 'missing at the top level: model_type, num_gpu, datasets, path, logger'),
])
def test_unusable_option_files(run, tmp_path, text, message):
    file = tmp_path / 'bad.yml'
    file.write_text(text)
    code, lines = run('-opt', file)
    assert code == 2 and len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize('file, is_train, command, here', [
    ('compare/sr4x.yml', True, 'compare', 'training: options/NAME_bridge.yml, options/NAME_ibmd.yml.'),
    ('compare/sr4x.yml', False, 'compare', 'tests: options/test/NAME.yml.'),
    ('test/sr4x_ibmd.yml', True, 'test', 'training: options/NAME_bridge.yml, options/NAME_ibmd.yml.'),
    ('sr4x_ibmd.yml', False, 'train', 'tests: options/test/NAME.yml.'),
    ('baselines/sr4x_esrgan.yml', False, 'train', 'tests: options/test/NAME.yml.')])
def test_option_files_of_other_commands(run, file, is_train, command, here):
    path = REPOSITORY / 'options' / file
    assert run('-opt', path, is_train=is_train) == (
        2, [f'error: {path}: is an option file for `python -m ibmd_basicsr.{command}`; for {here}'])


def test_force_yml_names_the_block_that_is_not_there(run, tmp_path):
    file = write(tmp_path, options(tmp_path))
    code, lines = run('-opt', file, '--force_yml', 'trian:ema_decay=0.9')
    assert code == 2 and "did you mean 'train'?" in lines[0]
    code, lines = run('-opt', file, '--force_yml', 'train:student:steps=2')
    assert (code, lines) == (2, ["error: --force_yml 'train:student:steps=2': the option file has no block 'train:student'. Values are "
                                 'changed in blocks that it has; write new blocks into the file.'])
    code, lines = run('-opt', file, '--force_yml', 'train:ema_decay')
    assert code == 2 and 'block:key=value' in lines[0]


def test_torchrun_without_launcher_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    monkeypatch.setenv('WORLD_SIZE', '2')
    code, lines = run('-opt', write(tmp_path, options(tmp_path)))
    assert code == 2 and 'add --launcher pytorch' in lines[0]


@pytest.mark.parametrize('error, code, line', [
    (NonFiniteError('l_g is nan at iteration 7.'), 3, 'error: l_g is nan at iteration 7.'),
    (OptionError('train: unknown key.'), 2, 'error: train: unknown key.'),
    (FileNotFoundError(2, 'No such file or directory', 'a/b.png'), 2, 'error: a/b.png: No such file or directory'),
    (OptionError('Caught OptionError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File "x"\n'
                 'ibmd_basicsr.utils.errors.OptionError: a: too small.'), 2, 'error: a: too small.'),
    (SaveError('net_g_8.pth: cannot be written (No space left on device).'), 5,
     'error: net_g_8.pth: cannot be written (No space left on device).'),
    (Interrupted('SIGTERM: stopped after iteration 7.', 143), 143, 'error: SIGTERM: stopped after iteration 7.'),
    (RuntimeError('DataLoader worker (pid 5) is killed by signal: Killed. '), 1,
     'error: DataLoader worker (pid 5) is killed by signal: Killed. Out of memory, or a file that its decoder dies of? Lower '
     'datasets.train.num_worker_per_gpu; 0 reads in the main process.'),
    (KeyboardInterrupt(), 130, 'error: interrupted.'),
])
def test_errors_of_a_run(run, tmp_path, monkeypatch, error, code, line):
    import basicsr.train

    def fail(root):
        raise error

    monkeypatch.setattr(basicsr.train, 'train_pipeline', fail)
    assert run('-opt', write(tmp_path, options(tmp_path))) == (code, [line])


def test_an_interrupted_training_tells_what_there_is_to_continue_from(run, tmp_path, monkeypatch):
    import basicsr.train

    def interrupt(root):
        ending.note_states(states)
        raise KeyboardInterrupt

    states = tmp_path / 'states'
    states.mkdir()
    monkeypatch.setattr(basicsr.train, 'train_pipeline', interrupt)
    file = write(tmp_path, options(tmp_path))
    try:
        assert run('-opt', file) == (130, ['error: interrupted; no state was saved yet, --auto_resume starts anew.'])
        (states / '40.state').touch()
        assert run('-opt', file) == (130, ['error: interrupted; --auto_resume continues from iteration 40.'])
    finally:
        ending.note_states(None)


@pytest.mark.parametrize('text, code, line', [
    ('CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be asynchronously reported ...', 6,
     'error: the GPU failed or is gone (CUDA error: uncorrectable ECC error encountered); no state was saved yet, --auto_resume starts '
     'anew.'),
    ('FIND was unable to find an engine to execute this computation', 2,
     'error: not enough memory for this run (FIND was unable to find an engine to execute this computation); '
     'smaller: train.micro_batch, datasets.train.batch_size_per_gpu or gt_size, checkpoint_levels of the networks; no state was saved yet, '
     '--auto_resume starts anew.'),
    ('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB', 2,
     'error: not enough memory for this run (CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB); '
     'smaller: train.micro_batch, datasets.train.batch_size_per_gpu or gt_size, checkpoint_levels of the networks; no state was saved yet, '
     '--auto_resume starts anew.'),
])
def test_failures_of_devices(run, tmp_path, monkeypatch, text, code, line):
    import basicsr.train

    def fail(root):
        (tmp_path / 'states').mkdir()
        ending.note_states(tmp_path / 'states')
        raise RuntimeError(text)

    class Ended(BaseException):
        pass

    def end(message, code, rank):
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL, 'a launcher that tells to stop just now would cut the line off'
        raise Ended(f'error: {message}', code, rank)

    monkeypatch.setattr(basicsr.train, 'train_pipeline', fail)
    monkeypatch.setattr(ending, 'end', end)
    try:
        with pytest.raises(Ended) as stop:
            run('-opt', write(tmp_path, options(tmp_path)))
    finally:
        ending.note_states(None)
    assert stop.value.args == (line, code, 0)


@pytest.mark.parametrize('text', ['CUDA error: device-side assert triggered', 'CUDA error: no kernel image is available for execution',
                                  'The size of tensor a (3) must match', 'mat1 and mat2 shapes cannot be multiplied'])
def test_bugs_are_no_failures_of_devices(text):
    from ibmd_basicsr.utils.device_errors import device_failure
    assert device_failure(RuntimeError(text)) is None
    assert device_failure(ValueError('CUDA error: unknown error')) is None and device_failure(ValueError('out of memory')) is None


def test_memory_that_no_machine_has_is_one_line():
    import torch

    from ibmd_basicsr.utils.device_errors import device_failure
    with pytest.raises(RuntimeError) as stop:
        torch.empty(2**60)
    text, code = device_failure(stop.value)
    assert code == 2 and text.startswith('not enough memory for this run (') and '\n' not in text


def test_bugs_keep_their_traceback(run, tmp_path, monkeypatch):
    import basicsr.train
    monkeypatch.setattr(basicsr.train, 'train_pipeline', lambda root: {}['x'])
    with pytest.raises(KeyError):
        run('-opt', write(tmp_path, options(tmp_path)))


def test_other_ranks_are_silent_about_options(run, tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    assert run('-opt', 'absent.yml', '--launcher', 'pytorch') == (2, [])


def test_every_rank_tells_what_is_missing_on_its_machine(run, tmp_path, monkeypatch):
    import basicsr.train

    def fail(root):
        raise InputError('x.yml: teacher.weights: t.pth: no such file.')

    monkeypatch.setattr(basicsr.train, 'train_pipeline', fail)
    monkeypatch.setenv('RANK', '1')
    assert run('-opt', write(tmp_path, options(tmp_path)), '--launcher', 'pytorch') == (
        2, ['error (rank 1): x.yml: teacher.weights: t.pth: no such file.'])


def test_project_root(tmp_path, monkeypatch):
    deep = tmp_path / 'project' / 'options' / 'paper' / 'x.yml'
    deep.parent.mkdir(parents=True)
    deep.touch()
    monkeypatch.chdir(tmp_path)
    assert project_root(deep) == tmp_path / 'project'
    (tmp_path / 'x.yml').touch()
    assert project_root(tmp_path / 'x.yml') == tmp_path


def test_training_from_another_folder_with_numbers_as_text(tmp_path):
    make_photos(tmp_path / 'project' / 'photos')
    opt = options(tmp_path / 'project', datasets__train__dataroot_gt='photos', train__optim_g={'type': 'Adam', 'lr': '1e-3'})
    file = write(tmp_path / 'project', opt)
    (tmp_path / 'elsewhere').mkdir()
    result = command('-opt', file, '--force_yml', 'train:total_iter=2', 'train:scheduler:gamma=5e-1', 'train:warmup_iter=-1',
                     cwd=tmp_path / 'elsewhere')
    assert result.returncode == 0, result.stderr
    run = tmp_path / 'project' / 'experiments' / 'tiny'
    assert (run / 'models' / 'net_g_latest.pth').is_file()
    assert not any((tmp_path / 'elsewhere').iterdir())
    copy = (run / 'tiny.yml').read_text()
    assert copy.startswith('# GENERATE TIME') and yaml.safe_load(copy) == opt
