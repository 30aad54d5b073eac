"""docs/python.md: its blocks run in order; the names at the top of the package, and when they are imported."""
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny import REPOSITORY, environment
from tiny_zoo import add_network, picture

import ibmd_basicsr
from ibmd_basicsr import PerImageNoise, load_restorer
from ibmd_basicsr.cli import restore
from ibmd_basicsr.utils.errors import OptionError

BLOCKS = re.findall(r'```python\n(.*?)```', (REPOSITORY / 'docs/python.md').read_text(encoding='utf-8'), re.DOTALL)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with what the page names."""
    cv2.imwrite(str(tmp_path / 'photo.png'), picture(40, 56))
    (tmp_path / 'options').symlink_to(REPOSITORY / 'options')
    shutil.copy(REPOSITORY / 'weights/sr4x_nano_student.pth', tmp_path / 'my_student.pth')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page(home):
    names = {}
    for block in BLOCKS:
        exec(compile(block, 'docs/python.md', 'exec'), names)
    lq, restored = names['lq'], names['restored']
    assert torch.equal(names['mine'](lq), restored)
    assert 0 < (names['fast'](lq) - restored).abs().max() < 0.1
    assert names['tiled'].shape == restored.shape and (names['tiled'] - names['same_as_the_command']).abs().mean() < 0.05
    assert (cv2.imread('restored.png')[..., ::-1] == np.rint(restored[0].permute(1, 2, 0).numpy() * 255)).all()
    assert restore.main(['photo.png', '-o', 'command.png', '--task', 'sr4x', '--device', 'cpu']) == 0
    command = cv2.imread('command.png')[..., ::-1]
    assert (command == np.rint(names['same_as_the_command'][0].permute(1, 2, 0).numpy() * 255)).all()


def test_nothing_is_imported_before_it_is_used():
    code = ['import sys, ibmd_basicsr', "assert not {'torch', 'basicsr'} & sys.modules.keys()",
            'assert set(ibmd_basicsr.__all__) <= set(dir(ibmd_basicsr))', 'ibmd_basicsr.build_bridge',
            "assert 'torch' in sys.modules and 'basicsr' not in sys.modules"]
    assert subprocess.run([sys.executable, '-c', '\n'.join(code)], env=environment(), check=False).returncode == 0


def test_every_name_is_there():
    assert all(hasattr(ibmd_basicsr, name) for name in ibmd_basicsr.__all__)
    with pytest.raises(AttributeError, match="module 'ibmd_basicsr' has no attribute 'load_restorers'"):
        ibmd_basicsr.load_restorers  # noqa: B018


def test_a_seed_gives_each_image_a_generator_of_its_own(home):
    restorer = load_restorer('sr4x_nano_student')
    lq = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    both = restorer(lq, 3)
    assert torch.equal(both, restorer(lq, PerImageNoise.for_images(3, ['0', '1'])))
    assert torch.equal(restorer(lq), restorer(lq, 0)) and not torch.equal(restorer(lq), both)


def test_weights_of_a_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    add_network(tmp_path, 'mine_student')
    assert load_restorer('mine').scale == load_restorer(Path('weights/mine_student.pth')).scale == 1
    with pytest.raises(OptionError, match='weights go with an option file .*, got my_student.pth with sr4x_nano'):
        load_restorer('sr4x_nano', weights='my_student.pth')
    with pytest.raises(OptionError, match='2 steps with sr4x_nano_student: sampler.steps must be 1 for one_step, got 2'):
        load_restorer('sr4x_nano', steps=2)
