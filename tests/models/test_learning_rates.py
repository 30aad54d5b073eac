"""Learning rates: the host's warm-up, and runs that are resumed with other options."""
import copy

import pytest
import torch
from helpers import batch, build

SCHEDULES = {
    'MultiStepLR': ({'milestones': [3, 7], 'gamma': 0.5}, [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]),
    'StepLR': ({'step_size': 4, 'gamma': 0.5}, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]),
}
"""Scheduler -> its options, and the factors of iterations 1 to 9."""


def model_with(world, kind='MultiStepLR', lr=1.0, **optimizer):
    options = SCHEDULES[kind][0] if kind in SCHEDULES else {'periods': [8], 'restart_weights': [1], 'eta_min': 0}
    return build(world, 'BridgeModel', train__scheduler={'type': kind} | copy.deepcopy(options),
                 train__optim_g={'type': 'AdamW', 'lr': lr, 'weight_decay': 0, **optimizer})


@pytest.mark.parametrize('kind', SCHEDULES)
@pytest.mark.parametrize('warmup', [-1, 2, 4, 5])
def test_after_a_warm_up_the_schedule_goes_on_as_without(world, kind, warmup):
    model = model_with(world, kind)
    rates = []
    for iteration in range(1, 10):
        model.update_learning_rate(iteration, warmup_iter=warmup)
        rates.append(model.get_current_learning_rate()[0])
    expected = [iteration / warmup if iteration < warmup else factor for iteration, factor in enumerate(SCHEDULES[kind][1], 1)]
    assert rates == pytest.approx(expected, abs=1e-12)


def trained(model, first, last, warmup=-1):
    """Make iterations; return the learning rates."""
    rates = []
    for iteration in range(first, last + 1):
        model.update_learning_rate(iteration, warmup_iter=warmup)
        model.feed_data(batch(seed=iteration))
        model.optimize_parameters(iteration)
        rates.append(model.get_current_learning_rate()[0])
    return rates


@pytest.mark.parametrize('kind', [*SCHEDULES, 'CosineAnnealingRestartLR'])
@pytest.mark.parametrize('warmup', [-1, 5])
def test_a_resumed_run_takes_the_options_of_its_file(world, kind, warmup):
    """Iterations 1 to 3 with one learning rate, from there on with another: those that the whole run with the other one has."""
    whole = trained(model_with(world, kind, lr=1e-4), 1, 8, warmup)
    before = model_with(world, kind, lr=1e-3)
    trained(before, 1, 3, warmup)
    before.save_training_state(0, 3)
    state = torch.load(world / '3.state', weights_only=True)
    after = model_with(world, kind, lr=1e-4, betas=[0.5, 0.9], weight_decay=0.1)
    after.opt['path']['resume_state'] = str(world / '3.state')
    after.resume_training(copy.deepcopy(state))
    group = after.optimizer_g.param_groups[0]
    assert (group['betas'], group['weight_decay'], group['initial_lr']) == ((0.5, 0.9), 0.1, 1e-4)
    for ours, theirs in zip(after.optimizer_g.state.values(), before.optimizer_g.state.values(), strict=True):
        assert torch.equal(ours['exp_avg'], theirs['exp_avg']) and ours['step'] == theirs['step']
    assert trained(after, 4, 8, warmup) == pytest.approx(whole[3:], rel=1e-9)


def test_a_resumed_run_of_the_same_file_is_unchanged(world):
    before = model_with(world, lr=0.1)
    trained(before, 1, 4, warmup=6)
    before.save_training_state(0, 4)
    after = model_with(world, lr=0.1)
    after.resume_training(torch.load(world / '4.state', weights_only=True))
    assert {key: value for key, value in after.optimizer_g.param_groups[0].items() if key != 'params'} \
        == {key: value for key, value in before.optimizer_g.param_groups[0].items() if key != 'params'}
    assert after.schedulers[0].state_dict() == before.schedulers[0].state_dict()
