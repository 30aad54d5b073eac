"""Runs restorers on the same images: pictures, quality, network calls and seconds, one stored result a row and image."""
from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils import get_root_logger, tensor2img
from tqdm import tqdm

import ibmd_basicsr.metrics  # noqa: F401  (registers ours)
from ibmd_basicsr.models import build_restorer
from ibmd_basicsr.reporting.pictures import Picture, load_pictures
from ibmd_basicsr.reporting.results import ResultStore, file_digest, fingerprint
from ibmd_basicsr.reporting.rows import Row
from ibmd_basicsr.utils.errors import one_line
from ibmd_basicsr.utils.seeding import PerImageNoise

METRICS = ('psnr', 'ssim', 'lpips', 'niqe', 'texture_distance')
METRICS_VERSION = 1
"""Raise when a metric's numbers change, so that stored results are not mixed with new ones."""
NIQE_BLOCK = 96
"""NIQE describes an image by blocks of this side; it needs two of them."""


class InputRestorer:
    """The corrupted image as it is, enlarged by ``cv2.INTER_CUBIC`` for super-resolution. Called like a ``Restorer``."""

    calls = 0
    parameters = 0

    def __init__(self, scale: int):
        self.scale = scale

    def __call__(self, lq, noise, on_step=None, *, mask=None, labels=None):
        """Return (B, 3, scale h, scale w) in [0, 1]; all arguments but ``lq`` are not used."""
        images = [image.permute(1, 2, 0).numpy() for image in lq.cpu()]
        if self.scale > 1:
            images = [cv2.resize(image, None, fx=self.scale, fy=self.scale, interpolation=cv2.INTER_CUBIC) for image in images]
        return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images]).clamp(0, 1).to(lq.device)


class _WarmedUp(Exception):
    """Leaves a restorer after its first network call."""


class Comparison:
    """All rows on all images, resumable.

    Args:
        opt: checked options.
        rows: from :func:`read_rows`.
        output: folder for everything that is written.
        device: where restorers and LPIPS run.
        limit: only so many images.
        fresh: forget earlier results.

    Raises:
        OptionError, FileNotFoundError, ValueError: the dataset cannot be built or read.
    """

    def __init__(self, opt: dict[str, Any], rows: list[Row], *, output: Path, device: torch.device,
                 limit: int | None = None, fresh: bool = False):
        self.opt = opt
        self.rows = rows
        self.output = output
        self.device = device
        self.crop_border = opt.get('crop_border', opt['scale'] if opt['scale'] > 1 else 0)
        with _quiet_host():
            self.pictures = load_pictures(opt, limit)
        self.store = ResultStore(output / 'results.jsonl', fresh=fresh)
        self.records: dict[str, list[dict[str, Any]]] = {row.name: [] for row in rows}

    def run(self) -> dict[str, str]:
        """Restore and measure what is not yet done; return the rows that failed with the reason."""
        failures = {}
        bar = tqdm(total=len(self.rows) * len(self.pictures), unit='image', dynamic_ncols=True)
        with bar, _quiet_host():
            for number, row in enumerate(self.rows, 1):
                bar.set_description(row.name)
                try:
                    self._run_row(row, bar)
                except Exception as error:  # the other rows are still worth having
                    failures[row.name] = one_line(error)
                    bar.write(f'{row.name} failed: {failures[row.name]}', file=sys.stderr)
                bar.set_postfix_str('')
                bar.update(number * len(self.pictures) - bar.n)  # what a failed row has left out
        return failures

    def _run_row(self, row: Row, bar) -> None:
        weights = row.find_weights()
        digest = file_digest(weights) if weights else None
        origin = [row.kind, row.options, digest, self.opt['scale'], self.opt.get('manual_seed') or 0, self.crop_border, METRICS_VERSION,
                  device_name(self.device)]
        restorer = None
        for picture in self.pictures:
            key = fingerprint(*origin, picture.digest)
            record = self.store.get(row.name, picture.name, key)
            if record is None or not self.image_path(row.name, picture.name).is_file():
                if restorer is None:
                    restorer = self._build(row, weights)
                    self._warm_up(restorer, picture)
                measured = self._measure(restorer, row, picture, bar)
                record = {'row': row.name, 'image': picture.name, 'fingerprint': key, 'weights': weights, 'sha256': digest} | measured
                self.store.add(record)
            self.records[row.name].append(record)
            bar.update()

    def _build(self, row: Row, weights: str | None):
        if row.kind == 'input':
            return InputRestorer(self.opt['scale'])
        return build_restorer(**row.options, weights=weights, scale=self.opt['scale'], device=self.device)

    def _warm_up(self, restorer: Callable, picture: Picture) -> None:
        """Make one network call whose time does not count: threads, kernels and memory are set up by then."""
        def stop(*_):
            raise _WarmedUp

        try:
            restorer(*self._images(picture), on_step=stop, **self._conditions(picture))
        except _WarmedUp:
            pass

    def _images(self, picture: Picture) -> tuple[torch.Tensor, PerImageNoise]:
        return picture.lq.to(self.device), PerImageNoise.for_images(self.opt.get('manual_seed') or 0, [picture.name])

    def _conditions(self, picture: Picture) -> dict[str, torch.Tensor | None]:
        given = {'mask': picture.mask, 'labels': picture.labels}
        return {name: None if value is None else value.to(self.device) for name, value in given.items()}

    def _measure(self, restorer: Callable, row: Row, picture: Picture, bar) -> dict[str, Any]:
        """Restore one image, save it and return what the store shall know of it."""
        done, shown = 0, time.monotonic()

        def on_step(*_):
            nonlocal done, shown
            done += 1
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                bar.set_postfix_str(f'step {done}/{restorer.calls}')

        (lq, noise), conditions = self._images(picture), self._conditions(picture)
        start = self._now()
        restored = restorer(lq, noise, on_step=on_step, **conditions)
        seconds = self._now() - start
        image = tensor2img(restored)
        path = self.image_path(row.name, picture.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), image):
            raise OSError(f'{path}: cannot be written.')
        return {'calls': restorer.calls, 'parameters': restorer.parameters, 'seconds': seconds,
                **measure(image, tensor2img(picture.gt), self.crop_border, str(self.device))}

    def _now(self) -> float:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def image_path(self, row: str, image: str) -> Path:
        """Return where a restored image lies."""
        return self.output / 'images' / row / f'{image}.png'


def measure(image, truth, crop_border: int, device: str) -> dict[str, float | None]:
    """Return all :data:`METRICS` of a restored image, each on 8-bit BGR (H, W, 3) as the host's validation computes them.

    NIQE is None where the image holds fewer than two of its blocks.
    """
    values = {}
    for name in METRICS:
        blocks = [(side - 2 * crop_border) // NIQE_BLOCK for side in image.shape[:2]]
        if name == 'niqe' and blocks[0] * blocks[1] < 2:
            values[name] = None
            continue
        options = {'type': f'calculate_{name}', 'crop_border': crop_border} | ({'device': device} if name == 'lpips' else {})
        values[name] = float(calculate_metric({'img': image, 'img2': truth}, options))
    return values


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or CPU that ``device`` means."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return models[0] if models else platform.processor() or platform.machine()


class _quiet_host:
    """While open, BasicSR's log shows warnings only: a line for each network would tear the progress bar."""

    def __enter__(self):
        self.logger = get_root_logger()
        self.level = self.logger.level
        self.logger.setLevel('WARNING')

    def __exit__(self, *_):
        self.logger.setLevel(self.level)
