"""ADMRegressor keeps BasicSR's contract: starts as the enlarged input, any size, trains."""
import pytest
import torch
import torch.nn.functional as F
from basicsr.archs import build_network

from ibmd_basicsr.archs.adm_regressor_arch import ADMRegressor
from ibmd_basicsr.utils.option_check import option_parameters

SMALL = {'model_channels': 32, 'channel_mult': [1, 2], 'num_res_blocks': 1, 'attention_resolutions': [], 'patch_size': 2}


@pytest.mark.parametrize('scale, size', [(1, (13, 22)), (4, (5, 7)), (2, (1, 1))])
def test_starts_as_the_enlarged_input(scale, size):
    net = build_network({'type': 'ADMRegressor', 'scale': scale, **SMALL})
    lq = torch.rand(2, 3, *size)
    assert torch.allclose(net(lq), F.interpolate(lq, scale_factor=scale, mode='nearest'), atol=1e-6)


def test_learns_an_offset():
    torch.manual_seed(0)
    net = build_network({'type': 'ADMRegressor', **SMALL})
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    lq = torch.rand(4, 3, 16, 16) / 2
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.l1_loss(net(lq), lq + 0.3)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(0.3, abs=1e-3)
    assert losses[-1] < 0.05


@pytest.mark.parametrize('options', [{'scale': 0}, {'scale': 1.5}, {'noise_channels': 3}, {'num_classes': 10}])
def test_refuses(options):
    with pytest.raises(ValueError, match='ADMRegressor: .*got'):
        build_network({'type': 'ADMRegressor', **SMALL, **options})


def test_option_files_may_name_the_networks_arguments():
    names, required = option_parameters(ADMRegressor)
    assert {'scale', 'model_channels', 'patch_size', 'checkpoint_levels'} <= set(names) and not required
    assert not set(ADMRegressor.INPUTS) & set(names)
