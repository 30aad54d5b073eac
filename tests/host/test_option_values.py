"""What random option files have found: values of wrong types, numbers that fill the memory, YAML that is none. Each is now a line."""
import sys

import jsonschema
import pytest
import yaml
from tiny import GAN, NETWORK, options, parsed, write

import ibmd_basicsr.archs
import ibmd_basicsr.data
import ibmd_basicsr.losses
import ibmd_basicsr.metrics
import ibmd_basicsr.models  # noqa: F401  (registration)
from ibmd_basicsr.compat.options import LONGEST, parse_options, read_option_file
from ibmd_basicsr.compat.safe_yaml import DEPTH, LONGEST_TEXT, VALUES
from ibmd_basicsr.models.option_rules import find_problems, prepare_options
from ibmd_basicsr.models.option_schema import option_schema
from ibmd_basicsr.models.option_values import value_problems
from ibmd_basicsr.utils.errors import OptionError, one_line

HUGE = 10**9


def problems_of(root, **changes) -> list[str]:
    return find_problems(parsed(options(root, 'IBMDModel', **changes)))


@pytest.mark.parametrize('change, message', [
    # the memory would be full, or networks be built for hours
    ({'bridge__n_timestep': HUGE}, 'bridge: bridge.n_timestep must be at most 1000000, got 1000000000'),
    ({'network_g__num_res_blocks': HUGE}, 'network_g: ADMUNet: num_res_blocks must be an integer of at most 32, got 1000000000'),
    ({'network_g__model_channels': HUGE}, 'network_g: ADMUNet: model_channels must be an integer of at most 16384'),
    ({'network_g__patch_size': HUGE}, 'network_g: ADMUNet: patch_size must be an integer of at most 64'),
    ({'network_g__channel_mult': [1] * 11}, 'network_g: ADMUNet: channel_mult must name at most 10 levels, got 11'),
    ({'network_g__channel_mult': [1, 1e300]}, 'network_g: ADMUNet: channel_mult must give each level 1 to 16384 channels, got 1e+300'),
    ({'network_g__channel_mult': [1, 0]}, 'network_g: ADMUNet: channel_mult must give each level 1 to 16384 channels, got 0 times'),
    ({'network_g__num_head_channels': 0}, 'network_g: ADMUNet: num_head_channels must be an integer of at least 1'),
    ({'network_g__dropout': 1.0}, 'network_g: ADMUNet: dropout must lie in [0, 1), got 1.0'),
    ({'bridge': {'type': 'VP'}, 'val__sampler': {'type': 'ancestral', 'steps': HUGE}}, 'val.sampler: sampler.steps must be at most 10'),
    ({**GAN, 'network_d': {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 1, 'num_block': HUGE}},
     'network_d.num_block: must be at most 4096'),
    # values that others take for granted
    ({'path': 3}, 'path: must be a block of keys, got 3.'),
    ({'name': 3}, 'name: must be text, got 3.'),
    ({'bridge__ot_ode': 3}, 'bridge.ot_ode: must be true or false, got 3.'),
    ({'bridge': {'type': 'VP', 'sigma_data': 1e300}}, 'bridge: '),
    ({'teacher__weights': []}, 'teacher.weights: must be text, got [].'),
    ({'network_g__attention_resolutions': 2}, 'network_g.attention_resolutions: must be a list, got 2.'),
    ({'network_g__attention_resolutions': ['x']}, "network_g.attention_resolutions[0]: must be an integer, got 'x'."),
    ({'datasets__train__io_backend': 'disk'}, "datasets.train.io_backend: must be a block of keys, got 'disk'."),
    ({'datasets__train__type': {}}, "datasets.train.type: must be one of 'DegradedImageDataset', "),
    ({'datasets__val__degradation': {'kernel': 'bicubic'}}, "datasets.val.degradation.type: must be one of 'sr', "),
    ({'datasets__val__degradation': {'type': 'jpeg', 'codec': 'libjpeg', 'quality': 101}}, 'datasets.val.degradation: '),
    ({'train__optim_g__betas': [0.9]}, 'train.optim_g.betas: must be a list of two numbers, got [0.9].'),
    ({'train__optim_g__lr': float('nan')}, 'train.optim_g.lr: must be a finite number, got nan.'),
    ({'train__total_iter': float('inf')}, 'train.total_iter: must be a finite number, got inf.'),
    ({'train__ema_decay': 10**30}, 'train.ema_decay: must be an integer of at most 64 bits'),
    ({'train__ema_decay': None}, 'train.ema_decay: must be a number, got None.'),
    ({'train__scheduler__milestones': [5, 'x']}, "train.scheduler.milestones: must be a list of numbers, got [5, 'x']."),
    ({'train__scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': ['x']}}, "train.scheduler.periods: must be a list of numbers"),
    ({'train__scheduler': {'type': 'MultiStepLR', 'milestones': [], 'restarts': [3], 'restart_weights': []}},
     'train.scheduler: restarts and restart_weights must have the same length'),
    ({'val__metrics__psnr': None}, 'val.metrics.psnr: must be a block of keys, got None.'),
    ({'val__metrics__psnr__type': ['x']}, 'val.metrics.psnr.type: must be one of '),
    ({'val__metrics': {'a.b': {'type': 'calculate_niqe', 'crop_border': 0}}}, "val.metrics: a name without dots is needed, got 'a.b'."),
    ({'val__metrics__lpips': {'type': 'calculate_lpips', 'weights': 'x' * 300}}, 'val.metrics.lpips: '),
    ({'val__save_img': 'x' * 5000}, f"val.save_img: must be true or false, got '{'x' * 199}...."),
    ({**GAN, 'network_d': {'type': {}}}, 'network_d.type: no network {} is registered'),
    ({**GAN, 'network_d': {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 'x'}}, 'network_d: '),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else '')
def test_each_is_a_line_that_names_its_key(change, message, tmp_path):
    problems = problems_of(tmp_path, **change)
    assert any(line.startswith(message) for line in problems), problems
    assert all(line.isprintable() and len(line) < 6000 for line in problems)


def test_what_the_schema_refuses_a_run_refuses(tmp_path):
    """Null, too: it leaves out the optional and nothing else."""
    schema = jsonschema.Draft202012Validator(option_schema())
    assert schema.is_valid(options(tmp_path, manual_seed=None)) and not problems_of(tmp_path, manual_seed=None)
    for block, keys in (('train', ('student', 'real_pairs', 'grad_clip', 'micro_batch', 'ema_decay', 'shard_optimizer')),
                        ('val', ('sampler', 'pbar', 'save_img')), ('network_g', ('num_classes', 'dropout')), ('logger', ('wandb',))):
        for key in keys:
            changes = {f'{block}__{key}': None}
            assert schema.is_valid(options(tmp_path, 'IBMDModel', **changes)) == (not problems_of(tmp_path, **changes)), changes


def test_ranges_are_those_of_the_schema():
    """Where no rule has objected."""
    opt = {'model_type': 'BridgeModel', 'scale': 0, 'train': {'ema_decay': 1, 'amp': 'fp8'}, 'num_gpu': -1}
    assert value_problems(opt, types_only=True) == []
    assert value_problems(opt, types_only=False) == [
        'scale: must be at least 1, got 0.', 'train.ema_decay: must be below 1, got 1.',
        "train.amp: must be one of False, 'bf16', 'auto', got 'fp8'.",
        "num_gpu: must be one of 'auto', 'integer', got -1."]


@pytest.mark.parametrize('text, message', [
    ('a: 2001-02-30', r"not valid YAML \('2001-02-30': day is out of range for month\)"),
    ('a: !!int x', 'not valid YAML'), ('a: !!timestamp x', 'not valid YAML'), ('a: !!float x', 'not valid YAML'),
    (f'a: {"9" * 5000}', f'a text of 5000 characters, more than {LONGEST_TEXT}'),
    ('a: &x {b: *x}', 'an alias stands for the block or list that it lies in'),
    ('a: ' + '[' * 60 + ']' * 60, f'nested deeper than {DEPTH}'),
    ('a: ' + '[' * 5000, 'nested deeper'),
    ('a0: &a0 [1, 1]\n' + ''.join(f'a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n' for i in range(1, 40)), f'more than {VALUES} values'),
    ('1: x', "keys must be printable text, found '1'"), ('on: x', "keys must be printable text, found 'on'"),
    ('"a\\nb": x', 'keys must be printable text'), ('"": x', 'keys must be printable text'), ('[a]: x', 'keys must be printable text'),
    ('a: !!python/object/apply:os.mkdir [executed]', 'could not determine a constructor'), ('a: !!map x', 'not valid YAML'),
    ('a: x\n' * 2 + 'b' * LONGEST, 'more than 1048576 bytes')], ids=lambda text: text[:20])
def test_yaml_that_is_none(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / 'x.yml'
    file.write_text(text)
    with pytest.raises(OptionError, match=message) as error:
        read_option_file(file)
    assert str(error.value).startswith(f'{file}:') and str(error.value).isprintable() and len(str(error.value)) < 500
    assert [path.name for path in tmp_path.iterdir()] == ['x.yml']


@pytest.mark.parametrize('model', ['BridgeModel', 'SRModel'])
@pytest.mark.parametrize('change, message', [
    ({'name': 5}, 'name must be text that can name a folder, got 5'), ({'name': '..'}, 'name must be text that can name a folder'),
    ({'name': ''}, 'name must be text that can name a folder'), ({'model_type': []}, r'model_type must be text, got \[\]'),
    ({'manual_seed': 'x'}, "manual_seed must be an integer from 0 to 2147483647, got 'x'"),
    ({'manual_seed': -1}, 'manual_seed must be'),
    ({'num_gpu': 'all'}, "num_gpu must be 'auto', 0 or a number of GPUs, got 'all'"), ({'num_gpu': True}, 'num_gpu must be'),
    ({'path__experiments_root': 3}, 'path.experiments_root must be text or ~, got 3'),
    ({'path__resume_state': {}}, 'path.resume_state must be text or ~'),
    ({'datasets__train__dataroot_gt': 3}, 'datasets.train.dataroot_gt must be text, got 3'), ({'datasets': 3}, 'datasets must be a block')])
def test_what_the_hosts_parser_would_stumble_over(change, message, model, tmp_path, monkeypatch):
    opt = options(tmp_path, **{'model_type': model, **change})
    file = write(tmp_path, options(tmp_path))
    file.write_text(yaml.safe_dump(opt))
    monkeypatch.setattr(sys, 'argv', ['train', '-opt', str(file)])
    with pytest.raises(OptionError, match=message) as error:
        parse_options(str(tmp_path), prepare=prepare_options)
    assert '\n' not in str(error.value)


def test_the_host_does_not_read_the_file_once_more(tmp_path, monkeypatch):
    """Its loader is one that can run code."""
    file = write(tmp_path, options(tmp_path))
    monkeypatch.setattr(sys, 'argv', ['train', '-opt', str(file)])
    monkeypatch.setattr('basicsr.utils.options.ordered_yaml', lambda: pytest.fail('read once more'))
    assert parse_options(str(tmp_path), prepare=prepare_options)[0]['network_g'] == NETWORK


@pytest.mark.parametrize('entry, message', [
    ('name=5', 'name must be text that can name a folder, got 5'), ('manual_seed=x', "manual_seed must be an integer .*, got 'x'"),
    ('datasets:train:dataroot_gt=3', 'datasets.train.dataroot_gt must be text, got 3'), ('train:ema_decay=!!floatx', 'a value is text'),
    ('train:optim_g:betas=[__import__("os").mkdir("executed")]', 'a value is text, a number or a list of numbers and quoted text'),
    ('name"];__import__("os").mkdir("executed");opt["name=x', 'a key is of letters, digits')])
def test_what_is_forced_is_checked_too_and_runs_nothing(entry, message, tmp_path, monkeypatch):
    """The host executes keys and evaluates lists."""
    file = write(tmp_path, options(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['train', '-opt', str(file), '--force_yml', entry])
    with pytest.raises(OptionError, match=message):
        parse_options(str(tmp_path), prepare=prepare_options)
    assert not (tmp_path / 'executed').exists()


def test_messages_do_not_move_the_cursor():
    assert one_line(FileNotFoundError(2, 'No such file', 'a\x1b[31m\n')) == 'a\\x1b[31m\n: No such file'
    assert one_line(OptionError('two problems:\n  \x0e\u2028x')) == 'two problems:\n  \\x0e\\u2028x'
