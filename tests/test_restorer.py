"""Restorer: any size, batch independence, calls counted, clear errors."""
import pytest
import torch

from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.bridges import build_bridge
from ibmd_basicsr.restorer import Restorer, SamplerOptions
from ibmd_basicsr.utils.seeding import PerImageNoise


def make(scale=4, noise_channels=0, **sampler):
    torch.manual_seed(0)
    net = ADMUNet(model_channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(), num_head_channels=8, patch_size=2,
                  noise_channels=noise_channels)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return Restorer(net=net, bridge=build_bridge(type='I2SB'), sampler=SamplerOptions(**sampler), scale=scale)


@pytest.mark.parametrize(('scale', 'size'), [(4, (1, 1)), (4, (7, 5)), (1, (13, 1)), (1, (16, 20)), (3, (5, 6))])
@pytest.mark.parametrize('sampler', [{'type': 'one_step'}, {'type': 'ancestral', 'steps': 3}, {'type': 'ode', 'steps': 2}])
def test_any_size_comes_back_enlarged(scale, size, sampler):
    out = make(scale, **sampler)(torch.rand(1, 3, *size), PerImageNoise.for_images(0, ['a']))
    assert out.shape == (1, 3, scale * size[0], scale * size[1])
    assert out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize('sampler', [{'type': 'one_step'}, {'type': 'few_step', 'steps': 3}, {'type': 'ancestral', 'steps': 4}])
def test_an_image_does_not_depend_on_its_batch(sampler):
    restorer = make(noise_channels=0 if sampler['type'] == 'ancestral' else 3, **sampler)
    lq = torch.rand(3, 3, 6, 6)
    together = restorer(lq, PerImageNoise.for_images(5, ['a', 'b', 'c']))
    for i, name in enumerate('abc'):
        alone = restorer(lq[i:i + 1], PerImageNoise.for_images(5, [name]))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=2e-6)


@pytest.mark.parametrize(('sampler', 'calls'), [
    ({'type': 'one_step'}, 1), ({'type': 'few_step', 'steps': 4}, 4), ({'type': 'ancestral', 'steps': 7}, 7), ({'type': 'ancestral'}, 999)])
def test_calls_are_what_is_said(sampler, calls):
    restorer = make(**sampler)
    assert restorer.calls == calls
    if calls < 20:
        seen = []
        restorer.net.register_forward_hook(lambda *_: seen.append(1))
        restorer(torch.rand(1, 3, 2, 2), PerImageNoise.for_images(0, ['a']))
        assert len(seen) == calls


def test_the_network_keeps_its_mode():
    restorer = make(type='one_step')
    restorer.net.train()
    restorer(torch.rand(1, 3, 2, 2), PerImageNoise.for_images(0, ['a']))
    assert restorer.net.training


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: SamplerOptions(type='euler'), "sampler.type must be one of .* got 'euler'"),
    (lambda: SamplerOptions(type='one_step', steps=4), 'steps must be 1 for one_step, got 4'),
    (lambda: SamplerOptions(type='ancestral', steps=0), 'positive integer, got 0'),
    (lambda: make(type='ancestral', steps=1000), '1..999 for this bridge, got 1000'),
    (lambda: make()(torch.rand(1, 1, 4, 4), PerImageNoise.for_images(0, ['a'])), r'takes \(B, 3, h, w\), got \(1, 1, 4, 4\)'),
    (lambda: make(noise_channels=3)(torch.rand(2, 3, 4, 4), PerImageNoise.for_images(0, ['a'])), 'batch of 2 images needs 2'),
])
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
