"""The losses against their definitions, and the identities of inverse bridge matching."""
import pytest
import torch

from ibmd_basicsr.bridges import TIME_WEIGHTS
from ibmd_basicsr.losses.bridge_loss import TIME_WEIGHT_NAMES, BridgeMatchingLoss, InverseBridgeLoss


def images(count=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, 5, 5, generator=g, dtype=torch.float64) for _ in range(count)]


def weight():
    return torch.tensor([1.0, 0.5, 2.0, 3.0], dtype=torch.float64).reshape(4, 1, 1, 1)


def test_bridge_matching_is_the_weighted_square():
    x0_hat, x_0, _ = images()
    expected = sum(weight()[i].item() * ((x0_hat[i] - x_0[i])**2).sum() for i in range(4)) / x_0.numel()
    torch.testing.assert_close(BridgeMatchingLoss(loss_weight=2.0)(x0_hat, x_0, weight()), 2 * expected)


def test_inverse_loss_is_the_difference_of_two_regressions():
    r, f, x_0 = (x.requires_grad_() for x in images())
    loss = InverseBridgeLoss()(r, f, x_0, weight())
    plain = (weight() * ((r - x_0)**2 - (f - x_0)**2)).mean()
    torch.testing.assert_close(loss, plain)
    for ours, theirs in zip(torch.autograd.grad(loss, (r, f, x_0)), torch.autograd.grad(plain, (r, f, x_0))):
        torch.testing.assert_close(ours, theirs)


def test_loss_and_gradient_vanish_when_bridge_equals_teacher():
    """The optimum of IBMD: a generator through whose samples both networks see the same."""
    x_0 = images()[0].requires_grad_()
    x_t = 0.7 * x_0 + 0.1
    r, f = torch.tanh(x_t), torch.tanh(x_t)
    loss = InverseBridgeLoss()(r, f, x_0, weight())
    assert loss.item() == 0
    assert torch.autograd.grad(loss, x_0)[0].abs().max() < 1e-15


def test_detached_x_t_leaves_twice_the_gap():
    """``x0_only``: the gradient on x_0 is 2 lambda (f - r) / numel, as in the released code."""
    x_0 = images()[0].requires_grad_()
    criterion = InverseBridgeLoss(gradient='x0_only')
    x_t = criterion.network_input(0.5 * x_0)
    assert not x_t.requires_grad
    r, f = torch.sin(x_t), torch.cos(x_t)
    gradient = torch.autograd.grad(criterion(r, f, x_0, weight()), x_0)[0]
    torch.testing.assert_close(gradient, 2 * weight() * (f - r) / x_0.numel())
    assert InverseBridgeLoss(gradient='full').network_input(x_0) is x_0


def test_normaliser_divides_by_the_detached_teacher_residual():
    r, f, x_0 = images()
    plain = [InverseBridgeLoss()(r[i:i + 1], f[i:i + 1], x_0[i:i + 1], weight()[i:i + 1]) for i in range(4)]
    expected = sum(p / (r[i] - x_0[i]).abs().mean() for i, p in enumerate(plain)) / 4
    torch.testing.assert_close(InverseBridgeLoss(normalize=True)(r, f, x_0, weight()), expected)


def test_unknown_gradient_is_named():
    with pytest.raises(ValueError, match="gradient must be one of .* got 'half'"):
        InverseBridgeLoss(gradient='half')
    with pytest.raises(ValueError, match='alpha has no effect with gradient x0_only.* got 1.2'):
        InverseBridgeLoss(gradient='x0_only', alpha=1.2)


def test_losses_name_the_weights_that_the_bridges_have():
    """They may not import each other."""
    assert tuple(TIME_WEIGHTS) == TIME_WEIGHT_NAMES


@pytest.mark.parametrize('loss', [BridgeMatchingLoss, InverseBridgeLoss])
def test_unknown_time_weight_is_named(loss):
    for name in TIME_WEIGHT_NAMES:
        assert loss(time_weight=name).time_weight == name
    with pytest.raises(ValueError, match=r"time_weight must be one of \('uniform', .*\), got 'foo'"):
        loss(time_weight='foo')
