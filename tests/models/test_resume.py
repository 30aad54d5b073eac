"""Unbroken, broken and shared runs give the same numbers, through BasicSR's own pipeline and our command line."""
import cv2
import pytest
from helpers import MODELS, assert_equal, contents, train
from tiny import GAN, forked_command, options, write

WITH_GAN = [*((model, {}) for model in MODELS), pytest.param('IBMDModel', GAN, id='IBMDModel-GAN')]
SHARED = pytest.param('IBMDModel', {'train__share_generator_pass': True, 'train__micro_batch': 1}, id='IBMDModel-shared')


@pytest.mark.parametrize(('model', 'changes'), WITH_GAN)
@pytest.mark.parametrize('workers', [0, 1])
def test_resumed_run_equals_the_unbroken_one_bit_for_bit(world, tmp_path_factory, model, changes, workers):
    """9 iterations = 6, stop, resume 3; in the middle of an epoch (of 5 batches), from another working directory."""
    common = dict(model=model, datasets__train__num_worker_per_gpu=workers, logger__save_checkpoint_freq=3, train__total_iter=9, **changes)
    whole = train(world, 'whole', **common)
    train(world, 'broken', **common | {'train__total_iter': 6})
    for name in ('net_g', 'net_bridge', 'net_d'):  # what lies behind iteration 6 must not be used
        (world / 'experiments/broken/models' / f'{name}_latest.pth').unlink(missing_ok=True)
    resumed = train(world, 'broken', '--auto_resume', **common, cwd=tmp_path_factory.mktemp('elsewhere'))
    assert_equal(contents(whole, 9), contents(resumed, 9))
    assert ('net_d_9' in contents(whole, 9)) == bool(changes)
    with pytest.raises(AssertionError):  # the comparison can tell two iterations apart
        assert_equal(contents(whole, 9)['state'], contents(whole, 6)['state'])


@pytest.mark.parametrize('workers', [0, 1])
def test_crops_of_the_hosts_pairs_are_those_of_the_unbroken_run(world, workers):
    """BasicSR's PairedImageDataset draws crops and flips from the global generators of whatever process loads, which no state holds."""
    for name in ('gt', 'lq'):
        (world / name).mkdir()
    for path in (world / 'photos').iterdir():
        photo = cv2.imread(str(path))
        cv2.imwrite(str(world / 'gt' / path.name), photo)
        cv2.imwrite(str(world / 'lq' / path.name), cv2.resize(photo, None, fx=0.25, fy=0.25))
    pairs = {'name': 'pairs', 'type': 'PairedImageDataset', 'dataroot_gt': str(world / 'gt'), 'dataroot_lq': str(world / 'lq'),
             'filename_tmpl': '{}', 'io_backend': {'type': 'disk'}, 'gt_size': 16, 'use_hflip': True, 'use_rot': True,
             'num_worker_per_gpu': workers, 'batch_size_per_gpu': 2, 'dataset_enlarge_ratio': 3, 'prefetch_mode': None}
    common = {'model': 'BridgeModel', 'logger__save_checkpoint_freq': 3, 'train__total_iter': 6, 'datasets__train': pairs}
    whole = train(world, 'whole', **common)
    train(world, 'broken', **common | {'train__total_iter': 3})
    assert_equal(contents(whole, 6), contents(train(world, 'broken', '--auto_resume', **common), 6))


def test_resume_passes_over_a_truncated_state(world):
    common = dict(model='BridgeModel', logger__save_checkpoint_freq=2)
    whole = train(world, 'whole', **common)
    train(world, 'broken', **common, train__total_iter=6)
    newest = world / 'experiments/broken/training_states/6.state'
    newest.write_bytes(newest.read_bytes()[:1000])
    assert_equal(contents(whole, 8), contents(train(world, 'broken', '--auto_resume', **common), 8))


@pytest.mark.parametrize(('model', 'changes'), [*WITH_GAN, SHARED])
def test_two_processes_equal_one_with_the_doubled_batch(world, model, changes):
    """Gloo data parallelism: same draws, same noise, averaged gradients; and a resumed two-process run equals the unbroken one.

    9 draws an epoch and 4 a batch: the filled-up last batch takes part. Adam's first steps divide gradients by their own size, rounding
    errors of zero gradients included; eps=1e-5 keeps those small.
    """
    optimizer = {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0, 'eps': 1e-5}
    common = dict(model=model, train__optim_g=optimizer, train__total_iter=6) | changes | (
        {'train__optim_bridge': optimizer} if model == 'IBMDModel' else {})
    if 'network_d' in changes:
        common['train__optim_d'] = optimizer
    one = train(world, 'one', **common, datasets__train__batch_size_per_gpu=4, logger__save_checkpoint_freq=6)
    common |= dict(datasets__train__batch_size_per_gpu=2, processes=2, logger__save_checkpoint_freq=3)
    two = train(world, 'two', **common)
    first, second = contents(one, 6), contents(two, 6)
    for label in (key for key in first if key != 'state'):
        assert_equal(first[label], second[label], tolerance=1e-5)
    train(world, 'two_broken', **common | {'train__total_iter': 3})
    assert_equal(second, contents(train(world, 'two_broken', '--auto_resume', **common), 6))


def test_distillation_reads_no_clean_image(world):
    """The student trains from a folder of corrupted photographs while no clean one exists."""
    import shutil

    import cv2
    shutil.move(world / 'photos', world / 'lq')
    for path in (world / 'lq').iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA))
    opt = options(world, 'IBMDModel', name='lq_only', train__total_iter=3)
    for block in opt['datasets'].values():
        del block['degradation'], block['dataroot_gt']
        block.pop('return_gt', None)
        block['dataroot_lq'] = str(world / 'lq')
    opt['datasets']['train']['gt_size'] = 32
    del opt['val'], opt['datasets']['val']
    result = forked_command('-opt', write(world, opt))
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert (world / 'experiments/lq_only/models/net_g_latest.pth').is_file()
