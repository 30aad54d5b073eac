"""Option files: no YAML, YAML that is an attack, or YAML that says what cannot be; as ``-opt`` of the commands."""
from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tiny import options

from malformed.case import EXECUTED, Case, compare_options, test_options

NAME = 'bad.yml'
LAUGHS = 'a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n' + ''.join(
    f'a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 10)}]\n' for n in range(1, 12))
MERGES = 'a0: &a0 {k: v}\n' + ''.join(f'a{n}: &a{n} {{<<: [{", ".join([f"*a{n - 1}"] * 10)}], k{n}: v}}\n' for n in range(1, 12))

TEXTS = {
    'empty': ('', 'nothing'),
    'comments alone': ('# name: x\n# scale: 4\n', 'nothing'),
    'a word': ('train\n', 'str'),
    'a list': ('- name: x\n- scale: 4\n', 'list'),
    'two documents': ('name: x\n---\nname: y\n', 'not valid YAML'),
    'tabs': ('name: x\ndatasets:\n\ttrain: {}\n', r'bad.yml:3:1: not valid YAML'),
    'bracket left open': ('name: [x, y\nscale: 4\n', 'not valid YAML'),
    'quote left open': ('name: "x\nscale: 4\n', 'not valid YAML'),
    'wrong indentation': ('datasets:\n    train: {}\n  val: {}\n', 'not valid YAML'),
    'colon in a value': ('name: x: y\n', 'not valid YAML'),
    'JSON cut off': ('{"name": "x", "scale": ', 'not valid YAML'),
    'key given twice': ('name: x\nscale: 4\nname: y\n', "key 'name' is given twice"),
    'key that is a list': ('? [a, b]\n: c\n', 'not valid YAML'),
    'unknown anchor': ('name: *x\n', 'not valid YAML'),
    'unknown tag': ('name: !include secret.yml\n', 'not valid YAML'),
    'code: os.system': (f'name: !!python/object/apply:os.system ["mkdir {EXECUTED}"]\n', 'not valid YAML'),
    'code: os.mkdir': (f'name: !!python/object/apply:os.mkdir [{EXECUTED}]\n', 'not valid YAML'),
    'code: eval': (f'name: !!python/object/apply:builtins.eval ["__import__(\'os\').mkdir(\'{EXECUTED}\')"]\n', 'not valid YAML'),
    'code: new': (f'name: !!python/object/new:os.system [mkdir {EXECUTED}]\n', 'not valid YAML'),
    'code: name': ('name: !!python/name:os.system\n', 'not valid YAML'),
    'code: module': ('name: !!python/module:this\n', 'not valid YAML'),
    'code: as a key': (f'!!python/object/apply:os.mkdir [{EXECUTED}]: x\n', 'not valid YAML'),
    'billion laughs': (LAUGHS, 'aliases'),
    'billion laughs by merges': (MERGES, 'aliases'),
    'alias of itself': ('name: &a [*a]\n', 'alias'),
    'alias of the block around it': ('name: x\ndatasets: &a\n  train: *a\n', 'alias'),
    'merge of a number': ('name: x\n<<: 3\n', 'not valid YAML'),
    'merge of itself': ('name: x\ndatasets: &a\n  <<: *a\n', 'alias'),
    'deep lists': (f'name: {"[" * 5000}{"]" * 5000}\n', 'nested'),
    'deep blocks': (''.join(f'{" " * n}a:\n' for n in range(300)), 'nested'),
    'endless integer': (f'name: x\nscale: {"9" * 5000}\n', 'not valid YAML'),
    'date that is none': ('name: 2026-13-45\n', 'not valid YAML'),
    'tag that does not fit': ('name: !!int four\n', 'not valid YAML'),
    'float tag without a number': ('name: !!float ""\n', 'not valid YAML'),
    'base64 that is none': ('name: !!binary "x"\n', 'not valid YAML'),
    'long': ('# ' + 'x' * 3_000_000, 'bytes'),
}
"""Files of text: what is in them, and the reason that is given."""
BYTES = {
    'binary': (np.random.default_rng(0).bytes(2000), 'is not text in UTF-8'),
    'zeros': (bytes(2000), 'not valid YAML'),
    'control characters': (b'name: \x1b[31mred\x07\n', 'not valid YAML'),
    'UTF-16': ('name: x\nscale: 4\n'.encode('utf-16'), 'is not text in UTF-8'),
    'Latin-1': ('name: Stra\u00dfe\n'.encode('latin-1'), 'is not text in UTF-8'),
}
NOT_FILES = {
    'missing': (lambda path: None, 'no such option file'),
    'folder': (Path.mkdir, 'is a folder'),
    'pipe': (os.mkfifo, 'is not a regular file'),
    'device': (lambda path: path.symlink_to('/dev/zero'), 'is not a regular file'),
    'dead link': (lambda path: path.symlink_to('nowhere'), 'no such option file'),
    'larger than memory': (lambda path: path.touch() or os.truncate(path, 2**36), 'bytes'),
}

INF, NAN = float('inf'), float('nan')
TRAIN: dict[str, tuple[dict[str, Any], str]] = {
    'unknown block': ({'trian': {}}, "unknown key 'trian', did you mean 'train'"),
    'unknown key': ({'train__optim_g__wieght_decay': 0}, "unknown key 'wieght_decay', did you mean 'weight_decay'"),
    'key that is a number': ({'train__7': 1}, 'keys must be printable text'),
    'no name': ({'name': None}, 'name'),
    'name that is a block': ({'name': {'a': 1}}, 'name'),
    'name that leads elsewhere': ({'name': '../../elsewhere'}, 'name'),
    'name with a line end': ({'name': 'two\nlines'}, 'name'),
    'unknown model': ({'model_type': 'BrigdeModel'}, 'model_type'),
    'model that is a list': ({'model_type': ['BridgeModel']}, 'model_type'),
    'scale that is a word': ({'scale': 'four'}, 'scale'),
    'scale that is negative': ({'scale': -4}, 'scale'),
    'scale that is a fraction': ({'scale': 2.5}, 'scale'),
    'scale without end': ({'scale': INF}, 'scale'),
    'scale that does not fit': ({'scale': 2, 'datasets__val__degradation': {'type': 'sr', 'scale': 2, 'kernel': 'bicubic'}}, 'scale'),
    'number of GPUs that is a word': ({'num_gpu': 'many'}, 'num_gpu'),
    'number of GPUs that is negative': ({'num_gpu': -1}, 'num_gpu'),
    'seed that is a word': ({'manual_seed': 'x'}, 'manual_seed'),
    'seed that is too large': ({'manual_seed': 2**70}, 'manual_seed'),
    'seed that is a list': ({'manual_seed': [1]}, 'manual_seed'),
    'data sets as a list': ({'datasets': [1, 2]}, 'datasets must be a block'),
    'data set that is a word': ({'datasets__train': 'photos'}, 'datasets.train must be a block'),
    'unknown data set': ({'datasets__train__type': 'DegradedImageDatset'}, 'datasets.train.type'),
    'data set without a type': ({'datasets__train__type': None}, 'datasets.train.type'),
    'root that is a number': ({'datasets__train__dataroot_gt': 3}, 'dataroot_gt'),
    'root that is a list': ({'datasets__train__dataroot_gt': ['a']}, 'dataroot_gt'),
    'root that is not there': ({'datasets__train__dataroot_gt': 'nowhere'}, 'nowhere: no such'),
    'backend that is a word': ({'datasets__train__io_backend': 'disk'}, 'io_backend'),
    'crop that is negative': ({'datasets__train__gt_size': -16}, 'gt_size'),
    'crop that does not fit the scale': ({'datasets__train__gt_size': 18}, 'gt_size'),
    'crop that is a word': ({'datasets__train__gt_size': 'large'}, 'gt_size'),
    'crop beyond all images': ({'datasets__train__gt_size': 2**40}, 'smaller than the crop|gt_size'),
    'crops on a lattice of none': ({'datasets__train__crop_multiple': 0}, 'crop_multiple'),
    'no crops to choose from': ({'datasets__train__detail_crops': 0}, 'detail_crops'),
    'batch of none': ({'datasets__train__batch_size_per_gpu': 0}, 'batch_size_per_gpu'),
    'batch that is true': ({'datasets__train__batch_size_per_gpu': True}, 'batch_size_per_gpu'),
    'loaders that are negative': ({'datasets__train__num_worker_per_gpu': -1}, 'num_worker_per_gpu'),
    'enlarged by nothing': ({'datasets__train__dataset_enlarge_ratio': 0}, 'dataset_enlarge_ratio'),
    'enlarged by a word': ({'datasets__train__dataset_enlarge_ratio': 'x'}, 'dataset_enlarge_ratio'),
    'degradation that is a word': ({'datasets__train__degradation': 'sr'}, 'degradation'),
    'unknown degradation': ({'datasets__train__degradation__type': 'blur'}, 'degradation'),
    'degradation without end': ({'datasets__train__degradation__scale': INF}, 'degradation|scale'),
    'network that is a number': ({'network_g': 3}, 'network_g'),
    'unknown network': ({'network_g__type': 'ADMUnet'}, 'network_g.type'),
    'network without width': ({'network_g__model_channels': 0}, 'model_channels'),
    'network wider than memory': ({'network_g__model_channels': 10**6}, 'network_g|memory'),
    'network wider than numbers': ({'network_g__model_channels': 10**15}, 'network_g'),
    'network of many blocks': ({'network_g__num_res_blocks': 10**9}, 'network_g'),
    'multipliers that are a word': ({'network_g__channel_mult': 'x'}, 'channel_mult'),
    'multipliers that are none': ({'network_g__channel_mult': []}, 'channel_mult'),
    'attention nowhere': ({'network_g__attention_resolutions': 'x'}, 'attention_resolutions'),
    'dropout above one': ({'network_g__dropout': 2}, 'dropout'),
    'unknown bridge': ({'bridge__type': 'I2Sb'}, 'bridge.type'),
    'bridge that is not a number': ({'bridge__beta_max': NAN}, 'beta_max'),
    'bridge without end': ({'bridge__beta_max': INF}, 'beta_max'),
    'bridge of a word': ({'bridge__beta_max': 'x'}, 'beta_max'),
    'bridge of many times': ({'bridge__n_timestep': 10**12}, 'n_timestep'),
    'path that is a word': ({'path': 'here'}, 'path must be a block'),
    'path with an unknown key': ({'path__pretrained_network_g': 'x.pth'}, 'path: unknown key'),
    'path to weights that is a number': ({'path__pretrain_network_g': 3}, 'pretrain_network_g'),
    'path to weights that is a list': ({'path__pretrain_network_g': ['teacher.pth']}, 'pretrain_network_g'),
    'loose loading': ({'path__pretrain_network_g': 'teacher.pth', 'path__strict_load_g': False}, 'strict_load'),
    'root of experiments that is a number': ({'path__experiments_root': 3}, 'experiments_root'),
    'rate that is a word': ({'train__optim_g__lr': 'fast'}, 'lr'),
    'rate that is not a number': ({'train__optim_g__lr': NAN}, 'lr'),
    'rate without end': ({'train__optim_g__lr': INF}, 'lr'),
    'decay that is not a number': ({'train__optim_g__weight_decay': NAN}, 'weight_decay'),
    'decay that is negative': ({'train__optim_g__weight_decay': -1}, 'weight_decay'),
    'betas that are one': ({'train__optim_g__betas': [0.9]}, 'betas'),
    'betas that are a number': ({'train__optim_g__betas': 0.9}, 'betas'),
    'betas above one': ({'train__optim_g__betas': [0.9, 2]}, 'beta'),
    'epsilon that is a word': ({'train__optim_g__eps': 'x'}, 'eps'),
    'no iterations': ({'train__total_iter': 0}, 'total_iter'),
    'iterations without end': ({'train__total_iter': INF}, 'total_iter'),
    'iterations that are not a number': ({'train__total_iter': NAN}, 'total_iter'),
    'milestones that are a number': ({'train__scheduler__milestones': 5}, 'milestones'),
    'milestones of words': ({'train__scheduler__milestones': ['x']}, 'milestones'),
    'schedule of a word': ({'train__scheduler__gamma': 'x'}, 'gamma'),
    'unknown schedule': ({'train__scheduler__type': 'MultiStep'}, 'scheduler.type'),
    'clipping at nothing': ({'train__grad_clip': 0}, 'grad_clip'),
    'clipping that is not a number': ({'train__grad_clip': NAN}, 'grad_clip'),
    'average above one': ({'train__ema_decay': 1.5}, 'ema_decay'),
    'warm-up that is a word': ({'train__warmup_iter': 'x'}, 'warmup_iter'),
    'unknown loss': ({'train__bridge_opt__type': 'L1Loss'}, 'bridge_opt.type'),
    'loss of a word': ({'train__bridge_opt__loss_weight': 'x'}, 'loss_weight'),
    'precision that is none': ({'train__amp': 'fp8'}, 'train.amp'),
    'validation at iteration 0': ({'val__val_freq': 0}, 'val_freq'),
    'unknown sampler': ({'val__sampler__type': 'ancestrel'}, 'sampler.type'),
    'more steps than times': ({'val__sampler__steps': 10**6}, 'steps'),
    'sampler of another bridge': ({'val__sampler': {'type': 'heun'}}, 'sampler'),
    'unknown metric': ({'val__metrics__psnr__type': 'calculate_pnsr'}, 'calculate_pnsr'),
    'metric of a word': ({'val__metrics__psnr__crop_border': 'x'}, 'crop_border'),
    'log at iteration 0': ({'logger__print_freq': 0}, 'print_freq'),
    'log that is a word': ({'logger': 'loud'}, 'logger must be a block'),
}
"""Changes of good options for training (:func:`tiny.options`), and the reason."""
TEST: dict[str, tuple[dict[str, Any], str]] = {
    'no test set': ({'datasets': {}}, 'datasets'),
    'no sampler that fits': ({'val__sampler': {'type': 'one_step', 'steps': 3}}, 'sampler.steps'),
    'unknown key': ({'val__sav_img': True}, "did you mean 'save_img'"),
    'weights that are a block': ({'path__pretrain_network_g': {'a': 1}}, 'pretrain_network_g'),
    'root of results that is a list': ({'path__results_root': ['x']}, 'results_root'),
    'pairs from nowhere': ({'datasets__test': {'name': 'p', 'type': 'PairedImageDataset', 'dataroot_gt': 'photos',
                                               'dataroot_lq': 'nowhere', 'io_backend': {'type': 'disk'}}}, 'nowhere'),
}
COMPARE: dict[str, tuple[dict[str, Any], str]] = {
    'no rows': ({'restorers': []}, 'restorers'),
    'rows that are a word': ({'restorers': 'all'}, 'restorers'),
    'row without a name': ({'restorers': [{'kind': 'input'}]}, 'with a name'),
    'row of an unknown kind': ({'restorers': [{'name': 'a', 'kind': 'x'}]}, 'kind'),
    'two rows of one name': ({'restorers': [{'name': 'a', 'kind': 'input'}] * 2}, 'given twice'),
    'row that leads elsewhere': ({'restorers': [{'name': '../a', 'kind': 'input'}]}, 'names a folder'),
    'network that is a number': ({'restorers__1__network': 3}, 'network'),
    'network of a word': ({'restorers__1__network__model_channels': 'x'}, 'model_channels'),
    'bridge of a word': ({'restorers__1__bridge__beta_max': 'x'}, 'beta_max'),
    'steps of a word': ({'restorers__1__sampler__steps': 'x'}, 'steps'),
    'weights that are a number': ({'restorers__1__weights': 3}, 'weights'),
    'scale that is negative': ({'scale': -1}, 'scale'),
    'scale that is not a number': ({'scale': NAN}, 'scale'),
    'tile of a word': ({'tile': 'x'}, 'tile'),
    'grid that is a word': ({'grid': 'x'}, 'grid'),
    'columns that are a number': ({'grid': {'columns': 3}}, 'grid.columns'),
    'crop of a word': ({'grid': {'crop': 'x'}}, 'grid'),
    'border of a word': ({'crop_border': 'x'}, 'crop_border'),
    'output that is a number': ({'output': 3}, 'output'),
    'data set that is a word': ({'dataset': 'photos'}, 'dataset'),
    'unknown data set': ({'dataset__type': 'x'}, 'dataset'),
    'metrics that are a word': ({'metrics': 'calculate_dists'}, 'metrics'),
    'unknown metric': ({'metrics': ['calculate_x']}, 'calculate_x'),
    'seed of a word': ({'manual_seed': 'x'}, 'manual_seed'),
    'two problems with the data': ({'datasets': []}, 'dataset'),
}
RECIPE: dict[str, tuple[dict[str, Any], str]] = {
    'no network': ({'network_g': None}, 'network_g'),
    'network of a word': ({'network_g__model_channels': 'x'}, 'model_channels'),
    'network wider than numbers': ({'network_g__model_channels': 10**15}, 'network_g'),
    'other network': ({'network_g__type': 'EDSR'}, 'network_g.type'),
    'bridge of a word': ({'bridge__beta_max': 'x'}, 'beta_max'),
    'sampler that is a word': ({'val__sampler': 'x'}, 'sampler'),
    'scale that is a word': ({'scale': 'x'}, 'scale'),
    'scale beyond memory': ({'scale': 10**9}, 'memory|scale'),
    'path that is a list': ({'path': [1]}, 'path'),
    'data sets that are a word': ({'datasets': 'x'}, 'datasets'),
    'crop that is negative': ({'datasets__train__gt_size': -4}, 'gt_size'),
    'quality of a word': ({'datasets__train__degradation': {'type': 'jpeg', 'quality': 'x'}}, 'quality'),
}


BY_DATA = {'scale that does not fit', 'root that is not there', 'crop that is negative', 'crop that does not fit the scale',
           'crop that is a word', 'crop beyond all images', 'loose loading', 'pairs from nowhere'}
"""What is found where data sets and networks are built, after the option file is done with: block or path are named."""


def cases() -> Iterator[Case]:
    """Yield the option files."""
    for name, (content, says) in (TEXTS | BYTES | NOT_FILES).items():
        yield Case(f'options/train: {name}', 'train', _file(content), NAME, says)
    for module in ('test', 'compare', 'restore', 'export'):
        for name in ('empty', 'tabs', 'code: os.system', 'billion laughs', 'alias of itself', 'deep lists', 'binary', 'folder', 'missing'):
            content, says = (TEXTS | BYTES | NOT_FILES)[name]
            yield Case(f'options/{module}: {name}', module, _file(content, module), NAME, says)
    for name, (changes, says) in TRAIN.items():
        file = '' if name in BY_DATA else NAME
        yield Case(f'options/train: {name}', 'train', _changed(options, changes), file, says)
    for name, (changes, says) in TEST.items():
        file = '' if name in BY_DATA else NAME
        yield Case(f'options/test: {name}', 'test', _changed(test_options, changes, 'test'), file, says)
    for name, (changes, says) in COMPARE.items():
        file = '' if name in BY_DATA else NAME
        yield Case(f'options/compare: {name}', 'compare', _changed(compare_options, changes, 'compare'), file, says)
    for name, (changes, says) in RECIPE.items():
        yield Case(f'options/restore: {name}', 'restore', _changed(options, changes, 'restore'), NAME, says)


def arguments(module: str, file: str | Path) -> list:
    """Return the command line that gives a command an option file."""
    more = {'restore': ['good.png', '-o', 'out', '--device', 'cpu', '--weights', 'teacher.pth'],
            'export': ['teacher.pth', '-o', 'out.safetensors'], 'compare': ['--device', 'cpu']}
    return [*more.get(module, []), '-opt', file]


def _file(content: str | bytes | Callable[[Path], object], module: str = 'train') -> Callable[[Path], list]:
    def make(folder: Path) -> list:
        path = folder / NAME
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return arguments(module, NAME)
    return make


def _changed(start: Callable[[Path], dict], changes: dict[str, Any], module: str = 'train') -> Callable[[Path], list]:
    """Return a function that writes good options with ``block__key=value`` changed."""
    def make(folder: Path) -> list:
        opt = json.loads(json.dumps(start(folder)))  # blocks that are one object in Python are two in a file
        for place, value in changes.items():
            *blocks, key = (int(part) if part.isdecimal() else part for part in place.split('__'))
            block = opt
            for part in blocks:
                block = block[part]
            block[key] = value
        (folder / 'options').mkdir()
        (folder / 'options' / NAME).write_text(yaml.safe_dump(opt, sort_keys=False))
        return arguments(module, f'options/{NAME}')
    return make
