"""The whole IBMDModel on Gaussians, where the posterior p(x_0 | x_T) is known: conditional bridges of all schedules, one step and four.

Every pixel of an image is a sample of its own: x_0 ~ N(0, 1/4) (DDBM's sigma_data), x_T = x_0 + N(0, 1/4), so p(x_0 | x_T) = N(x_T/2, 1/8).
Networks are multilayer perceptrons of 1x1 convolutions. The teacher is the exact conditional mean; student and bridge network start from
a perceptron that was fitted to it.
"""
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from tiny import options
from torch import nn

import ibmd_basicsr.models  # noqa: F401  (before basicsr, which needs the shim)

from basicsr.models import build_model  # isort: skip
from ibmd_basicsr.bridges import Bridge, DDBMPrecond, I2SBSchedule, build_bridge, few_step_sample, interpolate

BRIDGES = {'VP': {'type': 'VP'}, 'VE': {'type': 'VE', 'sigma_max': 2.0, 'sigma_min': 2e-4}, 'I2SB': {'type': 'I2SB', 'beta_max': 4.0}}
VARIANCE = 0.125


@ARCH_REGISTRY.register()
class PixelPerceptron(nn.Module):
    """Three layers of 1x1 convolutions on (x, cond, z, time)."""

    in_channels = 1

    def __init__(self, noise_channels=0):
        super().__init__()
        self.noise_channels = noise_channels
        self.body = nn.Sequential(nn.Conv2d(4, 64, 1), nn.SiLU(), nn.Conv2d(64, 64, 1), nn.SiLU(), nn.Conv2d(64, 1, 1))
        if not noise_channels:  # a dead input in place of z, so that the student can start from the teacher's weights
            with torch.no_grad():
                self.body[0].weight[:, 2].zero_()

    def forward(self, x, timesteps, cond=None, z=None):
        time = (timesteps / 500).reshape(-1, 1, 1, 1).expand_as(x)
        return self.body(torch.cat([x, cond, torch.zeros_like(x) if z is None else z, time], dim=1))


def exact(bridge, x_t, t, x_T):
    """E[x_0 | x_t, x_T]."""
    c = bridge.schedule.coefficients(t, x_t.ndim)
    gain = c.b_t * VARIANCE / (c.b_t**2 * VARIANCE + c.c_t**2)
    return (x_T / 2 + gain * (x_t - c.a_t * x_T - c.b_t * x_T / 2)).to(x_t.dtype)


def make_bridge(name):
    """The bridge, with DDBM's preconditioner on all schedules."""
    bridge = build_bridge(**BRIDGES[name], conditional=True)
    if isinstance(bridge.schedule, I2SBSchedule):
        return Bridge(schedule=bridge.schedule, precond=DDBMPrecond(bridge.schedule), conditional=True)
    return bridge


def draw(count, generator):
    x_0 = 0.5 * torch.randn(count, 1, 4, 4, generator=generator)
    return x_0, x_0 + 0.5 * torch.randn(count, 1, 4, 4, generator=generator)


def fit_teacher(bridge, path):
    """Fit a perceptron to the exact denoiser and write it."""
    generator = torch.Generator().manual_seed(0)
    net = PixelPerceptron()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(600):
        x_0, x_T = draw(256, generator)
        t = bridge.schedule.training_times(torch.rand(256, generator=generator))
        x_t = interpolate(bridge.schedule.coefficients(t), x_0, x_T, torch.randn(x_0.shape, generator=generator))
        c_out = bridge.precond.scalings(t).c_out
        loss = ((bridge.denoiser(net)(x_t, t, x_T) - exact(bridge, x_t, t, x_T)) / c_out).square().mean()
        optimizer.zero_grad()
        loss.backward()
        net.body[0].weight.grad[:, 2] = 0
        optimizer.step()
    torch.save({'params_ema': net.state_dict()}, path)


def distil(tmp_path, name, steps, scheme, updates):
    """Train and return bridge and model."""
    bridge = make_bridge(name)
    fit_teacher(bridge, tmp_path / 'teacher.pth')
    adam = {'type': 'Adam', 'lr': 2e-3, 'betas': [0.0, 0.999]}
    opt = options(tmp_path, 'IBMDModel', scale=1, bridge=BRIDGES[name] | {'conditional': True},
                  network_g={'type': 'PixelPerceptron', 'noise_channels': 1},
                  teacher={'network': {'type': 'PixelPerceptron'}, 'weights': str(tmp_path / 'teacher.pth'), 'param_key': 'params_ema'},
                  train__optim_g=adam | {'lr': 1e-3}, train__optim_bridge=adam, train__bridge_updates_per_student=3, train__ema_decay=0.98,
                  train__bridge_opt={'type': 'BridgeMatchingLoss', 'time_weight': 'inverse_variance'},
                  train__ibmd_opt={'type': 'InverseBridgeLoss', 'time_weight': 'uniform'},
                  train__scheduler={'type': 'MultiStepLR', 'milestones': [2 * updates], 'gamma': 0.3},
                  train__student={'steps': steps, 'scheme': scheme})
    opt['network_bridge'] = {'type': 'PixelPerceptron'}
    model = build_model(opt | {'is_train': True, 'dist': False, 'rank': 0, 'world_size': 1})
    model.bridge = bridge
    denoise = model._denoise

    def with_exact_teacher(net, x_t, t, z=None):
        return exact(bridge, x_t, t, model.x_T) if net is model.teacher else denoise(net, x_t, t, z)

    model._denoise = with_exact_teacher
    generator = torch.Generator().manual_seed(1)
    for iteration in range(1, 4 * updates + 1):
        _, x_T = draw(64, generator)
        model.feed_data({'lq': (x_T + 1) / 2, 'lq_path': ['x.png'] * 64})
        model.update_learning_rate(iteration)
        model.optimize_parameters(iteration)
    return bridge, model


@pytest.mark.parametrize(('name', 'steps', 'scheme'), [
    ('VP', 1, 'bridge'), ('VE', 1, 'bridge'), ('I2SB', 1, 'posterior'),
    ('VP', 4, 'bridge'), ('VE', 4, 'bridge'), ('I2SB', 4, 'posterior'),
])
def test_student_finds_the_posterior(tmp_path, name, steps, scheme):
    bridge, model = distil(tmp_path, name, steps, scheme, updates=400)
    generator = torch.Generator().manual_seed(2)
    for value in (-1.0, -0.25, 0.0, 0.5, 1.0):
        x_T = torch.full((1000, 1, 4, 4), value)
        with torch.no_grad():
            x_0 = few_step_sample(bridge.denoiser(model.net_g_ema), bridge.schedule, x_T, bridge.schedule.student_grid(steps),
                                  noise_channels=1, randn_like=lambda x: torch.randn(x.shape, generator=generator))
        assert x_0.mean().item() == pytest.approx(value / 2, abs=0.03)
        assert x_0.std().item() == pytest.approx(VARIANCE**0.5, abs=0.02)
