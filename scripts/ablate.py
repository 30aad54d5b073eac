"""Train variants of one option file with several seeds and put them side by side: mean and spread of quality, diversity and time.

    python scripts/ablate.py options/ablations/sr4x.yml [--jobs 2] [--seeds 0 1 2]

The ablation file names the option file of a distillation (`base`), the seeds, what all runs change (`change`) and the variants, each a
block of changes to the base; a change of null removes a key. Every run is one call of `python -m ibmd_basicsr.train`, its student is then
measured on the base's validation set with four draws of noise. Results lie in the file's `output`: runs/ (option files and logs),
results.jsonl, table.md. The same command again goes on where it stopped; a run that diverged is reported and skipped.

With --table nothing is trained: the table holds what is done and names the variants that are not.

exit codes: 0 done; 1 a run failed; 2 wrong file.
"""
from __future__ import annotations

import argparse
import copy
import os
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import torch
import yaml
from basicsr.utils import tensor2img
from tqdm import tqdm

from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.compat.options import read_options
from ibmd_basicsr.metrics.catalogue import facts_of
from ibmd_basicsr.metrics.diversity import mean_pairwise_lpips
from ibmd_basicsr.models.recipes import recipe_from_options
from ibmd_basicsr.reporting.comparison import device_name
from ibmd_basicsr.reporting.pictures import load_pictures
from ibmd_basicsr.reporting.quality import default_metrics, measure
from ibmd_basicsr.reporting.results import ResultStore, fingerprint
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.files import file_digest
from ibmd_basicsr.utils.option_check import check_keys
from ibmd_basicsr.utils.seeding import PerImageNoise

ROOT = Path(__file__).resolve().parents[1]
KEYS = {'base', 'seeds', 'change', 'variants', 'output'}
MEASURES = {'lpips': ('LPIPS', 4), 'texture_distance': ('texture', 1), 'psnr': ('PSNR dB', 2), 'diversity': ('diversity', 4)}
DIRECTIONS = {name: facts_of(name).better for name in MEASURES}  # diversity: none, more is better only where the samples stay good
ARROWS = {'higher': ' ↑', 'lower': ' ↓', None: ''}
DRAWS = 4
"""Restorations of an image for the mean pairwise LPIPS between them; the first one is measured against the truth."""


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the keys of ``change``, block by block; None removes a key."""
    result = copy.deepcopy(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def read_runs(path: Path, seeds: list[int] | None) -> tuple[dict[str, Any], dict[tuple[str, int], dict[str, Any]]]:
    """Return the ablation file and the options of each run, by variant and seed.

    Raises:
        OptionError: a key that is missing or unknown, or something else than blocks of changes; it begins with ``path``.
    """
    file = read_options(path)  # names the file itself
    try:
        return file, runs_of(file, seeds)
    except OptionError as error:
        raise OptionError(f'{path}: {error}') from error


def runs_of(file: dict[str, Any], seeds: list[int] | None) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the options of each run of an ablation file's content."""
    check_keys('', file, KEYS, ('base', 'seeds', 'variants', 'output'))
    base = read_options(ROOT / file['base'])
    if not isinstance(file['variants'], dict) or not all(isinstance(change, dict) for change in file['variants'].values()):
        raise OptionError('variants: must be names with blocks of changes; {} for the base itself.')
    runs = {}
    for variant, change in file['variants'].items():
        for seed in seeds or file['seeds']:
            name = re.sub(r'[^\w.]+', '-', f'{Path(file["output"]).name}_{variant}_s{seed}')
            runs[variant, seed] = merged(merged(base, file.get('change') or {}), change) | {'name': name, 'manual_seed': seed}
    return runs


def train(opt: dict[str, Any], folder: Path) -> str | None:
    """Run a training unless its student is there; return the last line of its output if it failed."""
    if is_trained(opt, folder):
        return None
    file = folder / f'{opt["name"]}.yml'
    student_of(opt).unlink(missing_ok=True)
    file.write_text(yaml.safe_dump(opt, sort_keys=False), encoding='utf-8')
    command = [sys.executable, '-m', 'ibmd_basicsr.train', '-opt', str(file)]
    with (folder / f'{opt["name"]}.log').open('w+', encoding='utf-8') as log:
        status = subprocess.run(command, cwd=ROOT, env=os.environ | {'OMP_NUM_THREADS': '1'}, stdout=log, stderr=subprocess.STDOUT)
        log.seek(0)
        lines = log.read().strip().splitlines()
    return None if status.returncode == 0 else lines[-1]


def is_trained(opt: dict[str, Any], folder: Path) -> bool:
    """Tell whether a run with these very options is finished."""
    file = folder / f'{opt["name"]}.yml'
    return student_of(opt).is_file() and file.is_file() and file.read_text(encoding='utf-8') == yaml.safe_dump(opt, sort_keys=False)


def student_of(opt: dict[str, Any]) -> Path:
    """Return the file of a finished run's student."""
    return ROOT / 'experiments' / opt['name'] / 'models' / 'net_g_latest.pth'


def seconds_of(opt: dict[str, Any], folder: Path) -> int:
    """Return how long a finished run trained, from its log."""
    text = (folder / f'{opt["name"]}.log').read_text(encoding='utf-8')
    days, hours, minutes, seconds = re.findall(r'Time consumed: (?:(\d+) days?, )?(\d+):(\d+):(\d+)', text)[-1]
    return ((int(days or 0) * 24 + int(hours)) * 60 + int(minutes)) * 60 + int(seconds)


def judge(opt: dict[str, Any], folder: Path, device: torch.device) -> dict[str, float]:
    """Return the means over the validation images of a finished run's student, and the diversity of its draws."""
    restorer = recipe_from_options(folder / f'{opt["name"]}.yml', student_of(opt)).build(device)
    border = opt['scale'] if opt['scale'] > 1 else 0
    metrics = [metric for metric in default_metrics(border, str(device)) if metric.key in MEASURES]
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    chosen = {'name': opt['name'], 'dataset': copy.deepcopy(opt['datasets']['val']), 'scale': opt['scale']}
    for picture in load_pictures(chosen, None):
        given = {name: None if value is None else value.to(device) for name, value in (('mask', picture.mask), ('labels', picture.labels))}
        draws = [tensor2img(restorer(picture.lq.to(device), PerImageNoise.for_images(draw, [picture.name]), **given))
                 for draw in range(DRAWS)]
        values = measure(draws[0], tensor2img(picture.gt), metrics)
        values['diversity'] = mean_pairwise_lpips(draws, crop_border=border, device=str(device))
        for name in MEASURES:
            found[name].append(values[name])
    return {name: statistics.fmean(values) for name, values in found.items()}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Return a Markdown table: mean and, from two seeds on, sample standard deviation of each measure, by variant."""
    titles = [title + ARROWS[DIRECTIONS[name]] for name, (title, _) in MEASURES.items()]
    lines = [f'| variant | seeds | {" | ".join(titles)} | s |', f'|---|---:|{"---:|" * (len(MEASURES) + 1)}']
    for variant, records in results.items():
        cells = []
        for name, (_, digits) in MEASURES.items():
            values = [record[name] for record in records]
            spread = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
            cells.append(f'{statistics.fmean(values):.{digits}f}{spread}' if values else '')
        seconds = f'{statistics.median(record["seconds"] for record in records):.0f}' if records else ''
        lines.append(f'| {variant} | {len(records)} | {" | ".join(cells)} | {seconds} |')
    return '\n'.join(lines)


@report_errors('interrupted; the same command goes on with the runs that are not finished.')
def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', type=Path, metavar='FILE.yml', help='see options/ablations')
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time, one thread each (default: %(default)s)')
    parser.add_argument('--table', action='store_true', help='train nothing: write the table of the runs that are done')
    parser.add_argument('--seeds', type=int, nargs='+', help="instead of the file's")
    args = parser.parse_args()
    file, runs = read_runs(args.file, args.seeds)
    os.chdir(ROOT)
    output = ROOT / file['output']
    (output / 'runs').mkdir(parents=True, exist_ok=True)
    store = ResultStore(output / 'results.jsonl')
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    torch.set_num_threads(1)
    failures: dict[str, str] = {}
    results: dict[str, list[dict[str, float]]] = {variant: [] for variant, _ in runs}

    def run(job: tuple[tuple[str, int], dict[str, Any]]) -> dict[str, Any] | None:
        (variant, seed), opt = job
        if args.table and not is_trained(opt, output / 'runs'):
            return None
        failure = train(opt, output / 'runs')
        if failure:
            failures[opt['name']] = failure
            return None
        key = fingerprint(opt, file_digest(student_of(opt)), DRAWS)
        record = store.get(opt['datasets']['val']['name'], variant, str(seed), key)
        if record is None:
            record = {'dataset': opt['datasets']['val']['name'], 'row': variant, 'image': str(seed), 'fingerprint': key,
                      'seconds': seconds_of(opt, output / 'runs'), **judge(opt, output / 'runs', device)}
            store.add(record)
        return record

    called = [argument for argument in sys.argv[1:] if argument != '--table']
    with ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(runs), unit='run') as bar:
        for ((variant, _), _), record in zip(runs.items(), pool.map(run, runs.items())):
            bar.set_description(variant)
            bar.update()
            if record:
                results[variant].append(record)
                (output / 'table.md').write_text(table(results) + '\n', encoding='utf-8')
    waiting = [variant for variant, records in results.items() if args.table and not records]
    results = {variant: records for variant, records in results.items() if variant not in waiting}
    first = next(iter(runs.values()))
    notes = [f'Students on {first["datasets"]["val"]["dataroot_gt"]}: mean ± standard deviation over seeds. diversity: mean pairwise LPIPS '
             f'of {DRAWS} draws of noise. s: median seconds of a training, {args.jobs} at a time.', '',
             f'* `python {" ".join(["scripts/ablate.py", *called])}`, {date.today().isoformat()}',
             f'* {device_name(device)}, {os.cpu_count()} cores, torch {torch.__version__}',
             *([f'* not run yet: {", ".join(waiting)}'] if waiting else []),
             *(f'* **{name} failed**: {message}' for name, message in failures.items())]
    (output / 'table.md').write_text('\n'.join([f'# {args.file.stem}', '', table(results), '', *notes]) + '\n', encoding='utf-8')
    print(table(results))
    for name, message in failures.items():
        print(f'error: {name}: {message}', file=sys.stderr)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
