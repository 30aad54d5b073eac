"""DDBM's VP and VE schedules and preconditioner, and DBIM's variant of I2SB's, against their definitions and published constants."""
import math

import pytest
import torch

from ibmd_basicsr.bridges import (
    DDBMPrecond,
    I2SBEndpointSchedule,
    I2SBSchedule,
    VESchedule,
    VPSchedule,
    bridge_options,
    build_bridge,
    interpolate,
)

TIMES = torch.tensor([1e-4, 1e-3, 0.05, 0.3, 0.5, 0.9, 0.999, 1.0], dtype=torch.float64)
SCHEDULES = {'VP': VPSchedule(), 'VE': VESchedule(sigma_max=20.0, sigma_min=5e-4), 'VE80': VESchedule()}


def prior(name, t):
    """alpha and sigma of a prior at the native time tau, with Python's floats."""
    if name == 'VP':
        log_alpha = -0.25 * 2.0 * t**2 - 0.5 * 0.1 * t
        return math.exp(log_alpha), math.sqrt(-math.expm1(2 * log_alpha))
    return 1.0, t * {'VE': 20.0, 'VE80': 80.0}[name]


@pytest.mark.parametrize('name', SCHEDULES)
def test_coefficients_equal_the_definition_by_snr(name):
    c = SCHEDULES[name].coefficients(TIMES, ndim=1)
    alpha_T, sigma_T = prior(name, 1.0)
    for i, t in enumerate(TIMES.tolist()):
        alpha, sigma = prior(name, t)
        ratio = (alpha_T / sigma_T)**2 / (alpha / sigma)**2  # SNR_T / SNR_t
        assert c.a_t[i].item() == pytest.approx(alpha / alpha_T * ratio, rel=1e-12)
        assert c.b_t[i].item() == pytest.approx(alpha * (1 - ratio), rel=1e-9, abs=1e-15)
        assert c.c_t[i].item() == pytest.approx(sigma * math.sqrt(max(1 - ratio, 0)), rel=1e-9, abs=1e-8)
    assert (c.a_t[-1], c.b_t[-1], c.c_t[-1]) == (1, 0, 0)


def test_published_forms():
    """DDBM writes VP with lambda(t) = -ln(exp(t^2 + 0.1 t) - 1), VE with a = t^2/T^2; DBIM gives rho_T = 1.41568571."""
    assert VPSchedule().rho_squared(torch.ones(1, dtype=torch.float64)).sqrt().item() == pytest.approx(1.41568571, abs=5e-9)
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)

    def log_snr(t):
        return -(torch.exp(t**2 + 0.1 * t) - 1).log()

    shift = -0.5 * t**2 - 0.05 * t
    r = log_snr(torch.ones_like(t)) - log_snr(t)
    c = VPSchedule().coefficients(t, ndim=1)
    torch.testing.assert_close(c.a_t, torch.exp(r + shift + 0.55), rtol=1e-12, atol=0)
    torch.testing.assert_close(c.b_t, -r.expm1() * shift.exp(), rtol=1e-11, atol=0)
    torch.testing.assert_close(c.c_t.square(), -r.expm1() * torch.exp(2 * shift - log_snr(t)), rtol=1e-11, atol=0)

    tau = 80 * t
    c = VESchedule(sigma_max=80.0).coefficients(t, ndim=1)
    torch.testing.assert_close(c.a_t, tau**2 / 80**2, rtol=1e-13, atol=0)
    torch.testing.assert_close(c.b_t, 1 - tau**2 / 80**2, rtol=1e-12, atol=0)
    torch.testing.assert_close(c.c_t, tau * (1 - tau**2 / 80**2).sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize('name', SCHEDULES)
def test_posterior_and_marginal_agree_exactly(name):
    """Pushing q(x_t | x_0, x_T) through q(x_s | x_t, x_0) gives q(x_s | x_0, x_T)."""
    schedule = SCHEDULES[name]
    s, t = TIMES[:-1], TIMES[1:]
    posterior, at_s, at_t = schedule.posterior(s, t, ndim=1), schedule.coefficients(s, ndim=1), schedule.coefficients(t, ndim=1)
    torch.testing.assert_close(posterior.on_x_t * at_t.a_t, at_s.a_t, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(posterior.on_x_0 + posterior.on_x_t * at_t.b_t, at_s.b_t, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close((posterior.std**2 + (posterior.on_x_t * at_t.c_t)**2).sqrt(), at_s.c_t, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('name', SCHEDULES)
@pytest.mark.parametrize('cov_xy', [0.0, 0.125])
def test_scalings_give_unit_variance(name, cov_xy):
    """DDBM appendix A.5: c_in x_t and the network's target (x_0 - c_skip x_t)/c_out have variance 1, and are orthogonal."""
    schedule, var = SCHEDULES[name], 0.25
    s = DDBMPrecond(schedule, cov_xy=cov_xy).scalings(TIMES, ndim=1)
    c = schedule.coefficients(TIMES, ndim=1)
    var_t = c.a_t**2 * var + c.b_t**2 * var + 2 * c.a_t * c.b_t * cov_xy + c.c_t**2
    cov_0t = c.b_t * var + c.a_t * cov_xy
    torch.testing.assert_close(s.c_in**2 * var_t, torch.ones_like(TIMES), rtol=1e-12, atol=0)
    torch.testing.assert_close(s.c_skip, cov_0t / var_t, rtol=1e-12, atol=1e-15)
    # var - cov^2/var_t, in the form that does not cancel near t = 0
    torch.testing.assert_close(s.c_out**2 * var_t, c.a_t**2 * (var**2 - cov_xy**2) + var * c.c_t**2, rtol=1e-12, atol=0)
    middle = slice(2, 6)
    torch.testing.assert_close((var - cov_0t**2 / var_t)[middle], (s.c_out**2)[middle], rtol=1e-9, atol=0)


def test_scalings_at_both_ends():
    """At t = 1 the network alone makes the image (c_skip 0, c_out 1/2, c_in 2); near 0 the skip does."""
    s = DDBMPrecond(VPSchedule()).scalings(torch.tensor([1.0, 1e-4], dtype=torch.float64), ndim=1)
    assert (s.c_skip[0].item(), s.c_out[0].item(), s.c_in[0].item(), s.c_noise[0].item()) == (0, 0.5, 2, 0)
    assert s.c_skip[1].item() == pytest.approx(1, abs=1e-3) and s.c_out[1].item() < 0.01
    assert s.c_noise[1].item() == pytest.approx(250 * math.log(1e-4))
    assert VESchedule().network_time(torch.ones(1)).item() == pytest.approx(250 * math.log(80))
    assert math.isfinite(VPSchedule().network_time(torch.zeros(1)).item())


def test_float64_is_needed_near_the_end():
    """In float32 the published formula loses up to 1.6e-3 of c_out; ours is exact to 1e-9 against exact rational arithmetic."""
    from fractions import Fraction
    t, T = Fraction(2, 10_000), Fraction(20)  # tau = 0.004 of 20
    a = t**2
    c2 = (t * T)**2 * (1 - a)
    variance = Fraction(1, 4)
    A = variance * (a**2 + (1 - a)**2) + c2
    exact = math.sqrt((a**2 * variance**2 + variance * c2) / A)
    got = DDBMPrecond(SCHEDULES['VE']).scalings(torch.tensor([float(t)], dtype=torch.float64), ndim=1).c_out.item()
    assert got == pytest.approx(exact, rel=1e-12)


def test_dbim_variant_of_i2sb():
    """a + b exceeds 1 by up to 1.75e-3, and the coefficients miss I2SB's own by up to 9.3e-4 (mean) and 2.2e-4 (std)."""
    t = torch.arange(1000, dtype=torch.float64) / 999
    theirs, ours = I2SBEndpointSchedule(beta_max=0.3).coefficients(t, ndim=1), I2SBSchedule(beta_max=0.3).coefficients(t, ndim=1)
    assert 1.0005 < (theirs.a_t + theirs.b_t).max().item() <= 1.00176
    assert (theirs.a_t - ours.a_t).abs().max().item() <= 9.3e-4
    assert (theirs.c_t - ours.c_t).abs().max().item() <= 2.2e-4
    assert theirs.a_t[-1] == 1
    schedule = I2SBEndpointSchedule()
    assert schedule.coefficients(torch.tensor([1e-4, 0.5]), 1).a_t[0].item() == pytest.approx(1e-4 / 0.24692870, rel=1e-6)
    torch.testing.assert_close(schedule.training_times(torch.tensor([0.0, 0.5])), torch.tensor([1e-4, 0.50005], dtype=torch.float64))


@pytest.mark.parametrize('schedule', [VPSchedule(), VESchedule(), I2SBSchedule(), I2SBEndpointSchedule()], ids=lambda s: type(s).__name__)
def test_training_times_stay_below_what_is_asked(schedule):
    """Those of discrete schedules are then drawn from the steps before."""
    u = torch.rand(5000, dtype=torch.float64)
    grid = schedule.student_grid(4)
    assert len(grid) == 5 and grid[0] == 1
    below = grid[torch.arange(5000) % 4]
    t = schedule.training_times(u, below=below)
    assert (t < below).all() and t.min() >= (0 if isinstance(schedule, I2SBSchedule) else schedule.t_min)
    schedule.posterior(t, below, ndim=1)  # raises unless every t is a step before its own limit
    everywhere = schedule.training_times(u)
    assert everywhere.max() > 0.995 and everywhere.min() < 0.005 and everywhere.mean().item() == pytest.approx(0.5, abs=0.02)


def test_student_grids_as_published():
    assert (I2SBSchedule().student_grid(4) * 999).tolist() == pytest.approx([999, 749, 500, 250, 0])
    assert VPSchedule().student_grid(2).tolist() == pytest.approx([1, 0.50005, 1e-4])


def test_ve_drift_is_the_general_form_at_w_1():
    """d = -g^2 ((1 or 1/2) grad_q - grad_h): the published VE form is the same, since grad_q = grad_p + grad_h."""
    schedule, t = VESchedule(sigma_max=2.0), torch.tensor([0.4], dtype=torch.float64)
    x, x_0, x_T = (torch.randn(1, 1, 2, 2, dtype=torch.float64) for _ in range(3))
    c = schedule.coefficients(t)
    grad_q = -(x - c.a_t * x_T - c.b_t * x_0) / c.c_t**2
    grad_h = -(x - x_T) / (4 - 0.8**2)
    for stochastic in (True, False):
        general = -1.6 * ((1.0 if stochastic else 0.5) * grad_q - grad_h)
        torch.testing.assert_close(schedule.drift(x, x_0, x_T, t, guidance=1.0, stochastic=stochastic), general, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('schedule', [VPSchedule(), VESchedule(sigma_max=2.0)], ids=['VP', 'VE'])
def test_ode_drift_moves_the_conditional_mean_along_the_bridge(schedule):
    """For a point mass at x_0 the flow's path from the mean is the bridge's mean: d/dtau (a x_T + b x_0)."""
    x_0, x_T = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64), torch.full((1, 1, 1, 1), -0.8, dtype=torch.float64)

    def mean(t):
        c = schedule.coefficients(torch.tensor([t], dtype=torch.float64))
        return c.a_t * x_T + c.b_t * x_0

    for t in (0.2, 0.5, 0.9):
        slope = (mean(t + 1e-6) - mean(t - 1e-6)) / (2e-6 * schedule.t_max)
        got = schedule.drift(mean(t), x_0, x_T, torch.tensor([t], dtype=torch.float64), guidance=1.0, stochastic=False)
        torch.testing.assert_close(got, slope, rtol=1e-6, atol=1e-9)


def test_build_bridge_sends_options_where_they_belong():
    bridge = build_bridge(type='VP', beta_d=3.0, sigma_data=0.4, conditional=True)
    assert (bridge.schedule.beta_d, bridge.precond.sigma_data, bridge.conditional) == (3.0, 0.4, True)
    assert bridge_options('VE') == ['sigma_max', 'sigma_min', 'sigma_data', 'cov_xy']
    noisy = build_bridge(type='I2SB', hole='noise')
    x_T, mask = torch.zeros(1, 3, 2, 2), torch.tensor([1.0, 0, 0, 0]).reshape(1, 1, 2, 2)
    filled = noisy.fill_hole(x_T, mask, torch.ones_like)
    assert filled[0, :, 0, 0].tolist() == [1, 1, 1] and filled.sum() == 3
    assert torch.equal(bridge.fill_hole(x_T, mask, torch.ones_like), x_T)


def test_bridge_samples_stay_in_float64():
    c = VPSchedule().coefficients(torch.tensor([0.5]))
    assert c.a_t.dtype == torch.float64 and c.a_t.shape == (1, 1, 1, 1)
    assert interpolate(c, torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)).dtype == torch.float32


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: VPSchedule(beta_d=-1), 'beta_min and beta_d'),
    (lambda: VPSchedule(t_min=0), 't_min must lie between 0 and 1.0, got 0'),
    (lambda: VESchedule(sigma_max=0), 'sigma_max must be positive, got 0'),
    (lambda: VESchedule(sigma_min=90), 'sigma_min must lie between 0 and 80.0, got 90'),
    (lambda: build_bridge(type='VP', sigma_data=0), 'sigma_data must be positive'),
    (lambda: build_bridge(type='VP', cov_xy=0.25), 'cov_xy must be smaller'),
    (lambda: build_bridge(type='VQ'), "one of .*'VE'.*, got 'VQ'"),
    (lambda: build_bridge(type='VP', hole='white'), "hole must be one of .*, got 'white'"),
    (lambda: VPSchedule().coefficients(torch.tensor([1.5])), r'\[0, 1\], got 1.5'),
    (lambda: VPSchedule().posterior(torch.tensor([0.5]), torch.tensor([0.5])), 's < t'),
])
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
