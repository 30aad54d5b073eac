"""Every file in options/ is accepted by the checks and builds; paper-scale networks on the meta device."""
from pathlib import Path

import pytest
import torch
import yaml
from tiny import REPOSITORY

import ibmd_basicsr.losses  # noqa: F401
import ibmd_basicsr.metrics  # noqa: F401
from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.bridges import build_bridge
from ibmd_basicsr.data.degradations import build_degradation
from ibmd_basicsr.models.option_rules import check_options
from ibmd_basicsr.restorer import SamplerOptions

FILES = sorted(path for path in (REPOSITORY / 'options').rglob('*.yml') if 'compare' not in path.parts)


def test_the_promised_files_are_there():
    names = {str(path.relative_to(REPOSITORY / 'options')) for path in FILES}
    tasks = ('sr4x', 'jpeg10')
    assert names >= {f'{folder}{task}_{kind}.yml' for folder in ('', 'test/', 'paper/') for task in tasks for kind in ('bridge', 'ibmd')}


@pytest.mark.parametrize('file', FILES, ids=lambda path: str(path.relative_to(REPOSITORY / 'options')))
def test_option_file_builds(file: Path):
    opt = yaml.safe_load(file.read_text())
    is_train = 'train' in opt
    for phase, block in opt['datasets'].items():
        block |= {'phase': phase.split('_')[0], 'scale': opt['scale']}
    opt |= {'is_train': is_train, 'dist': False, 'rank': 0, 'world_size': 1, 'num_gpu': 0, 'auto_resume': False}
    check_options(opt)

    build_bridge(**opt['bridge'])
    networks = [opt['network_g']] + ([opt['teacher']['network'], opt['network_bridge']] if 'teacher' in opt else [])
    with torch.device('meta'):
        nets = [ADMUNet(**{key: value for key, value in network.items() if key != 'type'}) for network in networks]
    if 'paper' in file.parts:
        assert {sum(p.numel() for p in net.parameters()) for net in nets} <= {552_807_171, 552_814_083}
    size = opt['datasets'].get('train', {}).get('gt_size', 64)
    x, t = torch.empty(2, 3, size, size, device='meta'), torch.empty(2, device='meta')
    for net in nets:
        z = torch.empty(2, net.noise_channels, size, size, device='meta') if net.noise_channels else None
        assert net(x, t, z=z).shape == x.shape
    for block in opt['datasets'].values():
        assert build_degradation(block['degradation']).scale == opt['scale']
    SamplerOptions(**opt['val']['sampler'])
    assert set(opt['val']['metrics']) >= {'psnr', 'lpips'}
