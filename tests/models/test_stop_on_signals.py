"""Ctrl-C, scancel and slurm's warning: a state is saved behind an iteration that all ranks agree on, and the resumed run goes on as if."""
import multiprocessing
import os
import signal
from functools import partial

import pytest
import torch.distributed as dist
from helpers import assert_equal, build, contents, train
from tiny import forked_command, options, write

from ibmd_basicsr.compat.interruption import REPEATED, STOP, StopRequest
from ibmd_basicsr.compat.workers import WorkerInit


@pytest.fixture
def stop():
    """A request that listens; whatever a test does, the signals of pytest are its own again."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background it is ignored
    request = StopRequest()
    with request.armed():
        assert request.due(1) is None
        yield request
    signal.signal(signal.SIGINT, old)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_a_note(stop, number, capfd):
    send(number)
    assert stop.due(2) == number
    assert capfd.readouterr().err == f'{number.name}: saving a state after this iteration; Ctrl-C ends at once.\n'
    for later in (signal.SIGTERM, signal.SIGUSR1):  # slurm repeats itself
        send(later)
    assert stop.due(3) == number


def test_second_ctrl_c_ends_at_once(stop):
    send(signal.SIGINT)
    send(signal.SIGINT)  # the same Ctrl-C, passed on
    stop._since -= REPEATED
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_signals_belong_to_others_before_and_after():
    before = signal.getsignal(signal.SIGTERM)
    request = StopRequest()
    assert request.due(1) is None and signal.getsignal(signal.SIGTERM) is before  # not armed: models outside of a run
    with request.armed():
        assert signal.getsignal(signal.SIGTERM) is before
        request.due(1)
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_was_ignored_stays_so():
    old = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        request = StopRequest()
        with request.armed():
            request.due(1)
            send(signal.SIGUSR1)
            assert request.due(2) is None
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_ranks_agree_on_an_iteration_ahead(monkeypatch):
    """The second rank is signalled, too, and runs an iteration ahead of the first one, as far as queued gradients let it."""
    store = dist.HashStore()
    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    monkeypatch.setattr(dist.distributed_c10d, '_get_default_store', lambda: store)
    one, two = StopRequest(), StopRequest()
    one._armed = two._armed = True
    one._handlers = two._handlers = {signal.SIGTERM: signal.SIG_DFL}
    assert one.due(5) is None and two.due(5) is None
    assert two.due(6) is None
    one.signal = signal.SIGTERM
    assert one.due(6) is None
    two.signal = signal.SIGINT  # too late: the note is written
    assert two.due(7) is None and one.due(7) is None
    assert two.due(8) == one.due(8) == signal.SIGTERM


def signal_at(iteration, number, *, rank=0, workers_at=None):
    """Let the run that follows in this process signal itself at the end of ``iteration``, its loader's processes at ``workers_at``."""
    from ibmd_basicsr.models.saving import SafeSaving
    signal.signal(signal.SIGINT, signal.default_int_handler)
    finish = SafeSaving.finish_iteration

    def finish_iteration(self, current_iter):
        if current_iter == workers_at:
            children = multiprocessing.active_children()
            assert children
            for child in children:
                os.kill(child.pid, number)
        if current_iter == iteration and self.opt['rank'] == rank:
            os.kill(os.getpid(), number)
        finish(self, current_iter)

    SafeSaving.finish_iteration = finish_iteration


def signal_in_validation():
    """Let the run that follows be pressed Ctrl-C on when the first image has been restored."""
    from ibmd_basicsr.models.validation import ShardedValidation
    signal.signal(signal.SIGINT, signal.default_int_handler)
    restore = ShardedValidation._restore

    def _restore(self, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return restore(self, *arguments)

    ShardedValidation._restore = _restore


def interrupted(world, before, code, iteration, processes=1, **changes):
    """Train a run named broken that ``before`` makes stop; check how it ended."""
    result = forked_command('-opt', write(world, options(world, name='broken', **changes)), before=before, processes=processes)
    assert result.returncode == code, result.stdout[-2000:] + result.stderr[-2000:]
    assert f'stopped after iteration {iteration}, its state is saved; --auto_resume continues.' in result.stderr
    assert 'Traceback' not in result.stderr
    states = (world / 'experiments/broken/training_states').glob('*.state')
    assert max(int(path.stem) for path in states) == iteration


def test_stopped_and_resumed_equals_unbroken(world):
    """In the middle of an epoch and between two saves; the loader's processes are signalled two iterations before."""
    common = dict(datasets__train__num_worker_per_gpu=2)
    whole = train(world, 'whole', model='BridgeModel', **common)
    interrupted(world, partial(signal_at, 5, signal.SIGTERM, workers_at=3), 143, 5, **common)
    assert_equal(contents(whole, 8), contents(train(world, 'broken', '--auto_resume', model='BridgeModel', **common), 8))


def test_stop_between_two_images_of_a_validation(world):
    common = dict(val__val_freq=3, train__total_iter=6, logger__save_checkpoint_freq=6)
    whole = train(world, 'whole', model='BridgeModel', **common)
    interrupted(world, signal_in_validation, 130, 3, **common)
    runs = [contents(whole, 6), contents(train(world, 'broken', '--auto_resume', model='BridgeModel', **common), 6)]
    best = [run['state'].pop('best') for run in runs]
    assert best[0] and not best[1]  # the validation that was stopped is left out
    assert_equal(*runs)


def test_one_signalled_rank_stops_both_behind_the_same_iteration(world):
    common = dict(processes=2, train__total_iter=6, logger__save_checkpoint_freq=6)
    whole = train(world, 'whole', model='BridgeModel', **common)
    interrupted(world, partial(signal_at, 2, signal.SIGTERM, rank=1), 143, 4, **common)
    assert_equal(contents(whole, 6), contents(train(world, 'broken', '--auto_resume', model='BridgeModel', **common), 6))


def test_what_is_handed_to_spawned_workers(monkeypatch):
    """They import BasicSR anew, or (forked) have our function in it already: the host's own is called either way."""
    import basicsr.data
    calls = []
    monkeypatch.setattr(basicsr.data, 'worker_init_fn', lambda *values, **named: calls.append((values, named)))
    one = WorkerInit(basicsr.data.worker_init_fn)
    state = one.__getstate__()
    assert set(state) == {'leaving', 'pids', 'indices'}
    for installed in (basicsr.data.worker_init_fn, one):
        monkeypatch.setattr(basicsr.data, 'worker_init_fn', installed)
        other = WorkerInit.__new__(WorkerInit)
        other.__setstate__(state)
        other.host(1, num_workers=2, rank=0, seed=3)
    assert calls == [((1,), {'num_workers': 2, 'rank': 0, 'seed': 3})] * 2


def test_nothing_is_deferred_at_the_end(world):
    """After the last save there is nothing to be saved: signals are Python's own again."""
    model = build(world, 'BridgeModel')
    with STOP.armed():
        model.finish_iteration(1)
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        model.save(-1, -1)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
