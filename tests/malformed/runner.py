"""Runs cases, each in a process of its own, and tells what is wrong with what they did.

The processes are forks of a server that has imported torch and the commands, and done nothing else.
"""
from __future__ import annotations

import multiprocessing
import os
import re
import resource
import runpy
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tiny import FORKS, REPOSITORY, environment

from malformed.case import EXECUTED, Case

SECONDS = 20.0
"""A case that takes longer hangs."""
MEBIBYTES = 2048
"""A process that holds more, torch and all libraries included, is too large."""
STARTS = ('os.system', 'os.exec', 'os.posix_spawn', 'os.spawn', 'subprocess.Popen', 'socket.connect')
"""What Python tells an audit hook before it runs another program or calls another machine: no command does on these inputs."""
_warm: list = []
_LOG = re.compile(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING):')


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        code: exit code; None if it was ended because it hung.
        seconds: from its start to its end.
        mebibytes: the most memory that it, or a process that it started, had at a time.
        lines: its standard error output, without what progress bars have overwritten and what is log.
        started: programs and connections that it has tried to start.
        problems: what it should not have done; empty if all is well.
    """

    code: int | None
    seconds: float
    mebibytes: float
    lines: list[str]
    started: list[str]
    problems: list[str]


def run_case(case: Case, good: Path, folder: Path, package: str = 'ibmd_basicsr') -> Outcome:
    """Run a case.

    Args:
        case: the case.
        good: a folder by :func:`~malformed.case.make_good`.
        folder: where to work; made here.
        package: that the command is in.
    """
    shutil.copytree(good, folder)
    arguments = [f'{package}.{case.module}', *map(str, case.make(folder))]
    before = _contents(folder)
    notes = folder.with_name(folder.name + '.notes')
    notes.mkdir()
    if not _warm:
        _warm.append(FORKS.Process(target=os.getpid))  # the server takes its time to start
        _warm[0].start()
        _warm[0].join()
    process = FORKS.Process(target=_be, args=(arguments, folder, notes))
    start = time.monotonic()
    process.start()
    process.join(SECONDS)
    seconds = time.monotonic() - start
    if process.is_alive():
        process.kill()
        process.join()
        return Outcome(None, seconds, 0, [], [], [f'did not end within {SECONDS:g} s'])
    lines = list(_told((notes / 'err').read_text(errors='replace')))
    started = (notes / 'started').read_text().splitlines()
    memory = notes / 'memory'
    mebibytes = int(memory.read_text()) / 1024 if memory.is_file() else 0
    outcome = Outcome(process.exitcode, seconds, mebibytes, lines, started, [])
    outcome.problems.extend(_problems(case, outcome, folder, before))
    return outcome


def _be(arguments: list[str], folder: Path, notes: Path) -> None:
    """Be ``python -m`` with these arguments, called in ``folder``."""
    import torch
    for number, name in ((1, 'out'), (2, 'err')):
        os.dup2(os.open(notes / name, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment())
    os.chdir(folder)
    torch.set_num_threads(1)  # too late for OMP_NUM_THREADS
    multiprocessing.set_start_method(None, force=True)  # not the runner's: the command chooses
    # what wants far more than it may is to fail, not to take the machine along
    resource.setrlimit(resource.RLIMIT_AS, (_status('VmSize') * 1024 + 8 * 2**30,) * 2)
    started = os.open(notes / 'started', os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event: str, details: tuple) -> None:
        # torch asks for the processor, loader processes for their parent
        if event in STARTS and 'uname' not in details and getattr(details[0], 'family', None) != socket.AF_UNIX:
            os.write(started, f'{event} {details!r:.200}\n'.encode())

    sys.addaudithook(note)
    sys.argv = list(arguments)
    try:
        runpy.run_module(arguments[0], run_name='__main__', alter_sys=True)
    finally:
        peak = max(_status('VmHWM'), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        (notes / 'memory').write_text(str(peak))


def _status(key: str) -> int:
    """Return a number of this process, in KiB."""
    return int(re.search(rf'^{key}:\s+(\d+) kB', Path('/proc/self/status').read_text(), re.MULTILINE)[1])


def _told(text: str) -> Iterator[str]:
    """Yield the lines that are neither empty, nor log, nor a progress bar's."""
    in_log = False
    for line in text.split('\n'):
        line = line.split('\r')[-1].replace('\x1b[A', '').rstrip()
        # messages of several lines, such as the options and the layers of a network, are indented
        in_log = bool(_LOG.match(line)) or (in_log and (not line or line.startswith((' ', '\t', ')', 'Version Information:'))))
        # libpng speaks for itself, past Python and OpenCV
        if line and not in_log and not re.match(r'.*\d+%\||libpng (error|warning): ', line):
            yield line


def _contents(folder: Path) -> dict[str, bytes | None]:
    """Return what lies in a folder: bytes of the small files, sizes of the large ones, None for what is no file."""
    found = {}
    for path in sorted(folder.rglob('*')):
        small = path.is_file() and path.stat().st_size < 2**24
        found[str(path.relative_to(folder))] = path.read_bytes() if small else str(path.stat().st_size).encode() if path.is_file() else None
    return found


def _problems(case: Case, outcome: Outcome, folder: Path, before: dict[str, bytes | None]) -> Iterator[str]:
    if outcome.code != case.code:
        yield f'exit code {outcome.code}, not {case.code}'
    if outcome.mebibytes > MEBIBYTES:
        yield f'{outcome.mebibytes:.0f} MiB'
    if any('Traceback' in line for line in outcome.lines):
        yield 'a traceback'
    if len(outcome.lines) != bool(case.says):
        yield f'{len(outcome.lines)} lines on the standard error output'
    for line in outcome.lines[:1] if case.says else ():
        if not line.startswith('error: ') or not line.isprintable() or len(line) > 500:
            yield 'no clear line'
        if case.names not in line:
            yield f'does not name {case.names}'
        if not re.search(case.says, line):
            yield f'does not say {case.says!r}'
    yield from _damage(case, folder, before)
    for started in outcome.started:
        yield f'starts {started}'


def _damage(case: Case, folder: Path, before: dict[str, bytes | None]) -> Iterator[str]:
    after = _contents(folder)
    if any(Path(name).name == EXECUTED for name in after) or (REPOSITORY / EXECUTED).exists():
        yield 'code of the file was run'
    changed = [name for name, content in before.items() if name not in after or after[name] != content]
    if changed:
        yield f'changed {", ".join(changed)}'
    # logs and folders for results, which training and testing make before they read anything, are no results
    made = {name for name in after.keys() - before.keys() if not re.match(r'(experiments|results|tb_logger)(/|$)', name)}
    left = made - {'out', *(f'out/{name}' for name in case.results)}
    missing = {f'out/{name}' for name in case.results} - after.keys()
    if left:
        yield f'left {", ".join(sorted(left))}'
    if missing:
        yield f'did not make {", ".join(sorted(missing))}'
