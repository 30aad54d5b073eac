"""scripts/: bad input and Ctrl-C end each of them in one line, without a traceback."""
import argparse
import inspect
import signal
import subprocess
import sys
import threading

import pytest
from tiny import REPOSITORY, environment, load_script

LIBRARIES = {'scaling_check'}  # scaling_model's, no command
SCRIPTS = sorted({path.stem for path in (REPOSITORY / 'scripts').glob('*.py')} - LIBRARIES)
LINE = 'iter:       {i}, lr:(1.000e-04,)] l_g: 1.0000e-01'


def run(name: str, *arguments, monkeypatch) -> int:
    """Run a script here; some take their arguments from ``sys.argv`` alone."""
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, arguments)])
    return load_script(name).main()


@pytest.mark.parametrize('name', SCRIPTS)
def test_ctrl_c_is_one_line(name, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', interrupt)
    assert run(name, monkeypatch=monkeypatch) == 130
    error = capsys.readouterr().err
    assert error.startswith('error: interrupted') and error.count('\n') == 1


@pytest.mark.parametrize('name', SCRIPTS)
def test_the_exit_code_is_that_of_main(name):
    assert (REPOSITORY / f'scripts/{name}.py').read_text(encoding='utf-8').endswith("if __name__ == '__main__':\n    sys.exit(main())\n")
    assert inspect.signature(load_script(name).main).return_annotation == 'int'


@pytest.mark.parametrize('name, arguments, message', [
    ('plot_training', ('log.txt', '-o', 'x.abc'), "-o x.abc: unknown kind of picture '.abc'. Allowed: "),
    ('plot_training', ('log.txt', '-o', 'x'), "-o x: unknown kind of picture ''. Allowed: "),
    ('plot_training', ('nothere.log', '-o', 'x.png'), 'nothere.log: No such file or directory'),
    ('plot_training', ('other.txt', '-o', 'x.png'), 'other.txt: no line of it has the form of a BasicSR training log.'),
    ('soak_test', ('-opt', 'nothere.yml'), 'nothere.yml: No such file or directory'),
    ('prepare_photos', ('--budgie', 'nothere'), '--budgie nothere: no such folder.'),
    ('prepare_photos', ('--budgie', 'broken'), 'broken/beacon-street-sunset.jpg: is no readable picture ('),
    ('prepare_photos', ('--budgie', 'empty'), 'empty/beacon-street-sunset.jpg: No such file or directory'),
    ('prepare_tiles', ('--photos', 'nothere'), 'nothere: holds no PNG file.'),
    ('prepare_tiles', ('--photos', 'broken'), 'broken/a.png: is no readable picture ('),
    ('zoo', ('--list', '--recipes', 'nothere.yml'), 'nothere.yml: no such option file.'),
    ('zoo', ('--list', '--recipes', 'recipes.yml'), "recipes.yml: a: unknown key 'exports', did you mean 'export'?"),
    ('ablate', ('nothere.yml',), 'nothere.yml: no such option file.'),
    ('ablate', ('ablation.yml',), "ablation.yml: unknown key 'variant', did you mean 'variants'?"),
    ('publish_results', ('nothere.md',), 'nothere.md: No such file or directory'),
    ('scaling_model', ('-opt', 'nothere.yml'), 'nothere.yml: no such option file.'),
    ('tile_quality', ('nothere.yml',), 'nothere.yml: no such option file.'),
    ('export_weights', ('nothere.pth', 'x.pth'), 'nothere.pth: '),
    ('render_normals', ('--photos', 'empty'), 'empty: holds no photograph (.jpg).'),
    ('fetch_peers', ('--out', 'other.txt/x'), 'other.txt/x: Not a directory'),
    ('fetch_photos', ('--out', 'other.txt/x'), 'other.txt/x: Not a directory'),
    ('malformed_inputs', ('nosuchcase',), 'no case holds nosuchcase in its name.'),
])
def test_bad_input_is_one_line(name, arguments, message, tmp_path, monkeypatch, capsys):
    for folder in ('empty', 'broken'):
        (tmp_path / folder).mkdir()
    for file, text in {'broken/beacon-street-sunset.jpg': 'no picture', 'broken/a.png': 'no picture', 'other.txt': 'no log',
                       'log.txt': LINE.format(i=1), 'recipes.yml': 'a: {about: x, stages: [], exports: {}}',
                       'ablation.yml': 'base: options/sr4x_ibmd.yml\nseeds: [0]\nvariant: {}\noutput: x\n'}.items():
        (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert run(name, *arguments, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'error: {message}') and error.count('\n') == 1
    for word in arguments:
        assert error.count(f'{word}:') <= 1, 'the name is told once'


def test_a_log_becomes_a_picture(tmp_path, monkeypatch):
    (tmp_path / 'log.txt').write_text('\n'.join(LINE.format(i=i) for i in range(3)))
    assert run('plot_training', tmp_path / 'log.txt', '-o', tmp_path / 'x.PNG', monkeypatch=monkeypatch) == 0
    assert (tmp_path / 'x.PNG').read_bytes().startswith(b'\x89PNG')


@pytest.fixture
def ctrl_c_is_heard():
    """Programs that a shell starts in the background begin with Ctrl-C ignored, and so do the tests then."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('ctrl_c_is_heard')
def test_ctrl_c_ends_all_networks_of_the_zoo(tmp_path, monkeypatch, capsys):
    """As in a terminal, where the training gets it as well; what waits is not begun."""
    zoo = load_script('zoo')
    main_thread, begun = threading.main_thread().ident, []

    def command(stage):
        begun.append(stage.experiment)
        signal.pthread_kill(main_thread, signal.SIGINT)
        return [sys.executable, '-c', 'import sys, time; time.sleep(1); sys.exit(130)']

    monkeypatch.setattr(zoo, 'ROOT', tmp_path)
    monkeypatch.setattr(zoo.Stage, 'command', command)
    (tmp_path / 'a.yml').write_text('name: a_run\n')
    (tmp_path / 'zoo.yml').write_text('\n'.join(f'{name}: {{about: x, stages: [{{file: a.yml}}, {{file: a.yml}}]}}' for name in 'abc'))
    assert zoo.main(['a', 'b', 'c', '--recipes', str(tmp_path / 'zoo.yml')]) == 130
    assert begun == ['a_run']
    assert capsys.readouterr().err.splitlines()[-1] == 'error: interrupted; the same command goes on.'


def test_the_schema_is_written_only_when_it_is_asked_for(tmp_path, monkeypatch, capsys):
    script = load_script('option_schema')
    monkeypatch.setattr(script, 'FILE', tmp_path / 'schema.json')
    monkeypatch.setattr(script, 'schema_text', lambda: 'new\n')
    with pytest.raises(SystemExit) as stop:
        script.main(['--help'])
    assert stop.value.code == 0 and not script.FILE.exists()
    assert script.main(['--check']) == 1 and not script.FILE.exists()
    assert 'schema.json: out of date' in capsys.readouterr().err
    assert script.main([]) == 0 and script.FILE.read_text() == 'new\n'
    assert script.main(['--check']) == 0


@pytest.mark.parametrize('arguments, message', [
    ((), 'python onnx_restore.py STUDENT.onnx INPUT OUTPUT [SEED]'),
    (('nothere.onnx', 'a.png', 'b.png'), "error: [Errno 2] No such file or directory: 'nothere.onnx'"),
    (('README.md', 'nothere.png', 'b.png'), "error: [Errno 2] No such file or directory: "),
    (('README.md', 'README.md', 'b.png'), 'error: cannot identify image file '),
])
def test_the_example_for_onnx_says_what_is_wrong(arguments, message):
    pytest.importorskip('onnxruntime')
    result = subprocess.run([sys.executable, 'docs/examples/onnx_restore.py', *arguments], cwd=REPOSITORY, env=environment(),
                            capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr.count('\n')) == (1, 1) and message in result.stderr
