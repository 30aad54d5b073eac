"""Part g, and what part h uses of it: peak memory, each row in a process of its own.

On a GPU it is what torch has allocated at most, in a second run: in the first, cuDNN tries algorithms and their workspaces. On a CPU
nobody counts allocations, so it is the largest resident set of the process, less what it was before networks were built: weights,
optimiser, activations, workspaces, and what the allocator has not given back.
"""
from __future__ import annotations

import gc
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ibmd_basicsr.benchmarks.inference import input_image, peer_restorer, restore, student_restorer, teacher_restorer
from ibmd_basicsr.benchmarks.session import PartKind, Session
from ibmd_basicsr.benchmarks.sizes import IBMD, SIZES, TEACHER, Iterations, Size, TrainingChoices, make_batch, make_model
from ibmd_basicsr.benchmarks.timing import Row, Target, synchronise
from ibmd_basicsr.benchmarks.training import NAMES, REFERENCES
from ibmd_basicsr.models.turns import Turns
from ibmd_basicsr.utils.allocator import keep_freed_memory

MIB = 2**20


def memory_rows(session: Session) -> list[Row]:
    """Measure the peak memory of training and restoring: MiB, one repeat."""
    rows = {}
    for name in case_names(session.size):
        peak, before, _ = in_a_process(build_case, session.size_name, name, session.training, device=str(session.device))
        rows[name] = Row(name, 'MiB', [peak / MIB], notes={'before_mib': before / MIB})
        session.tick(name)
    for kind in (IBMD, TEACHER):
        ours = rows[NAMES[kind]]
        ours.against, ours.target = rows[f'{NAMES[kind]}, reference'], Target('at most', 0.6) if kind == IBMD else None
    return list(rows.values())


def case_names(size: Size) -> list[str]:
    """Return the names of the rows."""
    training = [name for kind in (IBMD, TEACHER) for name in (NAMES[kind], f'{NAMES[kind]}, reference')]
    return [*training, f'teacher, {size.calls[-1]} calls, {size.sampler_side} px',
            *(f'{name}, {side} px' for side in size.sides for name in ('student', *size.peers))]


def in_a_process(build: Callable[..., Callable[[], object]], *arguments: Any, device: str) -> tuple[int, int, float]:
    """Run something in a process of its own.

    Args:
        build: a function that can be pickled. It is called with ``arguments``, the device and a folder for files, and returns what to run.
        arguments: see ``build``.
        device: where to run.

    Returns:
        Peak memory of building and running (on a GPU: of a second run), and what was resident before, in bytes; seconds of that run.

    Raises:
        RuntimeError: the process ended without an answer; its own traceback is on the standard error stream.
    """
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, torch.get_num_threads(), build, arguments, device), daemon=True)
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f'{arguments}: the process that should measure its memory ended with exit code {process.exitcode}.') from None
    process.join()
    return answer


def _measure(sender, threads: int, build: Callable, arguments: tuple, device_name: str) -> None:
    keep_freed_memory()  # as the commands do
    torch.set_num_threads(threads)
    device = torch.device(device_name)
    with tempfile.TemporaryDirectory(prefix='ibmd_bench_') as folder:
        torch.zeros(1, device=device)
        gc.collect()
        before = 0 if device.type == 'cuda' else reset_peak()
        run = build(*arguments, device, Path(folder))
        if device.type == 'cuda':  # kernels are loaded and chosen
            run()
            synchronise(device)
            torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated(device) if device.type == 'cuda' else peak_rss() - before
    sender.send((peak, before, seconds))
    sender.close()


def build_case(size_name: str, name: str, choices: TrainingChoices, device: torch.device, folder: Path) -> Callable[[], object]:
    """Return what the row ``name`` runs; a model writes into ``folder``."""
    size = SIZES[size_name]
    for kind in (IBMD, TEACHER):
        if name.startswith(NAMES[kind]):
            model = make_model(size, kind, folder, device, choices=choices)
            cycle = Turns.from_options(model.opt).length
            if name.endswith('reference'):
                model = REFERENCES[kind](model)
            # the second cycle meets optimisers with a state and gradients of the network at rest
            return Iterations(model, make_batch(size, kind), 2 * cycle)
    side = int(name.split()[-2])
    if name.startswith('teacher'):
        restorer = teacher_restorer(size, device, size.calls[-1])
        # memory does not grow with the calls
        restorer.grid = restorer.grid[[0, 1, -1]]
    else:
        kind = name.rpartition(',')[0]
        restorer = student_restorer(size, device) if kind == 'student' else peer_restorer(size.peers[kind], device)
    return restore(restorer, input_image(side, device))


def reset_peak() -> int:
    """Let the kernel forget the largest resident set so far; return the present one, in bytes.

    Where that is not to be had (other systems than Linux), return the largest one so far.
    """
    try:
        Path('/proc/self/clear_refs').write_text('5')
        return _status('VmRSS')
    except OSError:
        return peak_rss()


def peak_rss() -> int:
    """Return the largest resident set of this process, in bytes."""
    try:
        return _status('VmHWM')  # ru_maxrss would start with what the parent had when it forked
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def _status(name: str) -> int:
    line = next(line for line in Path('/proc/self/status').read_text(encoding='ascii').splitlines() if line.startswith(f'{name}:'))
    return int(line.split()[1]) * 1024


PARTS = {
    'g': PartKind(
        'peak memory',
        'Each row in a process of its own. GPU: what torch allocated. CPU: largest resident set less that before networks were built.',
        lambda session: len(case_names(session.size)), memory_rows),
}
