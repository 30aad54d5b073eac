"""``python -m ibmd_basicsr.train -opt FILE --dry-run``: what a training run would be, without data, weights or GPUs."""
from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from ibmd_basicsr.compat.options import parse_options, read_option_file
from ibmd_basicsr.models.network_cost import NetworkSize, measure_network
from ibmd_basicsr.models.option_keys import OWN_MODELS
from ibmd_basicsr.models.option_rules import prepare_options
from ibmd_basicsr.models.resolved_options import resolved_options
from ibmd_basicsr.models.run_cost import (
    FLOAT32,
    activations_per_turn,
    flops_of_run,
    flops_per_turn,
    gpu_bytes,
    images_at_once,
    network_blocks,
)
from ibmd_basicsr.models.run_inputs import input_paths, missing_metric_files
from ibmd_basicsr.models.turns import Turns, training_passes
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.numbers import is_integer
from ibmd_basicsr.utils.precision import autocast_dtype

UTILISATION = 0.4
"""Share of its peak that a GPU is assumed to reach. Convolutional U-Nets reach 0.2 to 0.5."""
ACCELERATORS = (
    ('A100, float32', 19.5e12, 'with train.tf32: false'),
    ('A100, TF32', 156e12, "torch's default for convolutions in float32; train.tf32: true for all else, too"),
    ('A100, bf16', 312e12, 'with train.amp: bf16'),
    ('H100, bf16', 989e12, 'with train.amp: bf16'),
)
"""GPU and arithmetic, dense peak in FLOP/s by its data sheet, when it applies."""
CAPACITIES = (24, 40, 80, 141)  # GiB of common GPUs
RESERVE = 2 * 2**30  # bytes left to the CUDA context, convolution workspaces and fragmentation

PROCESS_VARIABLES = {'none': ('', ''), 'pytorch': ('RANK', 'WORLD_SIZE'), 'slurm': ('SLURM_PROCID', 'SLURM_NTASKS')}
"""Launcher -> environment variables with the number of this process and of all."""


def dry_run(root: Path, launcher: str) -> None:
    """Resolve and check the options of ``sys.argv`` as training would, then print what training would cost.

    Args:
        root: project root and working directory.
        launcher: ``--launcher``. Under torchrun or srun the first process prints, for as many as there are; without, ``num_gpu`` of the
            option file is the number of processes.

    Raises:
        OptionError: whatever is wrong with the option file.
    """
    rank, launched = (int(os.environ.get(name, 0)) for name in PROCESS_VARIABLES[launcher])
    with contextlib.redirect_stdout(io.StringIO()):  # the host says that it is not distributed
        opt, args = parse_options(str(root), prepare=partial(prepare_options, this_machine=False))
    if opt['model_type'] not in OWN_MODELS:
        raise OptionError(f'--dry-run knows {" and ".join(OWN_MODELS)}, got model_type: {opt["model_type"]}.')
    if read_option_file(args.opt).get('manual_seed') is None:
        _forget_seed(opt, args.force_yml)
    text = report(opt, launched or max(opt['num_gpu'], 1))
    if rank == 0:
        print(f'{"option file":14}{args.opt}\n{text}')


def _forget_seed(opt: dict[str, Any], forced: list[str] | None) -> None:
    """Take out the seed that the host has drawn: training will draw another."""
    if not any(entry.startswith('manual_seed=') for entry in forced or ()):
        drawn = opt['manual_seed']
        for block in (opt, *opt['datasets'].values()):
            block['manual_seed'] = None if block['manual_seed'] == drawn else block['manual_seed']


def report(opt: dict[str, Any], processes: int) -> str:
    """Return what ``--dry-run`` prints of checked training options.

    Args:
        opt: as :func:`~ibmd_basicsr.compat.options.parse_options` returns them.
        processes: of the run, one per GPU.

    Raises:
        OptionError: an image size that does not fit, which only building the networks can find.
    """
    size, batch = _image_size(opt), opt['datasets']['train']['batch_size_per_gpu']
    autocast = _autocast(opt)
    sizes = {name: measure_network(block, size) for name, block in network_blocks(opt).items()}
    parts = [
        _header(opt, size, batch, processes, autocast),
        _networks(opt, sizes),
        _passes(opt, sizes, batch, processes),
        _memory(opt, sizes, size, processes, autocast),
        _hours(flops_of_run(opt, sizes, batch * processes), processes),
    ]
    missing = [f'{option}: {path}' for option, path in input_paths(opt).items() if not os.path.exists(path)]
    missing += missing_metric_files(opt)
    if missing:
        parts.append('\n'.join(['not on this machine (needed by the run):', *(f'  {name}' for name in missing)]))
    options = yaml.safe_dump(resolved_options(opt), sort_keys=False, allow_unicode=True, width=120)
    return '\n\n'.join([*parts, f'resolved options (defaults filled in)\n\n{options}'.rstrip()])


# ------------------------------------------------------------------ what is not a network
def _image_size(opt: dict[str, Any]) -> int:
    size = opt['datasets']['train'].get('gt_size')
    if not is_integer(size, least=1):
        raise OptionError(f'datasets.train.gt_size: must be a positive integer, got {size!r}.')
    return size


def _autocast(opt: dict[str, Any]) -> torch.dtype | None:
    amp = opt['train'].get('amp')
    # which GPUs there will be is not known here; those that people train on since 2020 multiply bf16
    return autocast_dtype('bf16' if amp == 'auto' and opt['num_gpu'] else amp, torch.device('cpu'))


# ------------------------------------------------------------------ the parts of the text
def _header(opt: dict[str, Any], size: int, batch: int, processes: int, autocast: torch.dtype | None) -> str:
    train = opt['datasets']['train']
    counts = Turns.from_options(opt).counts(int(opt['train']['total_iter']))
    device = 'GPU' if opt['num_gpu'] or processes > 1 else 'CPU'
    total = sum(counts.values())
    updates = ' + '.join(f'{number:,} {turn}s' for turn, number in counts.items())
    at_once = images_at_once(opt)
    share = f' ({at_once} at once)' if at_once < batch else ''
    precision = 'bf16 where autocast takes it, else float32' if autocast else 'float32'
    task = (train.get('degradation') or train)['type']
    return '\n'.join(f'{name:14}{value}' for name, value in [
        ('run', f'{opt["name"]}, {opt["model_type"]} (dry run: nothing is trained, nothing is written)'),
        ('task', f'{task}, scale {opt["scale"]}, bridge {opt["bridge"]["type"]}'),
        ('images', f'{size} x {size}, {batch} a {device}{share}, {processes} {device}{"s" * (processes > 1)}: '
                   f'{batch * processes} an iteration, {batch * processes * total:,} in all'),
        ('iterations', f'{total:,}: {updates}'),
        ('precision', precision)])


def _networks(opt: dict[str, Any], sizes: dict[str, NetworkSize]) -> str:
    rows = dict(sizes)
    if opt['train'].get('ema_decay', 0):
        rows = {'net_g': sizes['net_g'], 'net_g_ema': sizes['net_g'], **sizes}
    return 'networks\n' + _table(
        ['network', 'type', 'parameters', 'tensors', 'float32', 'GFLOP/image'],
        [[name, one.type, f'{one.parameters:,}', one.tensors, _bytes(FLOAT32 * one.parameters), _number(one.forward / 1e9)]
         for name, one in rows.items()], text_columns=2)


def _passes(opt: dict[str, Any], sizes: dict[str, NetworkSize], batch: int, processes: int) -> str:
    length, passes = Turns.from_options(opt).length, training_passes(opt)
    rows = [[one.turn, one.network, one.kind, f'{one.count:g}', _number(one.count / length),
             _number(one.count * sizes[one.network].flops(one.kind) / length / 1e12)] for one in passes]
    mean = sum(flops_per_turn(passes, sizes).values()) / length
    rows.append(['mean', '', '', '', '', _number(mean / 1e12)])
    cycle = f'a cycle is {length} iterations' if length > 1 else 'all iterations are alike'
    again = '; and what checkpoint_levels computes again' if any(size.recomputed for size in sizes.values()) else ''
    return '\n'.join([
        f'passes of a batch ({cycle}; 1 multiply-add = 2 FLOP; backward: 1 forward for the inputs of the layers, 1 for their parameters'
        f'{again})',
        _table(['turn', 'network', 'pass', 'per cycle', 'per iteration', 'TFLOP/image/iteration'], rows, text_columns=3),
        f'  FLOPs per iteration: {_number(mean * batch / 1e12)} TFLOP on each of {processes}, {_number(mean * batch * processes / 1e12)} '
        'TFLOP in all'])


def _memory(opt: dict[str, Any], sizes: dict[str, NetworkSize], size: int, processes: int, autocast: torch.dtype | None) -> str:
    images, batch = images_at_once(opt), opt['datasets']['train']['batch_size_per_gpu']
    fixed = gpu_bytes(opt, sizes, processes)
    turns = activations_per_turn(opt, size, autocast)
    rows = [[name, _bytes(number)] for name, number in fixed.items()]
    for turn, kept in turns.items():
        copies = f' + {_bytes(kept.fixed)} of weights in bf16' if kept.fixed else ''
        whole = f' + {batch} x {_bytes(kept.per_batch_image)}' if kept.per_batch_image else ''
        rows.append([f'kept for backward, {turn}: {images} x {_bytes(kept.per_image)}{whole}{copies}', _bytes(kept.bytes(images, batch))])
    static, parted = sum(fixed.values()), batch if opt['train'].get('micro_batch') else None
    rows.append(['peak', _bytes(static + max(kept.bytes(images, batch) for kept in turns.values()))])
    fits = (min(kept.most_images(capacity * 2**30 - RESERVE - static, parted) for kept in turns.values()) for capacity in CAPACITIES)
    return '\n'.join([
        f'memory of each GPU or process (estimate; add about {_bytes(RESERVE)} for CUDA, workspaces and fragmentation)',
        _table(['what', 'size'], rows, text_columns=1),
        f'  largest {"micro_batch" if opt["train"].get("micro_batch") else "batch_size_per_gpu"}: '
        + ', '.join(f'{max(number, 0)} in {capacity} GiB' for number, capacity in zip(fits, CAPACITIES))])


def _hours(flops: float, processes: int) -> str:
    rows = []
    for name, peak, note in ACCELERATORS:
        hours = flops / (UTILISATION * peak) / 3600
        rows.append([name, _number(peak / 1e12), _number(hours), _number(hours / processes), note])
    return '\n'.join([
        f'GPU hours of the run, if GPUs reach {UTILISATION:.0%} of their peak ({_number(flops / 1e18)} EFLOP; without validation and '
        'waiting for data)',
        _table(['GPU', 'peak TFLOP/s', 'GPU hours', f'hours on {processes}', 'applies'], rows, text_columns=1, note=True)])


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]], text_columns: int, note: bool = False) -> str:
    """Return an indented table: the first ``text_columns`` (and, with ``note``, the last) to the left, numbers to the right."""
    cells = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    left = {*range(text_columns), *([len(heads) - 1] if note else [])}
    return '\n'.join('  ' + '  '.join(cell.ljust(width) if i in left else cell.rjust(width)
                                      for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in cells)


def _number(value: float) -> str:
    """Write a number with four digits that count, never with an exponent."""
    digits = 3 - math.floor(math.log10(value)) if value > 0 else 0
    return f'{value:,.{max(digits, 0)}f}'


def _bytes(number: float) -> str:
    unit, divisor = next(((unit, divisor) for unit, divisor in (('GiB', 2**30), ('MiB', 2**20)) if number >= divisor), ('KiB', 2**10))
    return f'{number / divisor:,.2f} {unit}'
