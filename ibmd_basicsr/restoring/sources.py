"""Which files a command line means, and where their results go. Everything that can be refused by names alone is refused here."""
from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from ibmd_basicsr.restoring.writing import ENDINGS
from ibmd_basicsr.utils.errors import OptionError, printable

IMAGE_ENDINGS = {*ENDINGS, '.jpe', '.jfif', '.mpo', '.tif', '.tiff', '.bmp', '.gif'}
"""Endings of the files that are taken from folders. What they hold is seen when they are read."""
STREAM = '-'


@dataclass(frozen=True)
class Source:
    """An image to be restored.

    Attributes:
        path: its file, None for the standard input.
        relative: its name below the folder that was given, with its ending.
    """

    path: Path | None
    relative: PurePath

    @property
    def label(self) -> str:
        """The name that the user knows it by, printable."""
        return 'standard input' if self.path is None else printable(self.path, 400)

    @property
    def name(self) -> str:
        """The name that keys its noise: ``relative`` without ending, the same on every system."""
        text = self.relative.with_suffix('').as_posix()
        return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')


@dataclass(frozen=True)
class Job:
    """A source with what shall be made of it.

    Attributes:
        source: the image.
        form: format of the results, a value of :data:`~ibmd_basicsr.restoring.writing.ENDINGS`.
        results: number of the sample and file (None for the standard output) of each.
    """

    source: Source
    form: str
    results: tuple[tuple[int, Path | None], ...]


@dataclass
class Plan:
    """What is to be done, and what is not.

    Attributes:
        jobs: in the order in which they are done.
        failures: name and reason of what was refused.
        skipped: number of results that are there already.
        notes: lines for the user.
    """

    jobs: list[Job] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    skipped: int = 0
    notes: list[str] = field(default_factory=list)


def find_sources(inputs: Sequence[str], recursive: bool, output: Path | None, plan: Plan) -> list[Source]:
    """Return the images behind names of files and folders, patterns and ``-``, each folder in the order of its names.

    Args:
        inputs: as given; patterns (``*``, ``?``, ``[]``, ``**``) count where no file has their name.
        recursive: also the images in folders below folders.
        output: folder that is not searched, if it lies below one that is.
        plan: gets failures and notes.

    Raises:
        OptionError: an empty name, as of a variable that is not set.
    """
    if '' in inputs:
        raise OptionError('INPUT: is an empty name; "." is the working directory.')
    sources = []
    for given in inputs:
        path = Path(given)
        if given == STREAM:
            sources.append(Source(None, PurePath('stdin')))
        elif path.is_dir():
            before = len(plan.failures)
            found = list(_search(path, path, recursive, output, plan))
            sources += found
            unread = any(name == printable(path, 400) for name, _ in plan.failures[before:])
            if not found and not unread:
                hint = '.' if recursive else '; --recursive looks below.'
                plan.failures.append((printable(given, 400), f'no images in this folder{hint}'))
        elif os.path.lexists(path) or not glob.has_magic(given):
            sources.append(Source(path, PurePath(path.name)))  # also what is not there: reading says why
        else:
            matches = sorted(name for name in glob.glob(given, recursive=True) if not os.path.isdir(name))
            sources += [Source(Path(name), PurePath(Path(name).name)) for name in matches]
            if not matches:
                plan.failures.append((printable(given, 400), 'no file fits this pattern.'))
    return sources


def _search(folder: Path, top: Path, recursive: bool, output: Path | None, plan: Plan) -> Iterator[Source]:
    """Yield the images in a folder, hidden ones left out; links to folders are not followed, they may lead round in circles."""
    others = 0
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        plan.failures.append((printable(folder, 400), f'{error.strerror}.'))
        return
    for name in names:
        path = folder / name
        if name.startswith('.'):
            continue
        if path.is_dir():
            same = output is not None and output.exists() and path.samefile(output)
            if recursive and not path.is_symlink() and not same:
                yield from _search(path, top, recursive, output, plan)
            elif path.suffix.lower() in IMAGE_ENDINGS:
                plan.failures.append((printable(path, 400), 'is a folder, not an image.'))
        elif path.suffix.lower() in IMAGE_ENDINGS:
            yield Source(path, path.relative_to(top))
        else:
            others += 1
    if others:
        plan.notes.append(f'{printable(folder, 400)}: {others} file{"s" * (others > 1)} left out, not images by their endings.')


def output_file(output: str, sources: Sequence[Source]) -> bool:
    """Tell whether OUT is the one file to write; else it is a folder.

    Raises:
        OptionError: a file for several images, a folder in the place of a file or the other way round, an ending that is not written.
    """
    path = Path(output)
    if path.is_dir():
        return False
    ending = path.suffix.lower()
    if ending not in IMAGE_ENDINGS:
        if path.exists():
            raise OptionError(f'-o {output}: is a file; name a folder, or a file that ends with {", ".join(ENDINGS)}.')
        return False
    if ending not in ENDINGS:
        raise OptionError(f'-o {output}: {ending} is not written; {", ".join(ENDINGS)} are.')
    if len(sources) > 1:
        raise OptionError(f'-o {output}: one file for {len(sources)} images; name a folder.')
    return True


def plan_jobs(sources: Sequence[Source], plan: Plan, *, output: str, suffix: str = '', form: str | None = None, samples: int = 1,
              existing: str = 'refuse') -> None:
    """Add to ``plan`` the jobs for ``sources``.

    Args:
        sources: see :func:`find_sources`.
        plan: gets jobs, failures and the number of those skipped.
        output: folder, file or ``-``.
        suffix: comes behind the names of results in a folder.
        form: ``png``, ``jpg``, ``webp`` or ``same`` (that of the input's ending, else png); default: that of the ending of ``output``,
            else png.
        samples: restorations of each image; several get ``_s0``, ``_s1``, ... behind their names.
        existing: what to do about results that are there: ``refuse``, ``overwrite`` or ``skip``.

    Raises:
        OptionError: as :func:`output_file`, or ``form`` contradicts the ending of ``output``.
    """
    one_file = output != STREAM and output_file(output, sources)
    if output == STREAM and (len(sources) > 1 or samples > 1):
        raise OptionError(f'-o -: the standard output takes one image, not {max(len(sources), samples)}.')
    if one_file:
        of_ending = ENDINGS[Path(output).suffix.lower()]
        if form not in (None, 'same', of_ending):
            raise OptionError(f'-o {output}: its ending contradicts --format {form}.')
        form = of_ending
    inputs = {_identity(source.path) for source in sources} - {None}
    owners: dict[str, Source] = {}
    for source in sources:
        kind = ENDINGS.get(source.relative.suffix.lower(), 'png') if form == 'same' else form or 'png'
        files = [None] if output == STREAM else [
            _result(source, Path(output), one_file, suffix, kind, f'_s{number}' if samples > 1 else '') for number in range(samples)]
        if owners.get(str(files[0])) == source:
            continue  # named twice
        results, reason = [], None
        for number, file in enumerate(files):
            state = _refusal(file, inputs, owners, existing)
            if state == 'skip':
                plan.skipped += 1
            elif state is not None:
                reason = reason or state
            else:
                results.append((number, file))
        if reason is not None:
            plan.failures.append((source.label, reason))
            continue
        owners |= {str(file): source for file in files if file is not None}
        if results:
            plan.jobs.append(Job(source, kind, tuple(results)))


def _result(source: Source, output: Path, one_file: bool, suffix: str, form: str, sample: str) -> Path:
    if one_file:
        return output.with_name(f'{output.stem}{sample}{output.suffix}')
    ending = source.relative.suffix if ENDINGS.get(source.relative.suffix.lower()) == form else f'.{form}'
    return output / source.relative.with_name(f'{source.relative.stem}{suffix}{sample}{ending}')


def _refusal(file: Path | None, inputs: set, owners: dict[str, Source], existing: str) -> str | None:
    """Return why a result cannot be written there, ``skip`` where it need not, None where it can."""
    if file is None:
        return None
    shown = printable(file, 400)
    if str(file) in owners:
        return f'would be written to {shown}, as {owners[str(file)].label} is; restore them into two folders.'
    if _identity(file) in inputs:
        return f'would be written to {shown}, which is an input; choose another folder or a --suffix.'
    if file.is_dir():
        return f'would be written to {shown}, which is a folder.'
    if os.path.lexists(file):
        return {'overwrite': None, 'skip': 'skip'}.get(
            existing, f'{shown} exists already; --overwrite replaces it, --skip-existing leaves it.')
    return None


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Return what two names of one file share, through links of both kinds; None if there is no file."""
    try:
        status = os.stat(path) if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_dev, status.st_ino)
