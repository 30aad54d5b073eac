"""Optimisers are fused where torch can, unless the options say otherwise; the numbers stay those of torch's plain loop."""
import pytest
import torch
from tiny import options, parsed

import ibmd_basicsr.models  # noqa: F401  (before basicsr, which needs the shim)

from basicsr.models import build_model  # isort: skip
from ibmd_basicsr.checkpoints.state_dict import load_file

fused_on_cpus = pytest.mark.skipif(torch.__version__ < '2.4', reason='torch fuses on CPUs from 2.4 on')


def build(root, **optim_g):
    torch.manual_seed(0)
    opt = parsed(options(root, train__optim_g={'type': 'AdamW', 'lr': 1e-3, **optim_g}))
    opt['path'] |= {'models': str(root), 'training_states': str(root)}
    return build_model(opt)


def train(model, first, last):
    for iteration in range(first, last + 1):
        g = torch.Generator().manual_seed(iteration)
        model.feed_data({'lq': torch.rand(2, 3, 4, 4, generator=g), 'gt': torch.rand(2, 3, 16, 16, generator=g), 'lq_path': ['a', 'b']})
        model.optimize_parameters(iteration)
    return model


@fused_on_cpus
@pytest.mark.parametrize('given, fused', [({}, True), ({'type': 'Adam'}, True), ({'type': 'SGD'}, True), ({'type': 'RAdam'}, None),
                                          ({'fused': False}, False), ({'foreach': True}, None), ({'fused': None}, True)])
def test_who_is_fused(world, given, fused):
    assert build(world, **given).optimizer_g.param_groups[0].get('fused') is fused


@fused_on_cpus
def test_fused_steps_are_the_plain_ones(world):
    """On given gradients: training itself blows up the last bit where the true gradient is zero."""
    plain, fused = (build(world, fused=choice) for choice in (False, None))
    for step in range(5):
        for model in (plain, fused):
            torch.manual_seed(step)
            for p in model.net_g.parameters():
                p.grad = torch.randn_like(p)
            model.optimizer_g.step()
    for a, b in zip(plain.net_g.parameters(), fused.net_g.parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-7)


@fused_on_cpus
def test_state_of_a_plain_optimizer_is_resumed_as_it_was(world):
    """A run that was begun before goes on as it would have gone."""
    plain = train(build(world, fused=False), 1, 2)
    plain.save(0, 2)
    expected = train(plain, 3, 4)
    other = build(world)
    other.load_network(other.net_g, str(world / 'net_g_2.pth'))
    other.load_network(other.net_g_ema, str(world / 'net_g_2.pth'), param_key='params_ema')
    other.resume_training(load_file(world / '2.state'))
    train(other, 3, 4)
    assert all(torch.equal(a, b) for a, b in zip(expected.net_g.parameters(), other.net_g.parameters(), strict=True))
