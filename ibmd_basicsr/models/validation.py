"""Validation: the images are shared out over the ranks, and all kinds of metrics stand in one block ``val.metrics``.

BasicSR restores every image on rank 0 while the others wait, and knows no metric but the mean of a function of one image. Its method is
replaced whole, because the loop and the metrics are one piece there.
"""
from __future__ import annotations

import os.path as osp
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from basicsr.metrics import calculate_metric
from basicsr.utils import imwrite, tensor2img
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from ibmd_basicsr.data.degraded_image_dataset import read_labels
from ibmd_basicsr.metrics.catalogue import DIVERSITY
from ibmd_basicsr.metrics.diversity import Diversity
from ibmd_basicsr.metrics.features import FeatureExtractor, build_extractor
from ibmd_basicsr.metrics.set_metrics import SET_METRIC_REGISTRY
from ibmd_basicsr.models.metric_rules import fill_directions, metric_problems, needs_truth, own_options
from ibmd_basicsr.utils.allocator import give_back_freed_memory
from ibmd_basicsr.utils.errors import OptionError

Record = dict[str, float | np.ndarray]
"""What the metrics keep of an image: a number each, set metrics the image's features (1, D)."""


class Judges:
    """The metrics of ``val.metrics`` for one data set.

    :meth:`judge` makes a record of an image, on whichever rank; :meth:`combine` makes the metrics' values of all records in the order of
    the images, so that the values do not depend on who made which record.

    Args:
        blocks: ``val.metrics``, checked.
        dataset: yields ``lq_path`` and, for metrics that compare, ``gt``.

    Attributes:
        draws: how many restorations of each image are asked for.

    Raises:
        OptionError: a label is missing.
        CheckpointError: a weight file is missing or damaged.
        FileNotFoundError: no such label file.
    """

    def __init__(self, blocks: dict[str, dict[str, Any]], dataset: Dataset):
        self.blocks = blocks
        self.dataset = dataset
        self.labels = {name: read_labels(Path(block['labels']), image_keys(dataset)) for name, block in blocks.items()
                       if block.get('labels') is not None}
        self.diversity = {name: Diversity(**own_options(block)) for name, block in blocks.items() if block['type'] == DIVERSITY}
        self.extractors = {name: _extractor(block.get('features', 'alexnet'), block.get('weights'), block.get('device'), block.get('patch'))
                           for name, block in blocks.items() if block['type'] in SET_METRIC_REGISTRY}
        self.draws = max((one.samples for one in self.diversity.values()), default=1)
        self._sets: dict[str, Any] = {}

    def judge(self, index: int, images: Sequence[np.ndarray], truth: np.ndarray | None) -> Record:
        """Return the record of image ``index``.

        Args:
            index: place in the data set.
            images: ``draws`` restorations (H, W, 3), BGR, uint8. All but the diversity judge the first.
            truth: the clean image, of the same size, if there is one.

        Raises:
            OptionError: a metric does not take the image; its block and the reason.
        """
        features = dict.fromkeys(self.extractors.values())
        record: Record = {}
        for name, block in self.blocks.items():
            try:
                if name in self.diversity:
                    record[name] = self.diversity[name](images[:self.diversity[name].samples])
                elif name in self.extractors:
                    extractor = self.extractors[name]
                    if features[extractor] is None:  # several distances of the same features
                        features[extractor] = extractor(images[0])
                    record[name] = features[extractor]
                else:
                    record[name] = float(calculate_metric(self._inputs(name, block, index, images[0], truth), block))
            except ValueError as error:
                raise OptionError(f'val.metrics.{name}: {error}') from error
        return record

    def _inputs(self, name: str, block: dict[str, Any], index: int, image: np.ndarray, truth: np.ndarray | None) -> dict[str, Any]:
        """Return what a metric function gets besides its options."""
        if truth is None and needs_truth(block):
            raise OptionError(f'{block["type"]} compares with clean images, which this data set does not have.')
        inputs = {'img': image} if truth is None else {'img': image, 'img2': truth}
        return inputs | ({'label': self.labels[name][index]} if name in self.labels else {})

    def combine(self, records: Sequence[Record]) -> dict[str, float]:
        """Return the value of each metric from the records of all images, in the order of the images.

        Raises:
            OptionError: a set metric has too few images, or its reference cannot be used.
        """
        values = {}
        for name in self.blocks:
            parts = [record[name] for record in records]
            if name not in self.extractors:
                values[name] = fmean(parts)
                continue
            try:
                values[name] = self._distance(name, parts)
            except ValueError as error:
                raise OptionError(f'val.metrics.{name}: {error}') from error
        return values

    def _distance(self, name: str, features: Sequence[np.ndarray]) -> float:
        if name not in self._sets:
            # here, not in the constructor: one rank alone needs the reference, and reads it once
            block = self.blocks[name]
            reference = self._truths() if block.get('reference') is None else block['reference']
            self._sets[name] = SET_METRIC_REGISTRY.get(block['type'])(reference, self.extractors[name])
        metric = self._sets[name]
        metric.reset()
        for one in features:
            metric.update_features(one)
        return metric.compute()

    def _truths(self) -> Iterator[np.ndarray]:
        """Yield the clean images of the data set, (H, W, 3), BGR, uint8."""
        for i in range(len(self.dataset)):
            sample = self.dataset[i]
            if 'gt' not in sample:
                raise OptionError('the data set has no clean images: give a reference.')
            yield tensor2img(sample['gt'])


@contextmanager
def _any_convolution() -> Iterator[None]:
    """Within this block cuDNN tries no algorithms: training has one size of image, validation many, and each would be tried anew."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@cache
def _extractor(features: str, weights: str | None, device: str | None, patch: int | None) -> FeatureExtractor:
    """Build each extractor once per process, whatever number of metrics and data sets use it."""
    return build_extractor(features, weights, device, patch)


def image_keys(dataset: Dataset) -> list[str]:
    """Return the names under which a label file lists the images of a data set: ours, or one of BasicSR's (there the file names)."""
    if hasattr(dataset, 'keys'):
        return dataset.keys
    return [Path(path['lq_path'] if isinstance(path, dict) else path).name for path in dataset.paths]


def unique_names(dataset: Dataset) -> list[str]:
    """Return what the images of a data set are called: the stems of their files, with the folders before those that several have."""
    paths = [osp.splitext(key)[0] for key in image_keys(dataset)]
    counts = Counter(map(osp.basename, paths))
    return [path if counts[osp.basename(path)] > 1 else osp.basename(path) for path in paths]


class ShardedValidation:
    """Comes before BasicSR's ``SRModel`` (or a class derived from it) in a model's bases and replaces its validation.

    Rank r of W restores the images r, r + W, r + 2 W, ..., so no rank waits for more than one image. What the metrics keep of each image
    is gathered on rank 0, which computes the values (as one process would, in the order of the images: they are equal to the last bit)
    and hands them to all. Images are written by the rank that restored them; rank 0 writes the log. Otherwise as the host: ``save_img``,
    ``suffix``, ``pbar``, ``metrics``, the best values of each data set, names of the files.

    Attributes:
        draws_noise: ``test`` takes the number of a sample and restores with noise of its own; :class:`Diversity` needs it.

    Raises:
        OptionError: a metric's block is wrong, or asks for several draws of a model that draws nothing.
    """

    draws_noise = False

    def __init__(self, opt: dict[str, Any]):
        problems = []
        for name, block in ((opt.get('val') or {}).get('metrics') or {}).items():
            problems += metric_problems(f'val.metrics.{name}', block)
            if block.get('type') == DIVERSITY and not self.draws_noise:
                problems.append(f'val.metrics.{name}: {DIVERSITY} needs a model that draws noise, not {type(self).__name__}.')
        if problems:
            raise OptionError('\n  '.join(problems))
        super().__init__(opt)

    def dist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        """Validate on all ranks (host hook); arguments as of the host's ``validation``. A training has ``total_iter`` iterations.

        Raises:
            OptionError: a metric does not take an image, or there is none.
        """
        if self.opt['is_train']:
            # the host has counted on, to find the end, when it validates for the last time
            current_iter = min(current_iter, int(self.opt['train']['total_iter']))
        dataset, blocks = dataloader.dataset, self.opt['val'].get('metrics')
        dataset_name = dataset.opt['name']
        if not len(dataset):
            raise OptionError(f'datasets: {dataset_name} holds no images.')
        if blocks is None:
            self._restore_share(dataloader, None, current_iter, save_img)
            give_back_freed_memory()
            return
        if not hasattr(self, '_judges'):
            self._judges: dict[str, Judges] = {}
        if dataset_name not in self._judges:
            self._judges[dataset_name] = Judges(blocks, dataset)
        judges = self._judges[dataset_name]
        records = self._restore_share(dataloader, judges, current_iter, save_img)
        self.metric_results = self._combine(judges, records)
        self._initialize_best_metric_results(dataset_name)
        for metric, value in self.metric_results.items():
            self._update_best_metric_result(dataset_name, metric, value, current_iter)
        if self.opt['rank'] == 0:
            self._log_validation_metric_values(current_iter, dataset_name, tb_logger)
        give_back_freed_memory()

    nondist_validation = dist_validation  # one process is rank 0 of 1

    def _initialize_best_metric_results(self, dataset_name: str) -> None:
        """As the host, but a run may be resumed with other metrics: those that stayed keep their best values."""
        fill_directions(self.opt['val']['metrics'])
        known = getattr(self, 'best_metric_results', {}).pop(dataset_name, {})
        super()._initialize_best_metric_results(dataset_name)
        record = self.best_metric_results[dataset_name]
        record |= {metric: best for metric, best in known.items() if best['better'] == record.get(metric, {}).get('better')}

    def _restore_share(self, dataloader: DataLoader, judges: Judges | None, current_iter: int | str, save_img: bool) -> dict[int, Record]:
        """Restore this rank's images; return their records by place in the data set, empty without metrics."""
        dataset, rank = dataloader.dataset, self.opt['rank']
        own = range(rank, len(dataset), self.opt['world_size'])
        loader = DataLoader(Subset(dataset, own), collate_fn=dataloader.collate_fn, pin_memory=dataloader.pin_memory)
        records, names = {}, unique_names(dataset)
        bar = tqdm(total=len(own), unit='image', disable=rank > 0 or not self.opt['val'].get('pbar', False))
        with _any_convolution(), bar as progress:
            for index, data in zip(own, loader):
                name = names[index]
                images, truth = self._restore(data, judges.draws if judges else 1, name)
                if save_img:
                    imwrite(images[0], self._image_path(name, dataset.opt['name'], current_iter))
                if judges:
                    records[index] = judges.judge(index, images, truth)
                progress.update(1)
                progress.set_description(f'Test {name}')
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()  # images of many sizes leave holes that training would miss
        return records

    def _restore(self, data: dict[str, Any], draws: int, name: str) -> tuple[list[np.ndarray], np.ndarray | None]:
        """Return ``draws`` restorations of the image ``name`` and the clean one, if there is one; (H, W, 3), BGR, uint8."""
        self.feed_data(data)
        self.names = [name]  # the key of its noise
        images = []
        for sample in range(draws):
            self.test(sample) if sample else self.test()
            images.append(tensor2img([self.get_current_visuals()['result']]))
        truth = tensor2img([self.gt]) if 'gt' in data else None
        for name in ('lq', 'output', 'gt'):  # as the host, to save memory; whether there is a gt tells the next image's visuals
            self.__dict__.pop(name, None)
        return images, truth

    def _image_path(self, name: str, dataset_name: str, current_iter: int | str) -> str:
        """Return where an image is written: the host's places."""
        folder = self.opt['path']['visualization']
        if self.opt['is_train']:
            return osp.join(folder, name, f'{osp.basename(name)}_{current_iter}.png')
        return osp.join(folder, dataset_name, f'{name}_{self.opt["val"].get("suffix") or self.opt["name"]}.png')

    def _combine(self, judges: Judges, records: dict[int, Record]) -> dict[str, float]:
        """Return the metrics' values, on every rank the same."""
        if self.opt['world_size'] == 1:
            return judges.combine(list(records.values()))
        rank = self.opt['rank']
        shares = [None] * self.opt['world_size'] if rank == 0 else None
        dist.gather_object(records, shares)
        values = [None]
        if rank == 0:
            everything = {index: record for share in shares for index, record in share.items()}
            values = [judges.combine([everything[index] for index in sorted(everything)])]
        dist.broadcast_object_list(values)
        return values[0]
