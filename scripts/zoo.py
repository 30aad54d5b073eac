"""Train networks of the model zoo, stage after stage; the same command again goes on where it was stopped.

    python scripts/zoo.py --list
    python scripts/fetch_photos.py && python scripts/zoo.py sr4x_s jpeg10_s sr4x_baselines jpeg10_baseline --jobs 4
    python scripts/zoo.py sr4x_s --minutes 10        # a slot of ten minutes: stops then, and says how to go on

The recipes are in options/zoo/recipes.yml: every stage is one call of `python -m ibmd_basicsr.train --auto_resume`, its log is
experiments/NAME.zoo.log. A stage that is stopped loses what came after its last checkpoint (save_checkpoint_freq). Finished networks are
written in half precision to --export, as by scripts/export_weights.py.

exit codes: 0 all done; 1 a stage failed, the other networks were trained; 2 wrong command line or recipe; 3 stopped by --minutes.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.compat.options import read_option_file
from ibmd_basicsr.utils.errors import OptionError, SaveError, one_line
from ibmd_basicsr.utils.option_check import check_keys

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / 'options' / 'zoo' / 'recipes.yml'
GRACE = 20
"""Seconds that a stopped training has to end by itself."""


@dataclass(frozen=True)
class Stage:
    """One training: an option file, changes to it as ``--force_yml`` takes them, and the experiment's name."""

    file: str
    change: tuple[str, ...]
    experiment: str

    @property
    def result(self) -> Path:
        """Return the file that a finished training leaves."""
        return ROOT / 'experiments' / self.experiment / 'models' / 'net_g_latest.pth'

    def command(self) -> list[str]:
        """Return the command that trains the stage, or goes on with it."""
        changes = ['--force_yml', *self.change] if self.change else []
        return [sys.executable, '-m', 'ibmd_basicsr.train', '-opt', self.file, '--auto_resume', *changes]


@dataclass(frozen=True)
class Network:
    """A network of the zoo: its stages in order, and what is exported: name of the file, experiment."""

    name: str
    about: str
    stages: tuple[Stage, ...]
    export: dict[str, str] = field(default_factory=dict)


def read_recipes(path: Path) -> dict[str, Network]:
    """Return the networks of a recipe file by name.

    Raises:
        OptionError: a key that is unknown or missing, a stage whose option file is missing, or an export of no stage. It begins
            with ``path``.
    """
    content = read_option_file(path)  # names the file itself
    try:
        return networks_of(content)
    except OptionError as error:
        raise OptionError(f'{path}: {error}') from error


def networks_of(content: dict[str, Any]) -> dict[str, Network]:
    """Return the networks of a recipe file's content by name."""
    networks = {}
    for name, block in content.items():
        check_keys(name, block, ('about', 'stages', 'export'), ('about', 'stages'))
        stages = []
        for number, stage in enumerate(block['stages']):
            check_keys(f'{name}.stages[{number}]', stage, ('file', 'change'), ('file',))
            if not (ROOT / stage['file']).is_file():
                raise OptionError(f'{name}.stages[{number}].file: {stage["file"]}: no such file.')
            stages.append(Stage(stage['file'], tuple(stage.get('change') or ()), read_option_file(ROOT / stage['file'])['name']))
        export = block.get('export') or {}
        for file, experiment in export.items():
            if experiment not in {stage.experiment for stage in stages}:
                raise OptionError(f'{name}.export.{file}: {experiment} is none of its stages.')
        networks[name] = Network(name, block['about'], tuple(stages), export)
    return networks


def train(network: Network, end: float | None, folder: Path) -> str:
    """Run the stages that are not done, then export.

    Args:
        network: what to train.
        end: ``time.monotonic()`` at which to stop, or None.
        folder: of the exported files.

    Returns:
        ``done``, ``stopped``, or the reason of a failure.
    """
    for stage in network.stages:
        if stage.result.is_file():
            continue
        log = ROOT / 'experiments' / f'{stage.experiment}.zoo.log'
        log.parent.mkdir(exist_ok=True)
        with log.open('a', encoding='utf-8') as output:
            process = subprocess.Popen(stage.command(), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            try:
                process.wait(None if end is None else max(0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.terminate()
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                return 'stopped'
        if process.returncode or not stage.result.is_file():
            lines = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
            return f'{stage.experiment}: {lines[-1] if lines else "no output"} (all of it: {os.path.relpath(log, ROOT)})'
    return export(network, folder)


def export(network: Network, folder: Path) -> str:
    """Write the networks of finished stages to ``folder``; return ``done`` or the reason of a failure."""
    from ibmd_basicsr.checkpoints.conversion import export_half  # not above: torch takes seconds, which --list need not wait for
    from ibmd_basicsr.utils.errors import CheckpointError
    results = {stage.experiment: stage.result for stage in network.stages}
    for file, experiment in network.export.items():
        try:
            export_half(results[experiment], folder / f'{file}.pth')
        except (CheckpointError, OSError, SaveError) as error:
            return f'{file}: {one_line(error)}'
    return 'done'


def listing(networks: dict[str, Network]) -> str:
    """Return the networks, what they are, and which stages are done."""
    lines = []
    for network in networks.values():
        lines.append(f'{network.name:20} {network.about}')
        lines += [f'    [{"x" if stage.result.is_file() else " "}] {stage.file}' for stage in network.stages]
    return '\n'.join(lines)


@report_errors('interrupted; the same command goes on.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='NAME', help='networks of options/zoo/recipes.yml')
    parser.add_argument('--list', action='store_true', help='show networks and stages; x: done')
    parser.add_argument('--jobs', type=int, default=1, help='networks at a time (default: %(default)s)')
    parser.add_argument('--minutes', type=float, help='stop after so many minutes in all')
    parser.add_argument('--export', type=Path, default=Path('results/zoo'), metavar='FOLDER', help='default: %(default)s')
    parser.add_argument('--recipes', type=Path, default=RECIPES, metavar='FILE.yml', help='default: options/zoo/recipes.yml')
    args = parser.parse_args(arguments)
    networks = read_recipes(args.recipes)
    unknown = [name for name in args.names if name not in networks]
    if unknown:
        raise OptionError(f'{args.recipes}: no network {unknown[0]!r}. Known: {", ".join(networks)}.')
    if args.list:
        print(listing(networks))
        return 0
    if not args.names:
        parser.error('name the networks to train, or --list')
    if args.jobs < 1:
        parser.error(f'--jobs must be at least 1, got {args.jobs}')
    end = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    chosen = [networks[name] for name in dict.fromkeys(args.names)]
    folder = args.export.resolve()
    with ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(chosen), unit='network') as bar:
        outcomes = {}
        for network, outcome in zip(chosen, pool.map(lambda network: train(network, end, folder), chosen)):
            outcomes[network.name] = outcome
            bar.update()
    for name, outcome in outcomes.items():
        if outcome not in ('done', 'stopped'):
            print(f'error: {name}: {outcome}', file=sys.stderr)
    print('\n'.join(f'{name}: {outcome if outcome in ("done", "stopped") else "failed"}' for name, outcome in outcomes.items()))
    if 'stopped' in outcomes.values():
        print('stopped by --minutes; the same command goes on.')
    return 1 if set(outcomes.values()) - {'done', 'stopped'} else 3 if 'stopped' in outcomes.values() else 0


if __name__ == '__main__':
    sys.exit(main())
