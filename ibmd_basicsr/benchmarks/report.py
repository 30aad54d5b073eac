"""What a run of the bench leaves: results.json and table.md."""
from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from ibmd_basicsr.benchmarks.session import Session
from ibmd_basicsr.benchmarks.timing import CPU, Row, Spread
from ibmd_basicsr.models.switches import Switches
from ibmd_basicsr.reporting.comparison import device_name
from ibmd_basicsr.version import __version__

UNITS = {'s': 4, 'images/s': 1, 'MiB': 0, 'dB': 1, 'share of an iteration': 4, 'TFLOP/s': 3}
"""Unit -> decimals."""


@dataclass
class Part:
    """A part of the report.

    Attributes:
        title: heading.
        about: a sentence on what its rows are.
        rows: in order.
        failure: why there are none; None where nothing failed.
    """

    title: str
    about: str
    rows: list[Row] = field(default_factory=list)
    failure: str | None = None


def describe_run(command: str, session: Session) -> dict[str, Any]:
    """Return what one must know to read the figures: machine, versions, command."""
    choices, device = session.training, session.device
    switches = Switches({'amp': choices.amp, 'channels_last': choices.channels_last}, device)
    load = os.getloadavg() if hasattr(os, 'getloadavg') else (None,) * 3
    return {'command': command, 'date': datetime.now().astimezone().isoformat(timespec='seconds'), 'size': session.size_name,
            'gradient': choices.gradient, 'compiled': choices.compiled, 'channels_last': switches.memory_format is torch.channels_last,
            'trainings': 'float32' if switches.autocast is None else 'bf16',
            'device': str(device), 'machine': device_name(device), 'cpu': device_name(torch.device('cpu')), 'cores': os.cpu_count(),
            'threads': torch.get_num_threads(), 'load_average_1min': load[0], 'torch': torch.__version__,
            'python': platform.python_version(), 'ibmd_basicsr': __version__}


def write_results(folder: Path, about: Mapping[str, Any], parts: Mapping[str, Part]) -> str:
    """Write results.json and table.md into ``folder`` and return the text of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    records = {letter: {'title': part.title, 'failure': part.failure, 'rows': [row_record(row) for row in part.rows]}
               for letter, part in parts.items()}
    content = {'about': dict(about), 'parts': records}
    (folder / 'results.json').write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    text = to_markdown(about, parts)
    (folder / 'table.md').write_text(text, encoding='utf-8')
    return text


def row_record(row: Row) -> dict[str, Any]:
    """Return a row as plain values."""
    return {'name': row.name, 'unit': row.unit, **_spread(row.spread), 'against': row.against.name if row.against else None,
            'ratio': _spread(row.ratio()), 'ratio_of_processor_times': _spread(row.ratio(CPU)),
            'target': str(row.target) if row.target else None, 'met': row.met, 'values': row.values, 'processor_seconds': row.cpu_values,
            **row.notes}


def _spread(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else {'median': spread.median, 'low': spread.low, 'high': spread.high}


def to_markdown(about: Mapping[str, Any], parts: Mapping[str, Part]) -> str:
    """Return the report as text."""
    lines = [f'# Bench, size {about["size"]}, {about["device"]}', '']
    for letter, part in parts.items():
        lines += [f'## ({letter}) {part.title}', '', part.about, '',
                  markdown_rows(part.rows) if part.failure is None else f'**Failed**: {part.failure}', '']
    load = about['load_average_1min']
    busy = '' if load is None else f', load average {load:.1f} before the start'
    lines += ['Medians with the quartiles in brackets. A ratio is formed within each repeat, in which its two sides ran one after the '
              'other; "processor" is the same ratio of processor times, which other work on the machine disturbs less.', '',
              f'* `{about["command"]}`, {about["date"]}',
              f'* trainings: {about["trainings"]}{", compiled" if about["compiled"] else ""}'
              f'{", channels innermost" if about["channels_last"] else ""}, gradient {about["gradient"]}; the reference and all that '
              'restores: float32',
              f'* {about["machine"]}, {about["cores"]} cores, {about["threads"]} threads{busy}, torch {about["torch"]}, '
              f'Python {about["python"]}, ibmd_basicsr {about["ibmd_basicsr"]}', '']
    return '\n'.join(lines)


def markdown_rows(rows: Sequence[Row]) -> str:
    """Return a Markdown table of a part, padded so that it can also be read as text; columns that say nothing are left out."""
    heads = ['row', rows[0].unit, 'against', 'ratio', 'processor', 'target', '']
    lines = []
    for row in rows:
        digits = UNITS[row.unit]
        unit = '' if row.unit == rows[0].unit else f' ({row.unit})'
        target = '' if row.target is None else str(row.target)
        lines.append([row.name + unit, _text(row.spread, digits), row.against.name if row.against else '', _text(row.ratio(), 3),
                      _text(row.ratio(CPU), 3), target, {None: '', True: 'met', False: '**missed**'}[row.met]])
    kept = [i for i in range(len(heads)) if i < 2 or any(line[i] for line in lines)]
    cells = [[line[i] for i in kept] for line in (heads, *lines)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    cells.insert(1, ['-' * width for width in widths])
    return '\n'.join('| ' + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths)) + ' |' for line in cells)


def _text(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return ''
    if spread.low == spread.high:
        return f'{spread.median:.{digits}f}'
    return f'{spread.median:.{digits}f} ({spread.low:.{digits}f}-{spread.high:.{digits}f})'
