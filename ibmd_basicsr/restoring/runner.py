"""A batch of photographs: read ahead and written behind by threads, restored one after another; a failure leaves the others."""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ibmd_basicsr.restoring.engine import Engine
from ibmd_basicsr.restoring.photo import ImageError, Photo, read_photo
from ibmd_basicsr.restoring.sources import Job
from ibmd_basicsr.restoring.writing import check_writable, encode, write_atomically
from ibmd_basicsr.utils.errors import printable


@dataclass(frozen=True, kw_only=True)
class Files:
    """How files are read and written.

    Attributes:
        max_megapixels: limit for inputs.
        quality: of JPEG and WebP files that are written.
        overwrite: replace what is there.
        workers: threads that read and write; each holds one image.
        stream: the standard output, for results without a file.
    """

    max_megapixels: float = 100.0
    quality: int = 95
    overwrite: bool = False
    workers: int = 2
    stream: BinaryIO | None = None


@dataclass
class Outcome:
    """What became of a batch.

    Attributes:
        restored: number of results written.
        failures: name and reason of each image that failed.
    """

    restored: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Who is told what happens, in the main thread.

    Attributes:
        note: called with the name of an image and a remark.
        done: called with the name of an image and what was made of it.
        failed: called with the name of an image and the reason.
        progress: called with the number of results that are made or have failed, with a fraction for the one in work.
    """

    note: Callable[[str, str], None]
    done: Callable[[str, str], None]
    failed: Callable[[str, str], None]
    progress: Callable[[float], None]


def run_jobs(jobs: Sequence[Job], engine: Engine, files: Files, listener: Listener) -> Outcome:
    """Restore a batch in order.

    After an interruption nothing half-written is left: files are renamed into place when they are complete.
    """
    outcome, finished = Outcome(), 0
    writing: deque[tuple[Job, str, Future]] = deque()

    def fail(job: Job, error: ImageError) -> None:
        outcome.failures.append((job.source.label, str(error)))
        listener.failed(job.source.label, str(error))

    def settle(job: Job, text: str, future: Future) -> None:
        try:
            future.result()
        except ImageError as error:
            fail(job, error)
            return
        outcome.restored += 1
        listener.done(job.source.label, text)

    with ThreadPoolExecutor(files.workers) as pool:
        try:
            for job, reading in _read_ahead(pool, jobs, files):
                try:
                    photo = reading.result()
                    for number, (sample, file) in enumerate(job.results):
                        restored, text = _restore(job, photo, sample, engine, listener, finished + number)
                        where = '' if file is None else f' -> {printable(file, 400)}'
                        writing.append((job, text + where, pool.submit(_write, restored, file, job.form, files)))
                        while writing and (len(writing) > files.workers or writing[0][2].done()):
                            settle(*writing.popleft())
                except ImageError as error:
                    fail(job, error)
                finished += len(job.results)
                listener.progress(finished)
            while writing:
                settle(*writing.popleft())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return outcome


def _read_ahead(pool: ThreadPoolExecutor, jobs: Sequence[Job], files: Files) -> Iterator[tuple[Job, Future]]:
    """Yield the jobs with their photographs, as many of which are read before they are wanted as there are workers."""
    reading: deque[tuple[Job, Future]] = deque()
    for job in jobs:
        reading.append((job, pool.submit(read_photo, job.source.path, files.max_megapixels)))
        if len(reading) > files.workers:
            yield reading.popleft()
    while reading:
        yield reading.popleft()


def _restore(job: Job, photo: Photo, sample: int, engine: Engine, listener: Listener, finished: int) -> tuple[Photo, str]:
    """Return a restoration and the line about it."""
    label = job.source.label
    recipe = engine.choose(photo)
    check_writable(photo, recipe.scale, job.form)
    if sample == job.results[0][0]:
        for text in [*photo.notes, *engine.warnings(photo, recipe)]:
            listener.note(label, text)
    restored = engine.restore(photo, recipe, job.source.name, sample, lambda part: listener.progress(finished + part),
                              lambda text: listener.note(label, text))
    height, width = restored.size
    kind = f'{photo.kind} of quality {photo.quality}' if photo.quality else photo.kind
    return restored, f'{kind}, {recipe.name}, {width}x{height}'


def _write(photo: Photo, file: Path | None, form: str, files: Files) -> None:
    data = encode(photo, form, files.quality)
    if file is not None:
        write_atomically(data, file, files.overwrite)
        return
    try:
        files.stream.write(data)
        files.stream.flush()
    except OSError as error:
        raise ImageError(f'the standard output cannot be written ({error.strerror or error}).') from error
