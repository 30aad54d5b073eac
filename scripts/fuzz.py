"""Feed the option checks and the image readers with random files for a while, and see whether any of them ends as it may not.

    python scripts/fuzz.py --minutes 10

Half of the time goes into each part:

* options: shipped option files with values, keys and text changed. Each is accepted or refused in lines that name the key; what is accepted
  is so by options/schema.json, too, and again when it is written once more.
* images: valid files of all kinds with bytes changed, which are read and can be written, or are refused in one line; and files of random
  pixels, which are read as they were written.

No other exception, no code that is run, 10 seconds of processor time and 0.5 GiB at most for each. The cases are those of tests/fuzzing,
where hypothesis draws and shrinks them; they are tried in a process of their own, whose crash is a problem, too.

exit codes: 0 no problem; 1 problems, of which each is shown once, by the smallest case that was met, and kept in --output.
"""
from __future__ import annotations

import argparse
import collections
import difflib
import faulthandler
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ibmd_basicsr.cli.errors import report_errors

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / 'tests' / 'fuzzing')]  # also for cases that the process sends here
ROUND = 200
"""Cases between two new seeds."""


@dataclass
class Tally:
    """What came of the cases of a part.

    Attributes:
        cases: how many were tried.
        seconds: spent on them.
        longest: processor time of one case in seconds.
        outcomes: how many ended in which way.
        faults: kind -> (message, smallest case).
    """

    cases: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    outcomes: collections.Counter = field(default_factory=collections.Counter)
    faults: dict[str, tuple[str, Any]] = field(default_factory=dict)


@report_errors('interrupted; cases that went wrong were not kept.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=10.0, help='how long (default: %(default)g)')
    parser.add_argument('--seed', type=int, default=0, help='of the cases (default: %(default)s)')
    parser.add_argument('--part', nargs='+', choices=('options', 'images'), default=['options', 'images'], help='default: both')
    parser.add_argument('--output', type=Path, default=REPOSITORY / 'experiments' / 'fuzz', help='folder for cases that went wrong')
    args = parser.parse_args(arguments)
    tallies = {part: Tally() for part in args.part}
    left, number = 60 * args.minutes, 0
    with tempfile.TemporaryDirectory() as folder, tqdm(unit='case', dynamic_ncols=True) as bar:
        while left > 0:
            start = time.monotonic()
            number = try_cases(left, args.seed, number, tallies, Path(folder) / 'case', bar)
            left -= time.monotonic() - start
    print(table(tallies))
    for part, tally in tallies.items():
        for count, (kind, (message, case)) in enumerate(tally.faults.items()):
            file = args.output / f'{part}_{count}'
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content(case))
            print(f'\n{part}: {kind}: {message}\n{describe(case)}\n  kept as {file}')
    return 1 if any(tally.faults for tally in tallies.values()) else 0


def try_cases(duration: float, seed: int, number: int, tallies: dict[str, Tally], last: Path, bar: tqdm) -> int:
    """Try rounds of cases in a new process until its time is up or it is gone; return the number of the next round."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    known = {part: set(tally.faults) for part, tally in tallies.items()}
    process = multiprocessing.get_context('spawn').Process(target=work, args=(theirs, duration, seed, number, known, last), daemon=True)
    process.start()
    theirs.close()
    part = next(iter(tallies))
    while True:
        try:
            part, number, seconds, processor, outcome, fault = ours.recv()
        except EOFError:
            break
        tally = tallies[part]
        tally.seconds += seconds
        tally.longest = max(tally.longest, processor)
        tally.cases += 1
        tally.outcomes[outcome] += 1
        bar.update()
        bar.set_postfix_str(f'{part}, {sum(len(one.faults) for one in tallies.values())} problems', refresh=False)
        if fault is not None:
            tally.faults[fault[0]] = fault[1:]
    process.join()
    if process.exitcode != 0:
        part, case = pickle.loads(last.read_bytes()) if last.exists() else (part, None)  # ours, written by work()
        told = last.with_name('stderr').read_text(errors='replace')[-2000:]
        tallies[part].faults[f'the process ended with code {process.exitcode}'] = (told, case)
    return number + 1


def work(pipe: Connection, duration: float, seed: int, number: int, known: dict[str, set[str]], last: Path) -> None:
    """Try rounds, each of one part, and send what comes of every case: part, round, seconds, processor time, outcome,
    fault with its smallest case."""
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    os.environ['OPENCV_LOG_LEVEL'] = 'OFF'
    # decoders in C write about damaged files what they like; the end of it is shown if the process crashes
    os.dup2(os.open(last.with_name('stderr'), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    faulthandler.enable()
    import hypothesis
    from guard import Fault

    kinds = kinds_of_cases(known)
    end = time.monotonic() + duration  # imports do not count
    while time.monotonic() < end:
        part, strategy, check = kinds[number % len(kinds)]
        attempt = Attempt(pipe, end, number, part, check, known[part], last)
        try:
            run_round(hypothesis, attempt, strategy, seed + 1_000_003 * number)
        except Fault:
            known[part] |= set(attempt.smallest)
        except TimeIsUp:
            return
        number += 1


class Attempt:
    """Checks the cases of a round and sends what came of each; keeps the smallest case of every new kind of fault."""

    def __init__(self, pipe: Connection, end: float, number: int, part: str, check: Callable[[Any], str], known: set[str], last: Path):
        self.pipe, self.end, self.number, self.part = pipe, end, number, part
        self.check, self.known, self.last = check, known, last
        self.smallest: dict[str, Any] = {}

    def __call__(self, case: Any) -> float:
        """Return the processor time that the case took.

        Raises:
            Fault: of a kind that was not known before the round.
            TimeIsUp: the time of the whole run is.
        """
        from guard import Fault
        if time.monotonic() > self.end:
            raise TimeIsUp
        self.last.write_bytes(pickle.dumps((self.part, case)))
        start, spent = time.monotonic(), time.process_time()
        try:
            outcome, fault = self.check(case), None
        except Fault as error:
            outcome, fault = f'refused: {error.kind}', error
        seconds, spent, new = time.monotonic() - start, time.process_time() - spent, None
        if fault is not None and fault.kind not in self.known:
            if len(content(case)) <= len(content(self.smallest.get(fault.kind, case))):
                self.smallest[fault.kind] = case
            new = (fault.kind, str(fault).partition(': ')[2], self.smallest[fault.kind])
        self.pipe.send((self.part, self.number, seconds, spent, outcome, new))
        if new is not None:
            raise fault
        return spent


class TimeIsUp(BaseException):
    """Leaves a round. No Exception, which hypothesis would take for a failure."""


def kinds_of_cases(parts: dict[str, Any]) -> list[tuple[str, Any, Callable[[Any], str]]]:
    """Return the rounds of the parts in their order: part, strategy and what checks its cases."""
    import image_cases
    import option_cases

    # an option file takes as long as several images
    kinds = {'options': [(option_cases.option_cases(), option_cases.check_options)],
             'images': [*[(image_cases.image_cases(), image_cases.check_image)] * 5,
                        (image_cases.pictures(), image_cases.check_round_trip)]}
    return [(part, *kind) for part in parts for kind in kinds[part]]


def run_round(hypothesis, attempt: Attempt, strategy, seed: int) -> None:
    """Let hypothesis draw cases, those that take long rather than others, and shrink one that fails."""
    def attempt_case(case):
        hypothesis.target(attempt(case), label='time')

    settings = hypothesis.settings(max_examples=ROUND, database=None, deadline=None, report_multiple_bugs=False,
                                   suppress_health_check=list(hypothesis.HealthCheck), verbosity=hypothesis.Verbosity.quiet,
                                   phases=[hypothesis.Phase.generate, hypothesis.Phase.target, hypothesis.Phase.shrink])
    hypothesis.seed(seed)(settings(hypothesis.given(case=strategy)(attempt_case)))()


def content(case: Any) -> bytes:
    """Return the file of a case."""
    if case is None:
        return b''
    if hasattr(case, 'text'):
        return case.text.encode('utf-8', 'replace')
    return case.data if hasattr(case, 'data') else repr(case).encode()


def describe(case: Any) -> str:
    """Return what a case is, in a few lines: of option files what differs from the shipped one."""
    if not hasattr(case, 'origin'):
        return f'  {case!r}'
    if not hasattr(case, 'text'):
        return f'  {case.origin}, {len(case.data)} bytes: {case.data[:40].hex()}...'
    import yaml
    from option_cases import shipped
    _, original, options = shipped(REPOSITORY / case.origin)
    if not case.text.startswith('#'):  # as it was written after a change of its content
        original = yaml.safe_dump(options, sort_keys=False)
    lines = list(difflib.unified_diff(original.splitlines(), case.text.splitlines(), n=0, lineterm=''))[2:]
    return '\n'.join([f'  {case.origin}, {case.kind}', *(f'    {line[:160]}' for line in lines[:20])])


def table(tallies: dict[str, Tally]) -> str:
    """Return the closing table."""
    rows = [('part', 'cases', 'seconds', 'longest', 'accepted', 'outcomes', 'problems')]
    for part, tally in tallies.items():
        accepted = sum(count for name, count in tally.outcomes.items() if not name.startswith('refused'))
        rows.append((part, str(tally.cases), f'{tally.seconds:.0f}', f'{tally.longest:.1f} s', str(accepted), str(len(tally.outcomes)),
                     str(len(tally.faults))))
    return '\n'.join('  '.join(cell.ljust(8) if i == 0 else cell.rjust(8) for i, cell in enumerate(row)) for row in rows)


if __name__ == '__main__':
    sys.exit(main())
