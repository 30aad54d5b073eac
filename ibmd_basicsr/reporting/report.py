"""What a comparison leaves: results.csv, table.md and grid.png."""
from __future__ import annotations

import os
from datetime import date
from typing import Any

import cv2
import torch
from basicsr.utils import tensor2img

from ibmd_basicsr.metrics import BETTER
from ibmd_basicsr.reporting.comparison import METRICS, Comparison, device_name
from ibmd_basicsr.reporting.grid import Cell, picture_grid
from ibmd_basicsr.reporting.tables import Column, markdown_table, mean, write_csv


def write_report(comparison: Comparison, command: str, failures: dict[str, str]) -> str:
    """Write results.csv, table.md and grid.png; return the text for the terminal.

    Args:
        comparison: after its run.
        command: what was typed, for the footer.
        failures: rows that failed; the means of a row that failed halfway are left out.
    """
    keys = ('row', 'image', 'calls', 'seconds', *METRICS, 'parameters', 'weights', 'sha256')
    write_csv(comparison.output / 'results.csv', [record for records in comparison.records.values() for record in records], keys)
    complete = {name: records for name, records in comparison.records.items() if name not in failures}
    table = markdown_table(_means(comparison, complete), _columns(comparison)) if complete else ''
    lines = [f'# {comparison.opt["name"]}', '', table, '', *_notes(comparison, command, complete)]
    lines += [f'* **{name} failed**: {message}' for name, message in failures.items()]
    (comparison.output / 'table.md').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    places = [f'table:    {comparison.output / "table.md"}']
    if complete:
        _draw_grid(comparison, complete)
        places.append(f'pictures: {comparison.output / "grid.png"}')
    return '\n'.join([table, '', *places, ''])


def _means(comparison: Comparison, complete: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float | None]]:
    means = {name: {key: mean(record.get(key) for record in records) for key in ('calls', 'seconds', *METRICS)}
             for name, records in complete.items()}
    reference = means.get(comparison.opt.get('speed_reference'))
    if reference:
        for values in means.values():
            values['speed'] = reference['seconds'] / values['seconds'] if values['calls'] else None
    return means


def _columns(comparison: Comparison) -> list[Column]:
    speed = [Column('speed', f'speed (x {comparison.opt["speed_reference"]})', 1)] if comparison.opt.get('speed_reference') else []
    titles = {'psnr': ('PSNR dB', 2), 'ssim': ('SSIM', 4), 'lpips': ('LPIPS', 4), 'niqe': ('NIQE', 2),
              'texture_distance': ('texture', 1)}
    return [Column('calls', 'calls', 0), Column('seconds', 's/image', 3), *speed,
            *(Column(key, *titles[key], BETTER[key]) for key in METRICS)]


def _notes(comparison: Comparison, command: str, complete: dict[str, list[dict[str, Any]]]) -> list[str]:
    origins: dict[tuple, list[str]] = {}
    for name, records in complete.items():
        if records[0]['weights']:
            origins.setdefault((records[0]['weights'], records[0]['sha256'], records[0]['parameters']), []).append(name)
    weights = [f'* {", ".join(names)}: `{file}` (sha256 {digest[:12]}...), {count:,} parameters'
               for (file, digest, count), names in origins.items()]
    return [
        f'Means over {len(comparison.pictures)} images; {comparison.crop_border} pixels at each border are left out of all metrics. '
        "PSNR and SSIM on RGB, LPIPS v0.1 AlexNet; NIQE and PSNR/SSIM are BasicSR's. texture: sliced Wasserstein distance of Laplacian "
        'patches x 1000 to the true image. Arrows point to better; best in bold. NIQE sees few blocks of small images: a hint at best.',
        '',
        f'* `{command}`, {date.today().isoformat()}',
        f'* {device_name(comparison.device)}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}; '
        'seconds per image at batch size 1 after one warm-up call, measured when the row was computed',
        *weights,
    ]


def _draw_grid(comparison: Comparison, complete: dict[str, list[dict[str, Any]]]) -> None:
    options = comparison.opt.get('grid') or {}
    names = [name for name in options.get('columns') or complete if name in complete]
    rows = []
    for number, picture in enumerate(comparison.pictures[:options.get('images', 6)]):
        values = [complete[name][number]['lpips'] for name in names]
        cells = [Cell(cv2.imread(str(comparison.image_path(name, picture.name))), f'LPIPS {value:.3f}', value == min(values))
                 for name, value in zip(names, values)]
        rows.append([*cells, Cell(tensor2img(picture.gt), picture.name)])
    grid = picture_grid(rows, [*names, 'ground truth'], crop=options.get('crop', 96), zoom=options.get('zoom', 3))
    cv2.imwrite(str(comparison.output / 'grid.png'), grid, [cv2.IMWRITE_PNG_COMPRESSION, 9])
