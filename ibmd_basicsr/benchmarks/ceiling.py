"""Parts i and j: operations a second of the training iterations beside those of a bare matrix product, and what their time goes into."""
from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ibmd_basicsr.benchmarks.session import PartKind, Session
from ibmd_basicsr.benchmarks.sizes import IBMD, TEACHER, make_batch
from ibmd_basicsr.benchmarks.timing import Case, Row, Target, synchronise
from ibmd_basicsr.benchmarks.training import NAMES, iterations
from ibmd_basicsr.models.network_cost import measure_network
from ibmd_basicsr.models.run_cost import flops_per_turn, network_blocks
from ibmd_basicsr.models.turns import Turns, training_passes

KINDS = (TEACHER, IBMD)
PRODUCT = {'cpu': (2048, 2), 'cuda': (8192, 20)}
"""Side of the square matrices whose product is timed, and products of a repeat: large enough that nothing but arithmetic counts."""
TARGET = 0.4
"""Share of the ceiling that a training on a GPU should reach."""
TRITON = 'triton_'
"""What the names of the kernels that torch.compile writes for GPUs begin with."""
CATEGORIES = {
    'compiled kernels': (TRITON,),
    'random numbers': ('normal_', 'randn', 'random_', 'uniform_'),
    'optimiser, EMA, clipping': ('_fused_', '_foreach_', 'lerp', 'vector_norm'),
    'convolutions': ('conv',),
    'matrix products, attention': ('mm', 'attention', 'linear'),
    'normalisation': ('norm',),
    'pooling, resampling': ('pool', 'upsample', 'pixel_'),
    'copies, casts, filling': ('copy', 'clone', 'cat', 'fill_', 'zero_', 'contiguous', 'constant_pad'),
    'pointwise operations': ('mul', 'add', 'sub', 'div', 'silu', 'sigmoid', 'neg', 'pow', 'sqrt', 'exp', 'clamp', 'where', 'sum', 'mean'),
}
"""Heading -> parts of the names of torch's operations; the first heading that fits counts."""
OTHER, NOTHING = 'other operations', 'no operation of torch (Python, waiting)'


def matrix_product(side: int, count: int, device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """Return a function that multiplies two random matrices of ``side`` x ``side`` numbers ``count`` times.

    In float32 a GPU rounds their numbers if it does those of convolutions (TF32): the ceiling is that of the network's arithmetic.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty_like(a)

    def run() -> None:
        with _rounding_as_convolutions(device):
            for _ in range(count):
                torch.mm(a, b, out=out)

    return run


@contextlib.contextmanager
def _rounding_as_convolutions(device: torch.device) -> Iterator[None]:
    if device.type != 'cuda':
        yield
        return
    matmul, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def flops_of_iteration(opt: dict[str, Any]) -> float:
    """Return the floating-point operations of a batch's iteration, the mean over a cycle: two per multiply-add of all network passes."""
    block = opt['datasets']['train']
    sizes = {name: measure_network(dict(network), block['gt_size']) for name, network in network_blocks(opt).items()}
    return block['batch_size_per_gpu'] * sum(flops_per_turn(training_passes(opt), sizes).values()) / Turns.from_options(opt).length


def ceiling_rows(session: Session) -> list[Row]:
    """Measure TFLOP/s of teacher and IBMD iterations against those of matrix products in the same precision, and images a second."""
    return [row for kind in KINDS for row in _ceiling(session, kind)]


def _ceiling(session: Session, kind: str) -> list[Row]:
    model, device = session.make_model(kind), session.device
    run = iterations(model, make_batch(session.size, kind))
    dtype = model.switches.autocast or torch.float32
    side, count = PRODUCT[device.type]
    name = f'product of {side} x {side} matrices, {str(dtype).removeprefix("torch.")}, beside the {NAMES[kind]}'
    ours, product = session.measure([Case(NAMES[kind], run, per=run.cycle),
                                     Case(name, matrix_product(side, count, device, dtype), per=count)])
    flops = flops_of_iteration(model.opt)
    rate = Row(ours.name, 'TFLOP/s', [flops / seconds / 1e12 for seconds in ours.values], notes={'gflops': flops / 1e9})
    rate.against = Row(name, 'TFLOP/s', [2 * side**3 / seconds / 1e12 for seconds in product.values])
    rate.target = Target('at least', TARGET) if device.type == 'cuda' else None
    images = model.opt['datasets']['train']['batch_size_per_gpu']
    return [rate, rate.against, Row(f'{NAMES[kind]}, images', 'images/s', [images / seconds for seconds in ours.values])]


def profile_rows(session: Session) -> list[Row]:
    """Tell what an iteration's time goes into, by torch's profiler: shares of the seconds of a cycle, one profile each.

    On a GPU they are the times of its kernels, of the seconds without the profiler; on a CPU the times of the operations themselves, of
    the seconds with it.
    """
    return [row for kind in KINDS for row in _profile(session, kind)]


def _profile(session: Session, kind: str) -> list[Row]:
    model, device = session.make_model(kind), session.device
    run = iterations(model, make_batch(session.size, kind))
    seconds = statistics.median(session.measure([Case(NAMES[kind], run)], session.few)[0].values)
    on_gpu = device.type == 'cuda'
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        start = time.perf_counter()
        run()
        synchronise(device)
        profiled = time.perf_counter() - start
    session.tick(NAMES[kind])
    shares = dict.fromkeys([*CATEGORIES, OTHER], 0.0)
    for event in profiler.key_averages():
        # the kernels of a GPU are listed once more by themselves; their times are those of the operations that started them
        if event.device_type == DeviceType.CPU and event.key.startswith(('aten::', TRITON)):
            spent = device_time(event) if on_gpu else event.self_cpu_time_total
            shares[category(event.key)] += spent / 1e6 / (seconds if on_gpu else profiled)
    if not any(shares.values()):
        raise RuntimeError("torch's profiler saw no kernels: this system does not let it (CUPTI).")
    shares[NOTHING] = max(0.0, 1 - sum(shares.values()))
    return [Row(f'{NAMES[kind]}: {name}', 'share of an iteration', [share]) for name, share in shares.items()]


def device_time(event) -> float:
    """Return the microseconds of a profiled operation's own kernels; torch 2.3 has another name for them."""
    return event.self_device_time_total if hasattr(event, 'self_device_time_total') else event.self_cuda_time_total


def category(operation: str) -> str:
    """Return the heading of :data:`CATEGORIES` that an operation such as ``aten::convolution_backward`` falls under."""
    name = operation.removeprefix('aten::')
    return next((heading for heading, parts in CATEGORIES.items() if any(part in name for part in parts)), OTHER)


PARTS = {
    'i': PartKind(
        'share of what matrix products reach',
        'Floating-point operations of the network passes (two per multiply-add, nothing else counted) by the seconds of an iteration, '
        'against a product of large matrices in the precision of the training.',
        lambda session: 2 * len(KINDS) * (session.repeats + 1), ceiling_rows),
    'j': PartKind(
        'what the time of an iteration goes into',
        "One cycle under torch's profiler, by kind of operation. GPU: times of kernels, as shares of the time without the profiler. "
        'CPU: times of operations, as shares of the time with it.',
        lambda session: len(KINDS) * (session.few + 2), profile_rows),
}
