"""Clipping: torch's own on every device; on a CPU gradients that are short enough are not touched."""
import math

import pytest
import torch
from torch import nn

from ibmd_basicsr.models.bridge_model import clip_gradient


def parameters(length):
    """Return two parameters whose gradient has this length, and one that has none."""
    generator = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2,))]
    for parameter in made[:2]:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    scale = length / torch.cat([parameter.grad.flatten() for parameter in made[:2]]).norm()
    for parameter in made[:2]:
        parameter.grad *= scale
    return made


@pytest.mark.parametrize('length', [0.3, 0.999999, 1.0, 1.000001, 7.0, float('nan'), float('inf')])
@pytest.mark.parametrize('limit', [1.0, None])
def test_same_as_torch(length, limit):
    ours, theirs = parameters(length), parameters(length)
    norm = clip_gradient(ours, limit)
    expected = nn.utils.clip_grad_norm_(theirs, limit or float('inf'))
    torch.testing.assert_close(norm, expected, rtol=0, atol=0, equal_nan=True)
    if math.isfinite(length):  # else no step is made, whatever the gradients
        for one, other in zip(ours[:2], theirs[:2], strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0, equal_nan=True)
    assert ours[2].grad is None


def test_short_gradients_are_not_written():
    ours = parameters(0.5)
    before = [parameter.grad._version for parameter in ours[:2]]
    clip_gradient(ours, 1.0)
    assert [parameter.grad._version for parameter in ours[:2]] == before
    clip_gradient(ours, 0.1)
    assert [parameter.grad._version for parameter in ours[:2]] != before
