"""Part f: the data pipeline alone, and how long an iteration waits for it."""
from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from basicsr.data import build_dataloader, build_dataset

from ibmd_basicsr.benchmarks.session import PartKind, Session
from ibmd_basicsr.benchmarks.sizes import IBMD, training_options
from ibmd_basicsr.benchmarks.timing import Row, Target, synchronise
from ibmd_basicsr.compat.iteration_sampler import IterationSampler
from ibmd_basicsr.compat.quiet import quiet_host
from ibmd_basicsr.data.lmdb_writer import create_lmdb
from ibmd_basicsr.models.turns import Turns

BATCHES = 12
"""Batches of a repeat; more than the workers have ready when it starts."""
WORKERS = 2


def make_photographs(folder: Path, count: int = 8, side: int = 512) -> Path:
    """Write random pictures that PNG cannot compress to nothing; return the folder."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        smooth = cv2.resize(generator.random((side // 16, side // 16, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
        picture = smooth + 0.02 * generator.standard_normal(smooth.shape)
        cv2.imwrite(str(folder / f'{i}.png'), (picture.clip(0, 1) * 255).round().astype(np.uint8))
    return folder


def make_loader(opt: dict, workers: int) -> torch.utils.data.DataLoader:
    """Build the loader of ``datasets.train`` as the host does, with ``workers`` processes."""
    block = opt['datasets']['train'] | {'num_worker_per_gpu': workers, 'persistent_workers': workers > 0}
    with quiet_host():
        dataset = build_dataset(block)
        return build_dataloader(dataset, block, num_gpu=1, sampler=IterationSampler(dataset, 1, 0, block['dataset_enlarge_ratio']), seed=0)


class Stream:
    """Batches without end."""

    def __init__(self, loader: torch.utils.data.DataLoader):
        self.loader = loader
        self.batches: Iterator | None = None

    def next(self) -> dict:
        """Return the next batch, of the next epoch where one ends."""
        batch = next(self.batches, None) if self.batches is not None else None
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        return batch

    def close(self) -> None:
        """End the workers."""
        self.batches = None


def data_rows(session: Session) -> list[Row]:
    """Measure images per second from folder and LMDB, and the share of an IBMD iteration that is spent waiting.

    Images are decoded for every draw, except in the last rows, which keep them in memory as the option files of this project do.
    """
    photographs, lmdb = session.data or make_photographs(session.folder / 'photographs'), session.folder / 'photographs.lmdb'
    create_lmdb(photographs, lmdb, progress=False)
    rows = []
    # workers first: LMDB refuses to be opened in a child of a process that has it open
    for workers in (WORKERS, 0):
        disk, packed = throughput(session, {'folder': photographs, 'LMDB': lmdb}, workers)
        packed.against, packed.target = disk, Target('at least', 1)
        rows += [packed, disk]
    return rows + [waiting(session, photographs, cache) for cache in (False, True)]


def throughput(session: Session, sources: dict[str, Path], workers: int) -> list[Row]:
    """Measure the loader alone on several sources, in turns: images per second."""
    images = session.size.batches[IBMD][0]
    streams = {}
    for name, source in sources.items():
        changes = {'io_backend': {'type': 'lmdb' if source.suffix == '.lmdb' else 'disk'}, 'cache': False}
        opt = training_options(session.size, IBMD, session.folder, gpu=False, data=source, data_changes=changes)
        row = Row(f'{name}, {f"{workers} workers" if workers else "no worker"}', 'images/s', [])
        streams[row.name] = row, Stream(make_loader(opt, workers))
    for repeat in range(session.repeats + 1):
        for name, (row, stream) in streams.items():
            for _ in range(2 * workers + 1):
                stream.next()  # what is ready before the clock starts
            start = time.perf_counter()
            for _ in range(BATCHES):
                stream.next()
            if repeat:
                row.values.append(BATCHES * images / (time.perf_counter() - start))
            session.tick(name)
    for _, stream in streams.values():
        stream.close()
    return [row for row, _ in streams.values()]


def waiting(session: Session, source: Path, cache: bool) -> Row:
    """Measure which share of an IBMD iteration is spent waiting for the next batch."""
    changes = {'data': source, 'data_changes': {'cache': cache, 'pin_memory': session.device.type == 'cuda'}}
    model = session.make_model(IBMD, **changes)
    stream = Stream(make_loader(training_options(session.size, IBMD, session.folder, gpu=False, **changes), WORKERS))
    row = Row(f'waiting for data, folder, {WORKERS} workers{", images kept in memory" if cache else ""}', 'share of an iteration', [],
              target=Target('at most', 0.02))
    iteration = 0
    for repeat in range(session.repeats + 1):
        waited, start = 0.0, time.perf_counter()
        for _ in range(Turns.from_options(model.opt).length):
            iteration += 1
            asked = time.perf_counter()
            batch = stream.next()
            waited += time.perf_counter() - asked
            model.feed_data(batch)
            model.optimize_parameters(iteration)
            synchronise(session.device)  # else the waiting would hide what the GPU still does
        if repeat:
            row.values.append(waited / (time.perf_counter() - start))
        session.tick(row.name)
    stream.close()
    return row


PARTS = {
    'f': PartKind(
        'data pipeline',
        'Images per second of the loader alone, each image decoded anew; share of an IBMD iteration that waits for the next batch.',
        lambda session: 6 * (session.repeats + 1), data_rows),
}
