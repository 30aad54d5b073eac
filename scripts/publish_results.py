"""Copy what `compare` left into the documents: tables and summaries between their markers, picture grids into docs/images.

    python -m ibmd_basicsr.compare -opt options/compare/sr4x.yml --steps 1 5 20 100 999
    python -m ibmd_basicsr.compare -opt options/compare/jpeg10.yml --steps 1 5 20 100 999
    python scripts/publish_results.py README.md docs/results.md
    python scripts/publish_results.py docs/tasks.md --width 800 --only-present

A document says where a table goes by two lines, `<!-- table: results/compare/sr4x_nano -->` and `<!-- end of table -->`; what stands
between them is replaced by that folder's table.md without its heading. So no figure is copied by hand.

`<!-- summary: aim -->` or `<!-- summary: best -->`, up to `<!-- end of summary -->`, is a line for each table of the document, named by the
heading above it, from that folder's results.csv: LPIPS of rows `student`, `student@N` against rows `teacher`, `teacher@N`.

  aim    the student at its most calls against the teacher at 20 times as many
  best   the row of each with the lowest mean; differences within two standard errors are not told apart

`<!-- summary: versus:results/compare/peers_sr4x -->` is a line for each other row of that comparison: the row `student` (or another one,
named as in `versus:results/compare/sr4x_kodak:student in tiles`) minus it, image by image, with the standard error of the mean, for PSNR,
LPIPS, DISTS and texture distance where they were measured; and for metrics of whole sets with the standard error of the difference by the
jackknife over images.

Results lie only where a comparison was run. With --only-present, tables, pictures and lines of summaries of the others stay as they are.
Nothing is written if anything is wrong.

exit codes: 0 done; 2 a document without markers, a comparison that was not run, or results that do not hold what a summary needs.
"""
from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path

import cv2

from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.reporting.documents import SUMMARY, TABLE, cells, read_tables
from ibmd_basicsr.reporting.pairs import Pair, Row, paired, read_rows, read_sets, set_difference
from ibmd_basicsr.utils.errors import one_line

ROOT = Path(__file__).resolve().parents[1]
FACTOR = 20
"""Calls of the teacher for one of the student that the aim allows."""
TOLD_APART = 2
"""Standard errors that a difference must exceed to be one."""
SPREAD = ('student − teacher ± standard error', 'student better on')
HEADINGS = {'aim': ('task', 'student', 'teacher', *SPREAD, 'aim'),
            'best': ('task', "student's best row", "teacher's best row", *SPREAD, 'better')}
VERSUS = 'versus:'
VERSUS_COLUMNS = {'psnr': ('PSNR dB', 2), 'lpips': ('LPIPS', 3), 'dists': ('DISTS', 3), 'texture_distance': ('texture', 0)}
"""Metrics of the third kind of summary: heading and decimals."""
SET_DIGITS = {'KD': 3, 'KID': 3}
"""Decimals of metrics of whole sets, by the first part of their names; others have one."""


@report_errors('interrupted; the same command writes the rest.')
def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('documents', nargs='+', type=Path, metavar='FILE.md')
    parser.add_argument('--width', type=int, default=1200, help='of the pictures, in pixels (default: %(default)s)')
    parser.add_argument('--only-present', action='store_true', help='publish what was run here, leave the rest as it is')
    args = parser.parse_args()
    try:
        texts = {document: document.read_text(encoding='utf-8') for document in args.documents}
        bare = [document for document, text in texts.items() if not TABLE.search(text)]
        if bare:
            raise ValueError(f'{bare[0]}: holds no <!-- table: FOLDER --> ... <!-- end of table -->.')
        folders = list(dict.fromkeys(match['name'] for text in texts.values() for match in TABLE.finditer(text)))
        present = [folder for folder in folders if (ROOT / folder / 'table.md').is_file()]
        missing = [folder for folder in folders if folder not in present]
        if missing and not (args.only_present and present):
            raise ValueError(f'{", ".join(missing)}: no table.md. Run the comparison first'
                             + (', or publish the others alone with --only-present.' if present else '.'))
        filled = {document: fill(text, present) for document, text in texts.items()}
    except (OSError, ValueError) as error:
        print(f'error: {one_line(error)}', file=sys.stderr)
        return 2
    for folder in missing:
        print(f'{folder}: not run here; its table, pictures and lines of summaries stay as they are.')
    for document, text in filled.items():
        document.write_text(text, encoding='utf-8')
    for folder in sorted(present):
        publish_pictures(ROOT / folder, args.width)
    return 0


def fill(text: str, present: list[str]) -> str:
    """Return a document with the tables of the folders ``present`` and their lines of the summaries renewed."""
    def table(match: re.Match) -> str:
        if match['name'] not in present:
            return match[0]
        body = (ROOT / match['name'] / 'table.md').read_text(encoding='utf-8').split('\n', 1)[1].strip()
        return f'{match["opening"]}{body}\n{match["closing"]}'

    def summary(match: re.Match) -> str:
        if match['name'].startswith(VERSUS):
            folder, _, row = match['name'].removeprefix(VERSUS).partition(':')
            body = versus(ROOT / folder / 'results.csv', row or 'student') if folder in present else match['body'].rstrip('\n')
            return f'{match["opening"]}{body}\n{match["closing"]}'
        if match['name'] not in HEADINGS:
            raise ValueError(f'unknown summary {match["name"]!r}. Allowed: {", ".join(HEADINGS)}, {VERSUS}FOLDER[:ROW].')
        return f'{match["opening"]}{summarise(match["name"], match["body"], tasks, present)}\n{match["closing"]}'

    tasks = {folder: published.heading for folder, published in read_tables(text).items()}
    return SUMMARY.sub(summary, TABLE.sub(table, text))


def summarise(kind: str, old: str, tasks: dict[str, str], present: list[str]) -> str:
    """Return a summary as a Markdown table.

    Args:
        kind: ``aim`` or ``best``.
        old: what stands there; the lines of tasks that were not run here are kept. A task that has none yet gets empty cells.
        tasks: their names, by folder.
        present: folders of the comparisons that were run here.
    """
    heading = HEADINGS[kind]
    kept = {cells(line)[0]: line for line in old.splitlines() if line.startswith('| ')}
    lines = [f'| {" | ".join(heading)} |', '|' + '---|' * len(heading)]
    for folder, task in tasks.items():
        if folder in present:
            lines.append(f'| {" | ".join((task, *verdict(kind, ROOT / folder / "results.csv")))} |')
        else:
            lines.append(kept.get(task, f'| {task} |' + ' |' * (len(heading) - 1)))
    return '\n'.join(lines)


def versus(results: Path, first: str = 'student') -> str:
    """Return a Markdown table of the row ``first`` minus each other row of a comparison.

    Raises:
        ValueError: there is no such row, or no other.
    """
    with results.open(newline='', encoding='utf-8') as file:
        columns = next(csv.reader(file))
    measured = [metric for metric in VERSUS_COLUMNS if metric in columns]
    rows = {metric: read_rows(results, metric) for metric in measured}
    others = [name for name in rows[measured[0]] if name != first]
    if first not in rows[measured[0]] or not others:
        raise ValueError(f'{results}: needs a row {first}, and another.')
    sets = read_sets(results.with_name('sets.csv')) if results.with_name('sets.csv').is_file() else {}
    headings = [*(VERSUS_COLUMNS[metric][0] for metric in measured), *sets]
    lines = [f'| {first} minus | {" | ".join(headings)} |', '|---|' + '---:|' * len(headings)]
    for name in others:
        pairs = {metric: paired(rows[metric][first], rows[metric][name]) for metric in measured}
        cells = [signed(pair.difference, pair.standard_error, VERSUS_COLUMNS[metric][1]) for metric, pair in pairs.items()]
        for metric, values in sets.items():
            ours, theirs = (values.get(row) for row in (first, name))
            if not ours or not theirs or len(ours) > 1:
                raise ValueError(f'{results.with_name("sets.csv")}: needs {metric} of {first} and {name} on one test set.')
            cells.append(signed(*set_difference(ours[0], theirs[0]), SET_DIGITS.get(metric.partition('-')[0], 1)))
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def signed(difference: float, error: float | None, digits: int) -> str:
    """Return difference and standard error, as in `−0.0093 ± 0.0129`."""
    return f'{difference:+.{digits}f}'.replace('-', '−') + ('' if error is None else f' ± {error:.{digits}f}')


def verdict(kind: str, results: Path) -> tuple[str, ...]:
    """Return the cells of a summary's line, without the task's name.

    Raises:
        ValueError: there is no student, or no teacher at the calls that the aim asks for.
    """
    rows = read_rows(results, 'lpips').values()
    students, teachers = ([row for row in rows if row.name.split('@')[0] == name] for name in ('student', 'teacher'))
    if kind == 'aim':
        most = max((row.calls for row in students), default=0)
        students = [row for row in students if row.calls == most]
        teachers = [row for row in teachers if row.calls == FACTOR * most]
    if not students or not teachers:
        raise ValueError(f'{results}: no rows student and teacher'
                         + (f', the teacher at {FACTOR} times the calls of the student.' if kind == 'aim' else '.'))
    pair = paired(*(min(side, key=lambda row: row.mean) for side in (students, teachers)))
    return (shown(pair.first), shown(pair.second), signed(pair.difference, pair.standard_error, 4), f'{pair.wins} of {pair.images} images',
            aim_reached(pair) if kind == 'aim' else better(pair))


def shown(row: Row) -> str:
    """Return mean and calls of a row, as in `0.1981 at 4 calls`."""
    return f'{row.mean:.4f} at {row.calls} call{"s" if row.calls > 1 else ""}'


def aim_reached(pair: Pair) -> str:
    """Say whether the student is no worse than the teacher in the mean, whatever the error."""
    return 'reached' if pair.difference <= 0 else f'missed by {100 * pair.difference / pair.second.mean:.1f} %'


def better(pair: Pair) -> str:
    """Say which of the two is better, if the difference is more than the images' spread explains."""
    if pair.standard_error is None or abs(pair.difference) <= TOLD_APART * pair.standard_error:
        return 'not told apart'
    return 'student' if pair.difference < 0 else 'teacher'


def publish_pictures(folder: Path, width: int) -> None:
    """Copy the picture grids of a comparison to docs/images, ``width`` pixels wide."""
    for file in sorted(folder.glob('grid*.png')):  # one, or with several test sets grid_SET.png
        grid = cv2.imread(str(file))
        height = round(grid.shape[0] * width / grid.shape[1])
        target = ROOT / 'docs' / 'images' / f'{folder.name}{file.stem.removeprefix("grid")}.jpg'
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), cv2.resize(grid, (width, height), interpolation=cv2.INTER_AREA), [cv2.IMWRITE_JPEG_QUALITY, 90])
        print(f'{target.relative_to(ROOT)}: {target.stat().st_size // 1024} KiB')


if __name__ == '__main__':
    sys.exit(main())
