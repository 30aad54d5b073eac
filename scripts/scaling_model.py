"""Model what an iteration costs on 1 to 512 GPUs: seconds, bytes on the wire, memory, efficiency; and check the model on this machine.

    python scripts/scaling_model.py                                # size S and ADM-256, teacher and distillation
    python scripts/scaling_model.py -opt options/paper/sr4x_ibmd.yml --tflops 100 --inter 25 --gpus 8 16 32
    python scripts/scaling_model.py --check                        # two processes on this machine: predicted and measured

FLOPs, activations and parameters are counted from the option files (as by --dry-run), nothing is run. The rate at which a GPU works and
the bandwidths are arguments; what their defaults are worth is said in docs/scaling.md, with the formulas.

exit codes: 0 done; 2 wrong command line or option file.
"""
from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ibmd_basicsr import compat  # noqa: F401  (before basicsr)
from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.compat.options import normalise_numbers, read_option_file
from ibmd_basicsr.models.network_cost import Activations, NetworkSize, measure_network
from ibmd_basicsr.models.option_rules import prepare_options
from ibmd_basicsr.models.run_cost import FLOAT32, activations_per_turn, gpu_bytes, images_at_once, network_blocks
from ibmd_basicsr.models.turns import DISCRIMINATOR, LEARN, SHARED, Pass, Turns, training_passes

ROOT = Path(__file__).resolve().parents[1]
FILES = tuple(f'options/{name}.yml' for name in ('sr4x_s_bridge', 'sr4x_s_ibmd', 'paper/sr4x_bridge', 'paper/sr4x_ibmd'))
GPUS = tuple(2**power for power in range(10))
BUCKET = 25 * 2**20
"""Bytes of a bucket of gradients, DistributedDataParallel's default: what is sent together, as soon as its gradients are there."""


@dataclass(frozen=True)
class Machines:
    """What the model is told of the machines.

    Attributes:
        flops: FLOP/s that one GPU sustains in the networks' passes.
        per_node: GPUs of a node.
        intra: bytes/s that a GPU can send within a node, and ``inter``, between nodes.
        reach: share of these that collectives get.
        latency: seconds for a message to a neighbour.
        overlap: share of the backward pass during which gradients travel unnoticed: 1 on GPUs, 0 where the cores that compute also send.
    """

    flops: float = 44e12
    per_node: int = 8
    intra: float = 450e9
    inter: float = 50e9
    reach: float = 0.7
    latency: float = 1e-5
    overlap: float = 1.0

    def bandwidth(self, gpus: int) -> float:
        """Return the bytes/s of the slowest link of a ring through all GPUs."""
        return self.reach * (self.intra if gpus <= self.per_node else self.inter)

    def all_reduce(self, size: float, gpus: int) -> float:
        """Return the seconds of an all-reduce of ``size`` bytes, sent in buckets: a ring's bandwidth, a tree's latency."""
        if gpus == 1:
            return 0.0
        steps = 2 * math.ceil(math.log2(gpus)) * math.ceil(size / BUCKET)
        return all_reduce_bytes(size, gpus) / self.bandwidth(gpus) + steps * self.latency

    def broadcasts(self, size: float, tensors: int, gpus: int) -> float:
        """Return the seconds until ``tensors`` tensors of ``size`` bytes together have come from their owners to everyone."""
        if gpus == 1:
            return 0.0
        return size / self.bandwidth(gpus) + tensors * math.ceil(math.log2(gpus)) * self.latency


@dataclass(frozen=True)
class Run:
    """An option file in numbers.

    Attributes:
        opt: checked options.
        sizes: by network name.
        activations: by turn; see :func:`~ibmd_basicsr.models.run_cost.activations_per_turn`.
    """

    opt: dict[str, Any]
    sizes: dict[str, NetworkSize]
    activations: dict[str, Activations]

    @property
    def turns(self) -> dict[str, int]:
        """Iterations of each kind in a cycle."""
        return Turns.from_options(self.opt).per_cycle

    def passes(self, turn: str) -> list[Pass]:
        """Return the passes that the iterations of this kind in a cycle make; a discriminator learns in the last one."""
        also = DISCRIMINATOR if turn == Turns.from_options(self.opt).last else turn
        return [one for one in training_passes(self.opt) if one.turn in (turn, also)]

    def flops(self, turn: str) -> float:
        """Return the FLOPs of an iteration of this kind per image."""
        return sum(one.count * self.sizes[one.network].flops(one.kind) for one in self.passes(turn)) / self.turns[turn]

    def learners(self, turn: str) -> dict[str, NetworkSize]:
        """Return the networks that learn, by name: the only ones whose gradients travel."""
        return {one.network: self.sizes[one.network] for one in self.passes(turn) if one.kind == LEARN}


@dataclass(frozen=True)
class Iteration:
    """What an iteration costs one GPU: seconds of arithmetic, seconds that others are waited for, bytes that it sends."""

    compute: float
    exposed: float
    sent: float

    @property
    def seconds(self) -> float:
        """Of the whole iteration."""
        return self.compute + self.exposed


def all_reduce_bytes(size: float, gpus: int) -> float:
    """Return the bytes that each of ``gpus`` sends to sum ``size`` bytes over all: 2 (n - 1) / n of them (ring, reduce and spread)."""
    return 2 * (gpus - 1) / gpus * size


def iteration(run: Run, turn: str, machines: Machines, gpus: int, images: int, at_once: int, sharded: bool = False) -> Iteration:
    """Return the cost of an iteration.

    The gradients of a network that learns travel once, with its last backward: two forward passes over a micro-batch, over the whole batch
    where a student's pass is shared. What that does not cover, and the last bucket, is waited for; so are the weights that owners send
    after a sharded step.

    Args:
        run: the option file in numbers.
        turn: a key of ``run.turns``.
        machines: rates and links.
        gpus: number of GPUs, a process each.
        images: of a GPU's batch.
        at_once: of a micro-batch.
        sharded: ``train.shard_optimizer``.
    """
    exposed = sent = 0.0
    for name, learner in run.learners(turn).items():
        size = FLOAT32 * learner.parameters
        travel = machines.all_reduce(size, gpus)
        last = images if turn == SHARED and name == 'net_g' else min(images, at_once)
        hidden = machines.overlap * 2 * learner.forward * last / machines.flops
        exposed += max(travel - hidden, min(travel, machines.all_reduce(min(size, BUCKET), gpus)))
        sent += all_reduce_bytes(size, gpus)
        if sharded:
            exposed += machines.broadcasts(size, len(learner.tensor_sizes), gpus)
            sent += (gpus - 1) / gpus * size
    return Iteration(compute=images * run.flops(turn) / machines.flops, exposed=exposed, sent=sent)


def mean(run: Run, *arguments: Any, **options: Any) -> Iteration:
    """Return the mean of :func:`iteration` (whose other arguments it takes, without ``turn``) over a cycle."""
    parts = [(count, iteration(run, turn, *arguments, **options)) for turn, count in run.turns.items()]
    total = sum(count for count, _ in parts)
    return Iteration(*(sum(count * getattr(part, name) for count, part in parts) / total for name in ('compute', 'exposed', 'sent')))


def memory(run: Run, gpus: int, sharded: bool) -> int:
    """Return the bytes of a GPU: what stays (:func:`gpu_bytes`) and the activations of the turn that keeps most."""
    opt = run.opt | {'train': run.opt['train'] | {'shard_optimizer': sharded}}
    kept = max(turn.bytes(images_at_once(opt), opt['datasets']['train']['batch_size_per_gpu']) for turn in run.activations.values())
    return sum(gpu_bytes(opt, run.sizes, gpus).values()) + kept


def read_run(file: str | Path) -> Run:
    """Read an option file and count its networks.

    Raises:
        OptionError: whatever is wrong with it.
    """
    opt = normalise_numbers(read_option_file(file))
    for phase, block in opt['datasets'].items():
        block |= {'phase': phase, 'scale': opt['scale']}
    opt |= {'is_train': True, 'dist': True, 'rank': 0, 'world_size': 1, 'auto_resume': False, 'num_gpu': 1}
    prepare_options(opt, auto_gpu=True, this_machine=False)
    size = opt['datasets']['train']['gt_size']
    autocast = torch.bfloat16 if opt['train'].get('amp') else None
    return Run(opt, {name: measure_network(block, size) for name, block in network_blocks(opt).items()},
               activations_per_turn(opt, size, autocast))


# ------------------------------------------------------------------ the text
def report(run: Run, machines: Machines, gpus: Sequence[int], global_batch: int) -> str:
    """Return the table of an option file: weak scaling with its batch per GPU, strong scaling of ``global_batch`` images."""
    batch, at_once = run.opt['datasets']['train']['batch_size_per_gpu'], images_at_once(run.opt)
    alone = mean(run, machines, 1, batch, at_once)
    rows = []
    for number in gpus:
        one, shared = (mean(run, machines, number, batch, at_once, sharded) for sharded in (False, True))
        share, rest = divmod(global_batch, number)
        strong = '-'
        if share and not rest:
            whole = mean(run, machines, 1, global_batch, at_once)
            strong = f'{whole.seconds / number / mean(run, machines, number, share, min(at_once, share)).seconds:.1%}'
        rows.append([number, batch * number, f'{one.compute:.3f}', f'{one.exposed:.4f}', f'{shared.exposed:.4f}', _gib(one.sent),
                     _gib(shared.sent), f'{alone.seconds / one.seconds:.1%}', f'{alone.seconds / shared.seconds:.1%}', strong,
                     *(_gib(memory(run, number, sharded)) for sharded in (False, True))])
    heads = ['GPUs', 'images', 'compute s', 'waiting s', 'sharded', 'sent GiB', 'sharded', 'weak', 'sharded', f'strong, {global_batch}',
             'memory GiB', 'sharded']
    learns = ', '.join(f'{turn}: {run.flops(turn) / 1e12:.2f} TFLOP/image, '
                       f'{sum(learner.parameters for learner in run.learners(turn).values()):,} parameters learn' for turn in run.turns)
    return (f'{run.opt["name"]}: {batch} images a GPU, {at_once} at once; {learns}\n'
            f'at {machines.flops / 1e12:g} TFLOP/s a GPU; means over the iterations of a cycle\n\n{table(heads, rows)}')


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table, numbers to the right."""
    cells = [list(map(str, row)) for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ['| ' + ' | '.join(cell.rjust(width) for cell, width in zip(row, widths)) + ' |' for row in cells]
    return '\n'.join([lines[0], '|' + '|'.join('-' * (width + 1) + ':' for width in widths) + '|', *lines[1:]])


def _gib(number: float) -> str:
    return f'{number / 2**30:.2f}'


@report_errors('interrupted.')
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the head of this file."""
    default = Machines()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-opt', nargs='+', default=[str(ROOT / name) for name in FILES], metavar='FILE',
                        help='option files of training runs')
    parser.add_argument('--gpus', nargs='+', type=int, default=GPUS, metavar='N', help='numbers of GPUs')
    parser.add_argument('--tflops', nargs='+', type=float, default=[default.flops / 1e12], metavar='X',
                        help='TFLOP/s that a GPU sustains; a table each (default: %(default)s, measured with the S teacher on one H200)')
    parser.add_argument('--per-node', type=int, default=default.per_node, help='GPUs of a node (default: %(default)s)')
    parser.add_argument('--intra', type=float, default=default.intra / 1e9,
                        help='GB/s that a GPU sends within a node (default: %(default)g, NVLink 4 by its data sheet)')
    parser.add_argument('--inter', type=float, default=default.inter / 1e9,
                        help='GB/s that a GPU sends to other nodes (default: %(default)g, a 400 Gbit/s link a GPU by its data sheet)')
    parser.add_argument('--reach', type=float, default=default.reach, help='share of both that collectives get (assumed: %(default)s)')
    parser.add_argument('--latency', type=float, default=default.latency * 1e6, help='microseconds a message (assumed: %(default)g)')
    parser.add_argument('--global-batch', type=int, default=256, help='images of an iteration, for strong scaling (default: %(default)s)')
    parser.add_argument('--check', action='store_true', help='compare predictions with one and two processes on this machine')
    parser.add_argument('--repeats', type=int, default=5, help='with --check: cycles that are measured (default: %(default)s)')
    args = parser.parse_args(arguments)
    if args.check:
        sys.path.insert(0, str(Path(__file__).parent))
        from scaling_check import check
        print(check(args.repeats))
        return 0
    runs = [read_run(file) for file in args.opt]
    for run in runs:
        for rate in args.tflops:
            machines = Machines(flops=rate * 1e12, per_node=args.per_node, intra=args.intra * 1e9, inter=args.inter * 1e9,
                                reach=args.reach, latency=args.latency / 1e6)
            print(report(run, machines, args.gpus, args.global_batch), end='\n\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
