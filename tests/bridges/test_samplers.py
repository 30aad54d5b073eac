"""Samplers against an independent float64 recomputation and against Gaussian closed forms."""
import math

import pytest
import torch

from ibmd_basicsr.bridges import (
    Denoiser,
    I2SBPrecond,
    I2SBSchedule,
    ancestral_sample,
    draw_posterior,
    few_step_sample,
    interpolate,
    ode_sample,
    sampling_grid,
    spaced_steps,
    student_walk,
)
from ibmd_basicsr.utils.seeding import PerImageNoise


def shrink(x_t, t, x_T):
    """A nonlinear stand-in for a denoiser."""
    return torch.tanh(0.9 * x_t + 0.05 * t.reshape(-1, 1, 1, 1)) - 0.02 * x_T


@pytest.mark.parametrize('calls', [1, 4, 10, 999])
@pytest.mark.parametrize('clip', [False, True])
def test_ancestral_equals_scalar_recomputation(calls, clip):
    x_T = 2 * torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1
    noise = PerImageNoise.from_seeds([3, 4])
    got = ancestral_sample(shrink, I2SBSchedule(), x_T, sampling_grid(1000, calls), randn_like=noise.randn_like, clip_denoised=clip)

    half = [(0.01 + i * (math.sqrt(0.3 / 1000) - 0.01) / 999)**2 for i in range(500)]
    variance = torch.tensor(half + half[::-1], dtype=torch.float64).cumsum(0).tolist()
    noise, x = PerImageNoise.from_seeds([3, 4]), x_T
    steps = spaced_steps(1000, calls + 1)[::-1]
    for n, p in zip(steps, steps[1:]):
        x0 = shrink(x, torch.full((2,), n / 999, dtype=torch.float64), x_T)
        if clip:
            x0 = x0.clamp(-1, 1)
        delta = variance[n] - variance[p]
        x = (delta * x0 + variance[p] * x) / (delta + variance[p])
        if p > 0:
            x = x + math.sqrt(delta * variance[p] / (delta + variance[p])) * noise.randn_like(x.float()).double()
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, x, rtol=0, atol=1e-12)


def test_last_state_keeps_a_little_of_x():
    """At one call the published program returns mu_x0 x0_hat + mu_xn x with mu_xn = 1e-4 / sigma_999^2 = 7.1e-4."""
    x_T = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    out = ancestral_sample(lambda x, t, c: torch.zeros_like(x), I2SBSchedule(), x_T, sampling_grid(1000, 1),
                           randn_like=torch.zeros_like)
    assert out.item() == pytest.approx(1e-4 / 0.14102725, rel=1e-6)


def test_result_of_an_image_does_not_depend_on_its_batch():
    x_T = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    names = ['a', 'b', 'c']

    def run(keep):
        noise = PerImageNoise.for_images(7, [names[i] for i in keep])
        return ancestral_sample(shrink, I2SBSchedule(), x_T[keep], sampling_grid(1000, 5), randn_like=noise.randn_like)

    together = run([0, 1, 2])
    for i in range(3):
        assert torch.equal(run([i])[0], together[i])
    assert not torch.equal(run([0]), ancestral_sample(shrink, I2SBSchedule(), x_T[:1], sampling_grid(1000, 5),
                                                      randn_like=PerImageNoise.for_images(8, ['a']).randn_like))


def gaussian_denoiser(schedule, m_0, v_0, corr, x_T_std):
    """E[x_0 | x_t, x_T] and E[x_0 | x_t] for jointly Gaussian scalars: x_0 = m_0 + ..., x_T | x_0 linear; exact linear algebra."""
    def conditional(x_t, t, x_T):
        c = schedule.coefficients(t, x_t.ndim)
        mean = m_0 + corr * math.sqrt(v_0) / x_T_std * (x_T - m_0)
        var = v_0 * (1 - corr**2)
        gain = c.b_t * var / (c.b_t**2 * var + c.c_t**2)
        return mean + gain * (x_t - c.a_t * x_T - c.b_t * mean)

    def unconditional(x_t, t, x_T):
        c = schedule.coefficients(t, x_t.ndim)
        cov = corr * math.sqrt(v_0) * x_T_std
        var_t = c.b_t**2 * v_0 + c.a_t**2 * x_T_std**2 + 2 * c.a_t * c.b_t * cov + c.c_t**2
        return m_0 + (c.b_t * v_0 + c.a_t * cov) / var_t * (x_t - (c.a_t + c.b_t) * m_0)

    return conditional, unconditional


@pytest.mark.parametrize('which', ['conditional', 'unconditional'])
def test_gaussian_bridge_reaches_the_true_law(which):
    """With the exact denoiser, ancestral sampling reaches p(x_0 | x_T) (conditional) or the marginal p(x_0) (unconditional)."""
    schedule = I2SBSchedule(beta_max=300.0)  # c_t of the order of the data, so that the walk matters
    m_0, v_0, corr, s_T = 0.3, 1.0, 0.7, 1.4
    conditional, unconditional = gaussian_denoiser(schedule, m_0, v_0, corr, s_T)
    count = 40_000
    g = torch.Generator().manual_seed(0)
    x_T = m_0 + s_T * torch.randn(1, 1, 1, count, generator=g, dtype=torch.float64)
    if which == 'conditional':
        x_T = torch.full_like(x_T, 1.1)

    def sample(calls):
        return ancestral_sample(conditional if which == 'conditional' else unconditional, schedule, x_T,
                                sampling_grid(1000, calls), randn_like=lambda x: torch.randn(x.shape, generator=g))

    mean, std = (m_0 + corr / s_T * 0.8, math.sqrt(v_0 * (1 - corr**2))) if which == 'conditional' else (m_0, math.sqrt(v_0))
    out = sample(999)
    assert out.mean().item() == pytest.approx(mean, abs=0.015)
    assert out.std().item() == pytest.approx(std, abs=0.015)
    assert sample(20).std().item() < std - 0.05  # too few steps lose variance: the test can tell


def test_ode_equals_ancestral_on_an_ode_schedule_and_draws_nothing():
    x_T = torch.rand(1, 3, 4, 4)
    grid = sampling_grid(1000, 7)
    by_schedule = ancestral_sample(shrink, I2SBSchedule(ot_ode=True), x_T, grid, randn_like=None)
    assert torch.equal(by_schedule, ode_sample(shrink, I2SBSchedule(), x_T, grid))


def test_few_steps_end_with_the_network_and_one_step_is_one_call():
    calls = []

    def student(x_t, t, x_T, z):
        calls.append((t[0].item(), z.shape))
        return x_t * 0.5 + z

    noise = PerImageNoise.from_seeds([1, 2])
    x_T = torch.rand(2, 3, 4, 4)
    out = few_step_sample(student, I2SBSchedule(), x_T, sampling_grid(1000, 1), randn_like=noise.randn_like, noise_channels=3)
    z = PerImageNoise.from_seeds([1, 2]).randn_like(x_T)
    torch.testing.assert_close(out, x_T * 0.5 + z, rtol=0, atol=0)
    assert calls == [(1.0, (2, 3, 4, 4))]
    calls.clear()
    few_step_sample(student, I2SBSchedule(), x_T, sampling_grid(1000, 4), randn_like=noise.randn_like, noise_channels=3)
    assert [round(t * 999) for t, _ in calls] == [999, 749, 500, 250]


def test_a_draw_of_the_posterior_keeps_the_marginal():
    """x_s drawn from x_t on the bridge has the mean and the std that the bridge has at s, near enough for inclusive sums."""
    schedule, s, t = I2SBSchedule(), torch.tensor([0.3]), torch.tensor([0.7])
    g = torch.Generator().manual_seed(0)
    x_0, x_T = (torch.full((1, 1, 400, 400), value) for value in (0.4, -0.2))
    eps, z = (torch.randn(x_0.shape, generator=g) for _ in range(2))
    x_t = interpolate(schedule.coefficients(t), x_0, x_T, eps)
    x_s, mean = (draw_posterior(schedule.posterior(s, t), x_0, x_t, noise) for noise in (z, None))
    expected = schedule.coefficients(s)
    assert x_s.dtype == torch.float64
    assert x_s.mean().item() == pytest.approx((expected.a_t * -0.2 + expected.b_t * 0.4).item(), abs=2e-3)
    assert x_s.std().item() == pytest.approx(expected.c_t.item(), rel=0.01)
    assert mean.std() < 0.95 * x_s.std()


def test_a_walk_of_no_calls_stands_at_the_corrupted_image():
    x_T = torch.rand(1, 3, 4, 4)
    x, x_0 = student_walk(None, I2SBSchedule(), x_T, sampling_grid(1000, 2), 0, randn_like=None)
    assert x_0 is None and x.dtype == torch.float64 and torch.equal(x, x_T.double())


def test_denoiser_inverts_the_regression_target():
    """If the raw network returns (x_t - x_0)/sigma_t, the denoiser returns x_0."""
    schedule = I2SBSchedule()
    x_0, x_T, eps = (torch.randn(5, 3, 4, 4, dtype=torch.float64) for _ in range(3))
    t = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
    x_t = interpolate(schedule.coefficients(t), x_0, x_T, eps)
    target = ((x_t - x_0) / schedule.sigma(t)).float()

    def raw(x, timesteps, cond=None, z=None):
        assert cond is None and x.dtype == torch.float32
        torch.testing.assert_close(timesteps, schedule.network_time(t).float())
        return target

    denoiser = Denoiser(net=torch.nn.Module(), precond=I2SBPrecond(schedule))
    denoiser.net.forward = raw
    torch.testing.assert_close(denoiser(x_t, t, x_T), x_0, rtol=0, atol=1e-6)
