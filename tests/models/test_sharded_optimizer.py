"""``train.shard_optimizer``: the weights and the states on disk are those of a run that shares nothing, whoever goes on from them."""
import pytest
import torch
import yaml
from helpers import assert_equal, contents, train
from tiny import GAN, REPOSITORY, options, parsed

from ibmd_basicsr.models.builders import build_quietly
from ibmd_basicsr.models.network_cost import NetworkSize
from ibmd_basicsr.models.option_rules import check_options
from ibmd_basicsr.models.run_cost import gpu_bytes, largest_share
from ibmd_basicsr.utils.errors import OptionError

SHARED = {'train__shard_optimizer': True}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Two processes, 2 + 2 iterations (a discriminator learns, too), saved at both; shared and not."""
    from tiny import make_photos, make_teacher
    root = tmp_path_factory.mktemp('sharded')
    make_photos(root / 'photos')
    make_teacher(root)
    common = dict(model='IBMDModel', **GAN, train__bridge_updates_per_student=1, train__total_iter=4, logger__save_checkpoint_freq=2,
                  processes=2)
    plain, shared = train(root, 'plain', **common), train(root, 'shared', **common, **SHARED)
    return root, plain, shared


@pytest.mark.parametrize('iteration', [2, 4])
def test_weights_and_states_are_those_of_the_unshared_run(runs, iteration):
    """Bit for bit, and in the same form: optimisers (student, bridge network, discriminator), schedulers, positions."""
    _, plain, shared = runs
    assert_equal(contents(plain, iteration), contents(shared, iteration))
    assert len(contents(shared, iteration)['state']['optimizers']) == 3


def go_on(root, source, name, **changes):
    """Resume a copy of the run ``source`` at iteration 2; return the folder."""
    import shutil
    folder = root / 'experiments' / name
    shutil.copytree(source, folder)
    (folder / 'training_states/4.state').unlink()
    common = dict(model='IBMDModel', **GAN, train__bridge_updates_per_student=1, train__total_iter=4, logger__save_checkpoint_freq=2)
    return train(root, name, '--auto_resume', **common, **changes)


def test_unshared_run_goes_on_shared(runs):
    """The reverse follows from the test above: a shared run leaves what an unshared one leaves."""
    root, plain, _ = runs
    assert_equal(contents(plain, 4), contents(go_on(root, plain, 'plain_shared', processes=2, **SHARED), 4))


def test_shared_run_goes_on_in_one_process_and_says_that_nothing_is_shared(runs):
    """One process with the doubled batch: as from the unshared run's state, bit for bit."""
    root, plain, shared = runs
    changes = {'datasets__train__batch_size_per_gpu': 4}
    a = go_on(root, plain, 'plain_one', **changes)
    b = go_on(root, shared, 'shared_one', **changes, **SHARED)
    assert_equal(contents(a, 4), contents(b, 4))
    log = max((root / 'experiments/shared_one').glob('train_*.log'), key=lambda path: path.stat().st_mtime).read_text()
    assert 'train.shard_optimizer: one process keeps the whole state' in log


def test_shares_of_the_published_network():
    """2 x 4 bytes for each of 552.8 million numbers: half of it in two processes; in many, the largest tensor is the least there can be."""
    network = yaml.safe_load((REPOSITORY / 'options/paper/sr4x_ibmd.yml').read_text())['network_g']
    with torch.device('meta'):
        sizes = [p.numel() for p in build_quietly(network).parameters()]
    for processes in (2, 8):
        assert largest_share(sizes, processes) == pytest.approx(sum(sizes) / processes, rel=1e-3)
    assert largest_share(sizes, 64) == max(sizes) == 2048 * 1024 * 9
    assert largest_share(sizes, 1) == sum(sizes)


def test_dry_run_counts_one_share(tmp_path):
    opt = options(tmp_path, 'BridgeModel', **SHARED)
    size = {'net_g': NetworkSize('', 10, 4, 1, tensor_sizes=(4, 3, 2, 1))}
    assert [gpu_bytes(opt, size, processes)['optimiser state'] for processes in (1, 2, 3, 4)] == [80, 40, 32, 32]


def test_value_is_checked(world):
    opt = parsed(options(world, train__shard_optimizer='zero'))
    for phase, block in opt['datasets'].items():
        block |= {'phase': phase, 'scale': 4}
    with pytest.raises(OptionError, match="train.shard_optimizer: must be true or false, got 'zero'"):
        check_options(opt)
