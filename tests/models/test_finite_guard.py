"""No loss that is not finite reaches parameters or files, and on a GPU nothing waits for the answer."""
import copy
from contextlib import nullcontext

import pytest
import torch
from helpers import batch, build, same, weights
from tiny import GAN
from torch.utils._python_dispatch import TorchDispatchMode

from ibmd_basicsr.bridges import SCHEDULES, build_bridge
from ibmd_basicsr.models.finite_guard import FiniteGuard, skips_by_itself
from ibmd_basicsr.utils.errors import NonFiniteError

fused_on_cpus = pytest.mark.skipif(torch.__version__ < '2.4', reason='torch fuses on CPUs from 2.4 on')
NAN, INF, ONE = torch.tensor(float('nan')), torch.tensor(float('inf')), torch.tensor(1.0)


def spoiled(seed=0):
    data = batch(seed=seed)
    data['lq'][0, 0, 0, 0] = float('nan')
    return data


def deferring(root, model, **changes):
    one = build(root, model, **changes)
    one.guard.deferred = True
    return one


def parameters(net):
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def optimizer_on(parameter, kind=torch.optim.AdamW, **options):
    parameter.grad = torch.ones_like(parameter)
    return kind([parameter], lr=0.1, **options)


@fused_on_cpus
@pytest.mark.parametrize('kind', [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize('loss, norm', [(NAN, ONE), (ONE, INF), (-INF, NAN)])
def test_a_deferred_step_is_skipped_by_the_device_and_told_before_the_next(kind, loss, norm):
    p = torch.nn.Parameter(torch.ones(3))
    optimizer, guard = optimizer_on(p, kind, fused=True), FiniteGuard(deferred=True)
    guard.step(optimizer, 'l_g', 1, ONE, ONE)
    before, state = p.detach().clone(), copy.deepcopy(optimizer.state_dict())
    p.grad = torch.full_like(p, float('nan'))
    guard.step(optimizer, 'l_g', 2, loss, norm)  # says nothing yet
    assert torch.equal(p, before) and not hasattr(optimizer, 'found_inf')
    assert same(state['state'][0], optimizer.state_dict()['state'][0])
    p.grad = torch.ones_like(p)
    for _ in range(2):
        with pytest.raises(NonFiniteError, match=f'l_g is {loss.item():.6g} with gradient norm {norm.item():.6g} at iteration 2: '):
            guard.step(optimizer, 'l_bridge', 3, ONE, ONE)
    assert torch.equal(p, before)


@fused_on_cpus
def test_deferred_steps_are_the_immediate_ones():
    results = []
    for deferred in (False, True):
        p = torch.nn.Parameter(torch.ones(3))
        optimizer, guard = optimizer_on(p, fused=True), FiniteGuard(deferred)
        for iteration in range(1, 4):
            guard.step(optimizer, 'l_g', iteration, ONE, ONE)
        guard.check()
        results.append(p.detach())
    assert torch.equal(*results) and not torch.equal(results[0], torch.ones(3))


@pytest.mark.parametrize('kind, options', [(torch.optim.AdamW, {}), (torch.optim.AdamW, {'foreach': True}), (torch.optim.RAdam, {}),
                                           (torch.optim.SGD, {'fused': True, 'momentum': 0.9})])
def test_what_does_not_skip_by_itself_is_checked_at_once(kind, options):
    if options.get('fused') and torch.__version__ < '2.4':
        options = {'momentum': 0.9}
    p = torch.nn.Parameter(torch.ones(3))
    optimizer, guard = optimizer_on(p, kind, **options), FiniteGuard(deferred=True)
    assert not skips_by_itself(optimizer)
    with pytest.raises(NonFiniteError, match='l_g is nan .* at iteration 1'):
        guard.step(optimizer, 'l_g', 1, NAN, ONE)
    assert torch.equal(p, torch.ones(3)) and not optimizer.state


@fused_on_cpus
@pytest.mark.parametrize('iteration', [1, 3])
def test_nothing_is_logged_or_saved_after_a_skipped_step(world, iteration):
    """In the student's turn the EMA network may move towards parameters that stand still; it is not written."""
    model = deferring(world, 'IBMDModel', **GAN)
    before = {name: parameters(getattr(model, name)) for name in ('net_g', 'net_bridge', 'net_d')}
    model.feed_data(spoiled())
    if iteration == 3:  # the discriminator's step, the second of this turn, asks for the student's
        with pytest.raises(NonFiniteError, match='l_g is nan .* at iteration 3'):
            model.optimize_parameters(3)
    else:
        model.optimize_parameters(1)
    assert all(same(before[name], parameters(getattr(model, name))) for name in before)
    for use in (model.get_current_log, lambda: model.save(0, iteration), lambda: model.save_training_state(0, iteration),
                lambda: model.save(-1, -1)):
        with pytest.raises(NonFiniteError, match=f'at iteration {iteration}: training stopped before this step'):
            use()
    assert not list(world.glob('*.state')) and [path.name for path in world.glob('*.pth')] == ['teacher.pth']
    model.feed_data(batch())
    with pytest.raises(NonFiniteError):
        model.optimize_parameters(iteration + 3)
    assert all(same(before[name], parameters(getattr(model, name))) for name in before)


@fused_on_cpus
@pytest.mark.parametrize('changes', [{}, {'train__share_generator_pass': True}], ids=['apart', 'shared'])
def test_a_deferred_run_is_the_immediate_run(world, changes):
    results = []
    for make in (build, deferring):
        torch.manual_seed(0)
        model = make(world, 'IBMDModel', **changes)
        for iteration in range(1, 7):
            model.feed_data(batch(gt=False, seed=iteration))
            model.optimize_parameters(iteration)
        results.append((weights(model.net_g_ema), weights(model.net_bridge), model.get_current_log()))
    (ema, bridge, log), (ema_deferred, bridge_deferred, log_deferred) = results
    assert same(ema, ema_deferred) and same(bridge, bridge_deferred) and log == log_deferred


class NoWaiting(TorchDispatchMode):
    """Refuses to move a tensor between devices, as a table is that is copied in every call.

    To read a number, which waits on a GPU, fails by itself on a device without data (``meta``).
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[-1] if func is torch.ops.aten.copy_.default else args[0]
            assert source.device == out.device, f'moves {tuple(source.shape)} from {source.device} to {out.device}'
        return out


class Shapes:
    """Stands in for :class:`PerImageNoise` on a device without data."""

    def __init__(self, count):
        self.count = count

    def part(self, images):
        return Shapes(len(range(self.count)[images]))

    def randn_like(self, x):
        return torch.empty_like(x)

    def rand(self, device):
        return torch.empty(self.count, dtype=torch.float64, device=device)


ITERATIONS = {
    'teacher': ('BridgeModel', {}),
    'plain': ('IBMDModel', {'train__ibmd_opt': {'type': 'InverseBridgeLoss', 'time_weight': 'inverse_variance'}}),
    'shared': ('IBMDModel', {'train__share_generator_pass': True, 'train__micro_batch': 1}),
    'posterior': ('IBMDModel', {'train__student': {'steps': 3}, 'train__real_pairs': {'alpha': 0.9}}),
    'bridge': ('IBMDModel', {'train__student': {'steps': 3, 'scheme': 'bridge'}}),
    'GAN': ('IBMDModel', GAN),
    'VP': ('IBMDModel', {'bridge': {'type': 'VP'}, 'train__student': {'steps': 2}}),
}


@pytest.mark.parametrize('name', [pytest.param(name, marks=pytest.mark.slow if name in ('posterior', 'VP') else ())
                                  for name in ITERATIONS])
def test_an_iteration_reads_no_number_and_moves_no_tensor(world, name, monkeypatch):
    """Networks, losses and gradients on a device without data; the second of two iterations of each turn. Steps are tested above."""
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())  # which knows no such device
    kind, changes = ITERATIONS[name]
    model = build(world, kind, **changes)
    model.device = torch.device('meta')
    for net in ('net_g', 'net_g_ema', 'net_bridge', 'net_d', 'teacher'):
        if getattr(model, net, None) is not None:
            getattr(model, net).to('meta')
    if kind == 'IBMDModel':
        model.student_grid = model.student_grid.to('meta')
    model._training_noise = lambda _: Shapes(2)
    model.guard.step = lambda *_: None
    data = {key: value.to('meta') if isinstance(value, torch.Tensor) else value for key, value in batch().items()}
    for mode in (nullcontext(), NoWaiting()):
        with mode:
            for iteration in (1, 2, 3):
                model.feed_data(data)
                model.optimize_parameters(iteration)


def test_the_watch_sees_what_waits():
    with pytest.raises((RuntimeError, NotImplementedError), match='meta'), NoWaiting():
        bool(torch.ones((), device='meta') > 0)
    with pytest.raises(AssertionError, match='moves'), NoWaiting():
        torch.ones(3).to('meta')


@pytest.mark.parametrize('name', SCHEDULES)
def test_times_on_the_cpu_are_still_checked(name):
    schedule = build_bridge(type=name).schedule
    with pytest.raises(ValueError, match='Times must lie in'):
        schedule.coefficients(torch.tensor([1.5], dtype=torch.float64))
    with pytest.raises(ValueError, match='The posterior needs'):
        schedule.posterior(torch.tensor([0.5]), torch.tensor([0.25]))
