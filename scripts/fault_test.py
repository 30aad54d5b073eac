"""Kill a training again and again, resume it each time, and compare what it ends with bit for bit with an unbroken run.

    python scripts/fault_test.py --kills 100

A tiny teacher (8 channels, generated pictures) trains on the CPU and saves behind every iteration, so that a good part of the time goes
into saving. Each attempt gets a SIGKILL at a random moment after it has begun to train; the next one is the same command with
--auto_resume. When all kills are spent the run may end. Networks, EMA, optimiser, schedulers and random states of the last iteration must
then be those of a run that nothing has disturbed.

exit codes: 0 equal; 1 not equal, or an attempt failed by itself; 2 the run ended before all kills were spent (ask for more --iterations).
"""
from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import runpy
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from ibmd_basicsr.cli.errors import report_errors

REPOSITORY = Path(__file__).resolve().parents[1]
# forks of a server that has imported torch: an attempt begins to train in a second
FORKS = multiprocessing.get_context('forkserver')
LIMIT = 600.0
"""Seconds after which an attempt that neither trains nor ends is given up."""


@report_errors('interrupted.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=100, metavar='N', help='how many (default: %(default)s)')
    parser.add_argument('--iterations', type=int, metavar='N', help='of the whole run; default: 30 a kill')
    parser.add_argument('--longest', type=float, default=0.3, metavar='SECONDS',
                        help='a kill comes at most so long after the attempt has made its first iteration (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (default: %(default)s)')
    parser.add_argument('--folder', type=Path, help='where to work; default: a temporary folder')
    args = parser.parse_args(arguments)
    FORKS.set_forkserver_preload([f'ibmd_basicsr.{name}' for name in ('compat', 'archs', 'data', 'losses', 'metrics', 'models')]
                                 + ['basicsr.train'])
    with tempfile.TemporaryDirectory() as temporary:
        return fault_test(args.folder or Path(temporary), args.kills, args.iterations or 30 * args.kills, args.longest, args.seed)


def fault_test(root: Path, kills: int, iterations: int, longest: float, seed: int) -> int:
    """Train without and with kills below ``root``; print what happened and return the exit code."""
    make_pictures(root / 'pictures')
    moments = random.Random(seed)
    start = time.monotonic()
    if attempt(root, 'unbroken', iterations) != 0:
        return failed(root, 'unbroken')
    print(f'unbroken: {iterations} iterations in {time.monotonic() - start:.0f} s', flush=True)

    saving = 0
    for number in range(kills):
        code = attempt(root, 'killed', iterations, kill_after=moments.uniform(0, longest))
        if code == 0:
            print(f'The run ended after {number} of {kills} kills: give it more --iterations.')
            return 2
        if code != -9:
            return failed(root, 'killed')
        half = [path.name[1:].rsplit('.', 2)[0] for path in (root / 'experiments/killed').rglob('*.tmp')]
        saving += bool(half)
        print(f'kill {number + 1}: {newest_state(root, "killed")} of {iterations} iterations saved'
              f'{f", in the middle of {half[0]}" if half else ""}', flush=True)
    if attempt(root, 'killed', iterations) != 0:
        return failed(root, 'killed')
    differences = compare(root, iterations)
    print(f'{kills} kills, {saving} of them in the middle of a file: '
          + (f'{len(differences)} differences, the first in {differences[0]}' if differences else 'equal bit for bit'))
    return 1 if differences else 0


def make_pictures(folder: Path) -> None:
    """Write five smooth random pictures of 40x48 pixels."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(5):
        picture = cv2.resize(rng.random((6, 6, 3)), (48, 40), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        cv2.imwrite(str(folder / f'{i}.png'), (picture * 255).round().astype(np.uint8))


def options(root: Path, name: str, iterations: int) -> dict[str, Any]:
    """Return the option file of a run."""
    return {
        'name': name, 'model_type': 'BridgeModel', 'scale': 4, 'num_gpu': 0, 'manual_seed': 0,
        'bridge': {'type': 'I2SB', 'n_timestep': 1000, 'beta_max': 0.3},
        'network_g': {'type': 'ADMUNet', 'model_channels': 8, 'channel_mult': [1, 2], 'num_res_blocks': 1, 'attention_resolutions': [],
                      'num_head_channels': 8, 'patch_size': 2},
        'datasets': {'train': {
            'name': 'pictures', 'type': 'DegradedImageDataset', 'dataroot_gt': str(root / 'pictures'), 'io_backend': {'type': 'disk'},
            'degradation': {'type': 'sr', 'scale': 4, 'kernel': 'bicubic'}, 'gt_size': 16, 'use_hflip': True, 'use_rot': True,
            'num_worker_per_gpu': 0, 'batch_size_per_gpu': 2, 'prefetch_mode': None}},
        'path': {},
        'train': {'ema_decay': 0.9, 'optim_g': {'type': 'AdamW', 'lr': 1e-3}, 'total_iter': iterations,
                  'scheduler': {'type': 'MultiStepLR', 'milestones': [iterations // 2], 'gamma': 0.5},
                  'bridge_opt': {'type': 'BridgeMatchingLoss'}},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 1, 'keep_checkpoints': 3, 'use_tb_logger': False},
    }


def attempt(root: Path, name: str, iterations: int, kill_after: float | None = None) -> int:
    """Run the training command with --auto_resume; return its exit code, -9 if it was killed.

    Args:
        kill_after: seconds between the first iteration that this attempt saves and the kill.
    """
    file = root / 'options' / f'{name}.yml'
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(options(root, name, iterations)))
    before = newest_state(root, name)
    process = FORKS.Process(target=run, args=(str(file), str(root / f'{name}.log')))
    process.start()
    deadline = time.monotonic() + LIMIT
    if kill_after is not None:
        while newest_state(root, name) == before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.join(kill_after)
        process.kill()
    process.join(max(0.0, deadline - time.monotonic()))
    if process.is_alive():
        process.kill()
        process.join()
        return 1
    return process.exitcode


def run(file: str, log: str) -> None:
    """Be ``python -m ibmd_basicsr.train -opt FILE --auto_resume``, with what it prints in a file."""
    import torch
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    sys.argv = ['ibmd_basicsr.train', '-opt', file, '--auto_resume']
    runpy.run_module('ibmd_basicsr.train', run_name='__main__', alter_sys=True)


def newest_state(root: Path, name: str) -> int:
    """Return the last iteration that a run has saved, 0 for none."""
    return max((int(path.stem) for path in (root / 'experiments' / name / 'training_states').glob('*.state')), default=0)


def failed(root: Path, name: str) -> int:
    """Print the end of an attempt's output."""
    print(f'{name}: failed by itself:\n' + (root / f'{name}.log').read_text()[-3000:])
    return 1


def compare(root: Path, iterations: int) -> list[str]:
    """Return where the last networks and states of the two runs differ."""
    import torch
    found: list[str] = []

    def visit(one: Any, two: Any, place: str) -> None:
        if type(one) is not type(two):
            found.append(place)
        elif isinstance(one, dict):
            for key in one.keys() | two.keys():
                visit(one.get(key), two.get(key), f'{place}/{key}')
        elif isinstance(one, (list, tuple)):
            if len(one) != len(two):
                found.append(place)
            for i, (a, b) in enumerate(zip(one, two)):
                visit(a, b, f'{place}/{i}')
        elif not (torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two):
            found.append(place)

    for file in (f'models/net_g_{iterations}.pth', 'models/net_g_latest.pth', f'training_states/{iterations}.state'):
        one, two = (torch.load(root / 'experiments' / name / file, map_location='cpu', weights_only=True)
                    for name in ('unbroken', 'killed'))
        visit(one, two, file)
    return found


if __name__ == '__main__':
    sys.exit(main())
