"""`--dry-run`: its figures against published ones, hand arithmetic and real runs; it needs and leaves nothing."""
import re
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from tiny import DISCRIMINATOR, GAN, NETWORK, REPOSITORY, forked_command, options, parsed, write
from torch.utils.flop_counter import FlopCounterMode

from ibmd_basicsr.cli import pipelines
from ibmd_basicsr.models.builders import build_quietly
from ibmd_basicsr.models.network_cost import CPU_ATTENTION, NetworkSize, kept_bytes, measure_activations, measure_network
from ibmd_basicsr.models.option_rules import find_problems
from ibmd_basicsr.models.run_cost import flops_of_run, flops_per_turn, gpu_bytes, network_blocks
from ibmd_basicsr.models.turns import FORWARD, FORWARDS, LEARN, ROLLOUT, THROUGH, training_passes

STUDENT = NETWORK | {'noise_channels': 3}
ADM_256 = {'type': 'ADMUNet'}  # its defaults are the published sizes


@pytest.fixture
def dry_run(monkeypatch, capsys, tmp_path):
    """Dry-run options in this process; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def dry_run(opt, *arguments):
        monkeypatch.setattr(sys, 'argv', ['train', '-opt', str(write(tmp_path, opt)), '--dry-run', *arguments])
        code = pipelines.main(is_train=True)
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return dry_run


def row(text: str, *starts: str) -> list[str]:
    """Return the cells of the first line of a table that begins with the cells ``starts``."""
    lines = [re.split(r'\s{2,}', line.strip()) for line in text.splitlines()]
    return next(cells[len(starts):] for cells in lines if cells[:len(starts)] == list(starts))


def resolved(text: str) -> dict:
    return yaml.safe_load(text.partition('resolved options')[2].partition('\n')[2])


def test_paper_scale_without_gpus_data_or_weights(tmp_path):
    file = tmp_path / 'options' / 'sr4x_ibmd.yml'
    file.parent.mkdir()
    shutil.copy(REPOSITORY / 'options' / 'paper' / 'sr4x_ibmd.yml', file)
    result = forked_command('-opt', file, '--dry-run', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    out = result.stdout
    assert row(out, 'net_g', 'ADMUNet')[:2] == row(out, 'net_g_ema', 'ADMUNet')[:2] == ['552,814,083', '566']
    assert row(out, 'net_bridge', 'ADMUNet') == row(out, 'teacher', 'ADMUNet') == ['552,807,171', '566', '2.06 GiB', '2,239']
    assert row(out, 'bridge update', 'net_g', 'forward')[:2] == ['5', '0.8333']
    assert row(out, 'bridge update', 'net_bridge', 'forward, backward')[0] == '5'
    assert row(out, 'student update', 'net_g', 'forward, backward')[0] == '1'
    assert row(out, 'student update', 'teacher', 'forward, backward to the input')[0] == '1'
    assert '256 an iteration, 4,608,000 in all' in out and '15,000 bridge updates + 3,000 student updates' in out
    # 27 forward passes a cycle of 6 iterations, by hand
    assert float(row(out, 'mean')[0]) == pytest.approx(27 / 6 * 2.239, rel=1e-3)
    hours = 27 / 6 * 2.239e12 * 4_608_000 / (0.4 * 156e12) / 3600
    assert float(row(out, 'A100, TF32')[1]) == pytest.approx(hours, rel=1e-3)
    assert '  teacher.weights: weights/sr4x_i2sb_teacher.pth' in out and '  datasets.train.dataroot_gt: ' in out
    assert [path.name for path in tmp_path.rglob('*')] == ['options', 'sr4x_ibmd.yml']


def test_flops_of_the_published_network():
    size = measure_network(ADM_256, 256)
    assert size == NetworkSize('ADMUNet', 552_807_171, 566, size.forward)
    assert size.forward == pytest.approx(2239e9, rel=0.01)


@pytest.mark.parametrize('kind', [LEARN, THROUGH])
def test_cost_of_a_backward(kind):
    with torch.device('meta'):
        net = build_quietly(ADM_256).requires_grad_(kind == LEARN)
        x, t = torch.zeros(1, 3, 64, 64, requires_grad=kind == THROUGH), torch.zeros(1)
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        net(x, t).sum().backward()
    assert counter.get_total_flops() == pytest.approx(FORWARDS[kind] * measure_network(ADM_256, 64).forward, rel=0.02)


@pytest.mark.parametrize('order, levels', [('legacy', []), ('new', []), ('legacy', [1]), ('legacy', [1, 2])])
@pytest.mark.parametrize('autocast', [None, torch.bfloat16])
@pytest.mark.parametrize('kind', [LEARN, THROUGH])
def test_activations_are_those_of_a_real_run(kind, autocast, order, levels):
    network = STUDENT | {'attention_order': order, 'checkpoint_levels': levels}
    estimate = measure_activations(network, 16, kind, autocast)
    for images in (2, 5):
        real = kept_bytes(build_quietly(network), 16, images, kind, autocast)
        assert real > 0 and estimate.fixed + images * estimate.per_image == real
    assert (estimate.fixed == 0) == (autocast is None)
    if levels:
        assert estimate.per_image < 0.8 * measure_activations(network | {'checkpoint_levels': []}, 16, kind, autocast).per_image


@pytest.mark.parametrize('kind', [LEARN, THROUGH])
@pytest.mark.parametrize('levels', [[1], [2], [1, 2]])
def test_what_a_backward_computes_again_is_counted(kind, levels):
    """The FLOPs that checkpoints add to a pass, by torch's counter; attention is not among them."""
    counts = []
    for checkpoint_levels in ([], levels):
        network = NETWORK | {'checkpoint_levels': checkpoint_levels}
        net = build_quietly(network).requires_grad_(kind == LEARN)
        x = torch.zeros(1, 3, 16, 16, requires_grad=True)
        with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
            net(x, torch.zeros(1)).sum().backward()
        counts.append(counter.get_total_flops())
    size = measure_network(network, 16)
    assert 0 < size.recomputed == counts[1] - counts[0]
    assert size.flops(kind) == FORWARDS[kind] * size.forward + size.recomputed
    assert size.flops(FORWARD) == size.forward


def test_a_dry_run_of_checkpoints(tmp_path, dry_run):
    plain = dry_run(options(tmp_path)).out
    saving = dry_run(options(tmp_path, network_g=NETWORK | {'checkpoint_levels': [1]}, train__compile=True, train__tf32=True)).out
    assert 'computes again' in saving and 'computes again' not in plain
    assert float(row(saving, 'mean')[0]) > float(row(plain, 'mean')[0])
    first, second = (resolved(text) for text in (plain, saving))
    assert first['network_g']['checkpoint_levels'] == [] and second['network_g']['checkpoint_levels'] == [1]
    assert [first['train'][key] for key in ('amp', 'compile', 'tf32', 'channels_last')] == [False, False, None, False]
    assert second['train']['compile'] is True and second['train']['tf32'] is True


def test_passes_of_the_tiny_student(tmp_path, dry_run):
    opt = options(tmp_path, 'IBMDModel')
    forward = {}
    for name, block in (('net_g', STUDENT), ('net_bridge', NETWORK)):
        with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter, torch.no_grad():
            z = torch.zeros(1, 3, 16, 16) if name == 'net_g' else None
            build_quietly(block)(torch.zeros(1, 3, 16, 16), torch.zeros(1), z=z)
        forward[name] = counter.get_total_flops()
    student, bridge = forward['net_g'], forward['net_bridge']
    blocks = network_blocks(opt | {'network_bridge': NETWORK})
    sizes = {name: measure_network(block, 16) for name, block in blocks.items()}
    for gradient, frozen in (('full', 2), ('x0_only', 1)):
        opt['train']['ibmd_opt']['gradient'] = gradient
        turns = flops_per_turn(training_passes(opt), sizes)
        assert turns == {'bridge update': 2 * (student + 3 * bridge), 'student update': 3 * student + 2 * frozen * bridge}
        # 8 iterations: 6 bridge updates, 2 student updates, of 2 images each
        assert flops_of_run(opt, sizes, 2) == 2 * (3 * turns['bridge update'] + 2 * turns['student update'])
        result = dry_run(opt)
        assert result.code == 0 and '8: 6 bridge updates + 2 student updates' in result.out
        assert float(row(result.out, 'mean')[0]) == pytest.approx(sum(turns.values()) / 3 / 1e12, rel=1e-3)
    assert not [path for path in tmp_path.iterdir() if path.name != 'options']


@pytest.mark.parametrize('student, calls', [
    (None, 0), ({'steps': 1, 'scheme': 'bridge'}, 0), ({'steps': 4}, 4), ({'steps': 4, 'scheme': 'bridge'}, 1.5)])
def test_rollout_of_a_student_of_several_steps(tmp_path, student, calls):
    opt = options(tmp_path, 'IBMDModel', train__student=student)
    rollouts = {one.turn: one.count for one in training_passes(opt) if one.kind == ROLLOUT}
    assert rollouts == ({'bridge update': 2 * calls, 'student update': calls} if calls else {})


def test_memory_of_the_tiny_student(tmp_path):
    opt = options(tmp_path, 'IBMDModel')
    sizes = {'net_g': NetworkSize('', 1000, 1, 1), 'net_bridge': NetworkSize('', 100, 1, 1),
             'teacher': NetworkSize('', 10, 1, 1)}
    one = {'parameters': 4440, 'EMA copy of net_g': 4000, 'gradients': 4400, 'optimiser state': 8800}
    assert gpu_bytes(opt, sizes, 1) == one
    assert gpu_bytes(opt, sizes, 2) == one | {'buckets of DistributedDataParallel': 4400}
    opt['train'] |= {'ema_decay': 0, 'optim_g': {'type': 'SGD', 'lr': 1}, 'optim_bridge': {'type': 'SGD', 'lr': 1, 'momentum': 0.9}}
    assert gpu_bytes(opt, sizes, 1) == {'parameters': 4440, 'gradients': 4400, 'optimiser state': 400}


def test_a_discriminator(tmp_path, dry_run):
    """Its passes, memory, optimiser and defaults; its activations are those of a real run."""
    opt = options(tmp_path, 'IBMDModel', **GAN, train__perceptual_opt={'type': 'LPIPSLoss', 'weights': 'nowhere.pth'})
    result = dry_run(opt)
    assert result.code == 0, result.err
    assert 'use name' not in result.out and 'train.perceptual_opt.weights: nowhere.pth' in result.out
    assert row(result.out, 'student update', 'net_d', 'forward, backward to the input')[0] == '1'
    assert row(result.out, 'discriminator update', 'net_d', 'forward, backward')[0] == '2'
    assert '8: 6 bridge updates + 2 student updates' in result.out and 'kept for backward, discriminator update: 2 x' in result.out
    options_out = resolved(result.out)
    assert options_out['network_d']['skip_connection'] is True and options_out['train']['gan_opt']['real_label_val'] == 1.0
    assert options_out['train']['perceptual_opt']['net'] == 'vgg' and options_out['train']['optim_d']['eps'] == 1e-8

    size = measure_network(DISCRIMINATOR, 16)
    sizes = {name: NetworkSize('', 0, 0, 0) for name in ('net_g', 'net_bridge', 'teacher')} | {'net_d': size}
    assert size.parameters == sum(p.numel() for p in build_quietly(DISCRIMINATOR).parameters())
    # 2 turns of the student, each of 2 + 2 x 3 forward passes
    assert flops_of_run(opt, sizes, 2) == 2 * 2 * 8 * size.forward
    assert gpu_bytes(opt, sizes, 1)['optimiser state'] == 8 * size.parameters
    for kind in (LEARN, THROUGH):
        estimate = measure_activations(DISCRIMINATOR, 16, kind)
        real = kept_bytes(build_quietly(DISCRIMINATOR), 16, 5, kind)
        assert real > 0 and estimate.fixed + 5 * estimate.per_image == real


def test_a_micro_batch_costs_less_memory_and_nothing_else(tmp_path, dry_run):
    whole = dry_run(options(tmp_path, 'IBMDModel', datasets__train__batch_size_per_gpu=6, train__micro_batch=None)).out
    parts = dry_run(options(tmp_path, 'IBMDModel', datasets__train__batch_size_per_gpu=6, train__micro_batch=2)).out
    assert '6 a CPU, 1 CPU' in whole and '6 a CPU (2 at once), 1 CPU' in parts
    for turn in ('bridge update', 'student update'):
        one = re.search(f'kept for backward, {turn}: 6 x ([^ ]+ [KM]iB)', whole).group(1)
        assert f'kept for backward, {turn}: 2 x {one}' in parts
    assert row(whole, 'optimiser state') == row(parts, 'optimiser state') and row(whole, 'mean') == row(parts, 'mean')
    assert row(whole, 'A100, TF32') == row(parts, 'A100, TF32')
    largest = re.compile(r'largest (\w+): (.*)')
    (whole_name, whole_fits), (parts_name, parts_fits) = (largest.search(out).groups() for out in (whole, parts))
    assert (whole_name, parts_name) == ('batch_size_per_gpu', 'micro_batch') and whole_fits == parts_fits
    assert resolved(whole)['train']['micro_batch'] is None and resolved(parts)['train']['micro_batch'] == 2


@pytest.mark.slow
def test_paper_rows_fit_80_gib(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    for name in ('sr4x_ibmd', 'inpaint_center_cond_ibmd'):
        monkeypatch.setattr(sys, 'argv', ['train', '-opt', f'options/paper/{name}.yml', '--dry-run'])
        assert pipelines.main(is_train=True) == 0
        out = capsys.readouterr().out
        assert '256 x 256, 32 a GPU (2 at once), 8 GPUs: 256 an iteration' in out
        peak, unit = row(out, 'peak')[0].split()
        assert unit == 'GiB' and 40 < float(peak) < 78
        assert int(re.search(r'largest micro_batch: .* (\d+) in 80 GiB', out).group(1)) >= 2


@pytest.mark.parametrize('model', ['BridgeModel', 'IBMDModel'])
def test_resolved_options_are_an_option_file_of_the_same_run(tmp_path, dry_run, model):
    first = dry_run(options(tmp_path, model), '--force_yml', 'train:optim_g:lr=1e-4', 'num_gpu=8')
    opt = resolved(first.out)
    assert opt['train']['optim_g']['lr'] == 1e-4 and opt['train']['optim_g']['betas'] == [0.9, 0.999]
    assert opt['num_gpu'] == 8 and opt['network_g']['attention_order'] == 'legacy' and opt['bridge']['conditional'] is False
    assert not {'dist', 'rank', 'world_size', 'is_train', 'auto_resume'} & opt.keys()
    assert set(opt['path']) == {'resume_state', 'experiments_root'} and not {'phase', 'scale'} & opt['datasets']['train'].keys()
    second = dry_run(opt)
    assert second.code == 0 and second.out == first.out


def test_a_seed_that_training_will_draw_is_not_made_up(tmp_path, dry_run):
    opt = resolved(dry_run(options(tmp_path, manual_seed=None)).out)
    assert opt['manual_seed'] is None and 'manual_seed' not in opt['datasets']['train']


def test_gpus_are_not_needed_here(tmp_path, dry_run):
    opt = options(tmp_path, num_gpu=8, train__amp='auto', datasets__train__prefetch_mode='cuda', datasets__train__pin_memory=True)
    result = dry_run(opt)
    assert result.code == 0 and '8 GPUs: 16 an iteration' in result.out and 'bf16' in row(result.out, 'precision')[0]
    assert find_problems(parsed(opt), this_machine=False) == []
    if torch.cuda.device_count() == 0:
        assert [problem.split(':')[0] for problem in find_problems(parsed(opt))] == ['num_gpu', 'datasets.train.prefetch_mode']


def test_one_of_many_processes_prints_for_all(tmp_path, dry_run, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '3')
    for rank in '01':
        monkeypatch.setenv('RANK', rank)
        result = dry_run(options(tmp_path), '--launcher', 'pytorch')
        assert result.code == 0 and ('6 an iteration' in result.out) == (rank == '0') and bool(result.out) == (rank == '0')
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize('changes, message', [
    ({'train__emma_decay': 0.9}, "train: unknown key 'emma_decay', did you mean 'ema_decay'?"),
    ({'datasets__train__gt_size': 18}, 'datasets.train.gt_size: ADMUNet: height and width must be multiples of 4'),
    ({'datasets__train__gt_size': None}, 'datasets.train.gt_size: must be an integer, got None'),
    ({'datasets__val__degradation': {'type': 'sr', 'scale': 4, 'kernel': 'cubic'}}, 'datasets.val.degradation'),
    ({'train__optim_g': {'type': 'AdamW', 'lr': 1e-3, 'betas': [2, 2]}}, 'train.optim_g: Invalid beta parameter'),
    ({'train__amp': 'fp16'}, "train.amp: must be one of False, 'bf16', 'auto', got 'fp16'"),
    ({'model_type': 'SRModel'}, '--dry-run knows BridgeModel and IBMDModel, got model_type: SRModel'),
])
def test_wrong_options_are_one_line_and_exit_code_2(tmp_path, dry_run, changes, message):
    result = dry_run(options(tmp_path, **changes))
    assert result.code == 2 and result.out == ''
    assert result.err.startswith('error: ') and message in result.err and len(result.err.splitlines()) == 1


def test_only_training_has_a_dry_run():
    with pytest.raises(SystemExit):
        pipelines.make_parser(is_train=False).parse_args(['-opt', 'x.yml', '--dry-run'])
