"""Train for long with many validations and saves, and watch whether memory or open files grow.

    python scripts/soak_test.py                                    # 2,000 iterations of the nano x4 distillation, an hour of one core
    python scripts/soak_test.py --force_yml datasets:train:gt_size=128      # a quarter of the pixels
    python scripts/soak_test.py -opt options/jpeg10_bridge.yml --iterations 500 --every 50

The run is `python -m ibmd_basicsr.train` with a validation and a checkpoint behind every N iterations. Resident memory (without mapped
files) and open files of it and of its loader processes are read ten times a second and gathered by period (N iterations, their
validation and save). Early are the periods of the second fifth of the run, late those of the last: the first fifth fills caches. Compared
are the means over early and over late periods of the median memory in a period and of what a twentieth of its readings exceed (the very
largest is a matter of chance: peaks are shorter than the time between two readings), and the smallest number of open files in all early and
in all late periods: what leaks a file stays above it, and a file that is just being written does not count. Linux.

exit codes: 0 memory grew by less than --limit and files not at all; 1 it did not, or the training failed; 2 the run is too short to say.
"""
from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.utils.errors import OptionError

REPOSITORY = Path(__file__).resolve().parents[1]
SECONDS = 0.1
"""Between two readings."""


@dataclass
class Period:
    """Readings of the iterations between two saves: MiB of resident memory, and open files, of all processes of the run."""

    memory: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)


@report_errors('interrupted; nothing can be said of memory and files.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-opt', type=Path, default=REPOSITORY / 'options/sr4x_ibmd.yml', metavar='FILE',
                        help='option file of a training (default: the x4 student)')
    parser.add_argument('--iterations', type=int, default=2000, metavar='N', help='of the run (default: %(default)s)')
    parser.add_argument('--every', type=int, default=100, metavar='N',
                        help='validate and save behind every N iterations (default: %(default)s)')
    parser.add_argument('--limit', type=float, default=1.0, metavar='PERCENT',
                        help='growth of memory that is too much (default: %(default)s)')
    parser.add_argument('--log', type=Path, default=REPOSITORY / 'results/soak_test.log', metavar='FILE',
                        help='what the training prints (default: results/soak_test.log)')
    parser.add_argument('--force_yml', nargs='+', default=[], metavar='BLOCK:KEY=VALUE', help='change single values of the option file')
    args = parser.parse_args(arguments)
    if args.iterations < 10 * args.every:
        raise OptionError(f'--iterations {args.iterations} are fewer than ten times --every {args.every}: too few periods to compare.')
    changes = ['name=soak_test', f'train:total_iter={args.iterations}', f'val:val_freq={args.every}', 'logger:print_freq=10',
               f'logger:save_checkpoint_freq={args.every}', 'logger:keep_checkpoints=2']
    if 'periods:' in args.opt.read_text(encoding='utf-8'):  # a schedule of cosines has to last as long as the run
        changes.append(f'train:scheduler:periods=[{args.iterations}]')
    command = [sys.executable, '-m', 'ibmd_basicsr.train', '-opt', str(args.opt), '--force_yml', *changes, *args.force_yml]
    args.log.parent.mkdir(parents=True, exist_ok=True)
    with args.log.open('w') as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            periods = watch(process, args.log, args.iterations)
        finally:
            process.kill()
    if process.wait() != 0:
        print(f'The training failed, see {args.log}:\n' + args.log.read_text()[-1000:])
        return 1
    return judge(periods, args.limit)


def watch(process: subprocess.Popen, log: Path, iterations: int) -> list[Period]:
    """Read memory and files until the process has ended; return the periods, the first of which holds the start."""
    periods: list[Period] = []
    with tqdm(total=iterations, unit='it', mininterval=5) as bar:
        while process.poll() is None:
            text = log.read_text(errors='replace')
            saved = text.count('Saving models and training states')
            iteration = max((int(number.replace(',', '')) for number in re.findall(r'iter: *([\d,]+), lr', text)), default=0)
            while len(periods) <= saved:
                periods.append(Period())
            family = [process.pid, *children(process.pid)]
            memory = sum(resident(pid) for pid in family)
            files = sum(open_files(pid) for pid in family)
            if iteration:
                periods[-1].memory.append(memory)
                periods[-1].files.append(files)
            bar.set_postfix_str(f'{memory:.0f} MiB, {files} files', refresh=False)
            bar.update(iteration - bar.n)
            time.sleep(SECONDS)
    return periods


def judge(periods: list[Period], limit: float) -> int:
    """Print the periods and the growth between early and late ones; return the exit code."""
    # the last holds the end of the run, where everything is taken down
    periods = [period for period in periods[:-1] if period.memory]
    print('| period | MiB, median | high | largest | open files |\n|---:|---:|---:|---:|---:|')
    for i, period in enumerate(periods):
        print(f'| {i + 1} | {statistics.median(period.memory):.1f} | {high(period.memory):.1f} | {max(period.memory):.1f} '
              f'| {min(period.files)} to {max(period.files)} |')
    fifth = len(periods) // 5
    if not fifth:
        print('Too few periods to compare.')
        return 2
    early, late = periods[fifth:2 * fifth], periods[-fifth:]
    growth = []
    for name, number in (('median', statistics.median), ('high', high)):
        before, after = (statistics.mean(number(period.memory) for period in group) for group in (early, late))
        growth.append(100 * (after / before - 1))
        print(f'{name} memory: {before:.1f} MiB early, {after:.1f} MiB late: {growth[-1]:+.2f} %')
    # of all readings of a group: a short period may be read only while a file is being written, which is none that stays open
    before, after = (min(min(period.files) for period in group) for group in (early, late))
    print(f'files that stay open: {before} early, {after} late')
    return 0 if max(growth) < limit and after <= before else 1


def high(values: list[float]) -> float:
    """Return the value that a twentieth of the values exceed, the largest of fewer than twenty."""
    return sorted(values)[-1 - len(values) // 20]


def children(pid: int) -> list[int]:
    """Return the processes below one, at any depth."""
    found = []
    try:
        for task in Path(f'/proc/{pid}/task').iterdir():
            for child in (task / 'children').read_text().split():
                found += [int(child), *children(int(child))]
    except FileNotFoundError:  # it has ended
        pass
    return found


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB, without what is mapped from files; 0 if it has ended.

    Mapped files are mostly libraries, whose pages the system brings and takes as it likes.
    """
    try:
        lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(('RssAnon:', 'RssShmem:'))) / 1024


def open_files(pid: int) -> int:
    """Return how many files, pipes and sockets a process holds open, 0 if it has ended."""
    try:
        return sum(1 for _ in Path(f'/proc/{pid}/fd').iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return 0


if __name__ == '__main__':
    sys.exit(main())
