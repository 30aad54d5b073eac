"""The weights in the repository: small, loadable by the option files that name them, and worth their place on the test photographs."""
import csv
from pathlib import Path

import pytest
import yaml
from tiny import REPOSITORY, forked_command

from ibmd_basicsr.checkpoints.state_dict import load_file
from ibmd_basicsr.models import build_restorer
from ibmd_basicsr.reporting.peers import build_arch

TASKS = {'sr4x': 'student', 'jpeg10': 'student', 'inpaint_center': 'student@4', 'edges': 'student@1', 'normals': 'student@2'}
"""Tasks with shipped weights, and a row of the student that must beat the input in LPIPS (edges: an edge map of hair is close in LPIPS)."""
FILES = [f'{task}_nano_{role}.pth' for task in TASKS for role in ('teacher', 'student')]


def absolute(path: str) -> str:
    return str(REPOSITORY / path)


@pytest.mark.parametrize('name', FILES)
def test_files_are_small_and_hold_ema_weights_alone(name):
    path = REPOSITORY / 'weights' / name
    assert path.stat().st_size <= 6_500_000
    assert set(load_file(path)) == {'params_ema'}


@pytest.mark.parametrize('file', [REPOSITORY / f'options/test/{task}_{kind}.yml' for task in TASKS for kind in ('bridge', 'ibmd')],
                         ids=lambda path: path.stem)
def test_test_options_fit_their_weights(file: Path):
    opt = yaml.safe_load(file.read_text())
    restorer = build_restorer(network=opt['network_g'], bridge=opt['bridge'], weights=absolute(opt['path']['pretrain_network_g']),
                              param_key=opt['path']['param_key_g'], sampler=opt['val']['sampler'], scale=opt['scale'])
    network = opt['network_g']
    # x_T and z enter the first 3x3 convolution as 2x2 patches; attention stands in three blocks
    extra = network.get('cond_channels', 0) + network.get('noise_channels', 0)
    assert restorer.parameters == 2_968_236 + (198_912 if network['attention_resolutions'] else 0) + extra * 4 * 9 * 32


@pytest.mark.parametrize('file', sorted((REPOSITORY / 'options/baselines/test').glob('*.yml')), ids=lambda path: path.stem)
def test_test_options_of_baselines_fit_their_weights(file: Path):
    opt = yaml.safe_load(file.read_text())
    path = opt['path']
    restorer = build_arch(network=opt['network_g'], weights=absolute(path['pretrain_network_g']), param_key=path['param_key_g'],
                          scale=opt['scale'])
    assert restorer.parameters == {'MSRResNet': 1_517_571, 'ADMRegressor': 2_968_236}[opt['network_g']['type']]


@pytest.mark.parametrize('task', [pytest.param(task, marks=() if task in ('sr4x', 'jpeg10') else pytest.mark.slow) for task in TASKS])
def test_student_and_teacher_restore(task, tmp_path):
    """Three test images: one call of the teacher has more PSNR than the input, the student less LPIPS."""
    opt = yaml.safe_load((REPOSITORY / f'options/compare/{task}.yml').read_text())
    opt['dataset'] |= {key: absolute(value) for key, value in opt['dataset'].items() if key.startswith('dataroot')}
    for row in opt['restorers'][1:]:
        row['weights'] = absolute(f'weights/{task}_nano_{row["name"]}.pth')
    del opt['grid'], opt['speed_reference']
    file = tmp_path / 'options' / 'compare.yml'
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(opt))
    result = forked_command('-opt', file, '-o', tmp_path / 'out', '--limit', 3, '--steps', 1, module='compare')
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    with open(tmp_path / 'out' / 'results.csv', newline='') as stream:
        lines = list(csv.DictReader(stream))
    names = [row['name'] for row in opt['restorers']]

    def mean(restorer: str, metric: str) -> float:
        values = [float(line[metric]) for line in lines if line['row'] == restorer]
        assert len(values) == 3
        return sum(values) / 3
    assert mean('teacher@1', 'psnr') > mean(names[0], 'psnr') + 0.3
    assert mean(TASKS[task], 'lpips') < mean(names[0], 'lpips') - 0.02
