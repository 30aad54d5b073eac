"""The parts of the bench, one after the other."""
from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ibmd_basicsr.benchmarks import ceiling, inference, memory, pipeline, tiles, training
from ibmd_basicsr.benchmarks.report import Part
from ibmd_basicsr.benchmarks.sizes import IBMD, SIZES, TEACHER
from ibmd_basicsr.data.lmdb_writer import create_lmdb

PARTS = {
    'a': ('IBMD iteration against its bare network passes',
          'Learning rates, feed_data and optimize_parameters, over a cycle of K + 1 iterations; below it every pass of the cycle, timed '
          'alone. Seconds per iteration. Last, a cycle with train.share_generator_pass, K iterations, in seconds per cycle.'),
    'b': ('teacher iteration against its bare network passes', 'As (a).'),
    'c': ('the iterations as the published programs write them',
          'REFERENCE: ibmd_basicsr/benchmarks/reference.py, written here from facts about those programs, against ours; equal losses in '
          'float32. Seconds per iteration.'),
    'd': ('sampler against its bare network calls',
          'One image of {sampler_side} px, from the corrupted image to the clamped result. The reference puts EMA weights in and out and '
          'copies states to the CPU. Seconds per image.'),
    'e': ('student against its teacher and networks of BasicSR',
          'One image, x4, random weights. Seconds per image; ratio: how much longer than the student.'),
    'f': ('data pipeline',
          'Images per second of the loader alone, each image decoded anew; share of an IBMD iteration that waits for the next batch.'),
    'g': ('peak memory',
          'Each row in a process of its own. GPU: what torch allocated. CPU: largest resident set less that before networks were built.'),
    'h': ('a large image in tiles',
          'The student, one call a tile. Seconds and memory: each row in a process of its own, first run. dB: PSNR of the image in tiles '
          'against the same restored as a whole, whose normalisation sees all of it; one value a picture.'),
    'i': ('share of what matrix products reach',
          'Floating-point operations of the network passes (two per multiply-add, nothing else counted) by the seconds of an iteration, '
          'against a product of large matrices in the precision of the training.'),
    'j': ('what the time of an iteration goes into',
          "One cycle under torch's profiler, by kind of operation. GPU: times of kernels, as shares of the time without the profiler. "
          'CPU: times of operations, as shares of the time with it.'),
}


def total_ticks(letters: Sequence[str], size_name: str, repeats: int, device: torch.device) -> int:
    """Return the number of repeats, warm-ups included, that the parts will make."""
    size = SIZES[size_name]
    few = min(repeats, inference.FEW)
    cycles = {'a': 8, 'b': 2, 'c': 4}
    count = sum(cycles[letter] * (repeats + 1) for letter in letters if letter in cycles)
    if 'd' in letters:
        count += 2 * (repeats + 1) + sum(3 * ((few if calls >= inference.SLOW_CALLS else repeats) + 1) for calls in size.calls)
    if 'e' in letters:
        networks = 1 + len(size.peers) + len(inference.variant_names(device))
        count += 2 * (few + 1) + sum(networks * ((few if side >= inference.LARGE else repeats) + 1) for side in size.sides)
    if 'f' in letters:
        count += 6 * (repeats + 1)
    if 'h' in letters:
        count += tiles.tick_count()
    if 'i' in letters:
        count += 4 * (repeats + 1)
    if 'j' in letters:
        count += 2 * (few + 2)
    return count + (len(memory.case_names(size_name)) if 'g' in letters else 0)


def run_parts(letters: Sequence[str], size_name: str, device: torch.device, repeats: int, *, how: Mapping[str, Any], data: Path | None,
              tick: Callable[[str], None]) -> dict[str, Part]:
    """Measure the parts ``letters``.

    Args:
        letters: keys of :data:`PARTS`.
        size_name: a key of :data:`~ibmd_basicsr.benchmarks.sizes.SIZES`.
        device: CPU or GPU.
        repeats: of each measurement, after one to warm up.
        how: what :func:`~ibmd_basicsr.benchmarks.sizes.make_model` takes for all trainings: gradient, amp, compiled, channels_last.
        data: folder of photographs for parts f and h; None for random ones.
        tick: called with the name of each repeat that is done.
    """
    size = SIZES[size_name]
    results = {}
    with tempfile.TemporaryDirectory(prefix='ibmd_bench_') as name:
        folder = Path(name)

        def rows(letter: str):
            if letter == 'a':
                return [*training.against_passes(size, IBMD, folder, device, repeats, tick, how),
                        *training.against_unshared(size, folder, device, repeats, tick, how)]
            if letter == 'b':
                return training.against_passes(size, TEACHER, folder, device, repeats, tick, how)
            if letter == 'c':
                return training.against_reference(size, folder, device, repeats, tick, how)
            if letter == 'd':
                return inference.samplers_against_passes(size, device, repeats, tick)
            if letter == 'e':
                return [*inference.teacher_against_student(size, device, repeats, tick),
                        *inference.student_against_peers(size, device, repeats, tick)]
            if letter == 'f':
                photographs = data or pipeline.make_photographs(folder / 'photographs')
                lmdb = folder / 'photographs.lmdb'
                create_lmdb(photographs, lmdb, progress=False)
                return pipeline.data_rows(size, photographs, lmdb, folder, device, repeats, tick, how)
            if letter == 'g':
                return memory.memory_rows(size_name, device, tick, how)
            if letter == 'h':
                return tiles.tile_rows(size_name, device, data, folder, tick)
            if letter == 'i':
                return ceiling.ceiling_rows(size, folder, device, repeats, tick, how)
            return ceiling.profile_rows(size, folder, device, min(repeats, inference.FEW), tick, how)

        for letter in letters:
            title, about = PARTS[letter]
            results[letter] = Part(title, about.format(sampler_side=size.sampler_side), rows(letter))
    return results
