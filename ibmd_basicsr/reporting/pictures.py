"""The test images of a comparison."""
from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from basicsr.data.paired_image_dataset import PairedImageDataset
from torch import Tensor

import ibmd_basicsr.data  # noqa: F401  (registers ours)
from ibmd_basicsr.compat.datasets import build_dataset
from ibmd_basicsr.models.option_values import dataset_problems
from ibmd_basicsr.utils.errors import OptionError, one_line
from ibmd_basicsr.utils.files import is_folder_name


@dataclass(frozen=True)
class Picture:
    """A test image, on the CPU.

    Attributes:
        name: unique.
        photograph: which one it is a crop of; its own name where it is a whole.
        lq, gt: (1, 3, h, w) and (1, 3, H, W), RGB, [0, 1].
        digest: changes when any of the tensors does.
        mask: (1, 1, h, w), 1 in the hole, of inpainting tasks.
        labels: (1,) class index, where the data set has labels.
    """

    name: str
    photograph: str
    lq: Tensor
    gt: Tensor
    digest: str
    mask: Tensor | None = None
    labels: Tensor | None = None


@dataclass
class ImageSet:
    """A test set and what is known of it.

    Attributes:
        name: unique.
        pictures: its images.
        records: results by row, one for each picture that is done, in their order.
        set_values: values of set metrics by row.
        left_out: the same without each group of images of a jackknife.
    """

    name: str
    pictures: list[Picture]
    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    set_values: dict[str, dict[str, float | None]] = field(default_factory=dict)
    left_out: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def complete(self) -> dict[str, list[dict[str, Any]]]:
        """Return the records of the rows that have all pictures."""
        return {row: records for row, records in self.records.items() if len(records) == len(self.pictures)}


def load_image_sets(opt: dict[str, Any], limit: int | None) -> list[ImageSet]:
    """Build the ``dataset`` block, or those of the list ``datasets``, with the first ``limit`` images of each.

    Raises:
        OptionError: both or neither given, a set of the list without a name of its own; and as :func:`load_pictures`.
        FileNotFoundError, ValueError: missing or unusable images.
    """
    if ('dataset' in opt) == ('datasets' in opt):
        raise OptionError('dataset: give either dataset (a block) or datasets (a list of blocks).')
    if 'dataset' in opt:
        pictures = load_pictures(opt, limit)
        return [ImageSet(opt['dataset'].get('name', opt['name']), pictures)]
    blocks = opt['datasets']
    if not isinstance(blocks, list) or not blocks:
        raise OptionError('datasets: must be a list of blocks with a name and a type.')
    names = [block.get('name') if isinstance(block, dict) else None for block in blocks]
    for number, name in enumerate(names):
        if not is_folder_name(name):
            raise OptionError(f'datasets[{number}].name: names a folder of images, got {name!r}.')
        if names.count(name) > 1:
            raise OptionError(f'datasets: the name {name!r} is given twice.')
    return [ImageSet(name, load_pictures(opt | {'dataset': block}, limit, f'datasets[{number}] ({name})'))
            for number, (name, block) in enumerate(zip(names, blocks))]


def load_pictures(opt: dict[str, Any], limit: int | None, path: str = 'dataset') -> list[Picture]:
    """Build the ``dataset`` block and return its first ``limit`` images (default: all); ``path`` is what messages call it.

    Raises:
        OptionError: not a dataset, no images, no ground truth or one of another size, or two images of one name.
        FileNotFoundError, ValueError: missing or unusable images.
    """
    if not isinstance(opt['dataset'], dict) or 'type' not in opt['dataset']:
        raise OptionError(f'{path}: must be a block with a type, such as DegradedImageDataset.')
    problems = dataset_problems(path, opt['dataset'])
    if problems:
        raise OptionError('\n  '.join(problems))
    options = {'name': opt['name'], **opt['dataset'], 'phase': 'val', 'scale': opt['scale']}
    options['io_backend'] = options.get('io_backend') or {'type': 'disk'}  # the host's data sets need it said
    try:
        dataset = build_dataset(options | {'manual_seed': opt.get('manual_seed') or 0})
    except OptionError as error:
        raise OptionError(f'{path}: {str(error).removeprefix("datasets.val: ")}') from error
    except (AttributeError, LookupError, TypeError) as error:  # the host takes much for granted
        raise OptionError(f'{path}: {one_line(error)}') from error
    if isinstance(getattr(dataset, 'dataset', None), PairedImageDataset):
        dataset.paths.sort(key=lambda pair: pair['lq_path'])  # the host leaves the folder's order, which differs between machines
    pictures = []
    for index in range(min(len(dataset), limit or len(dataset))):
        sample = dataset[index]
        if 'gt' not in sample:
            raise OptionError(f'{path}: has no ground truth to compare with; give dataroot_gt and leave return_gt out.')
        pictures.append(_make_picture(sample, opt['scale'], path, opt.get('crops_after')))
    if not pictures:
        raise OptionError(f'{path}: holds no images.')
    names = [picture.name for picture in pictures]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f'{path}: two images are called {name!r}; results are kept by name.')
    return pictures


def _make_picture(sample: dict[str, Any], scale: int, path: str, crops_after: str | None) -> Picture:
    name = Path(sample['lq_path']).stem
    lq, gt = sample['lq'][None], sample['gt'][None]
    expected = tuple(side * scale for side in lq.shape[-2:])
    if gt.shape[-2:] != expected:
        raise OptionError(f'{path}: the ground truth of {name!r} has {gt.shape[-1]}x{gt.shape[-2]} pixels, but its corrupted image and '
                          f'scale {scale} ask for {expected[1]}x{expected[0]}.')
    mask, labels = (sample[key][None] if key in sample else None for key in ('mask', 'label'))
    # nothing is added where there is neither: digests of earlier results stay what they were
    content = b''.join(tensor.numpy().tobytes() for tensor in (lq, gt, mask, labels) if tensor is not None)
    photograph = name.partition(crops_after)[0] if crops_after else name
    return Picture(name, photograph, lq, gt, hashlib.sha256(content).hexdigest(), mask, labels)
