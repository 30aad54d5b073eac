"""The test images of a comparison."""
from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr.data import build_dataset
from torch import Tensor

import ibmd_basicsr.data  # noqa: F401  (registers ours)
from ibmd_basicsr.utils.errors import OptionError, one_line


@dataclass(frozen=True)
class Picture:
    """A test image: ``lq`` (1, 3, h, w) and ``gt`` (1, 3, H, W), RGB, [0, 1], on the CPU; ``digest`` changes when they do."""

    name: str
    lq: Tensor
    gt: Tensor
    digest: str


def load_pictures(opt: dict[str, Any], limit: int | None) -> list[Picture]:
    """Build the ``dataset`` block and return its first ``limit`` images (default: all).

    Raises:
        OptionError: not a dataset, no ground truth, or two images of one name.
        FileNotFoundError, ValueError: missing or unusable images.
    """
    if not isinstance(opt['dataset'], dict) or 'type' not in opt['dataset']:
        raise OptionError('dataset: must be a block with a type, such as DegradedImageDataset.')
    options = {'name': opt['name'], **opt['dataset'], 'phase': 'val', 'scale': opt['scale']}
    try:
        dataset = build_dataset(options | {'manual_seed': opt.get('manual_seed') or 0})
    except KeyError as error:
        raise OptionError(f'dataset: {one_line(error)}') from error
    pictures = []
    for index in range(min(len(dataset), limit or len(dataset))):
        sample = dataset[index]
        if 'gt' not in sample:
            raise OptionError('dataset: has no ground truth to compare with; give dataroot_gt and leave return_gt out.')
        lq, gt = sample['lq'][None], sample['gt'][None]
        digest = hashlib.sha256(lq.numpy().tobytes() + gt.numpy().tobytes()).hexdigest()
        pictures.append(Picture(Path(sample['lq_path']).stem, lq, gt, digest))
    names = [picture.name for picture in pictures]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f'dataset: two images are called {name!r}; results are kept by name.')
    return pictures
