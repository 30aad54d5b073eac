"""Every command in the README and in docs/getting_started.md runs, in the order of the page, in a copy of the repository.

Trainings are cut to four iterations, comparisons to one image; the rest runs as it is written. What installs is run by ``.ci/run``, what
restores in the README by ``tests/restore/test_restoring_docs.py``.
"""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny import REPOSITORY, environment

SETUP = (REPOSITORY / 'setup.py').read_text(encoding='utf-8')
CI = (REPOSITORY / '.ci/run').read_text(encoding='utf-8')
PROGRAM = re.compile(r'(python3?|torchrun|make|pip|\.venv/bin/\S+|mkdir|cp|git|srun|\.) ')
INSTALLS = ('git clone', 'make ', '. .venv/', 'pip install', 'python3 -m venv')

SHORT_TRAINING = ('train:total_iter=4 logger:save_checkpoint_freq=4 logger:print_freq=1 val:val_freq=4 '
                  'datasets:val:dataroot_gt=datasets/one datasets:train:gt_size=64 datasets:train:batch_size_per_gpu=1 '
                  'datasets:train:num_worker_per_gpu=0 datasets:train:persistent_workers=false')


def commands(document: str) -> list[str]:
    """Return the commands of a document in order: lines of blocks without a language, and code in the text that begins with a program."""
    text = (REPOSITORY / document).read_text(encoding='utf-8')
    found = []
    for part in re.findall(r'^```\n(.*?)^```|`([^`\n]+)`', text, re.DOTALL | re.MULTILINE):
        for line in (part[0] or part[1]).splitlines():
            line = line.split(' #')[0].strip()
            if PROGRAM.match(line):
                found.append(line)
    return list(dict.fromkeys(found))


def shortened(command: str) -> str:
    """Return a command that does the same with less work."""
    if 'ibmd_basicsr.train' in command and '--dry-run' not in command:
        steps = ' val:sampler:steps=1' if '_bridge' in command else ''
        return f'{command}{"" if "--force_yml" in command else " --force_yml"} {SHORT_TRAINING}{steps}'
    if 'ibmd_basicsr.compare' in command:
        return f'{command} --limit 1 --steps 1 20' if 'mine' in command else f'{command} --limit 1 --steps 1 20 100'
    if 'ibmd_basicsr.bench' in command:
        return f'{command} --quick'
    if 'ibmd_basicsr.restore' in command and 'test128' in command:
        return command.replace('datasets/photos/test128', 'datasets/one')
    return command


README = [command for command in commands('README.md') if not command.startswith(INSTALLS) and 'ibmd_basicsr.restore' not in command]
PAGE = [command for command in commands('docs/getting_started.md') if not command.startswith(INSTALLS)]


def test_commands_are_found():
    """An empty list would run as well: each kind of command is there, on both pages."""
    assert 'python -m ibmd_basicsr.train -opt options/sr4x_ibmd.yml' in README
    for page, modules in ((README, ('train', 'test', 'compare', 'import_checkpoint', 'bench', 'export', 'doctor', 'create_lmdb')),
                          (PAGE, ('train', 'test', 'compare', 'restore', 'export', 'create_lmdb'))):
        for module in modules:
            assert any(f'-m ibmd_basicsr.{module} ' in f'{command} ' for command in page), module
    assert any(command.startswith('torchrun') for command in PAGE) and any('--force_yml' in command for command in PAGE)


def test_installations_are_those_of_ci():
    """What installs is not run here: CI makes environments with the same commands."""
    for document in ('README.md', 'docs/getting_started.md'):
        for command in (command for command in commands(document) if command.startswith(INSTALLS)):
            for target in re.findall(r'make (\w+)', command):
                assert re.search(rf'\b{target}\b', CI), command
            extras = re.search(r'\[(.*?)]', command)
            for extra in extras[1].split(',') if extras else []:
                assert f"'{extra}':" in SETUP, command
    assert 'pip install --quiet -e .' in CI


@pytest.fixture(scope='module')
def world(tmp_path_factory) -> Path:
    """The repository as a clone would be, with what a user is told to bring."""
    world = tmp_path_factory.mktemp('clone')
    for name in ('options', 'scripts', 'docs/examples'):  # not links: scripts work where they are
        shutil.copytree(REPOSITORY / name, world / name)
    (world / 'weights').symlink_to(REPOSITORY / 'weights')
    for name in ('one', 'my_photos'):
        (world / 'datasets' / name).mkdir(parents=True)
    (world / 'datasets/photos').symlink_to(REPOSITORY / 'datasets/photos')
    shutil.copy(REPOSITORY / 'datasets/photos/test128/coffee_0.png', world / 'datasets/one')
    shutil.copy(REPOSITORY / 'datasets/photos/test128/coffee_1.png', world / 'datasets/my_photos')
    make_published_checkpoint(world / 'latest.pt')
    ablation = world / 'options/ablations/sr4x.yml'
    opt = yaml.safe_load(ablation.read_text())
    opt |= {'seeds': [0], 'variants': {'base': opt['variants']['base']}}
    opt['change'] |= {'train': {'total_iter': 4}, 'datasets': {'val': {'dataroot_gt': 'datasets/one'}}}
    ablation.write_text(yaml.safe_dump(opt))
    return world


def make_published_checkpoint(path: Path) -> None:
    """Write what I2SB's program saves: network and EMA, here of the shipped nano teacher."""
    weights = torch.load(REPOSITORY / 'weights/sr4x_nano_teacher.pth', weights_only=True)['params_ema']
    weights = {f'diffusion_model.{name}': value.float() for name, value in weights.items()}
    torch.save({'net': weights, 'ema': {'shadow_params': list(weights.values())}}, path)


@pytest.mark.slow
@pytest.mark.parametrize('command', README + PAGE)
def test_a_command_runs(command, world):
    variables = environment()
    variables['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), variables['PATH']])
    run = subprocess.run(['bash', '-c', shortened(command)], cwd=world, env=variables, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f'{shortened(command)}\n{run.stdout[-1500:]}\n{run.stderr[-3000:]}'
    assert 'Traceback' not in run.stderr


@pytest.mark.slow
def test_the_page_ends_with_what_it_promises(world):
    """Runs behind the commands of the page."""
    for made in ('restored/coffee_0.png', 'my_teacher.png', 'datasets/my_photos.lmdb/data.mdb', 'restored_by_mine/coffee_0.png',
                 'results/test_my_student', 'results/compare/mine/report.html', 'my_student.onnx', 'larger.png', 'my_student.pth',
                 'experiments/my_teacher_64/resolved_options.yml', 'experiments/my_student_on_two/models/net_g_latest.pth'):
        assert (world / made).exists(), made
    table = (world / 'results/compare/mine/table.md').read_text()
    assert all(row in table for row in ('bicubic', 'teacher@1', 'teacher@20', 'student', 'shipped_student'))
