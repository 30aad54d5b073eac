"""The whole IBMDModel on Gaussians, where the posterior p(x_0 | x_T) is known: conditional bridges of all schedules, one step and four.

Every pixel of an image is a sample of its own: x_0 ~ N(0, 1/4) (DDBM's sigma_data), x_T = x_0 + N(0, 1/4), so p(x_0 | x_T) = N(x_T/2, 1/8).
Networks are multilayer perceptrons on single pixels. The teacher is the exact conditional mean; student and bridge network start from
a perceptron that was fitted to it.
"""
import functools

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from tiny import options, parsed
from torch import nn

import ibmd_basicsr.models  # noqa: F401  (before basicsr, which needs the shim)

from basicsr.models import build_model  # isort: skip
from ibmd_basicsr.bridges import Bridge, DDBMPrecond, I2SBSchedule, build_bridge, few_step_sample, interpolate

BRIDGES = {'VP': {'type': 'VP'}, 'VE': {'type': 'VE', 'sigma_max': 2.0, 'sigma_min': 2e-4}, 'I2SB': {'type': 'I2SB', 'beta_max': 4.0}}
VARIANCE = 0.125


@ARCH_REGISTRY.register()
class PixelPerceptron(nn.Module):
    """Three layers on the (x, cond, z, time) of each pixel: 1x1 convolutions, written as matrix products, at less than half the time."""

    in_channels = 1

    def __init__(self, noise_channels=0):
        super().__init__()
        self.noise_channels = noise_channels
        self.body = nn.Sequential(nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
        if not noise_channels:  # a dead input in place of z, so that the student can start from the teacher's weights
            with torch.no_grad():
                self.body[0].weight[:, 2].zero_()

    def forward(self, x, timesteps, cond=None, z=None):
        time = (timesteps / 500).reshape(-1, 1, 1, 1).expand_as(x)
        pixels = torch.cat([x, cond, torch.zeros_like(x) if z is None else z, time], dim=1).movedim(1, -1)
        return self.body(pixels).movedim(-1, 1)


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


@functools.cache
def fitted_teacher(name):
    """Fit a perceptron to the exact denoiser of a bridge, once for all tests; return its weights."""
    bridge = make_bridge(name)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
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
    return net.state_dict()


def distil(tmp_path, name, steps, scheme, updates, tell_bridge=False, real_pairs=None):
    """Train and return bridge and model."""
    bridge = make_bridge(name)
    torch.save({'params_ema': fitted_teacher(name)}, tmp_path / 'teacher.pth')
    adam = {'type': 'Adam', 'lr': 2e-3, 'betas': [0.0, 0.999]}
    opt = options(tmp_path, 'IBMDModel', scale=1, bridge=BRIDGES[name] | {'conditional': True},
                  network_g={'type': 'PixelPerceptron', 'noise_channels': 1},
                  teacher={'network': {'type': 'PixelPerceptron'}, 'weights': str(tmp_path / 'teacher.pth'), 'param_key': 'params_ema'},
                  train__optim_g=adam | {'lr': 1e-3}, train__optim_bridge=adam, train__bridge_updates_per_student=3, train__ema_decay=0.98,
                  train__bridge_opt={'type': 'BridgeMatchingLoss', 'time_weight': 'inverse_variance'},
                  train__ibmd_opt={'type': 'InverseBridgeLoss', 'time_weight': 'uniform'},
                  train__scheduler={'type': 'MultiStepLR', 'milestones': [2 * updates], 'gamma': 0.3},
                  train__student={'steps': steps, 'scheme': scheme, 'tell_bridge': tell_bridge}, train__real_pairs=real_pairs)
    opt['network_bridge'] = {'type': 'PixelPerceptron', 'noise_channels': int(tell_bridge)}
    model = build_model(parsed(opt))
    model.bridge = bridge
    denoise = model._denoise

    def with_exact_teacher(net, x_t, t, z=None):
        return exact(bridge, x_t, t, model.x_T) if net is model.teacher else denoise(net, x_t, t, z)

    model._denoise = with_exact_teacher
    generator = torch.Generator().manual_seed(1)
    for iteration in range(1, 4 * updates + 1):
        x_0, x_T = draw(64, generator)
        clean = {'gt': (x_0 + 1) / 2} if real_pairs else {}
        model.feed_data({'lq': (x_T + 1) / 2, 'lq_path': ['x.png'] * 64} | clean)
        model.update_learning_rate(iteration)
        model.optimize_parameters(iteration)
    return bridge, model


def outputs_by_step(bridge, model, steps, value, count=1000):
    """Return mean and std of the student's x_0 at each of its steps, for x_T = value."""
    generator = torch.Generator().manual_seed(2)
    found = []

    def keep(x_0, _):
        found.append((x_0.mean().item(), x_0.std().item()))

    with torch.no_grad():
        few_step_sample(bridge.denoiser(model.net_g_ema), bridge.schedule, torch.full((count, 1, 4, 4), value),
                        bridge.schedule.student_grid(steps), noise_channels=1, on_step=keep,
                        randn_like=lambda x: torch.randn(x.shape, generator=generator))
    return found


@pytest.mark.parametrize('name', ['I2SB', *(pytest.param(name, marks=pytest.mark.slow) for name in ('VP', 'VE'))])
def test_student_of_one_step_finds_the_posterior(tmp_path, name):
    bridge, model = distil(tmp_path, name, 1, 'bridge', updates=400)
    for value in (-1.0, -0.25, 0.0, 0.5, 1.0):
        (mean, std), = outputs_by_step(bridge, model, 1, value)
        assert mean == pytest.approx(value / 2, abs=0.03)
        assert std == pytest.approx(VARIANCE**0.5, abs=0.02)


@pytest.mark.parametrize('ratio', [1.0, pytest.param(1.05, marks=pytest.mark.slow)])
def test_student_finds_the_posterior_with_real_pairs(tmp_path, ratio):
    bridge, model = distil(tmp_path, 'VP', 1, 'bridge', updates=500, real_pairs={'alpha': 0.8, 'ratio': ratio})
    for value in (-1.0, 0.0, 1.0):
        (mean, std), = outputs_by_step(bridge, model, 1, value)
        assert mean == pytest.approx(value / 2, abs=0.03)
        assert std == pytest.approx(VARIANCE**0.5, abs=0.02)


@pytest.mark.parametrize(('name', 'scheme'), [('VP', 'bridge'), pytest.param('VE', 'bridge', marks=pytest.mark.slow),
                                              pytest.param('I2SB', 'posterior', marks=pytest.mark.slow)])
def test_student_of_four_steps_finds_the_posterior_at_each(tmp_path, name, scheme):
    """With the bridge network told which step it sees, every step's output follows the posterior, the last one closest."""
    bridge, model = distil(tmp_path, name, 4, scheme, updates=500 if name == 'VP' else 1600, tell_bridge=True)
    for value in (-1.0, 0.0, 1.0):
        found = outputs_by_step(bridge, model, 4, value)
        for mean, std in found:
            assert mean == pytest.approx(value / 2, abs=0.06)
            assert std == pytest.approx(VARIANCE**0.5, abs=0.07)
        assert found[-1] == (pytest.approx(value / 2, abs=0.05), pytest.approx(VARIANCE**0.5, abs=0.03))


@pytest.mark.slow
def test_published_scheme_fixes_the_mixture_of_the_steps_alone(tmp_path):
    """Why ``tell_bridge`` is there: untold, the bridge network sees all steps at once; their mean is right, the single ones are not."""
    bridge, model = distil(tmp_path, 'VP', 4, 'bridge', updates=1200)
    found = outputs_by_step(bridge, model, 4, 0.0)
    second_moment = sum(mean**2 + std**2 for mean, std in found) / 4
    assert second_moment**0.5 == pytest.approx(VARIANCE**0.5, abs=0.02)
    assert found[0][1] < VARIANCE**0.5 - 0.05 and found[-1][1] > VARIANCE**0.5 + 0.02
