"""The test images of a comparison."""
from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr.data import build_dataset
from basicsr.data.paired_image_dataset import PairedImageDataset
from torch import Tensor

import ibmd_basicsr.data  # noqa: F401  (registers ours)
from ibmd_basicsr.utils.errors import OptionError, one_line


@dataclass(frozen=True)
class Picture:
    """A test image, on the CPU.

    Attributes:
        name: unique.
        lq, gt: (1, 3, h, w) and (1, 3, H, W), RGB, [0, 1].
        digest: changes when any of the tensors does.
        mask: (1, 1, h, w), 1 in the hole, of inpainting tasks.
        labels: (1,) class index, where the data set has labels.
    """

    name: str
    lq: Tensor
    gt: Tensor
    digest: str
    mask: Tensor | None = None
    labels: Tensor | None = None


def load_pictures(opt: dict[str, Any], limit: int | None) -> list[Picture]:
    """Build the ``dataset`` block and return its first ``limit`` images (default: all).

    Raises:
        OptionError: not a dataset, no ground truth or one of another size, or two images of one name.
        FileNotFoundError, ValueError: missing or unusable images.
    """
    if not isinstance(opt['dataset'], dict) or 'type' not in opt['dataset']:
        raise OptionError('dataset: must be a block with a type, such as DegradedImageDataset.')
    options = {'name': opt['name'], **opt['dataset'], 'phase': 'val', 'scale': opt['scale']}
    options['io_backend'] = options.get('io_backend') or {'type': 'disk'}  # the host's data sets need it said
    try:
        dataset = build_dataset(options | {'manual_seed': opt.get('manual_seed') or 0})
    except (KeyError, AssertionError) as error:  # the second: pairs of the host that do not match
        raise OptionError(f'dataset: {one_line(error)}') from error
    if isinstance(dataset, PairedImageDataset):
        dataset.paths.sort(key=lambda pair: pair['lq_path'])  # the host leaves the folder's order, which differs between machines
    pictures = []
    for index in range(min(len(dataset), limit or len(dataset))):
        sample = dataset[index]
        if 'gt' not in sample:
            raise OptionError('dataset: has no ground truth to compare with; give dataroot_gt and leave return_gt out.')
        pictures.append(_make_picture(sample, opt['scale']))
    names = [picture.name for picture in pictures]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f'dataset: two images are called {name!r}; results are kept by name.')
    return pictures


def _make_picture(sample: dict[str, Any], scale: int) -> Picture:
    name = Path(sample['lq_path']).stem
    lq, gt = sample['lq'][None], sample['gt'][None]
    expected = tuple(side * scale for side in lq.shape[-2:])
    if gt.shape[-2:] != expected:
        raise OptionError(f'dataset: the ground truth of {name!r} has {gt.shape[-1]}x{gt.shape[-2]} pixels, but its corrupted image and '
                          f'scale {scale} ask for {expected[1]}x{expected[0]}.')
    mask, labels = (sample[key][None] if key in sample else None for key in ('mask', 'label'))
    # nothing is added where there is neither: digests of earlier results stay what they were
    content = b''.join(tensor.numpy().tobytes() for tensor in (lq, gt, mask, labels) if tensor is not None)
    return Picture(name, lq, gt, hashlib.sha256(content).hexdigest(), mask, labels)
