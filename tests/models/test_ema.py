"""The EMA network: the paper's recursion of parameters, buffers as they are, and weights that were loaded in between."""
import torch
from tiny import options, parsed

import ibmd_basicsr.models  # noqa: F401  (before basicsr, which needs the shim)

from basicsr.models import build_model  # isort: skip


def build(root):
    opt = parsed(options(root))
    opt['path'] |= {'models': str(root), 'training_states': str(root)}
    model = build_model(opt)
    for net in (model.net_g, model.net_g_ema):
        net.register_buffer('counted', torch.zeros(2, dtype=torch.long))
    return model


def move(net):
    with torch.no_grad():
        for value in net.parameters():
            value += torch.randn_like(value)
        net.counted += 1


def test_recursion(world):
    model = build(world)
    expected = [value.double() for value in model.net_g_ema.parameters()]
    for decay in (0.9, 0.5, 0.0, 0.99):
        move(model.net_g)
        model.model_ema(decay)
        expected = [decay * mean + (1 - decay) * value.double() for mean, value in zip(expected, model.net_g.parameters(), strict=True)]
        for mean, wanted in zip(model.net_g_ema.parameters(), expected, strict=True):
            torch.testing.assert_close(mean.double(), wanted, rtol=1e-6, atol=1e-6)
        assert torch.equal(model.net_g_ema.counted, model.net_g.counted)


def test_weights_loaded_in_between_are_followed(world):
    model, other = build(world), build(world)
    model.model_ema(0.9)
    move(other.net_g)
    model.net_g.load_state_dict(other.net_g.state_dict())
    model.model_ema(0.0)
    for mean, value in zip(model.net_g_ema.parameters(), other.net_g.parameters(), strict=True):
        assert torch.equal(mean, value)
    assert torch.equal(model.net_g_ema.counted, torch.ones(2, dtype=torch.long))
