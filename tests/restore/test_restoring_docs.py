"""Every command line of docs/restoring.md and of the README's section runs, on tiny photographs with the shipped networks."""
import io
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny import REPOSITORY
from tiny_zoo import picture

from ibmd_basicsr.cli.restore import EPILOG, main

COMMAND = re.compile(r'python -m ibmd_basicsr\.restore ([^`\n#]+)')
DOCUMENTS = {name: (REPOSITORY / name).read_text(encoding='utf-8') for name in ('docs/restoring.md', 'README.md')} | {'--help': EPILOG}
COMMANDS = sorted({command.strip() for text in DOCUMENTS.values() for command in COMMAND.findall(text)} - {'INPUT... -o OUT'})


def test_there_are_commands_in_each_document():
    assert {name: len(COMMAND.findall(text)) for name, text in DOCUMENTS.items()} == {'docs/restoring.md': 15, 'README.md': 4, '--help': 8}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with what the documents name."""
    (tmp_path / 'photos/below').mkdir(parents=True)
    (tmp_path / 'scans').mkdir()
    for seed, name in enumerate(('photos/a.jpg', 'photos/below/b.jpg', 'scans/c.png', 'scans/d.jpg', 'small.png', 'photo.jpg', 'photo.png',
                                 'more.jpg')):
        Image.fromarray(picture(9, 10, seed=seed)).save(tmp_path / name, **({'quality': 10} if name.endswith('jpg') else {}))
    (tmp_path / 'options').symlink_to(REPOSITORY / 'options')
    shutil.copy(REPOSITORY / 'weights/sr4x_nano_student.pth', tmp_path / 'my_student.pth')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('command', COMMANDS)
def test_a_command_runs(command, home, monkeypatch, capsys):
    words = shlex.split(command)
    targets = {}
    for sign in '<>':
        if sign in words:
            place = words.index(sign)
            targets[sign] = words[place + 1]
            del words[place:place + 2]
    before = {path for path in home.rglob('*') if path.is_file()}
    with monkeypatch.context() as patch:
        if '<' in targets:
            patch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(Path(targets['<']).read_bytes())))
        if '>' in targets:
            patch.setattr(sys, 'stdout', io.TextIOWrapper(io.BytesIO()))
        code = main(words)
        if '>' in targets:
            Path(targets['>']).write_bytes(sys.stdout.buffer.getvalue())
    assert code == 0, capsys.readouterr().err
    made = {path for path in home.rglob('*') if path.is_file()} - before
    for path in made:
        with Image.open(path) as image:
            enlarged = 'sr4x' in command or 'my_student' in command
            assert image.size == ((40, 36) if enlarged else (10, 9)), path
    assert made or '--list' in words
