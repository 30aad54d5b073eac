"""Option files: numbers, checks of every block, and what is filled in."""
import sys

import pytest
import torch
from tiny import NETWORK, options, parsed, write

import ibmd_basicsr.archs
import ibmd_basicsr.data
import ibmd_basicsr.losses
import ibmd_basicsr.metrics
import ibmd_basicsr.models  # noqa: F401  (registration)
from ibmd_basicsr.compat import options as host_options
from ibmd_basicsr.models.option_rules import find_problems, prepare_options
from ibmd_basicsr.models.resolved_options import describe_run
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.option_check import build_from_options, check_keys


def test_numbers():
    opt = {'name': '1e3', 'lr': '1e-4', 'n': '-1', 'x': ' 1', 'text': '1e', 'betas': ['0.9', 0.99], 'restart_weights': ['1.', '.5'],
           'path': {'pretrain_network_g': '12'}, 'dataroot_gt': '2024', 'meta_info_file': '7', 'teacher': {'weights': '3'}, 'flag': True,
           'deep': {'model_channels': '+32', 'v': '1.5E+2'}}
    host_options.normalise_numbers(opt)
    assert opt == {'name': '1e3', 'lr': 1e-4, 'n': -1, 'x': ' 1', 'text': '1e', 'betas': [0.9, 0.99], 'restart_weights': [1.0, 0.5],
                   'path': {'pretrain_network_g': '12'}, 'dataroot_gt': '2024', 'meta_info_file': '7', 'teacher': {'weights': '3'},
                   'flag': True, 'deep': {'model_channels': 32, 'v': 150.0}}
    assert type(opt['n']) is int and type(opt['deep']['model_channels']) is int


def test_check_keys_names_block_key_nearest_and_allowed():
    with pytest.raises(OptionError, match=r"train.optim_bridge: unknown key 'weight_dcay', did you mean 'weight_decay'\? "
                                          r'Allowed: lr, weight_decay\.'):
        check_keys('train.optim_bridge', {'weight_dcay': 0, 'lr': 1}, {'lr', 'weight_decay'})


def test_build_from_options():
    def target(*, size: int, width: int = 2):
        if size < 1:
            raise ValueError(f'size must be positive, got {size}.')
        return size, width

    assert build_from_options(target, {'type': 'T', 'size': 3}, 'block') == (3, 2)
    for opt, message in (({'size': 1, 'wdith': 2}, "did you mean 'width'"), ({}, "block: missing 'size'"),
                         ({'size': 0}, 'block: size must be positive, got 0'), (3, 'must be a block of keys')):
        with pytest.raises(OptionError, match=message):
            build_from_options(target, opt, 'block')


@pytest.mark.parametrize('model', ['BridgeModel', 'IBMDModel'])
def test_good_options_pass(model, tmp_path):
    assert find_problems(parsed(options(tmp_path, model))) == []


@pytest.mark.parametrize('change, message', [
    ({'bridge__beta_mx': 0.3}, "bridge: unknown key 'beta_mx', did you mean 'beta_max'?"),
    ({'bridge__beta_max': -1}, 'bridge.beta_max must be positive, got -1'),
    ({'bridge__type': 'I2Sb'}, "bridge.type: must be one of 'I2SB', 'I2SB_DBIM', 'VP', 'VE', got 'I2Sb'"),
    ({'bridge': {'type': 'VP', 'beta_max': 0.3}}, "bridge: unknown key 'beta_max', did you mean 'beta_min'?"),
    ({'bridge__hole': 'nois'}, "bridge.hole must be one of ('keep', 'noise'), got 'nois'"),
    ({'bridge': 3}, 'bridge: must be a block of keys, got 3'),
    ({'network_g__model_chanels': 8}, "network_g: unknown key 'model_chanels', did you mean 'model_channels'?"),
    ({'network_g__model_channels': 0}, 'model_channels must be an integer of at least 1, got 0'),
    ({'teacher__weight': 'x'}, "teacher: unknown key 'weight', did you mean 'weights'?"),
    ({'teacher__network': NETWORK | {'patch': 2}}, "teacher.network: unknown key 'patch', did you mean 'patch_size'?"),
    ({'teacher': None}, "missing 'teacher'"),
    ({'train__bridge_updates_per_studnt': 3}, "did you mean 'bridge_updates_per_student'?"),
    ({'train__bridge_updates_per_student': 0}, 'train.bridge_updates_per_student: must be a positive integer, got 0'),
    ({'train__optim_bridge__weight_dcay': 0}, "train.optim_bridge: unknown key 'weight_dcay', did you mean 'weight_decay'?"),
    ({'train__optim_g__type': 'Adan'}, "train.optim_g.type: must be one of 'Adam', 'AdamW'"),
    ({'train__optim_g__lr': '1e-4x'}, "train.optim_g.lr: must be a positive number, got '1e-4x'"),
    ({'train__scheduler__gama': 1}, "train.scheduler: unknown key 'gama', did you mean 'gamma'?"),
    ({'train__scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [4]}}, 'end at iteration 4, before train.total_iter (8)'),
    ({'train__ibmd_opt__loss_wieght': 1}, "train.ibmd_opt: unknown key 'loss_wieght', did you mean 'loss_weight'?"),
    ({'train__ibmd_opt__type': 'L1Loss'}, "train.ibmd_opt.type: must be one of 'InverseBridgeLoss'"),
    ({'train__ibmd_opt__mask_onli': True}, "train.ibmd_opt: unknown key 'mask_onli', did you mean 'mask_only'?"),
    ({'train__ibmd_opt__time_weight': 'foo'}, "train.ibmd_opt: time_weight must be one of ('uniform', 'inverse_variance', "),
    ({'train__bridge_opt__time_weight': 'clean_ent'}, "train.bridge_opt: time_weight must be one of ('uniform', 'inverse_variance', "),
    ({'train__student': {'steps': 0}}, 'train.student: steps must be a positive integer, got 0'),
    ({'train__student': {'steps': 2, 'scheme': 'brigde'}}, "train.student: scheme must be one of ('posterior', 'bridge'), got 'brigde'"),
    ({'train__student': {'step': 2}}, "train.student: unknown key 'step', did you mean 'steps'?"),
    ({'train__student': {'steps': 2, 'tell_bridge': True}}, 'network_bridge.noise_channels: must be 1 with train.student.tell_bridge'),
    ({'train__student': {'steps': 2, 'tell_bridge': 1}}, 'train.student.tell_bridge: must be true or false, got 1'),
    ({'train__ema_decay': 1}, 'train.ema_decay: must lie in [0, 1), got 1'),
    ({'train__total_iter': None}, "train: missing 'total_iter'"),
    ({'val__val_freq': None}, "val: missing 'val_freq'"),
    ({'val__sampler__step': 1}, "val.sampler: unknown key 'step', did you mean 'steps'?"),
    ({'val__sampler__type': 'onestep'}, 'sampler.type must be one of'),
    ({'val__sampler': {'type': 'ancestral', 'eta': 1.0}}, 'val.sampler: sampler.eta belongs to type dbim, not to ancestral'),
    ({'val__sampler': {'type': 'few_step', 'steps': 5, 'trained_steps': 4}}, 'val.sampler: sampler.steps must lie in 1..4, the steps'),
    ({'val__sampler': {'type': 'heun', 'steps': 5}}, 'val.sampler: sampler.type heun needs a bridge of type VP or VE'),
    ({'val__sampler': {'type': 'dbim', 'order': 2, 'eta': 0.5}}, 'val.sampler: sampler.order 2 needs eta 0, got 0.5'),
    ({'network_g__cond_channels': 3}, 'network_g.cond_channels: must be 0 with bridge.conditional: false, got 3'),
    ({'datasets__val__return_gt': False}, 'val.metrics.psnr: calculate_psnr compares with clean images, which datasets.val does not have'),
    ({'val__metrics__psnr__type': 'calculate_psn'}, "no metric 'calculate_psn' is registered, did you mean 'calculate_psnr'?"),
    ({'val__metrics__psnr__type': 'FrechetDistanc'}, "did you mean 'FrechetDistance'?"),
    ({'val__metrics__psnr__type': None}, 'val.metrics.psnr.type: no metric None is registered'),
    ({'val__metrics__psnr': {'type': 'calculate_psnr'}}, "val.metrics.psnr: missing 'crop_border'"),
    ({'val__metrics__psnr__crop_boarder': 4}, "val.metrics.psnr: unknown key 'crop_boarder', did you mean 'crop_border'?"),
    ({'val__metrics__psnr__better': 'hihger'}, "val.metrics.psnr.better: must be one of 'higher', 'lower', got 'hihger'"),
    ({'val__metrics__psnr__better': 'lower'}, "val.metrics.psnr.better: higher is better for calculate_psnr, got 'lower'"),
    ({'val__metrics__fd': {'type': 'FrechetDistance', 'better': 'higher'}}, 'lower is better for FrechetDistance'),
    ({'val__metrics__fd': {'type': 'FrechetDistance', 'weigths': 'x'}}, "val.metrics.fd: unknown key 'weigths', did you mean 'weights'?"),
    ({'val__metrics__fd': {'type': 'FrechetDistance', 'reference': 'nowhere'}}, '/nowhere: no such file or folder'),
    ({'val__metrics__kd': {'type': 'KernelDistance', 'reference': 'stats.npz'}}, 'val.metrics.kd.reference: a kernel distance needs'),
    ({'val__metrics__kd': {'type': 'KernelDistance', 'features': 'inception'}}, 'val.metrics.kd: features inception: FID'),
    ({'val__metrics__lpips': {'type': 'calculate_lpips', 'weights': 'x.pth'}}, 'val.metrics.lpips: x.pth: no such weight file'),
    ({'val__metrics__dists': {'type': 'calculate_dists', 'vgg_weights': 'x.pth'}}, 'val.metrics.dists: x.pth: no such weight file'),
    ({'val__metrics__acc': {'type': 'calculate_classifier_accuracy', 'weights': 'x.pth'}}, 'val.metrics.acc: x.pth: no such weight file'),
    ({'val__metrics__acc': {'type': 'calculate_classifier_accuracy', 'classifier': 'resnt'}}, "or a TorchScript file, got 'resnt'"),
    ({'val__metrics__div': {'type': 'Diversity', 'samples': 1}}, 'val.metrics.div: samples must be an integer of at least 2, got 1'),
    ({'logger': {'print_freq': 1, 'save_checkpoint_freq': 2}}, "logger: missing 'use_tb_logger'"),
    ({'logger__keep_checkpoints': 0}, 'logger.keep_checkpoints: must be a positive integer, got 0'),
    ({'logger__keep_checkpoint': 3}, "logger: unknown key 'keep_checkpoint', did you mean 'keep_checkpoints'?"),
    ({'path__teacher': 'x.pth'}, "path: unknown key 'teacher'"),
    ({'path__experiments_root': None}, 'path.experiments_root: must name a folder'),
    ({'datasets__train__gt_sise': 3}, "datasets.train: unknown key 'gt_sise', did you mean 'gt_size'?"),
    ({'scale': 1, 'datasets__train__degradation': {'type': 'jpeg', 'codec': 'libjpeg', 'quality': [90, 10]}},
     'datasets.train.degradation: degradation.quality must be [lowest, highest], in this order, got [90, 10]'),
    ({'datasets__train__prefetch_mode': 'cpu'}, 'datasets.train.prefetch_mode: cpu waits for ever'),
    ({'datasets__val__persistent_workers': True}, 'datasets.val.persistent_workers: the host loads val images in the main process'),
    ({'datasets__val__name': '../../evil'}, "datasets.val.name: names a folder of images, got '../../evil'"),
    ({'val__suffix': '../../x'}, "val.suffix: becomes part of file names, without slashes, got '../../x'"),
    ({'num_gpu': 99}, 'num_gpu: 99 asked for'),
    ({'datasets__val__label_file': 'x.txt'}, 'datasets.val.label_file: network_g has no num_classes and takes no labels, leave it out.'),
    ({'scael': 4}, "unknown key 'scael', did you mean 'scale'?"),
])
def test_each_mistake_is_named(change, message, tmp_path):
    problems = find_problems(parsed(options(tmp_path, 'IBMDModel', **change)))
    assert len(problems) == 1 and message in problems[0], problems


def test_test_sets_have_names_of_their_own(tmp_path):
    opt = options(tmp_path)
    opt['datasets']['val_2'] = opt['datasets']['val'] | {'name': 'other'}
    assert find_problems(parsed(opt)) == []
    opt['datasets']['val_2']['name'] = 'photos_val'
    assert find_problems(parsed(opt)) == ["datasets.val_2.name: 'photos_val' is the name of datasets.val, too: give each test set its own."]


@pytest.mark.parametrize('kind', ['calculate_lpips', 'FrechetDistance', 'KernelDistance'])
def test_metrics_that_compare_need_clean_images(kind, tmp_path):
    opt = parsed(options(tmp_path, val__metrics={'one': {'type': kind}}, datasets__val__return_gt=False))
    assert [line.partition(':')[0] for line in find_problems(opt)] == ['val.metrics.one']
    if kind != 'calculate_lpips':
        opt['val']['metrics']['one']['reference'] = str(tmp_path)
        assert find_problems(opt) == []


def test_what_is_missing_here_is_no_problem_elsewhere(tmp_path):
    block = {'type': 'calculate_classifier_accuracy', 'weights': 'x.pth', 'labels': 'x.txt'}
    opt = parsed(options(tmp_path, val__metrics={'acc': block}))
    assert len(find_problems(opt)) == 2 and find_problems(opt, this_machine=False) == []


@pytest.mark.parametrize('model', ['BridgeModel', 'SRModel'])
def test_directions_are_filled_in(model, tmp_path):
    """For BasicSR's own models, too: it takes higher as better where a block does not say."""
    metrics = {name: {'type': f'calculate_{name}', 'crop_border': 0} for name in ('psnr', 'niqe', 'lpips')}
    opt = parsed(options(tmp_path, model, val__metrics=metrics | {'fd': {'type': 'FrechetDistance'}}))
    prepare_options(opt, auto_gpu=False)
    assert {name: block['better'] for name, block in opt['val']['metrics'].items()} == {
        'psnr': 'higher', 'niqe': 'lower', 'lpips': 'lower', 'fd': 'lower'}


def test_all_problems_come_in_one_message(tmp_path, monkeypatch, capsys):
    opt = options(tmp_path, bridge__beta_mx=1, train__ema_dcay=0.9, logger__use_tb_loger=True)
    with pytest.raises(OptionError) as error:
        parse(tmp_path, opt, monkeypatch)
    lines = str(error.value).splitlines()
    assert lines[0].endswith('tiny.yml: 3 problems in the option file:') and len(lines) == 4


def parse(root, opt, monkeypatch, *arguments):
    """Parse an option file as the train command does."""
    monkeypatch.setattr(sys, 'argv', ['train', '-opt', str(write(root, opt)), *arguments])
    return host_options.parse_options(str(root), prepare=prepare_options)[0]


@pytest.mark.parametrize('key, value', [
    ('datasets__train__detail_crops', 2.0), ('datasets__train__crop_multiple', 4.0), ('train__micro_batch', 2.0),
    ('train__bridge_updates_per_student', 2.0), ('datasets__train__gt_size', 16.0), ('network_g__model_channels', 8.0),
    ('datasets__train__batch_size_per_gpu', 2.0), ('train__total_iter', 1e5), ('logger__print_freq', 1e2)])
def test_floats_without_a_fraction_are_integers(key, value, tmp_path):
    """1e5 is what people write, and torch counts with integers."""
    opt = parsed(options(tmp_path, 'IBMDModel', **{key: value}))
    opt['train']['scheduler'] = {'type': 'StepLR', 'step_size': 5.0, 'gamma': 1.0}
    prepare_options(opt, auto_gpu=False)
    found = opt
    for part in key.split('__'):
        found = found[part]
    assert found == value and isinstance(found, int)
    assert isinstance(opt['train']['scheduler']['gamma'], float) and isinstance(opt['train']['optim_g']['lr'], float)


def test_networks_with_classes_need_labels(tmp_path):
    opt = parsed(options(tmp_path, network_g=NETWORK | {'num_classes': 3}))
    assert find_problems(opt) == [f'datasets.{phase}.label_file: missing, network_g needs the class of each image (num_classes: 3).'
                                  for phase in ('train', 'val')]


def test_a_forced_value_changes_no_block_written_alike(tmp_path, monkeypatch):
    """YAML's aliases stand for one block in Python; here each is a block of its own."""
    opt = options(tmp_path, 'IBMDModel')
    opt['train']['optim_g'] = opt['train']['optim_bridge'] = dict(opt['train']['optim_g'], betas=[0.9, 0.99])
    file = write(tmp_path, opt)
    assert '*id001' in file.read_text()
    monkeypatch.setattr(sys, 'argv', ['train', '-opt', str(file), '--force_yml', 'train:optim_g:lr=5e-5'])
    train = host_options.parse_options(str(tmp_path), prepare=prepare_options)[0]['train']
    assert train['optim_g']['lr'] == 5e-5 and train['optim_bridge']['lr'] == 1e-3
    assert train['optim_g']['betas'] is not train['optim_bridge']['betas']


def test_what_is_filled_in(tmp_path, monkeypatch):
    opt = parse(tmp_path, options(tmp_path, 'IBMDModel', num_gpu='auto'), monkeypatch, '--force_yml', 'train:optim_g:lr=1e-2')
    assert opt['train']['optim_g']['lr'] == 1e-2
    assert opt['datasets']['train']['manual_seed'] == opt['datasets']['val']['manual_seed'] == 3
    assert opt['network_bridge'] == opt['teacher']['network'] and opt['network_bridge'] is not opt['teacher']['network']
    assert opt['num_gpu'] in (0, 1)


def test_models_of_the_host_are_not_checked(tmp_path, monkeypatch):
    opt = parse(tmp_path, options(tmp_path, train__pixel_opt={'type': 'L1Loss'}) | {'model_type': 'SRModel'}, monkeypatch)
    assert 'pixel_opt' in opt['train']


def test_copy_of_the_option_file_survives_the_archiving_of_its_folder(tmp_path):
    folder = tmp_path / 'experiments' / 'tiny'
    folder.mkdir(parents=True)
    file = folder / 'tiny.yml'
    file.write_text('name: tiny\n')
    host_options.read_option_file(str(file))
    file.unlink()
    host_options.copy_opt_file(str(file), str(folder))
    assert file.read_text().endswith('name: tiny\n') and file.read_text().startswith('# GENERATE TIME')


@pytest.mark.parametrize('model', ['BridgeModel', 'IBMDModel'])
def test_a_run_leaves_its_options_with_all_defaults_and_the_versions(tmp_path, monkeypatch, model):
    """What is left is an option file of the same run."""
    monkeypatch.setattr(host_options, '_descriptions', {})
    folder, texts = tmp_path / 'experiments' / 'tiny', []
    folder.mkdir(parents=True)
    file = write(tmp_path, options(tmp_path, model))
    for forced in (['--force_yml', 'train:optim_g:lr=1e-3'], []):
        monkeypatch.setattr(sys, 'argv', ['train', '-opt', str(file), *forced])
        host_options.parse_options(str(tmp_path), prepare=prepare_options, describe=describe_run)
        host_options.copy_opt_file(str(file), str(folder))
        file = folder / 'resolved_options.yml'
        texts.append(file.read_text().partition('\n\n')[2])
    opt = host_options.read_option_file(file)
    assert opt['train']['optim_g']['lr'] == 1e-3 and opt['network_g']['attention_order'] == 'legacy'
    assert texts[0] == texts[1]
    assert f'torch {torch.__version__}' in texts[0].splitlines()[0]


@pytest.mark.parametrize('given, workers, gpus, expected', [
    ({}, 2, 1, (True, True)), ({}, 2, 0, (True, None)), ({}, 0, 1, (None, True)),
    ({'persistent_workers': False, 'pin_memory': False}, 2, 1, (False, False)), ({'pin_memory': None}, 0, 0, (None, None))])
def test_workers_are_kept_and_batches_pinned_unless_the_file_says_otherwise(tmp_path, given, workers, gpus, expected):
    opt = parsed(options(tmp_path, num_gpu=gpus, datasets__train__num_worker_per_gpu=workers))
    opt['datasets']['train'] |= given
    prepare_options(opt, auto_gpu=False, this_machine=False)
    assert tuple(opt['datasets']['train'].get(key) for key in ('persistent_workers', 'pin_memory')) == expected
    assert not {'persistent_workers', 'pin_memory'} & opt['datasets']['val'].keys()
