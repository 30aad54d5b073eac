"""DegradedImageDataset: photographs degraded on the fly, or corrupted photographs alone."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from basicsr.utils import FileClient
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils.data import Dataset

from ibmd_basicsr.data.degradations import build_degradation
from ibmd_basicsr.utils.errors import DataError, OptionError
from ibmd_basicsr.utils.image_files import decode_image
from ibmd_basicsr.utils.image_sets import EXTENSIONS, list_images, small_images, without_ending
from ibmd_basicsr.utils.lmdb_files import list_keys, read_value
from ibmd_basicsr.utils.option_check import check_keys
from ibmd_basicsr.utils.seeding import derive_seed


@DATASET_REGISTRY.register()
class DegradedImageDataset(Dataset):
    """Yields ``lq`` (and ``gt``) as float32 (3, H, W), RGB, [0, 1], with ``lq_path`` (and ``gt_path``).

    Where a mask is drawn or read, the sample also holds ``mask``, float32 (1, H, W), 1 in the hole and 0 where ``lq`` is known; where
    there are labels, ``label``, an int64 scalar.

    Two modes:

    * ``dataroot_gt`` and ``degradation``: clean photographs, degraded here. With ``return_gt: false`` only ``lq`` leaves the dataset.
    * ``dataroot_lq`` alone: corrupted photographs (with ``dataroot_mask``: and where they are corrupted); no clean image need exist. This
      is all that distillation reads.

    Ready-made pairs are the business of BasicSR's ``PairedImageDataset``.

    In phase ``train`` a random crop is taken (``gt_size``), flipped and rotated; every choice is keyed by (``manual_seed``, draw number),
    so it depends neither on the number of workers nor on a restart. In phase ``val``/``test`` the whole image is returned, cut at the
    right and bottom to what the degradation accepts.

    Options (``datasets.<phase>`` block; others belong to BasicSR's loader):
        dataroot_gt, dataroot_lq: folder, or ``.lmdb`` with ``io_backend: {type: lmdb}``.
        io_backend: ``{type: disk | lmdb}``, default disk.
        dataroot_mask: masks of the images of ``dataroot_lq``, of the same sizes, white (above 127) in the hole. A folder with the same
            names up to the ending, or an LMDB with the same keys if ``io_backend`` says lmdb.
        label_file: text file with a line ``name label`` for each image (others may be listed, too): its path below the folder, with or
            without ending, or its LMDB key, and an integer from 0.
        meta_info_file: text file with one image name a line (first word); default: all images of the folder, recursively.
        filename_tmpl: name pattern without ending applied to the names of ``meta_info_file``, default ``{}``.
        degradation: see :func:`~ibmd_basicsr.data.degradations.build_degradation`.
        scale: enlargement; from the host. Used in mode ``dataroot_lq``.
        gt_size: side of the clean crop in pixels (train).
        crop_multiple: corners of crops lie on multiples of this; 16 keeps the block grid of JPEG files. Default 1.
        detail_crops: draw so many crops and keep the one with the largest gradient energy; default 1.
        use_hflip, use_rot: augment (train).
        return_gt: hand out ``gt``; default true where there is one.
        cache: keep the decoded photographs in memory (8 bits), for small sets.

    Raises:
        OptionError: an option that is unknown or does not fit, an image without a label, a mask of another size than its image;
            FileNotFoundError, ValueError: missing or unusable images.
    """

    OPTIONS = frozenset({
        'dataroot_gt', 'dataroot_lq', 'dataroot_mask', 'io_backend', 'label_file', 'meta_info_file', 'filename_tmpl', 'degradation',
        'gt_size', 'crop_multiple', 'detail_crops', 'use_hflip', 'use_rot', 'return_gt', 'cache',
        # host and loader
        'name', 'type', 'phase', 'scale', 'manual_seed', 'start_iter', 'num_worker_per_gpu', 'batch_size_per_gpu',
        'dataset_enlarge_ratio', 'prefetch_mode', 'num_prefetch_queue', 'pin_memory', 'persistent_workers'
    })

    def __init__(self, opt: dict):
        self.opt = opt
        block = f'datasets.{opt.get("name", opt.get("phase", ""))}'
        check_keys(block, opt, self.OPTIONS)
        self.train = opt.get('phase', 'train') == 'train'
        self.manual_seed = opt.get('manual_seed') or 0
        self.from_lq = opt.get('dataroot_lq') is not None
        for key in ('dataroot_gt', 'dataroot_lq', 'dataroot_mask'):
            if opt.get(key) == '':  # the working directory, to all that follows
                raise OptionError(f'{block}.{key}: must name a folder, got an empty text.')
        if self.from_lq == (opt.get('dataroot_gt') is not None):
            raise OptionError(f'{block}: give either dataroot_gt (with degradation) or dataroot_lq, not both or neither; ready-made '
                              f'pairs are read by type PairedImageDataset.')
        if self.from_lq == (opt.get('degradation') is not None):
            raise OptionError(f'{block}: degradation belongs to dataroot_gt, and is needed there.')
        self.degradation = None if self.from_lq else build_degradation(opt['degradation'], f'{block}.degradation')
        self.scale = opt.get('scale', 1) if self.from_lq else self.degradation.scale
        if opt.get('scale', self.scale) != self.scale:
            raise OptionError(f'{block}: the degradation reduces by {self.scale}, but the option file says scale: {opt["scale"]}.')
        self.return_gt = opt.get('return_gt', not self.from_lq)
        if self.return_gt and self.from_lq:
            raise OptionError(f'{block}: return_gt: true needs dataroot_gt.')
        if opt.get('dataroot_mask') is not None and not self.from_lq:
            raise OptionError(f'{block}: dataroot_mask belongs to dataroot_lq; with dataroot_gt the degradation draws the masks.')
        if self.train:
            self.crop_size = self._crop_size(block)
        self.root = Path(opt['dataroot_lq'] if self.from_lq else opt['dataroot_gt'])
        backend = dict(opt.get('io_backend') or {'type': 'disk'})
        self.backend = backend.get('type')
        if self.backend not in ('disk', 'lmdb'):
            raise OptionError(f"{block}.io_backend.type must be 'disk' or 'lmdb', got {self.backend!r}.")
        self.keys = self._find_images(opt)
        self.mask_root = Path(opt['dataroot_mask']) if opt.get('dataroot_mask') is not None else None
        self.mask_keys = self._find_masks() if self.mask_root else None
        self.labels = read_labels(Path(opt['label_file']), self.keys) if opt.get('label_file') is not None else None
        self._cache: dict[int, np.ndarray] = {}

    def _crop_size(self, block: str) -> int:
        """Side of the crop in pixels of the file that is read."""
        size = self.opt.get('gt_size')
        multiple = self.scale if self.from_lq else self.degradation.size_multiple
        if not isinstance(size, int) or size < 1 or size % multiple:
            raise OptionError(f'{block}.gt_size must be a positive multiple of {multiple}, got {size!r}.')
        return size // self.scale if self.from_lq else size

    def _find_images(self, opt: dict) -> list[str]:
        """Return the images' keys: paths relative to the folder, or LMDB keys."""
        if self.backend == 'disk' and opt.get('meta_info_file') is not None and self.root.is_dir():
            lines = Path(opt['meta_info_file']).read_text().splitlines()
            pattern = opt.get('filename_tmpl') or '{}'
            names = [Path(line.split(' ')[0]) for line in lines if line.strip()]
            keys = [str(name.with_name(pattern.format(name.stem) + name.suffix)) for name in names]
        else:
            keys = self._listing(self.root)
        if not keys:
            raise FileNotFoundError(f'{self.root}: holds no image ({", ".join(EXTENSIONS)}).')
        return keys

    def _listing(self, root: Path) -> list[str]:
        """Return the keys of all images below a folder or in an LMDB."""
        if not root.is_dir():
            raise FileNotFoundError(f'{root}: no such image {"LMDB" if self.backend == "lmdb" else "folder"}.')
        if self.backend == 'disk':
            return list_images(root)
        return list_keys(root)

    def _find_masks(self) -> list[str]:
        """Return the key of each image's mask."""
        by_stem = {without_ending(name): name for name in self._listing(self.mask_root)}
        missing = [key for key in self.keys if without_ending(key) not in by_stem]
        if missing:
            raise FileNotFoundError(f'{self.mask_root}: no mask for {missing[0]} ({len(missing)} of {len(self.keys)} images have none).')
        return [by_stem[without_ending(key)] for key in self.keys]

    @property
    def smallest(self) -> int:
        """Pixels that an image must have a side: of the crop in training, else of what the degradation reduces to one."""
        if self.train:
            return self.crop_size
        return 1 if self.from_lq else self.degradation.size_multiple

    def small_images(self) -> list[str]:
        """Return the images that are smaller than :attr:`smallest`, each as ``PATH (WIDTHxHEIGHT)``, by their headers or the LMDB's list.

        See :func:`~ibmd_basicsr.utils.image_sets.small_images`.
        """
        return small_images(self.root, self.keys, self.smallest, packed=self.backend == 'lmdb')

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        rng = np.random.default_rng(derive_seed('data', self.manual_seed, getattr(index, 'number', int(index))))
        path = str(self.root / self.keys[index])
        image = self._read(int(index), path)  # HWC, RGB, uint8
        if self.train:
            image = self._augment(self._crop(image, rng, path), rng)
        else:
            multiple = self.smallest
            height, width = (side - side % multiple for side in image.shape[:2])
            if not (height and width):
                raise DataError(f'{path}: {image.shape[1]}x{image.shape[0]} is smaller than {multiple} pixels, the least that is needed.')
            image = image[:height, :width]
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        x = pixels[:3].float() / 255
        sample = {'lq': x, 'lq_path': path}
        if self.mask_root:
            sample['mask'] = (pixels[3:] > 127).float()
        elif not self.from_lq:
            sample['lq'], mask = self.degradation.degrade(x, rng)
            if mask is not None:
                sample['mask'] = mask
        if self.labels is not None:
            sample['label'] = torch.tensor(self.labels[index])
        return sample | {'gt': x, 'gt_path': path} if self.return_gt else sample

    def _read(self, index: int, path: str) -> np.ndarray:
        """Return the decoded image (H, W, 3), RGB, uint8; with ``dataroot_mask`` (H, W, 4), the mask behind.

        So that the mask goes through crop and augmentation with its image.

        Raises:
            DataError: a file is not an image or is damaged.
            OptionError: the mask has another size.
        """
        if index in self._cache:
            return self._cache[index]
        image = self._decode(self.root, self.keys[index])
        if self.mask_root:
            mask = self._decode(self.mask_root, self.mask_keys[index])
            if mask.shape != image.shape:
                raise OptionError(f'{self.mask_root / self.mask_keys[index]}: {mask.shape[1]}x{mask.shape[0]} pixels, '
                                  f'but its image {path} has {image.shape[1]}x{image.shape[0]}.')
            image = np.dstack([image, cv2.cvtColor(mask, cv2.COLOR_RGB2GRAY)])
        if self.opt.get('cache', False):
            self._cache[index] = image
        return image

    def _decode(self, root: Path, key: str) -> np.ndarray:
        """Return an image of a folder or an LMDB as (H, W, 3), RGB, uint8."""
        path = str(root / key)
        if self.backend == 'lmdb':
            return decode_image(read_value(root, key), path)
        try:
            content = FileClient('disk').get(path)
        except FileNotFoundError:
            raise
        except OSError as error:  # a disk that fails while it reads names no file
            raise DataError(f'{path}: cannot be read ({error.strerror or error}).') from error
        return decode_image(content, path)

    def _crop(self, image: np.ndarray, rng: np.random.Generator, path: str) -> np.ndarray:
        """Draw a crop; of several candidates, the one with the most detail."""
        size, multiple = self.crop_size, self.opt.get('crop_multiple', 1)
        height, width = image.shape[:2]
        if height < size or width < size:
            raise DataError(f'{path}: {width}x{height} is smaller than the crop of {size} pixels.')
        candidates = []
        for _ in range(self.opt.get('detail_crops', 1)):
            top, left = (int(rng.integers((side - size) // multiple + 1)) * multiple for side in (height, width))
            candidates.append(image[top:top + size, left:left + size])
        return max(candidates, key=lambda crop: gradient_energy(crop[..., :3])) if len(candidates) > 1 else candidates[0]

    def _augment(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Flip and rotate by 90 degrees, each with probability 1/2 (BasicSR's ``augment`` with an explicit generator)."""
        hflip, vflip, transpose = rng.random(3) < 0.5
        if self.opt.get('use_hflip', False) and hflip:
            image = image[:, ::-1]
        if self.opt.get('use_rot', False):
            if vflip:
                image = image[::-1]
            if transpose:
                image = image.transpose(1, 0, 2)
        return image


def read_labels(file: Path, keys: list[str]) -> list[int]:
    """Return the label of each image.

    Args:
        file: text with one ``name label`` a line; blank lines are skipped.
        keys: paths of the images below their folder, or LMDB keys. A name in full goes before one without ending.

    Raises:
        OptionError: a line that is not ``name label``, a name with two labels, or images without a label.
        FileNotFoundError: no such file.
    """
    labels: dict[str, int] = {}
    for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().replace('\t', ' ').rpartition(' ')
        name = name.strip()
        if not name or not label.isdecimal():
            raise OptionError(f"{file}: line {number} must be 'name label' with an integer label from 0, got {line.strip()!r}.")
        if labels.setdefault(name, int(label)) != int(label):
            raise OptionError(f'{file}: line {number} gives {name} the label {label}, but it has {labels[name]} already.')
    by_stem: dict[str, int] = {}
    for name, label in labels.items():
        by_stem.setdefault(without_ending(name), label)
    found = [labels.get(key, by_stem.get(without_ending(key))) for key in keys]
    missing = [key for key, label in zip(keys, found) if label is None]
    if missing:
        raise OptionError(f'{file}: no label for {missing[0]} ({len(missing)} of {len(keys)} images have none).')
    return found


def gradient_energy(image: np.ndarray) -> float:
    """Return the mean squared difference of neighbouring pixels of an image (H, W, 3), uint8."""
    values = image.astype(np.float32)
    return float(np.square(np.diff(values, axis=0)).mean() + np.square(np.diff(values, axis=1)).mean())
