"""LPIPSLoss: the package's values, gradients that stay finite, what is refused. Backbones are random where their weights do not matter."""
import pytest
import torch
import torchvision

import ibmd_basicsr.losses  # noqa: F401  (before basicsr, which needs the shim)

from basicsr.losses import build_loss  # isort: skip
from ibmd_basicsr.losses.lpips_loss import LPIPSLoss
from ibmd_basicsr.metrics.lpips_metric import calculate_lpips
from ibmd_basicsr.utils.errors import CheckpointError


@pytest.fixture(scope='module')
def vgg_file(tmp_path_factory):
    """A file of VGG16's features, random and in half precision."""
    torch.manual_seed(0)
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs['D'])
    path = tmp_path_factory.mktemp('weights') / 'vgg16_features.pth'
    torch.save({f'features.{name}': value.half() for name, value in features.state_dict().items()}, path)
    return path


def pair(size=64, count=2):
    x = torch.rand(count, 3, size, size)
    return x, (x + 0.1 * torch.randn_like(x)).clamp(0, 1)


def test_equals_the_metric():
    x, gt = pair(count=1)
    bgr = [image[0].permute(1, 2, 0).flip(-1).numpy() * 255 for image in (x, gt)]
    value, style = build_loss({'type': 'LPIPSLoss', 'net': 'alex', 'loss_weight': 0.5})(x, gt)
    assert style is None and value.item() == pytest.approx(0.5 * calculate_lpips(*bgr, device='cpu'), rel=1e-5)


def test_vgg_from_a_file_and_no_trace_in_the_random_state(vgg_file):
    state = torch.get_rng_state()
    loss = LPIPSLoss(weights=vgg_file, loss_weight=0.3)
    assert torch.equal(torch.get_rng_state(), state)
    stored = torch.load(vgg_file)
    assert torch.equal(loss.lpips.net.slice5[-2].weight, stored['features.28.weight'].float())
    x, gt = pair(16)
    x.requires_grad_()
    value = loss(x, gt)[0]
    torch.testing.assert_close(value, 0.3 * loss.lpips(x * 2 - 1, gt * 2 - 1).mean())
    assert torch.autograd.grad(value, x)[0].abs().max() > 0
    assert not any(p.requires_grad for p in loss.parameters()) and not loss.lpips.training


def test_features_that_are_all_zero_have_a_finite_gradient():
    """The root of their square sum has none; the ReLU before them must keep that back."""
    loss = LPIPSLoss(net='alex')
    loss.lpips.net.slice5[-2].bias.fill_(-1e4)  # the last ReLU lets nothing through, as it may in flat parts of an image
    x, gt = pair()
    x.requires_grad_()
    assert loss.lpips.net(x * 2 - 1)[-1].abs().max() == 0
    got, = torch.autograd.grad(loss(x, gt)[0], x)
    assert torch.isfinite(got).all() and got.abs().max() > 0


def test_refuses(tmp_path):
    with pytest.raises(ValueError, match="net must be one of .*, got 'squeeze'"):
        LPIPSLoss(net='squeeze')
    with pytest.raises(ValueError, match='net vgg needs weights'):
        LPIPSLoss()
    with pytest.raises(CheckpointError, match='vgg.pth'):
        LPIPSLoss(weights=tmp_path / 'vgg.pth')
    with pytest.raises(ValueError, match=r'at least 32 pixels a side, got \(16, 16\)'):
        LPIPSLoss(net='alex')(*pair(16))
