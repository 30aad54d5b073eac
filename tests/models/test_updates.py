"""Who moves in which update, what the updates compute, what is saved, what a bad value says."""
import pytest
import torch
from helpers import batch, build, same, weights

from ibmd_basicsr.bridges import few_step_sample, interpolate, uniform_steps
from ibmd_basicsr.checkpoints.state_dict import load_file
from ibmd_basicsr.utils.errors import NonFiniteError
from ibmd_basicsr.utils.seeding import PerImageNoise


def test_each_update_moves_one_network_and_never_the_teacher(world):
    model = build(world, 'IBMDModel')
    nets = {'student': model.net_g, 'ema': model.net_g_ema, 'bridge': model.net_bridge, 'teacher': model.teacher}
    moved = []
    for iteration in range(1, 7):
        before = {name: weights(net) for name, net in nets.items()}
        model.feed_data(batch(gt=False, seed=iteration))
        model.optimize_parameters(iteration)
        moved.append({name for name, net in nets.items() if not same(before[name], weights(net))})
    assert moved == [{'bridge'}, {'bridge'}, {'student', 'ema'}] * 2
    assert all(not p.requires_grad and p.grad is None for p in model.teacher.parameters())


def test_ema_is_the_stated_average(world):
    model = build(world, 'BridgeModel')
    model.feed_data(batch())
    start = weights(model.net_g_ema)
    model.optimize_parameters(1)
    for name, value in model.net_g.state_dict().items():
        torch.testing.assert_close(model.net_g_ema.state_dict()[name], 0.9 * start[name] + 0.1 * value)


def test_student_and_bridge_start_as_the_teacher(world):
    model = build(world, 'IBMDModel')
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([1000.0])
    expected = model.teacher(x, t)
    torch.testing.assert_close(model.net_bridge(x, t), expected)
    torch.testing.assert_close(model.net_g(x, t, z=torch.randn(1, 3, 8, 8)), expected)
    assert expected.abs().max() > 0


@pytest.mark.parametrize('gradient', ['full', 'x0_only'])
def test_student_gradient_equals_a_plain_recomputation(world, gradient):
    """The gradient of the first student weight, written out once more from the objective |r - x_0|^2 - |f - x_0|^2."""
    model = build(world, 'IBMDModel', train__ibmd_opt={'type': 'InverseBridgeLoss', 'gradient': gradient})
    with torch.no_grad():
        for p in model.net_bridge.parameters():
            p.add_(0.02 * torch.randn_like(p))
    model.feed_data(batch(gt=False))
    model._let_learn(model.net_g)
    loss = model._student_loss(PerImageNoise.for_training(3, 3, batch=2), 3)
    got = torch.autograd.grad(loss, list(model.net_g.parameters()))

    noise = PerImageNoise.for_training(3, 3, batch=2)
    schedule, x_T = model.bridge.schedule, model.x_T
    one = torch.ones(2, dtype=torch.float64)
    x_0 = x_T - schedule.sigma(one).float() * model.net_g(x_T, schedule.network_time(one).float(), z=noise.randn_like(x_T))
    t = uniform_steps(noise.rand(), n_timestep=1000, last=998)
    x_t = interpolate(schedule.coefficients(t), x_0, x_T, noise.randn_like(x_0))
    x_t = x_t if gradient == 'full' else x_t.detach()
    r, f = (x_t - schedule.sigma(t).float() * net(x_t, schedule.network_time(t).float()) for net in (model.teacher, model.net_bridge))
    plain = ((r - x_0)**2 - (f - x_0)**2).mean()
    expected = torch.autograd.grad(plain, list(model.net_g.parameters()))
    torch.testing.assert_close(loss, plain, rtol=1e-4, atol=1e-7)
    assert max(g.abs().max() for g in expected) > 1e-6
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-7)


def estimate(model, net, x_t, t, **extra):
    """The estimate of x_0 by a network of I2SB, written out."""
    schedule = model.bridge.schedule
    return x_t - schedule.sigma(t).float() * net(x_t, schedule.network_time(t).float(), **extra)


def unlike(*nets):
    """Change networks at random, so that no two are alike."""
    with torch.no_grad():
        for net in nets:
            for p in net.parameters():
                p.add_(0.1 * torch.randn_like(p))


def test_student_of_several_steps_equals_a_plain_recomputation(world):
    """The scheme ``posterior``: rollout by the EMA student, x_{t_n} on its bridge, x_t between x_{t_n} and the student's x_0."""
    model = build(world, 'IBMDModel', train__student={'steps': 2, 'scheme': 'posterior'})
    unlike(model.net_bridge, model.net_g_ema)
    model.feed_data(batch(count=4, gt=False))
    loss = model._student_loss(PerImageNoise.for_training(3, 3, batch=4), 3)

    noise, schedule, x_T = PerImageNoise.for_training(3, 3, batch=4), model.bridge.schedule, model.x_T
    first, second = (t.expand(4) for t in schedule.student_grid(2)[:2])

    def between(s, t, x_0, x):
        q = schedule.posterior(s, t)
        return (q.on_x_0 * x_0.double() + q.on_x_t * x.double() + q.std * noise.randn_like(x_T).double()).float()

    x_0 = estimate(model, model.net_g_ema, x_T, first, z=noise.randn_like(x_T))
    x_0 = estimate(model, model.net_g_ema, between(second, first, x_0, x_T), second, z=noise.randn_like(x_T))
    late = (noise.rand() * 2).long() == 1
    assert late.any() and not late.all()
    t_n = torch.where(late, second, first)
    x_n = interpolate(schedule.coefficients(t_n), x_0, x_T, noise.randn_like(x_T))
    x_n = torch.where(late[:, None, None, None], x_n, x_T)
    x_0 = estimate(model, model.net_g, x_n, t_n, z=noise.randn_like(x_T))
    t = (noise.rand() * (t_n * 999).round()).floor() / 999
    x_t = between(t, t_n, x_0, x_n)
    r, f = (estimate(model, net, x_t, t) for net in (model.teacher, model.net_bridge))
    torch.testing.assert_close(loss, ((r - x_0)**2 - (f - x_0)**2).mean(), rtol=1e-4, atol=1e-7)
    assert loss.abs() > 1e-5


def test_losses_with_real_pairs_equal_a_plain_recomputation(world):
    """RealUID: alpha |f - ratio y_student|^2 + (1 - alpha) |f - c y_real|^2, and the student's side of it."""
    alpha, ratio = 0.7, 1.1
    model = build(world, 'IBMDModel', train__real_pairs={'alpha': alpha, 'ratio': ratio})
    unlike(model.net_bridge, model.net_g)
    model.feed_data(batch())
    schedule, x_T, one = model.bridge.schedule, model.x_T, torch.ones(2, dtype=torch.float64)
    losses = [loss(PerImageNoise.for_training(3, 3, batch=2), 3) for loss in (model._bridge_loss, model._student_loss)]

    def sample(x_0):
        t = uniform_steps(noise.rand(), n_timestep=1000, last=998)
        return t, interpolate(schedule.coefficients(t), x_0, x_T, noise.randn_like(x_0))

    def plain(net, t, x_t, x_0, factor, weight):
        y = (x_t - x_0) / schedule.sigma(t)
        return (weight * (estimate(model, net, x_t, t) - (x_t - factor * schedule.sigma(t) * y))**2).mean().float()

    noise = PerImageNoise.for_training(3, 3, batch=2)
    x_0 = estimate(model, model.net_g, x_T, one, z=noise.randn_like(x_T))
    t, x_t = sample(x_0)
    noise.randn_like(x_T)  # the input of a student of several steps, from the real image
    real_t, real_x_t = sample(model.x_0)
    expected = alpha * plain(model.net_bridge, t, x_t, x_0, ratio, schedule.sigma(t)**-2) + (1 - alpha) * plain(
        model.net_bridge, real_t, real_x_t, model.x_0, (1 - alpha * ratio) / (1 - alpha), schedule.sigma(real_t)**-2)
    torch.testing.assert_close(losses[0], expected, rtol=1e-4, atol=1e-7)

    noise = PerImageNoise.for_training(3, 3, batch=2)
    noise.randn_like(x_T)
    t, x_t = sample(x_0)
    r, f = (plain(net, t, x_t, x_0, ratio, 1) for net in (model.teacher, model.net_bridge))
    torch.testing.assert_close(losses[1], alpha * (r - f), rtol=1e-3, atol=1e-6)
    assert losses[1].abs() > 1e-4


@pytest.mark.parametrize('bridge', [{'type': 'I2SB'}, {'type': 'I2SB', 'ot_ode': True}, {'type': 'VP'}], ids=['I2SB', 'OT-ODE', 'VP'])
@pytest.mark.parametrize('hole', [False, True], ids=['whole', 'hole'])
def test_rollout_equals_few_step_sample_bit_for_bit(world, bridge, hole):
    """A student of several steps is trained on what it meets when it restores."""
    model = build(world, 'IBMDModel', bridge=bridge, train__student={'steps': 3})
    model.feed_data(batch(gt=False))
    model.mask = (torch.rand(2, 1, *model.x_T.shape[2:]) > 0.5).float() if hole else None
    with torch.no_grad():
        for p in model.net_g.parameters():
            p.add_(0.02 * torch.randn_like(p))
        states = []
        sampled = few_step_sample(
            model.bridge.denoiser(model.net_g), model.bridge.schedule, model.x_T, model.student_grid, mask=model.mask,
            randn_like=PerImageNoise.for_training(3, 1, batch=2).randn_like, noise_channels=model.net_g.noise_channels,
            on_step=lambda x_0, x: states.append(x))
        x, x_0 = model._rollout(model.net_g, 3, PerImageNoise.for_training(3, 1, batch=2))
    assert torch.equal(x_0, sampled) and torch.equal(x, states[1]) and x.dtype == torch.float64
    assert not torch.equal(states[0], states[1])


def test_no_student_gradient_while_bridge_equals_teacher(world):
    """At the start the two frozen networks are the same, so the objective and its gradient vanish."""
    model = build(world, 'IBMDModel', train__bridge_updates_per_student=1)
    model.feed_data(batch(gt=False))
    model.optimize_parameters(2)  # the student's turn, before any bridge update
    log = model.get_current_log()
    assert abs(log['l_g']) < 1e-8 and log['grad_g'] < 1e-6
    assert log['l_teacher_on_student'] == pytest.approx(log['l_fake_on_student'], rel=1e-5)


def test_logs_name_every_term(world):
    model = build(world, 'IBMDModel')
    for iteration in (1, 2, 3):
        model.feed_data(batch(gt=False))
        model.optimize_parameters(iteration)
    assert set(model.get_current_log()) == {'l_bridge', 'grad_bridge', 'l_g', 'grad_g', 'l_teacher_on_student', 'l_fake_on_student',
                                            'd_teacher', 'd_fake'}


def test_teacher_loss_is_the_published_regression(world):
    """With ``inverse_variance`` the loss is the plain MSE of the raw output against (x_t - x_0)/sigma_t."""
    model = build(world, 'BridgeModel')
    model.feed_data(batch())
    with torch.no_grad():
        for p in model.net_g.parameters():
            p.add_(0.05 * torch.randn_like(p))
        noise = PerImageNoise.for_training(3, 1, batch=2)
        t = uniform_steps(noise.rand(), n_timestep=1000)
        loss = model._bridge_matching(model.net_g, model.x_0, t, noise)
        noise = PerImageNoise.for_training(3, 1, batch=2)
        t = uniform_steps(noise.rand(), n_timestep=1000)
        x_t = interpolate(model.bridge.schedule.coefficients(t), model.x_0, model.x_T, noise.randn_like(model.x_0))
        raw = model.net_g(x_t, model.bridge.schedule.network_time(t).float())
        expected = torch.nn.functional.mse_loss(raw, (x_t - model.x_0) / model.bridge.schedule.sigma(t).float())
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_resumed_run_follows_the_schedule_of_the_option_file(world):
    """A finished cosine is resumed with a second period: the learning rate goes on where the file says, not where the state was made."""
    def cosine(*periods):
        return {'type': 'CosineAnnealingRestartLR', 'periods': list(periods), 'restart_weights': [1] * len(periods), 'eta_min': 0}

    first = build(world, 'BridgeModel', train__scheduler=cosine(2))
    for iteration in (1, 2):
        first.update_learning_rate(iteration)
        first.feed_data(batch())
        first.optimize_parameters(iteration)
    first.save_training_state(0, 2)
    longer = build(world, 'BridgeModel', train__scheduler=cosine(2, 4))
    longer.resume_training(load_file(world / '2.state'))
    rates = []
    for iteration in (3, 4, 5, 6):
        longer.update_learning_rate(iteration)
        rates.append(longer.get_current_learning_rate()[0])
    straight = build(world, 'BridgeModel', train__scheduler=cosine(2, 4))
    expected = []
    for iteration in range(1, 7):
        straight.update_learning_rate(iteration)
        expected.append(straight.get_current_learning_rate()[0])
    assert rates == pytest.approx(expected[-4:]) and max(rates) > 1e-4


@pytest.mark.parametrize(('model', 'iteration'), [('BridgeModel', 1), ('IBMDModel', 1), ('IBMDModel', 3)])
def test_micro_batches_sum_to_the_batch(world, model, iteration):
    """Images one at a time: the same loss and gradient as all at once, in either turn."""
    results = []
    for size in (2, 1):
        torch.manual_seed(1)
        one = build(world, model, train__micro_batch=size)
        with torch.no_grad():
            for p in (one.net_g if model == 'BridgeModel' else one.net_bridge).parameters():
                p.add_(0.02 * torch.randn_like(p))
        one.feed_data(batch(gt=model == 'BridgeModel'))
        one.optimize_parameters(iteration)
        assert len(one.x_T) == 2
        learner = one.net_bridge if (model, iteration) == ('IBMDModel', 1) else one.net_g
        results.append((one.get_current_log(), [p.grad for p in learner.parameters()]))
    (log, grads), (log_micro, grads_micro) = results
    term = 'l_g' if iteration == 3 else 'l_bridge'
    assert log[term] == pytest.approx(log_micro[term], rel=1e-5) and abs(log[term]) > 1e-6
    for a, b in zip(grads, grads_micro, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_the_teacher_is_in_no_file(world):
    model = build(world, 'IBMDModel')
    model.save(0, 3)
    assert sorted(path.name for path in world.glob('*_3.pth')) == ['net_bridge_3.pth', 'net_g_3.pth']
    assert set(load_file(world / 'net_g_3.pth')) == {'params', 'params_ema'}
    assert set(load_file(world / '3.state')) == {'epoch', 'iter', 'optimizers', 'schedulers', 'rng', 'best', 'sha256', 'version'}
    assert len(load_file(world / '3.state')['optimizers']) == 2
    assert not list(world.glob('*.tmp'))


def test_a_non_finite_loss_stops_before_the_step(world):
    model = build(world, 'BridgeModel')
    before = weights(model.net_g)
    data = batch()
    data['gt'][0, 0, 0, 0] = float('nan')
    model.feed_data(data)
    with pytest.raises(NonFiniteError, match='l_bridge is nan .* at iteration 7'):
        model.optimize_parameters(7)
    assert same(before, weights(model.net_g))


def test_gradients_are_clipped(world):
    model = build(world, 'BridgeModel', train__grad_clip=1e-3)
    model.feed_data(batch())
    model.optimize_parameters(1)
    norm = torch.stack([p.grad.norm() for p in model.net_g.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3) and model.get_current_log()['grad_g'] > 2e-3


def test_test_restores_odd_sizes_and_repeats_itself(world):
    model = build(world, 'IBMDModel')
    model.feed_data({'lq': torch.rand(1, 3, 7, 5), 'lq_path': ['a.png']})
    model.test()
    first = model.get_current_visuals()['result']
    assert first.shape == (1, 3, 28, 20) and 0 <= first.min() and first.max() <= 1
    model.test()
    assert torch.equal(first, model.get_current_visuals()['result'])
