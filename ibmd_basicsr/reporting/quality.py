"""The quality columns of a comparison: five metrics that are always there, and more of images and of sets from its ``metrics`` list."""
from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from basicsr.metrics import calculate_metric

from ibmd_basicsr.metrics.catalogue import find_metric, short_name  # importing it registers ours
from ibmd_basicsr.metrics.features import FeatureExtractor, build_extractor
from ibmd_basicsr.metrics.jackknife import deal_out
from ibmd_basicsr.metrics.set_metrics import SET_METRIC_REGISTRY
from ibmd_basicsr.reporting.results import fingerprint
from ibmd_basicsr.utils.errors import DataError, OptionError, one_line
from ibmd_basicsr.utils.files import file_digest
from ibmd_basicsr.utils.option_check import check_keys, option_parameters

METRICS = ('psnr', 'ssim', 'lpips', 'niqe', 'texture_distance')
"""What every comparison measures."""
METRICS_VERSION = 1
"""Raise when a metric's numbers change, so that stored results are not mixed with new ones."""
NIQE_BLOCK = 96
"""NIQE describes an image by blocks of this side; it needs two of them."""
PROBE = 64
"""Side of the images that metrics are tried with before anything is restored."""
OWN_KEYS = {'type', 'name', 'better'}


@dataclass(frozen=True, eq=False)
class Metric:
    """A quality column; each is a key of its own.

    Attributes:
        key: name of its values in records and CSV files.
        type: name in BasicSR's ``METRIC_REGISTRY``, or in ``SET_METRIC_REGISTRY``.
        title: heading, without the arrow.
        digits: decimals.
        better: ``higher``, ``lower`` or None where that is not known.
        options: what the function or class takes.
        of_sets: a value of all restored images of a set together, not a mean over images.
        fingerprint: changes when values may.
    """

    key: str
    type: str
    title: str
    digits: int
    better: str | None
    options: dict[str, Any]
    of_sets: bool = False

    @property
    def fingerprint(self) -> str:
        """Return a digest of the type and the options; of files among them, of what they hold."""
        files = {key: file_digest(value) for key, value in self.options.items() if isinstance(value, str) and Path(value).is_file()}
        return fingerprint(METRICS_VERSION, self.type, self.options, files)


def default_metrics(crop_border: int, device: str) -> list[Metric]:
    """Return :data:`METRICS`, computed without ``crop_border`` pixels at each border, LPIPS on ``device``."""
    kinds = [find_metric(f'calculate_{name}') for name in METRICS]
    return [Metric(name, kind.type, kind.title, kind.digits, kind.better,
                   {'crop_border': crop_border} | ({'device': device} if name == 'lpips' else {})) for name, kind in zip(METRICS, kinds)]


def read_metrics(opt: dict[str, Any], crop_border: int, device: str, reserved: Iterable[str] = ()) -> list[Metric]:
    """Return the five metrics and those of the ``metrics`` list, each of which was tried on a small image.

    Args:
        opt: the option file.
        crop_border: of metrics of images whose block has no ``crop_border``.
        device: of metrics that take one and whose block has none.
        reserved: keys that are taken in records.

    Raises:
        OptionError: not a list, an unknown metric or option, a name that is taken, or a metric that does not work, such as one without its
            weights.
    """
    blocks = opt.get('metrics') or []
    if not isinstance(blocks, list):
        raise OptionError(f'metrics: must be a list of blocks with a type, got {blocks!r}.')
    metrics = default_metrics(crop_border, device)
    for number, block in enumerate(blocks):
        path = f'metrics[{number}]'
        block = {'type': block} if isinstance(block, str) else block
        metric = _read_metric(block, path, {'crop_border': crop_border, 'device': device})
        if metric.key in {*reserved, *(other.key for other in metrics)}:
            raise OptionError(f'{path}: the name {metric.key!r} is taken; give another one as name.')
        metrics.append(metric)
    return metrics


def _read_metric(block: Any, path: str, defaults: dict[str, Any]) -> Metric:
    if not isinstance(block, dict) or not isinstance(block.get('type'), str):
        raise OptionError(f'{path}: must be a block with a type, got {block!r}.')
    try:
        kind = find_metric(block['type'])
    except OptionError as error:
        raise OptionError(f'{path}.type: {error}') from error
    path = f'{path} ({kind.type})'
    if kind.of_draws:
        raise OptionError(f'{path}: judges several restorations of an image, of which a comparison makes one.')
    parameters, _ = option_parameters(kind.target, ('img', 'img2', 'reference'))
    check_keys(path, block, {*parameters, *OWN_KEYS})
    wrong_direction = kind.direction_problem(path, block.get('better'))
    if wrong_direction:
        raise OptionError(wrong_direction)
    options = {key: value for key, value in defaults.items() if key in parameters}
    options |= {key: value for key, value in block.items() if key not in OWN_KEYS}
    own_title = _try_metric(kind.type, options, kind.of_sets, path)
    return Metric(key=str(block.get('name', short_name(kind.type))), type=kind.type, title=str(block.get('name', own_title or kind.title)),
                  digits=kind.digits, better=block.get('better') or kind.better, options=options, of_sets=kind.of_sets)


def _probe_side(options: dict[str, Any]) -> int:
    patch = options.get('patch')
    return max(PROBE, patch) if isinstance(patch, int) else PROBE


def _try_metric(kind: str, options: dict[str, Any], of_sets: bool, path: str) -> str | None:
    """Compute a metric of small images: better to fail now than after hours of restoring. Return the name of a set metric."""
    border = 2 * options.get('crop_border', 0)
    height, width = (side + border for side in ((NIQE_BLOCK, 2 * NIQE_BLOCK) if kind == 'calculate_niqe' else 2 * [_probe_side(options)]))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    try:
        if of_sets:
            return SET_METRIC_REGISTRY.get(kind)([image, image[::-1]], **options).name
        calculate_metric({'img': image, 'img2': image[::-1]}, {'type': kind, **options})
    except Exception as error:  # whatever it is, the metric does not work
        raise OptionError(f'{path}: {one_line(error).splitlines()[0]}') from error
    return None


def read_image(file: Path) -> np.ndarray:
    """Read a restored image, (H, W, 3), BGR, uint8.

    Raises:
        DataError: it is missing or damaged.
    """
    image = cv2.imread(str(file))
    if image is None:
        raise DataError(f'{file}: cannot be read; delete it, and the same command makes it again.')
    return image


def measure(image: np.ndarray, truth: np.ndarray, metrics: Iterable[Metric]) -> dict[str, float | None]:
    """Return metrics of a restored image, each on 8-bit BGR (H, W, 3) as the host's validation computes them.

    NIQE is None where the image holds fewer than two of its blocks.
    """
    values = {}
    for metric in metrics:
        blocks = [(side - 2 * metric.options.get('crop_border', 0)) // NIQE_BLOCK for side in image.shape[:2]]
        if metric.type == 'calculate_niqe' and blocks[0] * blocks[1] < 2:
            values[metric.key] = None
            continue
        values[metric.key] = float(calculate_metric({'img': image, 'img2': truth}, {'type': metric.type, **metric.options}))
    return values


class RememberingExtractor(FeatureExtractor):
    """Another extractor that keeps the features of every image it has seen, 8 D bytes each: several distances cost one pass.

    Args:
        extractor: what computes them.
    """

    def __init__(self, extractor: FeatureExtractor):
        super().__init__(extractor.network, extractor.name, extractor.device, extractor.patch)
        self._known: dict[tuple, np.ndarray] = {}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return what the other extractor returns; see there."""
        key = (images.shape, images.dtype.str, hashlib.blake2b(np.ascontiguousarray(images)).digest())
        if key not in self._known:
            self._known[key] = super().__call__(images)
        return self._known[key]


class SetQuality:
    """Set metrics of one test set; the features of an image are computed once, for all distances of the same features.

    Args:
        truths: the true images, (H, W, 3), BGR, uint8.
        photographs: of each, which it is a crop of.
    """

    def __init__(self, truths: Sequence[np.ndarray], photographs: Sequence[str]):
        self.truths = truths
        self.photographs = photographs
        self._built: dict[str, Any] = {}
        self._extractors: dict[tuple, RememberingExtractor] = {}

    def measure(self, metric: Metric, files: Iterable[Path]) -> float | None:
        """Return the value of ``metric`` for the images in ``files``; None where the set has fewer than two.

        Whole images: no border is left out.

        Raises:
            DataError: an image cannot be read.
        """
        if len(self.truths) < 2:
            return None
        if metric.key not in self._built:
            self._built[metric.key] = self._build(metric, self.truths)
        built = self._built[metric.key]
        built.reset()
        for file in files:
            built.update(read_image(file))
        return float(built.compute())

    def leave_out(self, metric: Metric, files: Iterable[Path]) -> list[float]:
        """Return the value of ``metric`` without each group of images of :func:`~ibmd_basicsr.metrics.jackknife.deal_out`.

        A group is left out of the restored and of the true images.

        Raises:
            DataError: an image cannot be read.
        """
        groups, values = deal_out(self.photographs), []
        extractor = self._extractor(metric.options)
        features = [extractor(read_image(file)) for file in files] if groups else []  # read once, not once a group
        for group in groups:
            kept = [i for i in range(len(self.truths)) if i not in group]
            built = self._build(metric, [self.truths[i] for i in kept])
            for i in kept:
                built.update_features(features[i])
            values.append(float(built.compute()))
        return values

    def _build(self, metric: Metric, truths: Sequence[np.ndarray]) -> Any:
        return SET_METRIC_REGISTRY.get(metric.type)(truths, self._extractor(metric.options))

    def _extractor(self, options: dict[str, Any]) -> RememberingExtractor:
        key = tuple(sorted((name, str(value)) for name, value in options.items()))
        if key not in self._extractors:
            self._extractors[key] = RememberingExtractor(build_extractor(**options))
        return self._extractors[key]
