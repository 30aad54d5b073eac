"""What a run reads: data, weights and states that its options name, looked at before an older run's folder is moved out of the way."""
from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from ibmd_basicsr.compat.datasets import make_dataset
from ibmd_basicsr.data.degraded_image_dataset import DegradedImageDataset
from ibmd_basicsr.models.metric_rules import missing_files
from ibmd_basicsr.utils.errors import DataError, InputError, OptionError, one_line
from ibmd_basicsr.utils.image_sets import small_images
from ibmd_basicsr.utils.numbers import is_integer

LISTED = (DegradedImageDataset.__name__, PairedImageDataset.__name__, 'SingleImageDataset')
"""Data sets that read no more than lists of files when they are made."""
SHOWN = 20
"""A message names so many small images, and counts the others."""


def check_inputs(opt: dict[str, Any]) -> None:
    """Refuse a run whose data, weights or states are not there or cannot be used.

    Looked at are what :func:`input_paths` returns and the files of metrics, then what the data sets say when they are made, and the sizes
    of the images in their headers. Contents of weights are not.

    Args:
        opt: checked options, of any model; they stay as they are.

    Raises:
        InputError: all problems found, one a line, each with the key in the option file.
    """
    problems = missing_inputs(opt) or [line for phase in opt['datasets'] for line in _dataset_problems(opt, phase)]
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        raise InputError('\n  '.join([f'{len(problems)} inputs that cannot be used:', *problems]))


def input_paths(opt: dict[str, Any]) -> dict[str, str]:
    """Return the files and folders that the options name for reading, by option; without those of metrics."""
    paths = {f'datasets.{phase}.{key}': value for phase, block in opt['datasets'].items() for key, value in block.items()
             if key.startswith(('dataroot_', 'meta_info')) or key == 'label_file'}
    paths |= {f'path.{key}': value for key, value in opt['path'].items() if _is_read(key, opt)}
    if opt['is_train']:
        paths['teacher.weights'] = (opt.get('teacher') or {}).get('weights')
        paths |= {f'train.{name}.weights': block['weights'] for name, block in (opt.get('train') or {}).items()
                  if isinstance(block, dict) and 'weights' in block}
    return {option: path for option, path in paths.items() if isinstance(path, str)}


def missing_inputs(opt: dict[str, Any]) -> list[str]:
    """Return a line for each file or folder that the options name and that is not there."""
    problems = [f'{option}: {os.path.abspath(path)}: no such {_kind(option, path)}.' for option, path in input_paths(opt).items()
                if not os.path.exists(path)]
    return problems + missing_metric_files(opt)


def missing_metric_files(opt: dict[str, Any]) -> list[str]:
    """Return a line for each file that the metrics need and that is not there."""
    metrics = (opt.get('val') or {}).get('metrics') or {}
    return [line for name, block in metrics.items() if isinstance(block, dict) and isinstance(block.get('type'), str)
            for line in missing_files(f'val.metrics.{name}', block)]


def _is_read(key: str, opt: dict[str, Any]) -> bool:
    """Tell whether the run reads what ``path.KEY`` names. A resumed one takes its networks and states from its own folder."""
    resumes = opt['auto_resume'] and any(Path(opt['path'].get('training_states', '')).glob('*.state'))
    if key == 'resume_state':
        return opt['is_train'] and not resumes
    network = key.removeprefix('pretrain_')
    if network == key or network not in opt:
        return False
    resumes = opt['is_train'] and (resumes or bool(opt['path'].get('resume_state')))
    return not resumes or network in (opt['path'].get('ignore_resume_networks') or ())


def _kind(option: str, path: str) -> str:
    if '.dataroot_' not in option:
        return 'file'
    return f'image {"LMDB" if path.endswith(".lmdb") else "folder"}'


def _dataset_problems(opt: dict[str, Any], phase: str) -> Iterator[str]:
    """Yield what is wrong with the files of a data set: first of all what keeps it from being made."""
    block, where = copy.deepcopy(opt['datasets'][phase]), f'datasets.{phase}'
    if block.get('type') not in LISTED:
        return
    try:
        # messages name sets by these two
        dataset = make_dataset(block | {'name': phase, 'phase': phase}, DATASET_REGISTRY.get(block['type']))
    except (OSError, DataError, OptionError) as error:
        line = one_line(error)
        yield line if line.startswith(where) else f'{where}: {line}'
        return
    for least, small in _small_images(dataset, phase == 'train'):
        key, crop = ('.gt_size', 'the crop of ') if phase == 'train' else ('', '')
        others = f' and {len(small) - SHOWN} more' if len(small) > SHOWN else ''
        yield (f'{where}{key}: {len(small)} of {len(dataset)} images are smaller than {crop}{least} pixels: '
               f'{", ".join(small[:SHOWN])}{others}.')


def _small_images(dataset: Dataset, training: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield how many pixels a side images must have, and those that have less, if there are any."""
    if isinstance(dataset, DegradedImageDataset):
        found = [(dataset.smallest, dataset.small_images())]
    elif isinstance(dataset, PairedImageDataset) and training and is_integer(dataset.opt.get('gt_size'), least=1):
        size = dataset.opt['gt_size']
        roots = {'gt_path': (dataset.gt_folder, size), 'lq_path': (dataset.lq_folder, size // dataset.opt.get('scale', 1))}
        found = [(least, small_images(root, [pair[name] for pair in dataset.paths], least, packed=str(root).endswith('.lmdb')))
                 for name, (root, least) in roots.items()]
    else:
        found = []
    yield from ((least, small) for least, small in found if small)
