"""Every file in options/ is accepted by the checks and builds; paper-scale networks on the meta device, with the published sizes."""
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.archs import build_network
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.losses import build_loss
from basicsr.utils.registry import MODEL_REGISTRY
from tiny import REPOSITORY, parsed

import ibmd_basicsr.losses  # noqa: F401
import ibmd_basicsr.metrics  # noqa: F401
from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.bridges import build_bridge
from ibmd_basicsr.data.degradations import build_degradation
from ibmd_basicsr.data.degraded_image_dataset import DegradedImageDataset
from ibmd_basicsr.models.ibmd_model import StudentOptions
from ibmd_basicsr.models.option_rules import check_options, find_problems
from ibmd_basicsr.restorer import SamplerOptions, make_grid

OTHER = {'compare', 'baselines', 'ablations', 'zoo'}  # folders of other kinds of files
FILES = sorted(path for path in (REPOSITORY / 'options').rglob('*.yml') if not OTHER & set(path.relative_to(REPOSITORY).parts))
BASELINES = sorted((REPOSITORY / 'options/baselines').glob('*.yml'))
NANO_TASKS = ('sr4x', 'sr4x_pool', 'jpeg5', 'jpeg10', 'inpaint_center', 'inpaint_freeform', 'inpaint_center_cond', 'edges', 'normals')

I2SB, DDBM_256, DDBM_64, DBIM = 552_807_171, 552_814_083, 295_136_451, 553_838_083
"""Parameters of the published networks: I2SB; DDBM for DIODE and for edges to handbags; DBIM for inpainting, with its 1000 classes."""
PAPER_TEACHERS = {'sr4x': I2SB, 'sr4x_pool': I2SB, 'jpeg5': I2SB, 'jpeg10': I2SB, 'inpaint_center': I2SB, 'inpaint_freeform': I2SB,
                  'inpaint_center_cond': DBIM, 'edges2handbags': DDBM_64, 'diode': DDBM_256}
PAPER_STUDENTS = {
    # K, learning rate, student updates, steps, channels of z: the paper's table of hyper-parameters
    'sr4x_ibmd': (5, 5e-5, 3000, 1, 3), 'sr4x_pool_ibmd': (5, 5e-5, 3000, 1, 3),
    'jpeg5_ibmd': (5, 5e-5, 2000, 1, 3), 'jpeg10_ibmd': (5, 5e-5, 3000, 1, 3),
    'inpaint_center_ibmd': (5, 5e-5, 2000, 4, 0), 'inpaint_center_cond_ibmd': (1, 3e-6, 3000, 4, 1),
    'edges2handbags_ibmd': (5, 1e-5, 300, 2, 1), 'edges2handbags_ibmd_1step': (5, 1e-5, 14000, 1, 1),
    'diode_ibmd': (5, 1e-5, 500, 2, 1), 'diode_ibmd_1step': (5, 1e-5, 3700, 1, 1),
    # not in that table; as its row for the centre
    'inpaint_freeform_ibmd': (5, 5e-5, 2000, 4, 0),
}


def named(file: Path) -> str:
    return str(file.relative_to(REPOSITORY / 'options'))


def build(network: dict) -> ADMUNet:
    with torch.device('meta'):
        return ADMUNet(**{key: value for key, value in network.items() if key != 'type'})


def parameters(network: dict) -> int:
    return sum(p.numel() for p in build(network).parameters())


@pytest.mark.parametrize('file', sorted((REPOSITORY / 'options/test').glob('*_ibmd.yml')), ids=named)
def test_students_are_tested_in_no_more_steps_than_they_were_trained_for(file):
    opt = parsed(yaml.safe_load(file.read_text()), is_train=False) | {'num_gpu': 0}
    opt['val']['sampler']['steps'] = 9
    problems = find_problems(opt, this_machine=False)
    assert len(problems) == 1 and problems[0].startswith('val.sampler: sampler.steps'), problems


def test_the_promised_files_are_there():
    nano = {f'{folder}{task}_{kind}.yml' for folder in ('', 'test/') for task in NANO_TASKS for kind in ('bridge', 'ibmd')}
    paper = {f'paper/{task}_bridge.yml' for task in PAPER_TEACHERS} | {f'paper/{name}.yml' for name in PAPER_STUDENTS}
    names = {named(path) for path in FILES}
    assert names >= nano | paper
    assert {name for name in names if name.startswith('paper/')} == paper


@pytest.mark.parametrize('file', FILES, ids=named)
def test_option_file_builds(file: Path):
    opt = yaml.safe_load(file.read_text())
    for phase, block in opt['datasets'].items():
        block |= {'phase': phase.split('_')[0], 'scale': opt['scale']}
    opt = parsed(opt, is_train='train' in opt) | {'num_gpu': 0}
    check_options(opt)

    bridge = build_bridge(**opt['bridge'])
    size = opt['datasets'].get('train', {}).get('gt_size', 64)
    x, t = torch.empty(2, 3, size, size, device='meta'), torch.empty(2, device='meta')
    for network in [opt['network_g']] + ([opt['teacher']['network'], opt['network_bridge']] if 'teacher' in opt else []):
        net = build(network)
        cond, z = (torch.empty(2, channels, size, size, device='meta') if channels else None
                   for channels in (net.cond_channels, net.noise_channels))
        y = torch.zeros(2, dtype=torch.long, device='meta') if net.num_classes is not None else None
        assert net(x, t, cond=cond, z=z, y=y).shape == x.shape
        assert (net.cond_channels == 3) == bridge.conditional
        labelled = {'label_file' in block for block in opt['datasets'].values()}
        assert labelled == {net.num_classes is not None}
    for phase, block in opt['datasets'].items():
        check_dataset(opt, phase, block)

    make_grid(SamplerOptions(**opt['val']['sampler']), bridge)
    assert set(opt['val']['metrics']) >= {'psnr', 'lpips'}


def check_dataset(opt: dict, phase: str, block: dict) -> None:
    """Pairs, corrupted images alone, or photographs with a degradation; distillation gets no clean image."""
    if block['type'] == PairedImageDataset.__name__:
        assert {'dataroot_gt', 'dataroot_lq'} <= block.keys() and not {'degradation', 'return_gt'} & block.keys()
        if phase == 'train':
            assert {'gt_size', 'use_hflip', 'use_rot'} <= block.keys() and opt['model_type'] == 'BridgeModel'
        return
    assert block['type'] == DegradedImageDataset.__name__
    if 'dataroot_lq' in block:
        assert not {'dataroot_gt', 'degradation'} & block.keys() and opt['model_type'] == 'IBMDModel'
        return
    degradation = build_degradation(block['degradation'])
    assert degradation.scale == opt['scale']
    if phase == 'train':
        assert block['gt_size'] % degradation.size_multiple == 0
        assert block.get('return_gt', True) == (opt['model_type'] == 'BridgeModel')


@pytest.mark.parametrize('file', BASELINES, ids=named)
def test_baseline_builds(file: Path):
    opt = yaml.safe_load(file.read_text())
    assert opt['model_type'] in MODEL_REGISTRY
    with torch.device('meta'):
        nets = {name: build_network(opt[name]) for name in ('network_g', 'network_d') if name in opt}
    lq = torch.empty(1, 3, 64, 64, device='meta')
    restored = nets['network_g'](lq)
    assert restored.shape == (1, 3, 64 * opt['scale'], 64 * opt['scale'])
    if 'network_d' in nets:
        nets['network_d'](restored)
    for phase, block in opt['datasets'].items():
        check_dataset(opt | {'model_type': 'BridgeModel'}, phase, block)
    for block in opt['train'].values():
        if isinstance(block, dict) and str(block.get('type')).endswith('Loss'):
            build_loss(dict(block))


@pytest.mark.parametrize('task', PAPER_TEACHERS)
def test_paper_teachers_have_the_published_size(task: str):
    opt = yaml.safe_load((REPOSITORY / f'options/paper/{task}_bridge.yml').read_text())
    assert parameters(opt['network_g']) == PAPER_TEACHERS[task]
    assert opt['num_gpu'] * opt['datasets']['train']['batch_size_per_gpu'] == 256


@pytest.mark.parametrize('name', PAPER_STUDENTS)
def test_paper_students_follow_the_table(name: str):
    opt = yaml.safe_load((REPOSITORY / f'options/paper/{name}.yml').read_text())
    task = name.partition('_ibmd')[0]
    updates, lr, students, steps, channels = PAPER_STUDENTS[name]
    train = opt['train']
    assert train['bridge_updates_per_student'] == updates and train['total_iter'] == students * (updates + 1)
    assert train['optim_g']['lr'] == train['optim_bridge']['lr'] == lr and train['ema_decay'] == 0.99
    assert not train.get('amp') and not train.get('grad_clip') and train['ibmd_opt']['gradient'] == 'full'
    assert opt['num_gpu'] * opt['datasets']['train']['batch_size_per_gpu'] == 256
    assert StudentOptions(**train.get('student', {})).steps == steps == opt['val']['sampler'].get('steps', 1)

    teacher = yaml.safe_load((REPOSITORY / f'options/paper/{task}_bridge.yml').read_text())
    assert opt['bridge'] == teacher['bridge'] and opt['network_bridge'] == opt['teacher']['network']
    # the teachers of DDBM were trained with dropout
    assert opt['teacher']['network'] | {'dropout': 0} == teacher['network_g'] | {'dropout': 0}
    assert parameters(opt['teacher']['network']) == PAPER_TEACHERS[task]
    # z enters through 3x3 weights of the first convolution
    assert opt['network_g'].get('noise_channels', 0) == channels
    assert parameters(opt['network_g']) == PAPER_TEACHERS[task] + 9 * opt['network_g']['model_channels'] * channels
