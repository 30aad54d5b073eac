"""DBIM and Heun samplers of conditional bridges: exact Gaussian posteriors, orders of convergence, published call counts, masks."""
import math

import pytest
import torch

from ibmd_basicsr.bridges import (
    I2SBEndpointSchedule,
    I2SBSchedule,
    VESchedule,
    VPSchedule,
    ancestral_sample,
    dbim_grid,
    dbim_sample,
    few_step_sample,
    heun_calls,
    heun_grid,
    heun_sample,
    subset_of_grid,
)

SCHEDULES = {'VP': VPSchedule(), 'VE': VESchedule(sigma_max=2.0, sigma_min=2e-4), 'I2SB': I2SBSchedule(beta_max=300.0),
             'I2SB_DBIM': I2SBEndpointSchedule(beta_max=300.0)}
MEAN, STD = 0.275, 0.35
"""p(x_0 | x_T) = N(x_T/4, STD^2) at x_T = 1.1."""


def exact(schedule):
    """E[x_0 | x_t, x_T] of p(x_0 | x_T) = N(x_T/4, STD^2)."""
    def denoise(x_t, t, x_T):
        c = schedule.coefficients(t, x_t.ndim)
        gain = c.b_t * STD**2 / (c.b_t**2 * STD**2 + c.c_t**2 + 1e-300)
        return x_T / 4 + gain * (x_t - c.a_t * x_T - c.b_t * x_T / 4)
    return denoise


def draws(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator)


def end(count=40_000):
    return torch.full((1, 1, 1, count), 1.1, dtype=torch.float64)


@pytest.mark.parametrize('name', SCHEDULES)
@pytest.mark.parametrize('options', [{'eta': 0.0}, {'eta': 0.5}, {'eta': 1.0}, {'order': 2}, {'order': 3}], ids=str)
def test_dbim_reaches_the_exact_posterior(name, options):
    schedule = SCHEDULES[name]
    out = dbim_sample(exact(schedule), schedule, end(), dbim_grid(schedule, 300), randn_like=draws(), **options)
    assert out.mean().item() == pytest.approx(MEAN, abs=0.01)
    # a stochastic walk needs more steps than a deterministic one: its error falls to half this with three times as many
    assert out.std().item() == pytest.approx(STD, abs=0.015 if options.get('eta') == 1 else 0.01)


@pytest.mark.parametrize('name', ['VP', 'VE'])
@pytest.mark.parametrize('churn', [0.33, 0.8])
def test_heun_reaches_the_exact_posterior(name, churn):
    schedule = SCHEDULES[name]
    out = heun_sample(exact(schedule), schedule, end(), heun_grid(schedule, 449, churn), randn_like=draws(), churn=churn)
    assert out.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert out.std().item() == pytest.approx(STD, abs=0.01)


def reference_end(schedule, start, stop):
    """x at ``stop`` on the exact ODE of the Gaussian bridge from x at ``start``: the standardised x does not change (mean and std of
    x_t | x_T do)."""
    def law(t):
        c = schedule.coefficients(torch.tensor([t], dtype=torch.float64), 1)
        return (c.a_t * 1.1 + c.b_t * MEAN).item(), math.sqrt((c.b_t**2 * STD**2 + c.c_t**2).item())

    (m_0, s_0), (m_1, s_1) = law(start), law(stop)
    return lambda x: m_1 + s_1 / s_0 * (x - m_0)


def walk_error(schedule, order, grid):
    """Largest error at the end of ``grid`` of a walk that starts at its second time, against the exact ODE."""
    states = []

    def keep(_, x):
        states.append(x)

    grid = torch.cat([torch.ones(1, dtype=torch.float64), grid])
    dbim_sample(exact(schedule), schedule, end(8), grid, randn_like=draws(3), order=order, on_step=keep)
    return (states[-1] - reference_end(schedule, grid[1].item(), grid[-1].item())(states[0])).abs().max().item()


@pytest.mark.parametrize('order', [1, 2])
@pytest.mark.parametrize('name', ['VP', 'VE'])
def test_dbim_converges_at_its_order(name, order):
    """On a grid that is uniform in lambda = ln(b/c), where the error of a step is a power of its length."""
    schedule = SCHEDULES[name]
    errors = [walk_error(schedule, order, times_uniform_in_lambda(schedule, 0.9, 0.1, steps)) for steps in (128, 256)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize('name', ['VP', 'VE'])
def test_third_order_steps_are_of_third_order(name):
    """The published scheme begins and ends with a step of first order, which limits the whole to order 2. With those steps made tiny,
    what is left is the third order's own error."""
    schedule, tiny = SCHEDULES[name], 1e-4
    start = torch.tensor([0.9 + tiny, 0.9 + tiny / 2], dtype=torch.float64)
    errors = {}
    for steps in (32, 64):
        inner = times_uniform_in_lambda(schedule, 0.9, 0.1, steps)
        grid = torch.cat([start, inner, inner[-1:] - tiny])
        errors[steps] = {order: walk_error(schedule, order, grid) for order in (2, 3)}
    assert errors[64][3] < errors[64][2] / 3
    assert math.log2(errors[32][3] / errors[64][3]) == pytest.approx(3, abs=0.2)


def times_uniform_in_lambda(schedule, start, stop, steps):
    """Invert ln(b/c), which falls with t, by bisection."""
    def log_ratio(t):
        c = schedule.coefficients(t.reshape(-1), 1)
        return (c.b_t / c.c_t).log()

    ends = log_ratio(torch.tensor([start, stop], dtype=torch.float64))
    wanted = torch.linspace(*ends.tolist(), steps + 1, dtype=torch.float64)
    low, high = torch.full_like(wanted, 1e-9), torch.full_like(wanted, 1 - 1e-9)
    for _ in range(200):
        middle = (low + high) / 2
        later = log_ratio(middle) > wanted
        low, high = torch.where(later, middle, low), torch.where(later, high, middle)
    return (low + high) / 2


def test_dbim_equals_a_scalar_recomputation():
    """Order 1 with eta = 0.6 on VP, once more in plain floats from the formulas of the paper."""
    schedule, eta = VPSchedule(), 0.6
    noise = draws(5)
    got = dbim_sample(lambda x, t, x_T: 0.8 * x + 0.1, schedule, end(1), dbim_grid(schedule, 5), randn_like=noise, eta=eta)

    def rho(t):
        return math.sqrt(math.expm1(t**2 + 0.1 * t))

    def scalars(t):
        alpha, end_alpha, r, r_T = math.exp(-0.5 * t**2 - 0.05 * t), math.exp(-0.55), rho(t), rho(1)
        rest = math.sqrt(r_T**2 - r**2)
        return alpha / end_alpha * r**2 / r_T**2, alpha * rest**2 / r_T**2, alpha * rest * r / r_T, alpha

    noise, x_T = draws(5), 1.1
    times = [0.999 + i * (1e-4 - 0.999) / 4 for i in range(5)]
    a, b, c, _ = scalars(times[0])
    x = a * x_T + b * (0.8 * x_T + 0.1) + c * noise(torch.empty(1, 1, 1, 1)).item()
    for i, (t, s) in enumerate(zip(times, times[1:])):
        (a_t, b_t, c_t, _), (a_s, b_s, c_s, alpha_s) = scalars(t), scalars(s)
        omega = eta * alpha_s * rho(s) * math.sqrt(1 - rho(s)**2 / rho(t)**2)
        kept = math.sqrt(c_s**2 - omega**2) / c_t
        x = (b_s - kept * b_t) * (0.8 * x + 0.1) + (a_s - kept * a_t) * x_T + kept * x
        if i < 3:
            x += omega * noise(torch.empty(1, 1, 1, 1)).item()
    assert got.item() == pytest.approx(x, abs=1e-10)


def test_markovian_dbim_is_the_walk_by_posteriors():
    """eta = 1 is the Markov bridge: the same states as ancestral sampling from the booted state on."""
    schedule = VPSchedule()
    grid = dbim_grid(schedule, 6)
    states = []
    dbim_sample(exact(schedule), schedule, end(16), grid, randn_like=draws(1), eta=1.0, on_step=lambda _, x: states.append(x))
    noise, x = draws(1), states[0]
    noise(x.float())  # the booting noise
    for t, s in zip(grid[1:-2], grid[2:-1]):
        t, s = t.reshape(1), s.reshape(1)
        q = schedule.posterior(s, t)
        x = q.on_x_0 * exact(schedule)(x, t, end(16)) + q.on_x_t * x + q.std * noise(x.float()).double()
    torch.testing.assert_close(states[-2], x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('order', [1, 2, 3])
def test_eta_0_is_deterministic_after_booting(order):
    schedule, count = VPSchedule(), []

    def noise(x):
        count.append(1)
        return torch.ones_like(x)

    first, second = (dbim_sample(exact(schedule), schedule, end(4), dbim_grid(schedule, 20), randn_like=noise, order=order) for _ in '12')
    assert len(count) == 2 and torch.equal(first, second)
    other = dbim_sample(exact(schedule), schedule, end(4), dbim_grid(schedule, 20), randn_like=draws(), order=order)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(('steps', 'calls', 'churn'), [(40, 119, 0.33), (40, 79, 0.0), (1, 2, 0.33), (1, 1, 0.0)])
def test_heun_makes_the_published_number_of_calls(steps, calls, churn):
    schedule, made = VPSchedule(), []
    grid = heun_grid(schedule, calls, churn)
    assert len(grid) == steps + 1 and grid[-1] == 0 and grid[0].item() == pytest.approx(1 - 1e-4)
    heun_sample(exact(schedule), schedule, end(4), grid, randn_like=draws(), churn=churn, on_step=lambda *_: made.append(1))
    assert len(made) == calls == heun_calls(grid, churn)


def test_dbim_makes_as_many_calls_as_asked():
    schedule = VPSchedule()
    for calls in (1, 2, 7):
        grid = dbim_grid(schedule, calls)
        made = []
        assert len(grid) == calls + 1 and grid[0] == 1 and grid[-1].item() == pytest.approx(1e-4)
        dbim_sample(exact(schedule), schedule, end(4), grid, randn_like=draws(), on_step=lambda *_, made=made: made.append(1))
        assert len(made) == calls
    assert dbim_grid(VESchedule(sigma_max=80.0), 3)[1].item() * 80 == pytest.approx(80 - 1e-3)


def test_known_pixels_of_inpainting():
    """DBIM, Heun and students keep them exactly, I2SB's ODE too; its stochastic walk leaves noise of std 0.01, as published."""
    schedule = VPSchedule()
    x_T = torch.rand(2, 3, 8, 8) * 2 - 1
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:6, 2:6] = 1
    known = mask.expand_as(x_T) == 0

    def denoise(x, t, x_T, z=None):
        return 0.5 * x + 0.1

    one = few_step_sample(denoise, schedule, x_T, schedule.student_grid(4), randn_like=draws(), mask=mask)
    assert torch.equal(one[known], x_T[known]) and not torch.equal(one, x_T)
    ode = ancestral_sample(denoise, I2SBSchedule(ot_ode=True), x_T, I2SBSchedule().ancestral_grid(4), randn_like=draws(), mask=mask)
    assert torch.equal(ode[known], x_T[known])
    walk = ancestral_sample(denoise, I2SBSchedule(), x_T, I2SBSchedule().ancestral_grid(4), randn_like=draws(), mask=mask)
    assert (walk - x_T)[known].std().item() == pytest.approx(0.01, rel=0.2)
    states, grid = [], schedule.ancestral_grid(4)
    ancestral_sample(denoise, schedule, x_T, grid, randn_like=torch.zeros_like, mask=mask, on_step=lambda _, x: states.append(x))
    for t, x in zip(grid[1:], states, strict=True):  # the mean of a VP bridge from x_T to itself is less than x_T within
        k = schedule.coefficients(t[None])
        torch.testing.assert_close(x[known], x_T.double()[known] * (k.a_t + k.b_t).item(), rtol=1e-12, atol=0)
    assert (k.a_t + k.b_t).item() == pytest.approx(1) and states[1][known].abs().sum() < 0.99 * x_T[known].abs().sum()
    estimates = []
    for sample, grid in ((dbim_sample, dbim_grid(schedule, 5)), (heun_sample, heun_grid(schedule, 5))):
        sample(denoise, schedule, x_T, grid, randn_like=draws(), mask=mask, on_step=lambda x0, _: estimates.append(x0))
    assert len(estimates) == 10 and all(torch.equal(x0[known], x_T.double()[known]) for x0 in estimates)


def test_students_run_with_fewer_steps_than_they_have():
    grid = I2SBSchedule().student_grid(4)
    for calls, steps in ((4, [999, 749, 500, 250, 0]), (3, [999, 749, 250, 0]), (2, [999, 500, 0]), (1, [999, 0])):
        assert (subset_of_grid(grid, calls) * 999).tolist() == pytest.approx(steps)


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: subset_of_grid(torch.ones(3), 3), r'1..2, the steps that the student was trained with, got 3'),
    (lambda: heun_grid(VPSchedule(), 40), 'must be 3 N - 1 .* got 40; the nearest is 41'),
    (lambda: heun_grid(VPSchedule(), 40, 0), 'must be 2 N - 1 .* got 40; the nearest is 39'),
    (lambda: heun_grid(VPSchedule(), 41, 1.5), r'churn must lie in \[0, 1\), got 1.5'),
    (lambda: heun_grid(I2SBSchedule(), 5), 'needs a bridge of type VP or VE, got I2SBSchedule'),
    (lambda: dbim_grid(I2SBSchedule(), 1000), '1..999 for this bridge, got 1000'),
    (lambda: dbim_grid(VPSchedule(), 0), 'at least 1 for this bridge, got 0'),
    (lambda: dbim_sample(None, VPSchedule(), end(1), dbim_grid(VPSchedule(), 2), randn_like=None, eta=2), r'eta must lie in \[0, 1\]'),
    (lambda: dbim_sample(None, VPSchedule(), end(1), dbim_grid(VPSchedule(), 2), randn_like=None, order=4), 'order must be 1, 2 or 3'),
    (lambda: dbim_sample(None, VPSchedule(), end(1), dbim_grid(VPSchedule(), 2), randn_like=None, order=2, eta=1), 'needs eta 0'),
    (lambda: heun_sample(None, VPSchedule(), end(1), heun_grid(VPSchedule(), 2), randn_like=None, churn=1), r'churn must lie in \[0, 1\)'),
])
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
