"""Runs restorers on the same images: pictures, quality, network calls, FLOPs, seconds and memory, one stored result a row and image."""
from __future__ import annotations

import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch
from basicsr.utils import tensor2img
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from ibmd_basicsr.compat.quiet import quiet_host
from ibmd_basicsr.models import build_restorer
from ibmd_basicsr.models.network_cost import CPU_ATTENTION
from ibmd_basicsr.reporting.ncnn_peer import build_ncnn, find_bin
from ibmd_basicsr.reporting.peers import InputRestorer, build_arch, build_spandrel
from ibmd_basicsr.reporting.pictures import ImageSet, Picture, load_image_sets
from ibmd_basicsr.reporting.quality import Metric, SetQuality, measure, read_image, read_metrics
from ibmd_basicsr.reporting.results import ResultStore, fingerprint
from ibmd_basicsr.reporting.rows import Row
from ibmd_basicsr.utils.errors import one_line
from ibmd_basicsr.utils.files import file_digest
from ibmd_basicsr.utils.seeding import PerImageNoise
from ibmd_basicsr.utils.tiling import Tile, plan_tiles, restore_tiled

BUILDERS: dict[str, Callable] = {'bridge': build_restorer, 'arch': build_arch, 'spandrel': build_spandrel, 'ncnn': build_ncnn}
"""Kind of a row -> what builds its restorer from the options of the row, weights, scale and device."""
RESTORED_KEYS = ('calls', 'tiles', 'gflops', 'seconds', 'images_per_second', 'peak_memory_mib', 'parameters', 'param_key')
"""What a record says of the restoration beside its quality."""
ORIGIN_KEYS = ('kind', 'weights', 'sha256', 'tile', 'tile_pad', 'device')
"""What a record says of its row."""
RESERVED = {'dataset', 'row', 'image', 'photograph', 'fingerprint', 'measured', 'left_out', 'speed', 'images', *RESTORED_KEYS, *ORIGIN_KEYS}


class _WarmedUp(Exception):
    """Leaves a restorer after its first network call."""


class Comparison:
    """All rows on all images of all test sets, resumable.

    Args:
        opt: checked options.
        rows: from :func:`read_rows`.
        output: folder for everything that is written.
        device: where restorers and deep metrics run.
        limit: only so many images of each set.
        fresh: forget earlier results.

    Raises:
        OptionError, FileNotFoundError, ValueError: a data set cannot be built or read, or a metric does not work.
    """

    def __init__(self, opt: dict[str, Any], rows: list[Row], *, output: Path, device: torch.device,
                 limit: int | None = None, fresh: bool = False):
        self.opt = opt
        self.rows = rows
        self.output = output
        self.device = device
        self.crop_border = opt.get('crop_border', opt['scale'] if opt['scale'] > 1 else 0)
        with quiet_host():
            self.sets = load_image_sets(opt, limit)
            metrics = read_metrics(opt, self.crop_border, str(device), RESERVED)
        self.image_metrics = {metric: metric.fingerprint for metric in metrics if not metric.of_sets}
        self.set_metrics = {metric: metric.fingerprint for metric in metrics if metric.of_sets}
        self.store = ResultStore(output / 'results.jsonl', fresh=fresh)

    @property
    def metrics(self) -> list[Metric]:
        """Return all metrics in the order of their columns."""
        return [*self.image_metrics, *self.set_metrics]

    def run(self) -> dict[str, str]:
        """Restore and measure what is not yet done; return the rows that failed with the reason."""
        failures = {}
        images = sum(len(image_set.pictures) for image_set in self.sets)
        qualities = {image_set.name: SetQuality([tensor2img(picture.gt) for picture in image_set.pictures] if self.set_metrics else [],
                                                   [picture.photograph for picture in image_set.pictures])
                     for image_set in self.sets}
        bar = tqdm(total=len(self.rows) * images, unit='image', dynamic_ncols=True)
        with bar, quiet_host():
            for number, row in enumerate(self.rows, 1):
                bar.set_description(row.name)
                try:
                    self._run_row(row, bar)
                    for image_set in self.sets:
                        self._measure_set(row.name, image_set, qualities[image_set.name])
                except Exception as error:  # the other rows are still worth having
                    failures[row.name] = one_line(error)
                    bar.write(f'error: {row.name}: {failures[row.name]}', file=sys.stderr)
                bar.set_postfix_str('')
                bar.update(number * images - bar.n)  # what a failed row has left out
        return failures

    def _run_row(self, row: Row, bar) -> None:
        weights = row.find_weights()
        file = find_bin(weights) if row.kind == 'ncnn' else weights
        about = {'kind': row.kind, 'weights': file, 'sha256': file_digest(file) if file else None, 'tile': row.tile,
                 'tile_pad': row.tile_pad, 'device': device_name(self._device(row))}
        origin = [about | {'weights': None}, row.options, self.opt['scale'], self.opt.get('manual_seed') or 0]
        if file != weights:
            origin.append(file_digest(weights))  # the layers
        restorer, flops = None, {}
        for image_set in self.sets:
            records = image_set.records[row.name] = []
            for picture in image_set.pictures:
                key = fingerprint(*origin, picture.digest)
                record = self.store.get(image_set.name, row.name, picture.name, key)
                path = self.image_path(image_set, row.name, picture.name)
                if record is None or not path.is_file():
                    restorer = restorer or self._build(row, weights)
                    if picture.lq.shape not in flops:
                        flops[picture.lq.shape] = self._warm_up(restorer, row, picture)
                    place = {'dataset': image_set.name, 'row': row.name, 'image': picture.name, 'fingerprint': key, 'measured': {}}
                    record = place | about | self._restore(restorer, row, picture, path, bar) | {'gflops': flops[picture.lq.shape]}
                records.append(self._with_quality(record, path, picture) | {'photograph': picture.photograph})
                bar.update()

    def _build(self, row: Row, weights: str | None):
        if row.kind == 'input':
            return InputRestorer(self.opt['scale'])
        return BUILDERS[row.kind](**row.options, weights=weights, scale=self.opt['scale'], device=self.device)

    def _device(self, row: Row) -> torch.device:
        """Return where a row runs."""
        return torch.device('cpu') if row.kind == 'ncnn' else self.device

    def _warm_up(self, restorer: Callable, row: Row, picture: Picture) -> float | None:
        """Make one network call for each size of tile, whose time does not count: threads, kernels and memory are set up by then.

        Returns:
            GFLOPs of the image: those of the calls made here, times how often they come. None for a network that torch does not run.
        """
        def stop(*_):
            raise _WarmedUp

        (lq, noise), conditions = self._images(row, picture), self._conditions(row, picture)
        total = 0
        shapes = Counter(tuple(side.stop - side.start for side in tile.outer) for tile in self._tiles(restorer, row, picture))
        for (height, width), count in shapes.items():
            parts = {name: value if value is None or value.ndim == 1 else value[..., :height, :width] for name, value in conditions.items()}
            with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
                try:
                    restorer(lq[..., :height, :width], noise, on_step=stop, **parts)
                except _WarmedUp:
                    pass
            total += count * counter.get_total_flops()
        return restorer.calls * total / 1e9 if getattr(restorer, 'in_torch', True) else None

    def _tiles(self, restorer: Callable, row: Row, picture: Picture) -> list[Tile]:
        return plan_tiles(*picture.lq.shape[-2:], row.tile, row.tile_pad, restorer.size_multiple if row.tile else 1)

    def _images(self, row: Row, picture: Picture) -> tuple[torch.Tensor, PerImageNoise]:
        return picture.lq.to(self._device(row)), PerImageNoise.for_images(self.opt.get('manual_seed') or 0, [picture.name])

    def _conditions(self, row: Row, picture: Picture) -> dict[str, torch.Tensor | None]:
        given = {'mask': picture.mask, 'labels': picture.labels}
        return {name: None if value is None else value.to(self._device(row)) for name, value in given.items()}

    def _restore(self, restorer: Callable, row: Row, picture: Picture, path: Path, bar) -> dict[str, Any]:
        """Restore one image, save it as 8 bits in ``path`` and return what the store shall know of how it was made."""
        done, shown = 0, time.monotonic()
        tiles = len(self._tiles(restorer, row, picture))

        def on_step(*_):
            nonlocal done, shown
            done += 1
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                bar.set_postfix_str(f'step {done}/{restorer.calls * tiles}')

        (lq, noise), conditions = self._images(row, picture), self._conditions(row, picture)
        on_gpu = self._device(row).type == 'cuda'
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
            held = torch.cuda.memory_allocated(self.device)
        start = self._now()
        restored = restore_tiled(restorer, lq, noise, on_step, scale=self.opt['scale'], tile=row.tile, halo=row.tile_pad, **conditions)
        seconds = self._now() - start
        # the rise and the weights, not the whole: metrics keep networks on the GPU, too. On a CPU there is no such number, the peak of the
        # process holds all that came before
        peak = (torch.cuda.max_memory_allocated(self.device) - held + 4 * restorer.parameters) / 2**20 if on_gpu else None
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), tensor2img(restored)):
            raise OSError(f'{path}: cannot be written.')
        return {'calls': restorer.calls, 'tiles': tiles, 'seconds': seconds, 'images_per_second': 1 / seconds, 'peak_memory_mib': peak,
                'parameters': restorer.parameters, 'param_key': getattr(restorer, 'param_key', None)}

    def _with_quality(self, record: dict[str, Any], path: Path, picture: Picture) -> dict[str, Any]:
        """Return ``record`` with all metrics of the image in ``path``; those that it lacks are computed, and the record is stored."""
        missing = {metric: key for metric, key in self.image_metrics.items() if record['measured'].get(metric.key) != key}
        if not missing:
            return record
        record = record | measure(read_image(path), tensor2img(picture.gt), missing)
        record['measured'] = record['measured'] | {metric.key: key for metric, key in missing.items()}
        self.store.add(record)
        return record

    def _measure_set(self, row: str, image_set: ImageSet, quality: SetQuality) -> None:
        """Fill in the set metrics of a row; those that its restored images do not have yet are computed and stored."""
        if not self.set_metrics:
            return
        crops = [picture.photograph for picture in image_set.pictures if picture.photograph != picture.name]
        origin = fingerprint([record['fingerprint'] for record in image_set.records[row]], *([crops] if crops else []))
        record = self.store.get(image_set.name, row, None, origin)
        record = record or {'dataset': image_set.name, 'row': row, 'image': None, 'fingerprint': origin, 'measured': {}}
        files = [self.image_path(image_set, row, picture.name) for picture in image_set.pictures]
        for metric, key in self.set_metrics.items():
            if record['measured'].get(metric.key) != key or metric.key not in record.get('left_out', {}):
                value, left_out = quality.measure(metric, files), quality.leave_out(metric, files)
                record = record | {metric.key: value, 'measured': record['measured'] | {metric.key: key},
                                   'left_out': record.get('left_out', {}) | {metric.key: left_out}}
                self.store.add(record)
        image_set.set_values[row] = {metric.key: record[metric.key] for metric in self.set_metrics}
        image_set.left_out[row] = {metric.key: record['left_out'][metric.key] for metric in self.set_metrics}

    def _now(self) -> float:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def image_path(self, image_set: ImageSet, row: str, image: str) -> Path:
        """Return where a restored image lies; with several test sets, each has a folder of its own."""
        folder = self.output / 'images' / image_set.name if len(self.sets) > 1 else self.output / 'images'
        return folder / row / f'{image}.png'


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
