"""Compiled restorers give the same images, and tiles compile once."""
import pytest
import torch

from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.bridges import build_bridge
from ibmd_basicsr.restorer import Restorer, SamplerOptions
from ibmd_basicsr.utils.seeding import PerImageNoise
from ibmd_basicsr.utils.tiling import restore_tiled

counters = pytest.importorskip('torch._dynamo.utils').counters


def make(**options):
    torch.manual_seed(0)
    net = ADMUNet(model_channels=8, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(), num_head_channels=8, patch_size=2,
                  noise_channels=3)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return Restorer(net=net, bridge=build_bridge(type='I2SB'), sampler=SamplerOptions(type='one_step'), scale=4, **options)


def noise():
    return PerImageNoise.for_images(0, ['image'])


@pytest.fixture(autouse=True)
def _nothing_compiled():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def test_tiles_are_compiled_once():
    """17 x 23 pixels in tiles of 8: no side is a multiple of anything, and still all tiles have one shape."""
    compiled, plain, lq = make(compile='aot_eager'), make(), torch.rand(1, 3, 17, 23)
    options = {'scale': 4, 'tile': 8, 'halo': 2}
    got = restore_tiled(compiled, lq, noise(), **options)
    assert counters['stats']['unique_graphs'] == 1
    torch.testing.assert_close(got, restore_tiled(plain, lq, noise(), **options), atol=1e-5, rtol=0)
    assert set(compiled.net.state_dict()) == set(plain.net.state_dict())  # in place: checkpoints keep their names


def test_an_unknown_backend_is_named():
    with pytest.raises(Exception, match='abacus'):
        make(compile='abacus')(torch.rand(1, 3, 4, 4), noise())


def test_an_old_torch_is_named(monkeypatch):
    monkeypatch.delattr(torch.nn.Module, 'compile')
    with pytest.raises(ValueError, match='compile needs nn.Module.compile, which torch'):
        make(compile=True)


@pytest.mark.slow  # a C++ compiler runs for a minute
def test_the_default_backend():
    lq = torch.rand(1, 3, 8, 12)
    torch.testing.assert_close(make(compile=True)(lq, noise()), make()(lq, noise()), atol=1e-5, rtol=0)
