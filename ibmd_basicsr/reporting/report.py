"""What a comparison leaves: results.csv, summary.csv, sets.csv, table.md, picture grids and report.html."""
from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.utils import tensor2img

from ibmd_basicsr.reporting.comparison import ORIGIN_KEYS, RESTORED_KEYS, Comparison, device_name
from ibmd_basicsr.reporting.grid import Cell, picture_grid
from ibmd_basicsr.reporting.html_report import Report, ReportImage, ReportOptions, TestSet, write_html
from ibmd_basicsr.reporting.peers import InputRestorer
from ibmd_basicsr.reporting.pictures import ImageSet, Picture
from ibmd_basicsr.reporting.quality import METRICS, Metric, read_image
from ibmd_basicsr.reporting.tables import Column, markdown_table, mean, median, write_csv

SET_KEYS = ('dataset', 'row', 'metric', 'left_out', 'value')
"""Columns of sets.csv."""


def write_report(comparison: Comparison, command: str, failures: dict[str, str], start: Path) -> str:
    """Write results.csv, summary.csv, sets.csv, table.md, the picture grids and report.html; return the text for the terminal.

    Args:
        comparison: after its run.
        command: what was typed, for the footer.
        failures: rows that failed; a set's means of a row that failed halfway are left out.
        start: where it was typed: paths below are told relative to it.
    """
    image_keys = [metric.key for metric in comparison.image_metrics]
    keys = ('dataset', 'row', 'image', 'photograph', *RESTORED_KEYS, *image_keys, *ORIGIN_KEYS)
    records = [record for image_set in comparison.sets for done in image_set.records.values() for record in done]
    write_csv(comparison.output / 'results.csv', records, keys)
    means = {image_set.name: _means(comparison, image_set) for image_set in comparison.sets}
    summary = [{'dataset': name, 'row': row, **values} for name, rows in means.items() for row, values in rows.items()]
    write_csv(comparison.output / 'summary.csv', summary, ('dataset', 'row', 'images', *RESTORED_KEYS, 'speed',
                                                           *(metric.key for metric in comparison.metrics), *ORIGIN_KEYS))
    if comparison.set_metrics:
        write_csv(comparison.output / 'sets.csv', _set_records(comparison), SET_KEYS)
    tables = {name: markdown_table(rows, _columns(comparison)) for name, rows in means.items() if rows}
    table = '\n\n'.join(f'## {name}\n\n{text}' if len(comparison.sets) > 1 else text for name, text in tables.items())
    lines = [f'# {comparison.opt["name"]}', '', table, '', *_notes(comparison, command)]
    lines += [f'* **{name} failed**: {message}' for name, message in failures.items()]
    (comparison.output / 'table.md').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    places = [('table', comparison.output / 'table.md')]
    for image_set in comparison.sets:
        if image_set.complete():
            places.append(('pictures', _draw_grid(comparison, image_set)))
    if any(means.values()):
        _write_page(comparison, command, failures, means)
        places.append(('report', comparison.output / 'report.html'))
    shown = [f'{f"{kind}:":9} {path.relative_to(start) if path.is_relative_to(start) else path}' for kind, path in places]
    return '\n'.join([table, '', *shown, ''])


def _set_records(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the values of set metrics: of all images (group 0) and without each group of a jackknife (from 1 on)."""
    return [{'dataset': image_set.name, 'row': row, 'metric': metric, 'left_out': group, 'value': number}
            for image_set in comparison.sets for row, values in image_set.set_values.items() for metric, value in values.items()
            for group, number in enumerate([value, *image_set.left_out[row][metric]])]


def _means(comparison: Comparison, image_set: ImageSet) -> dict[str, dict[str, Any]]:
    """Return what table and summary.csv say of a set's complete rows: means, but the median of the seconds and the peak of memory."""
    means = {}
    for name, records in image_set.complete().items():
        seconds = [record['seconds'] for record in records]
        memory = [record['peak_memory_mib'] for record in records if record['peak_memory_mib'] is not None]
        means[name] = {key: records[0][key] for key in (*ORIGIN_KEYS, 'parameters', 'param_key')} | {
            key: mean(record[key] for record in records)
            for key in ('calls', 'tiles', 'gflops', *(metric.key for metric in comparison.image_metrics))} | {
            'images': len(records), 'seconds': median(seconds), 'images_per_second': len(records) / sum(seconds),
            'peak_memory_mib': max(memory, default=None)} | image_set.set_values.get(name, {})
    reference = means.get(comparison.opt.get('speed_reference'))
    if reference:
        for values in means.values():
            values['speed'] = reference['seconds'] / values['seconds'] if values['calls'] else None
    return means


def _columns(comparison: Comparison) -> list[Column]:
    speed = [Column('speed', f'speed (x {comparison.opt["speed_reference"]})', 1)] if comparison.opt.get('speed_reference') else []
    return [Column('calls', 'calls', 0), Column('gflops', 'GFLOPs', 1), Column('seconds', 's/image', 3), *speed,
            *(Column(metric.key, metric.title, metric.digits, metric.better) for metric in comparison.metrics)]


def _notes(comparison: Comparison, command: str) -> list[str]:
    origins: dict[tuple, dict[str, None]] = {}
    tiles: dict[tuple, dict[str, None]] = {}
    for image_set in comparison.sets:
        for name, records in image_set.complete().items():
            first = records[0]
            if first['weights']:
                origins.setdefault((first['weights'], first['sha256'], first['param_key'], first['parameters']), {})[name] = None
            if first['tile']:
                tiles.setdefault((first['tile'], first['tile_pad']), {})[name] = None
    weights = [f'* {", ".join(names)}: `{file}` (sha256 {digest[:12]}...{f", {key}" if key else ""})'
               + (f', {count:,} parameters' if count is not None else '') for (file, digest, key, count), names in origins.items()]
    counts = [f'{len(image_set.pictures)} images' + (f' of {image_set.name}' if len(comparison.sets) > 1 else '')
              for image_set in comparison.sets]
    return [
        f'Means over {", ".join(counts)}; {comparison.crop_border} pixels at each border are left out of all metrics. '
        "PSNR and SSIM on RGB, LPIPS v0.1 AlexNet; NIQE and PSNR/SSIM are BasicSR's. texture: sliced Wasserstein distance of Laplacian "
        'patches x 1000 to the true image. Arrows point to better; best in bold. NIQE sees few blocks of small images: a hint at best.',
        *_metric_notes(comparison),
        '',
        f'* `{command}`, {date.today().isoformat()}',
        f'* {device_name(comparison.device)}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}; '
        'median of the seconds per image at batch size 1 after one warm-up call, measured when the row was computed; GFLOPs per image, two '
        'operations per multiply-add',
        *(f'* {", ".join(names)}: in tiles of {tile} input pixels with a halo of {pad}' for (tile, pad), names in tiles.items()),
        *weights,
    ]


def _metric_notes(comparison: Comparison) -> list[str]:
    """Return a sentence on each metric that the option file adds."""
    return [f'{metric.title}: {_describe(metric)}' + (', of all images of a set together, borders included.' if metric.of_sets else '.')
            for metric in comparison.metrics if metric.key not in METRICS]


def _describe(metric: Metric) -> str:
    options = ', '.join(f'{key}: {value}' for key, value in metric.options.items() if key != 'device')
    return f'`{metric.type}`' + (f' ({options})' if options else '')


def _draw_grid(comparison: Comparison, image_set: ImageSet) -> Path:
    """Draw the first images of a set and return the file: grid.png, or grid_SET.png where there are several sets."""
    options, complete = comparison.opt.get('grid') or {}, image_set.complete()
    names = [name for name in options.get('columns') or complete if name in complete]
    rows = []
    for number, picture in enumerate(image_set.pictures[:options.get('images', 6)]):
        values = [complete[name][number]['lpips'] for name in names]
        cells = [Cell(read_image(comparison.image_path(image_set, name, picture.name)), f'LPIPS {value:.3f}', value == min(values))
                 for name, value in zip(names, values)]
        rows.append([*cells, Cell(tensor2img(picture.gt), picture.name)])
    grid = picture_grid(rows, [*names, 'ground truth'], crop=options.get('crop', 96), zoom=options.get('zoom', 3))
    path = comparison.output / ('grid.png' if len(comparison.sets) == 1 else f'grid_{image_set.name}.png')
    cv2.imwrite(str(path), grid, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return path


def _write_page(comparison: Comparison, command: str, failures: dict[str, str], means: dict[str, dict[str, dict[str, Any]]]) -> None:
    sets = []
    for image_set in comparison.sets:
        complete = image_set.complete()
        images = [ReportImage(picture.name, {name: records[number] for name, records in complete.items()},
                              _pictures(comparison, image_set, picture, complete), tensor2img(picture.gt))
                  for number, picture in enumerate(image_set.pictures)]
        sets.append(TestSet(image_set.name, means[image_set.name], images))
    write_html(comparison.output / 'report.html', Report(
        title=comparison.opt['name'], date=date.today().isoformat(), command=command, columns=_columns(comparison), sets=sets,
        notes=[note.removeprefix('* ') for note in _notes(comparison, command) if note and command not in note],
        warnings=[f'{name} failed: {message}' for name, message in failures.items()],
        options=ReportOptions(**(comparison.opt.get('report') or {}))))


def _pictures(comparison: Comparison, image_set: ImageSet, picture: Picture, names: Iterable[str]) -> dict[str, Path | np.ndarray]:
    """Return the restored pictures of the rows ``names``, and the input where none of them is it."""
    pictures = {name: comparison.image_path(image_set, name, picture.name) for name in names}
    if any(row.kind == 'input' and row.name in pictures for row in comparison.rows) or 'input' in pictures:
        return pictures
    return {'input': tensor2img(InputRestorer(comparison.opt['scale'])(picture.lq, None)), **pictures}
