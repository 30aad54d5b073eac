"""The reference of the bench trains as our models do: other habits, the same numbers."""
from dataclasses import replace

import pytest
import torch

from ibmd_basicsr.benchmarks.inference import BRIDGE, teacher_restorer
from ibmd_basicsr.benchmarks.reference import I2SBTables, ReferenceIBMD, ReferenceSampler, ReferenceTeacher, published_form
from ibmd_basicsr.benchmarks.sizes import IBMD, SIZES, TEACHER, TrainingChoices, make_batch, make_model
from ibmd_basicsr.bridges import spaced_steps
from ibmd_basicsr.utils.endpoints import lq_to_x_T, x_0_to_image
from ibmd_basicsr.utils.seeding import PerImageNoise

CPU = torch.device('cpu')
WITH_ATTENTION = replace(SIZES['quick'], network=SIZES['quick'].network | {'attention_resolutions': [2]})


@pytest.mark.parametrize('kind, reference, gradient', [(TEACHER, ReferenceTeacher, 'full'), (IBMD, ReferenceIBMD, 'full'),
                                                       (IBMD, ReferenceIBMD, 'x0_only')])
def test_losses_equal_ours(tmp_path, kind, reference, gradient):
    """Over 20 iterations, to 1e-6 of the loss."""
    model = make_model(WITH_ATTENTION, kind, tmp_path, CPU, choices=TrainingChoices(gradient=gradient, amp=False))
    if kind == IBMD:
        with torch.no_grad():  # apart from the teacher, or the student's loss is a difference of equals
            for p in model.net_bridge.parameters():
                p.add_(0.05 * torch.randn_like(p))
    other = reference(model)
    seen = set()
    for iteration in range(1, 21):
        batch = make_batch(WITH_ATTENTION, kind, seed=iteration)
        for one in (model, other):
            one.feed_data(batch)
            one.optimize_parameters(iteration)
        name = 'l_g' if kind == IBMD and iteration % 3 == 0 else 'l_bridge'
        seen.add(name)
        assert other.losses[name] == pytest.approx(model._terms[name].item(), rel=1e-6)
    assert seen == ({'l_g', 'l_bridge'} if kind == IBMD else {'l_bridge'})
    for shadow, value in zip(other.shadow, model.net_g_ema.parameters(), strict=True):
        torch.testing.assert_close(shadow, value)


def test_sampler_equals_ours():
    restorer = teacher_restorer(WITH_ATTENTION, CPU, 4)
    lq = torch.rand(2, 3, 8, 8)
    ours = restorer(lq, PerImageNoise.from_seeds([1, 2]))
    sampler = ReferenceSampler(restorer.net, I2SBTables(BRIDGE['n_timestep'], BRIDGE['beta_max'], CPU), spaced_steps(1000, 5))
    before = [p.clone() for p in sampler.net.parameters()]
    theirs = x_0_to_image(sampler(lq_to_x_T(lq, 4), PerImageNoise.from_seeds([1, 2]).randn_like))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, sampler.net.parameters()))


def test_the_reference_knows_no_memory_format():
    net = teacher_restorer(WITH_ATTENTION, CPU, 4).net
    innermost = [p for p in net.parameters() if p.ndim == 4 and not p.is_contiguous()]
    assert innermost and not any(p.requires_grad for p in net.parameters())
    assert all(p.is_contiguous() and p.requires_grad for p in published_form(net).parameters())
