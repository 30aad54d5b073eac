"""The I2SB schedule against its published constants and against an independent recomputation."""
import numpy as np
import pytest
import torch

from ibmd_basicsr.bridges import I2SBSchedule, sampling_grid, spaced_steps, uniform_steps


def reference(beta_max, n=1000):
    """The schedule from its definition, in numpy and plain loops."""
    start, stop = np.sqrt(1e-4), np.sqrt(beta_max / n)
    half = [(start + i * (stop - start) / (n - 1))**2 for i in range(n // 2)]
    betas = half + half[::-1]
    fwd = [sum(betas[:i + 1]) for i in range(n)]
    bwd = [sum(betas[i:]) for i in range(n)]
    return np.array(betas), np.array(fwd), np.array(bwd)


@pytest.mark.parametrize(('beta_max', 'total', 'std_fwd', 'max_std', 'last_weight'), [
    (0.3, 0.14102725, (0.01, 0.265544, 0.375536), 0.187892, 0.99929142),
    (1.0, 0.24692870, (0.01, 0.351375, 0.496919), 0.248677, 0.99959519),
])
def test_published_constants(beta_max, total, std_fwd, max_std, last_weight):
    schedule = I2SBSchedule(beta_max=beta_max)
    every = schedule.coefficients(torch.arange(1000, dtype=torch.float64) / 999, ndim=1)
    assert schedule.betas.sum().item() == pytest.approx(total, abs=5e-9)
    assert schedule.variance_fwd.sqrt()[[0, 499, 999]].tolist() == pytest.approx(std_fwd, abs=5e-7)
    assert every.c_t.max().item() == pytest.approx(max_std, abs=5e-7)
    assert every.a_t[999].item() == pytest.approx(last_weight, abs=5e-9)


@pytest.mark.parametrize('beta_max', [0.3, 1.0])
def test_equals_the_definition_to_float64(beta_max):
    schedule = I2SBSchedule(beta_max=beta_max)
    betas, fwd, bwd = reference(beta_max)
    every = schedule.coefficients(torch.arange(1000, dtype=torch.float64) / 999, ndim=1)
    for ours, theirs in ((schedule.betas, betas), (every.a_t, fwd / (fwd + bwd)), (every.b_t, bwd / (fwd + bwd)),
                         (every.c_t, np.sqrt(fwd * bwd / (fwd + bwd)))):
        assert ours.dtype == torch.float64
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-13)


def test_ends_miss_zero_and_one_as_published():
    """Both variance sums are inclusive: the bridge does not start at the clean image, nor end at the corrupted one."""
    c = I2SBSchedule(beta_max=0.3).coefficients(torch.tensor([0.0, 1.0], dtype=torch.float64), ndim=1)
    assert c.a_t.tolist() == pytest.approx([7.0858e-4, 1 - 7.0858e-4], abs=1e-8)
    assert (c.a_t + c.b_t).tolist() == pytest.approx([1, 1], abs=1e-15)
    assert c.c_t.tolist() == pytest.approx([0.01, 0.01], abs=5e-6)


def test_network_time_is_not_the_step():
    times = I2SBSchedule().network_time(torch.tensor([0.0, 1 / 999, 1.0], dtype=torch.float64))
    assert times.tolist() == pytest.approx([0.1, 0.1 + 999.9 / 999, 1000.0], abs=1e-10)


def test_ot_ode_keeps_the_means_and_has_no_noise():
    t = torch.rand(7, dtype=torch.float64)
    sde, ode = I2SBSchedule().coefficients(t), I2SBSchedule(ot_ode=True).coefficients(t)
    assert torch.equal(sde.a_t, ode.a_t) and torch.equal(sde.b_t, ode.b_t)
    assert ode.c_t.abs().max() == 0 and sde.c_t.min() > 0


def test_posterior_and_marginal_agree():
    """Pushing q(x_t | x_0, x_T) through q(x_s | x_t, x_0) gives q(x_s | x_0, x_T), up to what the inclusive ends leave over."""
    schedule = I2SBSchedule()
    n_s, n_t = torch.tensor([100, 400, 700]), torch.tensor([300, 800, 998])
    s, t = schedule.time(n_s), schedule.time(n_t)
    posterior = schedule.posterior(s, t, ndim=1)
    at_s, at_t = schedule.coefficients(s, ndim=1), schedule.coefficients(t, ndim=1)
    assert (posterior.on_x_t * at_t.a_t - at_s.a_t).abs().max() < 1e-3
    assert (posterior.on_x_0 + posterior.on_x_t * at_t.b_t - at_s.b_t).abs().max() < 1e-3
    assert (posterior.std**2 + (posterior.on_x_t * at_t.c_t)**2 - at_s.c_t**2).abs().max() < 1e-4


@pytest.mark.parametrize(('count', 'steps'), [
    (3, [0, 500, 999]), (5, [0, 250, 500, 749, 999]), (11, [0, 100, 200, 300, 400, 500, 599, 699, 799, 899, 999])])
def test_spacing_as_published(count, steps):
    assert spaced_steps(1000, count) == steps


def test_grid_runs_from_one_to_zero():
    grid = sampling_grid(1000, 4) * 999
    assert grid.tolist() == pytest.approx([999, 749, 500, 250, 0])
    assert len(sampling_grid(1000, 999)) == 1000


def test_uniform_law_meets_every_step_equally():
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    n = (uniform_steps(u, n_timestep=1000, last=998) * 999).round().long()
    counts = torch.bincount(n, minlength=1000)
    assert n.min() == 0 and n.max() == 998
    assert counts[:999].min() >= 10 and counts[:999].max() <= 11


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: I2SBSchedule(n_timestep=999), 'n_timestep must be even'),
    (lambda: I2SBSchedule(beta_max=0), 'beta_max must be positive, got 0'),
    (lambda: I2SBSchedule().coefficients(torch.tensor([1.2])), r'\[0, 1\], got 1.2'),
    (lambda: I2SBSchedule().coefficients(torch.tensor(0.2)), r'shape \(B,\)'),
    (lambda: I2SBSchedule().posterior(torch.tensor([0.5]), torch.tensor([0.5])), 's < t'),
    (lambda: sampling_grid(1000, 1000), '1..999 for this bridge, got 1000'),
    (lambda: uniform_steps(torch.rand(2), n_timestep=10, last=10), 'last=10'),
])
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
