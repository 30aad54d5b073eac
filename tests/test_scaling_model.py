"""scripts/scaling_model.py: cases that one can compute by hand, and its command."""
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from tiny import GAN, REPOSITORY, environment, load_script, options, write

from ibmd_basicsr.models.run_cost import flops_of_run, largest_share

model = load_script('scaling_model')
SHARED = {'train__share_generator_pass': True, 'train__micro_batch': 1}
IDEAL = model.Machines(flops=1e9, per_node=4, intra=1e9, inter=1e8, reach=0.5, latency=0, overlap=0)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp('scaling')
    return {name: model.read_run(write(root, options(root, kind, name=name, **changes))) for name, (kind, changes) in {
        'BridgeModel': ('BridgeModel', {}), 'IBMDModel': ('IBMDModel', {}), 'shared': ('IBMDModel', SHARED),
        'alone': ('IBMDModel', SHARED | {'train__bridge_updates_per_student': 1}), 'GAN': ('IBMDModel', GAN)}.items()}


def test_bytes_of_an_all_reduce():
    """Two exchange all they have; a ring of n sends (n - 1) parts of n twice."""
    assert model.all_reduce_bytes(100, 1) == 0 and model.all_reduce_bytes(100, 2) == 100
    assert model.all_reduce_bytes(100, 4) == 150 and model.all_reduce_bytes(100, 10**9) == pytest.approx(200)


def test_links():
    assert IDEAL.bandwidth(4) == 0.5e9 and IDEAL.bandwidth(5) == 0.5e8
    assert IDEAL.all_reduce(0.5e9, 1) == 0 and IDEAL.all_reduce(0.5e9, 2) == 1
    # 3 buckets, up and down a tree of 8 in 3 steps each
    assert replace(IDEAL, per_node=8, intra=1e30, latency=1).all_reduce(3 * model.BUCKET, 8) == pytest.approx(18)


def test_a_single_gpu_waits_for_nobody(runs):
    for run in runs.values():
        for sharded in (False, True):
            one = model.mean(run, IDEAL, 1, 2, 2, sharded=sharded)
            assert one.exposed == one.sent == 0 and one.seconds == one.compute


def test_compute_is_the_dry_runs_count(runs):
    """The same FLOPs as of the whole run: whole cycles of 1, 2 or 3 iterations of 2 images."""
    for run in runs.values():
        iterations = 6
        run.opt['train']['total_iter'] = iterations
        assert iterations * model.mean(run, IDEAL, 1, 2, 2).compute == pytest.approx(flops_of_run(run.opt, run.sizes, 2) / 1e9)


def test_only_the_learners_gradients_travel(runs):
    """Teacher and the network that rests send nothing. Without overlap the whole all-reduce is waited for."""
    run = runs['IBMDModel']
    for turn, name in (('bridge update', 'net_bridge'), ('student update', 'net_g')):
        size = 4 * run.sizes[name].parameters
        one = model.iteration(run, turn, IDEAL, 2, 2, 2)
        assert one.sent == size and one.exposed == pytest.approx(size / 0.5e9)
        shared = model.iteration(run, turn, IDEAL, 2, 2, 2, sharded=True)
        assert shared.sent == 1.5 * size and shared.exposed == pytest.approx(2 * size / 0.5e9)
    assert run.sizes['net_g'].parameters != run.sizes['net_bridge'].parameters  # else the test could not tell


def test_a_shared_update_sends_both_gradients(runs):
    """K - 1 = 1 bridge update, then one in which both networks learn; with K = 1 there are shared updates alone."""
    run = runs['shared']
    assert run.turns == {'bridge update': 1, 'shared update': 1} and runs['alone'].turns == {'shared update': 1}
    bridge, student = (4 * run.sizes[name].parameters for name in ('net_bridge', 'net_g'))
    one = model.iteration(run, 'shared update', IDEAL, 2, 2, 1)
    assert one.sent == bridge + student and one.exposed == pytest.approx((bridge + student) / 0.5e9)


def test_a_shared_pass_hides_what_the_whole_batchs_backward_covers(runs, monkeypatch):
    """The student's one backward is of the batch of 2, the bridge network's last one of a micro-batch of 1."""
    run = runs['shared']
    bridge, student = (run.sizes[name] for name in ('net_bridge', 'net_g'))
    monkeypatch.setattr(model, 'BUCKET', 2)  # a bucket of next to nothing
    # backward passes are half as long as the bridge network's gradients travel
    some = replace(IDEAL, flops=2 * bridge.forward / (4 * bridge.parameters / 2 / 0.5e9), overlap=1)
    waits = [max(0, 4 * size.parameters / 0.5e9 - 2 * images * size.forward / some.flops) for size, images in ((bridge, 1), (student, 2))]
    assert waits[0] > 1e-6
    assert model.iteration(run, 'shared update', some, 2, 2, 1).exposed == pytest.approx(sum(waits), abs=1e-8)


def test_a_discriminator_learns_in_the_students_iterations(runs):
    run = runs['GAN']
    assert list(run.learners('bridge update')) == ['net_bridge'] and list(run.learners('student update')) == ['net_g', 'net_d']


def test_memory_counts_the_whole_batch_of_a_shared_pass(runs):
    run = runs['shared']
    kept = run.activations['shared update']
    assert kept.per_batch_image > 0
    assert model.memory(run, 1, False) == sum(model.gpu_bytes(run.opt, run.sizes, 1).values()) + kept.bytes(at_once=1, batch=2)


def test_overlap_hides_all_but_the_last_bucket(runs, monkeypatch):
    run = runs['BridgeModel']
    size = 4 * run.sizes['net_g'].parameters
    monkeypatch.setattr(model, 'BUCKET', size / 4)
    slow = replace(IDEAL, flops=1.0, overlap=1)  # a backward of years
    assert model.iteration(run, 'bridge update', slow, 2, 2, 2).exposed == pytest.approx(size / 4 / 0.5e9)
    fast = replace(IDEAL, flops=1e30, overlap=1)
    assert model.iteration(run, 'bridge update', fast, 2, 2, 2).exposed == pytest.approx(size / 0.5e9)
    # micro-batches: the last one's backward alone hides something
    some = replace(IDEAL, flops=2 * run.sizes['net_g'].forward / (size / 2 / 0.5e9), overlap=1)
    assert model.iteration(run, 'bridge update', some, 2, 2, 1).exposed == pytest.approx(size / 2 / 0.5e9)


def test_memory_differs_by_the_optimisers_share(runs):
    run = runs['IBMDModel']
    saved = model.memory(run, 2, sharded=False) - model.memory(run, 2, sharded=True)
    whole = [run.sizes[name] for name in ('net_g', 'net_bridge')]
    assert saved == 8 * sum(size.parameters - largest_share(size.tensor_sizes, 2) for size in whole)


def test_command(tmp_path, capsys):
    file = write(tmp_path, options(tmp_path, 'IBMDModel'))
    assert model.main(['-opt', str(file), '--gpus', '1', '2', '3', '--global-batch', '4']) == 0
    lines = [line.split('|')[1:-1] for line in capsys.readouterr().out.splitlines() if re.match(r'\| +\d', line)]
    assert [line[0].strip() for line in lines] == ['1', '2', '3'] and [line[9].strip() for line in lines][::2] == ['100.0%', '-']
    assert model.main(['-opt', str(tmp_path / 'absent.yml')]) == 2
    assert capsys.readouterr().err.startswith('error: ')


@pytest.mark.slow
def test_check_counts_the_bytes_that_were_predicted():
    """Times depend on what else the machine does; bytes do not, but for other users of the loopback."""
    result = subprocess.run([sys.executable, 'scripts/scaling_model.py', '--check', '--repeats', '1'], cwd=REPOSITORY, env=environment(),
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    ratios = [float(line.split('|')[-2]) for line in result.stdout.splitlines() if 'MB on the wire' in line]
    assert len(ratios) == 6 and all(0.95 < ratio < 1.1 for ratio in ratios), result.stdout
