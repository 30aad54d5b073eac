"""What a block of ``val.metrics`` may say: the metric functions of BasicSR's registry, set metrics and the diversity of several draws."""
from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

from ibmd_basicsr.metrics.catalogue import DIVERSITY, facts_of, find_metric
from ibmd_basicsr.metrics.classifier_metric import find_classifier
from ibmd_basicsr.metrics.dists_metric import find_weights
from ibmd_basicsr.metrics.diversity import Diversity
from ibmd_basicsr.metrics.features import find_features
from ibmd_basicsr.metrics.set_metrics import SET_METRIC_REGISTRY, KernelDistance
from ibmd_basicsr.utils.errors import CheckpointError, OptionError, one_line
from ibmd_basicsr.utils.option_check import build_from_options, key_problems, option_parameters

FROM_VALIDATION = ('img', 'img2', 'label')
"""Parameters of metric functions that validation supplies."""


def own_options(block: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a metric's block that the metric itself takes."""
    return {key: value for key, value in block.items() if key not in ('type', 'better')}


def fill_directions(metrics: Any) -> None:
    """Add ``better`` to the blocks of ``val.metrics`` (in place) that lack it and whose direction is known; BasicSR takes ``higher``."""
    for block in metrics.values() if isinstance(metrics, dict) else ():
        better = facts_of(block.get('type')).better if isinstance(block, dict) else None
        if better is not None and block.get('better') is None:
            block['better'] = better


def metric_problems(path: str, block: dict[str, Any], this_machine: bool = True) -> list[str]:
    """Return one line for each problem of a metric's block; the images that it will meet are not known here.

    Args:
        path: of the block, such as ``val.metrics.lpips``.
        block: the options.
        this_machine: look for weights and references, too.
    """
    kind = block.get('type')
    try:
        metric = find_metric(kind)
    except OptionError as error:
        return [f'{path}.type: {error}']
    names, required = option_parameters(metric.target, FROM_VALIDATION)
    problems = key_problems(path, block, {*names, 'type', 'better'}, [name for name in required if name != 'reference'])
    wrong_direction = metric.direction_problem(path, block.get('better'))
    if wrong_direction:
        problems.append(wrong_direction)
    border = block.get('crop_border', 0)
    if not isinstance(border, int) or isinstance(border, bool) or border < 0:
        problems.append(f'{path}.crop_border: must be a number of pixels, 0 or more, got {border!r}.')
    if kind == KernelDistance.__name__ and str(block.get('reference')).endswith('.npz'):
        problems.append(f'{path}.reference: a kernel distance needs the images, a folder or an LMDB; mu and sigma are not enough.')
    if kind == DIVERSITY and not problems:
        try:
            build_from_options(Diversity, own_options(block), path)
        except OptionError as error:
            problems.append(str(error))
    return problems + (missing_files(path, block) if this_machine and not problems else [])


def needs_truth(block: dict[str, Any]) -> bool:
    """Tell whether the metric of a (correct) block compares with the clean images of the validation set."""
    metric = find_metric(block['type'])
    if metric.of_sets:
        return block.get('reference') is None
    names, required = option_parameters(metric.target)
    return 'img2' in required or ('img2' in names and 'label' in names and block.get('labels') is None)


def missing_files(path: str, block: dict[str, Any]) -> list[str]:
    """Return one line for each file that a metric's block (with the right keys) needs and that is not there."""
    missing = [f'{path}.{key}: {os.path.abspath(block[key])}: no such file or folder.' for key in ('reference', 'labels')
               if isinstance(block.get(key), (str, os.PathLike)) and not os.path.exists(block[key])]
    finder = FINDERS.get(block['type'])
    if finder is not None:
        try:
            finder(**{key: value for key, value in block.items() if key in inspect.signature(finder).parameters})
        except (OSError, TypeError, ValueError) as error:  # the first: a name that no file can have
            missing.append(f'{path}: {one_line(error)}')
    return missing


def _find_lpips(weights: str | None = None) -> None:
    if weights is not None and not os.path.isfile(weights):
        raise CheckpointError(f'{weights}: no such weight file.')


FINDERS: dict[str, Callable] = {
    'calculate_lpips': _find_lpips, 'calculate_dists': find_weights, 'calculate_classifier_accuracy': find_classifier,
    DIVERSITY: _find_lpips, **dict.fromkeys(SET_METRIC_REGISTRY.keys(), find_features),
}
"""Metric -> what finds its weight files, and objects where one is missing."""
