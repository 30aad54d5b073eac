"""Inverse bridge matching on Gaussians, where the true posterior is known: the student must find it.

x_0 ~ N(0, 1), x_T = x_0 + n with n ~ N(0, 1), bridge x_t = (1 - t) x_0 + t x_T + s sqrt(t (1 - t)) eps. The teachers are exact, so the
distilled generator must reach p(x_0 | x_T) = N(x_T / 2, 1/2) where the bridge is conditional, and the law of the unconditional bridge's own
coupling where it is not.
"""
import pytest
import torch
from torch import nn

from ibmd_basicsr.losses.bridge_loss import BridgeMatchingLoss, InverseBridgeLoss


class Generator(nn.Module):
    """G(x_T, z): a small network beside a linear skip."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x_T, z):
        return x_T + self.body(torch.cat([x_T, z], 1))


class Estimator(nn.Module):
    """The bridge network: x0_hat(x_t, t, x_T), fed with x_T only where the bridge is conditional."""

    def __init__(self, conditional):
        super().__init__()
        self.conditional = conditional
        self.body = nn.Sequential(nn.Linear(2 + conditional, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x_t, t, x_T):
        return x_t + self.body(torch.cat([x_t, t] + ([x_T] if self.conditional else []), 1))


def distil(teacher, *, conditional, std, updates, gradient='full', bridge_updates=3, batch=1024):
    """Run the alternation of algorithm 1 with our losses; return the trained generator."""
    torch.manual_seed(0)
    student, bridge = Generator(), Estimator(conditional)
    optimizer_g = torch.optim.Adam(student.parameters(), 1e-3, betas=(0.0, 0.999))
    optimizer_b = torch.optim.Adam(bridge.parameters(), 2e-3, betas=(0.0, 0.999))
    matching, inverse = BridgeMatchingLoss(), InverseBridgeLoss(gradient=gradient)
    one = torch.ones(1, 1)
    for iteration in range(1, updates * (bridge_updates + 1) + 1):
        student_turn = iteration % (bridge_updates + 1) == 0
        x_T = 2**0.5 * torch.randn(batch, 1)
        with torch.set_grad_enabled(student_turn):
            x_0 = student(x_T, torch.randn(batch, 1))
        t = torch.rand(batch, 1)
        x_t = (1 - t) * x_0 + t * x_T + std * (t * (1 - t)).sqrt() * torch.randn(batch, 1)
        if student_turn:
            x_t = inverse.network_input(x_t)
            bridge.requires_grad_(False)
            loss = inverse(teacher(x_t, t, x_T), bridge(x_t, t, x_T), x_0, one)
            optimizer = optimizer_g
        else:
            bridge.requires_grad_(True)
            loss = matching(bridge(x_t, t, x_T), x_0, one)
            optimizer = optimizer_b
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student


def conditional_teacher(x_t, t, x_T):
    """E[x_0 | x_t, x_T] with prior N(x_T/2, 1/2) and bridge variance t(1 - t)."""
    mean, v = x_T / 2, 0.5
    gain = v * (1 - t) / ((1 - t)**2 * v + t * (1 - t) + 1e-12)
    return mean + gain * (x_t - t * x_T - (1 - t) * mean)


@pytest.mark.parametrize('gradient', ['full', 'x0_only'])
def test_conditional_student_finds_the_posterior(gradient):
    student = distil(conditional_teacher, conditional=True, std=1.0, updates=700, gradient=gradient)
    with torch.no_grad():
        for value in (-2.0, -0.5, 0.0, 1.0, 2.0):
            x_T = torch.full((20_000, 1), value)
            x_0 = student(x_T, torch.randn(20_000, 1))
            assert x_0.mean().item() == pytest.approx(value / 2, abs=0.05), value
            assert x_0.std().item() == pytest.approx(0.5**0.5, abs=0.03), value


def test_unconditional_student_finds_the_bridge_coupling():
    """Without x_T at the input the law of x_0 given x_T is still pinned: the joint Gaussian coupling is the only one whose projection
    on Markov bridges is this teacher's drift. Marginal N(0, 1) and covariance cov(x_0, x_T) = 1 are known in closed form."""
    std = 1.0

    def teacher(x_t, t, x_T):
        var = (1 - t)**2 + 2 * t**2 + 2 * t * (1 - t) + std**2 * t * (1 - t)
        return ((1 - t) + t) / var * x_t

    student = distil(teacher, conditional=False, std=std, updates=700)
    with torch.no_grad():
        x_T = 2**0.5 * torch.randn(100_000, 1)
        x_0 = student(x_T, torch.randn_like(x_T))
    assert x_0.mean().item() == pytest.approx(0, abs=0.05)
    assert x_0.std().item() == pytest.approx(1, abs=0.04)
    assert (x_0 * x_T).mean().item() == pytest.approx(1, abs=0.06)
