"""``scripts/scaling_model.py --check``: what the model says of two processes on this machine, beside what they do.

The rate of a core, the bandwidth of gloo and its latency are measured first; everything else is predicted from them: seconds of the other
kinds of iterations from their FLOPs, seconds of two processes, bytes on the wire. On cores that compute and send in turns nothing overlaps.
"""
from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from basicsr.models import build_model
from scaling_model import Iteration, Machines, Run, iteration, table

from ibmd_basicsr.benchmarks.sizes import (
    IBMD,
    SIZES,
    TEACHER,
    Size,
    TrainingChoices,
    make_batch,
    random_network,
    training_options,
)
from ibmd_basicsr.compat.quiet import quiet_host
from ibmd_basicsr.models.network_cost import measure_network
from ibmd_basicsr.models.run_cost import network_blocks
from ibmd_basicsr.models.turns import BRIDGE, STUDENT, Turns

LARGE, SMALL = (replace(SIZES['nano'], batches={TEACHER: batch, IBMD: batch}, updates=2) for batch in ((4, 64), (1, 32)))
"""For one process, where arithmetic is in question, and for two, where sending is: images and side."""
KINDS = {(TEACHER, BRIDGE): 'teacher', (IBMD, BRIDGE): 'distillation, bridge update', (IBMD, STUDENT): 'distillation, student update'}
FLOAT32 = TrainingChoices(amp=False)
PROBE = 16 * 2**20
"""Bytes of the all-reduce that measures the bandwidth: about the nano networks' gradients."""


@dataclass
class Measured:
    """What was measured of the iterations of one kind: seconds each, bytes that went over the loopback in all, and how many there were."""

    seconds: list[float] = field(default_factory=list)
    wire: int = 0

    def add(self, seconds: float, wire: int) -> None:
        """Note an iteration."""
        self.seconds.append(seconds)
        self.wire += wire


def check(repeats: int) -> str:
    """Run one process, then two, and return the tables.

    Args:
        repeats: cycles that are measured; one before them is not.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.save({'params_ema': random_network(LARGE.network).state_dict()}, Path(folder) / 'teacher.pth')
        alone, together = (_run(Path(folder), processes, repeats) for processes in (1, 2))
        runs = {kind: _counted(kind, Path(folder)) for kind in (TEACHER, IBMD)}
    # one core works at the rate that the teacher's iteration shows
    images = LARGE.batches[TEACHER][0]
    rate = images * runs[TEACHER].flops(BRIDGE) / _median(alone, 'one process', TEACHER, BRIDGE)
    links = Machines(flops=rate, per_node=2, intra=together['bandwidth'], reach=1, latency=together['latency'], overlap=0)
    found = (f'measured constants: one process sustains {rate / 1e9:.1f} GFLOP/s (teacher); gloo between two: '
             f'{together["bandwidth"] / 1e6:.0f} MB/s, {together["latency"] * 1e6:.0f} us a message')
    rows = []
    for (kind, turn), name in KINDS.items():
        predicted = iteration(runs[kind], turn, links, 1, images, images)
        rows.append([f'{name}, 1 process', 's', *_pair(predicted.seconds, _median(alone, 'one process', kind, turn))])
    for mode, sharded in (('two processes', False), ('two, sharded', True)):
        for (kind, turn), name in KINDS.items():
            predicted = iteration(runs[kind], turn, links, 2, images, images, sharded)  # what travels does not depend on the images
            # two processes without anything to say to each other already slow each other down: that is not the model's to know
            beside = Iteration(_median(together, 'one process', kind, turn), predicted.exposed, predicted.sent)
            measured = together['modes'][f'{mode}/{kind}/{turn}']
            rows.append([f'{name}, {mode}', 's', *_pair(beside.seconds, statistics.median(measured['seconds']))])
            rows.append([f'{name}, {mode}', 'MB on the wire', *_pair(2 * predicted.sent / 1e6,
                                                                     measured['wire'] / len(measured['seconds']) / 1e6)])
    return f'{found}\n\n{table(["iteration", "", "predicted", "measured", "measured / predicted"], rows)}'


def _pair(predicted: float, measured: float) -> list[str]:
    return [f'{predicted:.3f}', f'{measured:.3f}', f'{measured / predicted:.2f}']


def _median(found: dict[str, Any], mode: str, kind: str, turn: str) -> float:
    return statistics.median(found['modes'][f'{mode}/{kind}/{turn}']['seconds'])


def _counted(kind: str, folder: Path) -> Run:
    opt = training_options(LARGE, kind, folder, gpu=False, choices=FLOAT32)
    side = LARGE.batches[kind][1]
    return Run(opt, {name: measure_network(block, side) for name, block in network_blocks(opt).items()}, {})


def _run(folder: Path, processes: int, repeats: int) -> dict[str, Any]:
    """Start the processes; return what rank 0 found."""
    result = folder / f'{processes}.json'
    mp.start_processes(_work, (processes, folder, result, repeats), processes, start_method='spawn')
    return json.loads(result.read_text())


def _work(rank: int, processes: int, folder: Path, result: Path, repeats: int) -> None:
    """Be one of the processes."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meeting_{processes}', rank=rank, world_size=processes)
    found: dict[str, Any] = {'modes': {}}
    if processes > 1:
        found['bandwidth'] = PROBE / _seconds(lambda: dist.all_reduce(torch.ones(PROBE // 4)), 10)
        found['latency'] = _seconds(lambda: dist.all_reduce(torch.ones(1)), 100) / 2
    modes = {'one process': {}}
    if processes > 1:
        modes |= {'two processes': {}, 'two, sharded': {'shard_optimizer': True}}
    for mode, train in modes.items():
        for kind in (TEACHER, IBMD):
            world, size = (1 if mode == 'one process' else processes), (LARGE if processes == 1 else SMALL)
            for turn, measured in _iterations(size, kind, folder, rank, world, train, repeats).items():
                found['modes'][f'{mode}/{kind}/{turn}'] = vars(measured)
    if rank == 0:
        result.write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def _iterations(size: Size, kind: str, folder: Path, rank: int, world: int, train: dict[str, Any], repeats: int) -> dict[str, Measured]:
    """Measure cycles of iterations on random images, all processes at the same time; ``world`` of them are one run."""
    opt = training_options(size, kind, folder, gpu=False, choices=FLOAT32)
    opt |= {'dist': world > 1, 'rank': rank if world > 1 else 0, 'world_size': world}
    opt['train'] |= train
    with quiet_host():
        model = build_model(opt)
    batch, turns = make_batch(size, kind, seed=rank), Turns.from_options(opt)
    found: dict[str, Measured] = {}
    for number in range(1, (repeats + 1) * turns.length + 1):
        model.update_learning_rate(number, warmup_iter=-1)
        model.feed_data(batch)
        dist.barrier()
        wire, start = _loopback(), time.perf_counter()
        model.optimize_parameters(number)
        seconds = time.perf_counter() - start
        dist.barrier()
        if number > turns.length:
            found.setdefault(turns.of(number), Measured()).add(seconds, _loopback() - wire)
    return found


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a call that all processes make, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        dist.barrier()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _loopback() -> int:
    """Return the bytes that the machine has sent over its loopback so far, packet headers included; 0 where it does not say (not Linux)."""
    try:
        lines = Path('/proc/net/dev').read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split(':')[1].split()[8]) for line in lines if line.strip().startswith('lo:')), 0)
