"""``train.share_generator_pass``: one pass of the student for the last bridge update of a cycle and the student's own."""
from collections import Counter

import pytest
import torch
from helpers import batch, build, hold_still, same, weights
from tiny import DISCRIMINATOR, GAN, options, parsed

from ibmd_basicsr.models import run_cost
from ibmd_basicsr.models.network_cost import Activations, NetworkSize
from ibmd_basicsr.models.option_rules import find_problems
from ibmd_basicsr.models.run_cost import activations_per_turn, flops_of_run, flops_per_turn
from ibmd_basicsr.models.turns import FORWARD, LEARN, ROLLOUT, THROUGH, Turns, training_passes
from ibmd_basicsr.utils.seeding import PerImageNoise

PAIRS = {'train__real_pairs': {'alpha': 0.9, 'ratio': 1.02}, 'datasets__train__return_gt': True}
BRIDGE_WITH_TIME = {'train__student': {'steps': 3, 'tell_bridge': True}}
CASES = {
    'full': {}, 'x0_only, no EMA': {'train__ibmd_opt': {'type': 'InverseBridgeLoss', 'gradient': 'x0_only'}, 'train__ema_decay': 0},
    'posterior': {'train__student': {'steps': 3}}, 'bridge': {'train__student': {'steps': 3, 'scheme': 'bridge'}},
    'real pairs': PAIRS, 'GAN': GAN | {'train__pixel_opt': {'type': 'L1Loss', 'loss_weight': 0.1}}, 'amp': {'train__amp': 'bf16'},
}
NETWORKS = ('net_g', 'net_g_ema', 'net_bridge', 'net_d')


def contents(model):
    """Return the weights of all networks and the states of all optimisers."""
    nets = {name: weights(getattr(model, name)) for name in NETWORKS if getattr(model, name, None) is not None}
    states = [{(i, key): torch.as_tensor(value).clone() for i, state in enumerate(optimizer.state.values()) for key, value in state.items()}
              for optimizer in model.optimizers]
    return nets, states


def move(model):
    """Part teacher, bridge network and student, so that no loss vanishes."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for net in (model.net_bridge, model.net_g):
            for p in net.parameters():
                p.add_(0.02 * torch.randn(p.shape, generator=generator))


def shared_iteration(world, data, iteration, **changes):
    """Make one shared update."""
    torch.manual_seed(1)
    model = build(world, 'IBMDModel', train__share_generator_pass=True, **changes)
    move(model)
    model.feed_data(data)
    model.optimize_parameters(iteration)
    return model


def two_iterations(world, data, iteration, monkeypatch, **changes):
    """Make a bridge update and then a student update on one batch, as without the option; the noise is that of ``iteration`` in both.

    Before its loss the student's update throws away the draws that the bridge network's loss has made after x_0.
    """
    torch.manual_seed(1)
    model = build(world, 'IBMDModel', **changes)
    move(model)
    cycle = model.turns.length
    for_training, by_scheme = PerImageNoise.for_training, model._student_input
    monkeypatch.setattr(PerImageNoise, 'for_training', lambda seed, _, **where: for_training(seed, iteration, **where))
    monkeypatch.setattr(model, '_student_input', lambda noise, _: by_scheme(noise, iteration))
    model.feed_data(data)
    model.optimize_parameters(cycle - 1)
    loss_on = model._student_loss_on

    def after_the_bridge_networks_draws(drawn, noise):
        with torch.no_grad():
            model._bridge_sample(drawn, noise)
            if model.real_pairs is not None:
                model._bridge_sample(model._real_pass(drawn.t_n, noise), noise)
        return loss_on(drawn, noise)

    monkeypatch.setattr(model, '_student_loss_on', after_the_bridge_networks_draws)
    model.feed_data(data)
    model.optimize_parameters(cycle)
    monkeypatch.undo()
    return model


@pytest.mark.parametrize('name', CASES)
def test_equals_two_iterations_on_one_batch_bit_for_bit(world, monkeypatch, name):
    changes, data = CASES[name], batch(size=8)
    shared = shared_iteration(world, data, 4, **changes)
    expected = two_iterations(world, data, 4, monkeypatch, **changes)
    (nets, states), (expected_nets, expected_states) = contents(shared), contents(expected)
    assert nets.keys() == expected_nets.keys() and len(states) == len(expected_states)
    for name in nets:
        assert same(nets[name], expected_nets[name]), name
    for state, other in zip(states, expected_states):
        assert state.keys() == other.keys() and state and same(state, other)
    assert shared.get_current_log() == expected.get_current_log()
    assert abs(shared.get_current_log()['l_g']) > 1e-6


def test_the_student_sees_the_new_bridge_network(world, monkeypatch):
    """With the old one the student would land elsewhere: the order of the updates is part of what the equality says."""
    data = batch()
    right = shared_iteration(world, data, 2)
    standing = shared_iteration(world, data, 2, train__optim_bridge={'type': 'SGD', 'lr': 1e-30})
    assert not same(weights(right.net_g), weights(standing.net_g))


@pytest.mark.parametrize('changes', [{}, PAIRS, BRIDGE_WITH_TIME | {'network_bridge': None}, GAN], ids=['plain', 'pairs', 'told', 'GAN'])
def test_micro_batches_sum_to_the_batch(world, changes):
    if 'network_bridge' in changes:
        changes = changes | {'network_bridge': options(world)['network_g'] | {'noise_channels': 1}}
    gradients = []
    for size in (3, 1):
        torch.manual_seed(1)
        # steps of nothing: the student's gradient would carry the rounding of Adam's first step of the bridge network
        model = build(world, 'IBMDModel', train__share_generator_pass=True, train__micro_batch=size, train__grad_clip=None,
                      **changes | {'train__optim_bridge': {'type': 'SGD', 'lr': 1e-9}})
        move(model)
        if model.net_d is not None:
            hold_still(model.net_d)
        model.feed_data(batch(count=3))
        model.optimize_parameters(2)
        assert len(model.x_T) == 3
        gradients.append([p.grad for net in (model.net_bridge, model.net_g, *([model.net_d] if model.net_d else [])) for p in
                          net.parameters()])
    assert max(g.abs().max() for g in gradients[0]) > 1e-6
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('updates', [1, 3])
def test_who_moves_and_how_often_the_student_is_called(world, updates):
    model = build(world, 'IBMDModel', train__share_generator_pass=True, train__bridge_updates_per_student=updates)
    calls, moved = [], []
    model.net_g.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    for iteration in range(1, 2 * updates + 1):
        before = {name: weights(net) for name, net in (('student', model.net_g), ('bridge', model.net_bridge))}
        model.feed_data(batch(gt=False, seed=iteration))
        model.optimize_parameters(iteration)
        after = {'student': model.net_g, 'bridge': model.net_bridge}
        moved.append({name for name in before if not same(before[name], weights(after[name]))})
    assert moved == ([{'bridge'}] * (updates - 1) + [{'bridge', 'student'}]) * 2
    assert calls == ([False] * (updates - 1) + [True]) * 2  # K passes a cycle, without the option K + 1
    assert all(not p.requires_grad and p.grad is None for p in model.teacher.parameters())


@pytest.mark.parametrize('changes, cycle', [
    ({}, ['bridge update'] * 5 + ['student update']),
    ({'bridge_updates_per_student': 1}, ['bridge update', 'student update']),
    ({'bridge_updates_per_student': 3, 'share_generator_pass': True}, ['bridge update'] * 2 + ['shared update']),
    ({'bridge_updates_per_student': 1, 'share_generator_pass': True}, ['shared update'])])
def test_turns_of_a_cycle(changes, cycle):
    turns = Turns.from_options({'model_type': 'IBMDModel', 'train': changes})
    assert [turns.of(iteration) for iteration in range(1, 2 * len(cycle) + 1)] == 2 * cycle
    assert turns.length == len(cycle) and turns.per_cycle == Counter(cycle)
    assert turns.bridge_updates == changes.get('bridge_updates_per_student', 5)
    for iterations in range(1, 2 * len(cycle) + 1):
        assert Counter(turns.counts(iterations)) == Counter((2 * cycle)[:iterations])


def test_a_bridge_has_one_turn():
    turns = Turns.from_options({'model_type': 'BridgeModel', 'train': {}})
    assert turns.per_cycle == {'bridge update': 1} and turns.of(7) == 'bridge update' and turns.counts(7) == {'bridge update': 7}


def test_passes_and_flops(world):
    """One forward pass of the student less a cycle, and its rollout; by hand for K = 2."""
    opt = options(world, 'IBMDModel')
    sizes = {name: NetworkSize('', 0, 0, 1) for name in ('net_g', 'net_bridge', 'teacher')}
    opt['train']['total_iter'] = 9
    apart = flops_per_turn(training_passes(opt), sizes)
    assert apart == {'bridge update': 2 * (1 + 3), 'student update': 3 + 2 + 2} and Turns.from_options(opt).length == 3
    assert flops_of_run(opt, sizes, 1) == 3 * 15
    opt['train'] |= {'share_generator_pass': True, 'total_iter': 6}
    together = flops_per_turn(training_passes(opt), sizes)
    assert together == {'bridge update': 1 + 3, 'shared update': 3 + 3 + 2 + 2} and Turns.from_options(opt).length == 2
    assert Turns.from_options(opt).counts(6) == {'bridge update': 3, 'shared update': 3}
    assert flops_of_run(opt, sizes, 1) == 3 * 14
    opt['train']['student'] = {'steps': 4}
    rollouts = [one.count for one in training_passes(opt) if one.kind == ROLLOUT]
    assert rollouts == [4, 4]  # of 8 + 4 without the option


def test_memory(world, monkeypatch):
    """The student's pass is kept for the whole batch, beside the larger of the bridge network's learning and the student's loss."""
    sizes = {LEARN: 100, THROUGH: 70, FORWARD: 0, ROLLOUT: 0}
    monkeypatch.setattr(run_cost, 'measure_activations', lambda block, size, kind, autocast: Activations(
        0, sizes[kind] + bool(block.get('noise_channels')) * (kind == LEARN)))
    opt = options(world, 'IBMDModel', train__share_generator_pass=True)
    opt['network_bridge'] = opt['teacher']['network']
    for gradient, beside in (('full', 2 * 70), ('x0_only', 100)):
        opt['train']['ibmd_opt']['gradient'] = gradient
        kept = activations_per_turn(opt, 16, None)
        assert kept['shared update'] == Activations(0, beside, 101) and kept['bridge update'] == Activations(0, 100)
    kept = kept['shared update']
    assert kept.bytes(at_once=2, batch=6) == 2 * 100 + 6 * 101
    assert kept.most_images(2 * 100 + 6 * 101, batch=6) == 2 == kept.most_images(2 * (100 + 101), batch=None)


@pytest.mark.parametrize('value', ['yes', 1, None])
def test_refuses_what_is_not_a_choice(world, value):
    opt = parsed(options(world, 'IBMDModel', train__share_generator_pass=value))
    assert find_problems(opt) == [f'train.share_generator_pass: must be true or false, got {value!r}.']


def test_is_known_to_the_distillation_alone(world):
    opt = parsed(options(world, 'IBMDModel', train__share_generator_pass=True, network_d=DISCRIMINATOR))
    assert not [line for line in find_problems(opt) if 'share' in line]
    opt = parsed(options(world, 'BridgeModel', train__share_generator_pass=True))
    assert [line for line in find_problems(opt) if "unknown key 'share_generator_pass'" in line]
