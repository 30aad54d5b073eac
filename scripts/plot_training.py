"""Draw the curves of BasicSR training logs: one panel for each logged term and each validation metric.

    python scripts/plot_training.py docs/training_logs/sr4x_*.log -o docs/images/training_sr4x.png

Several logs of one run (after resumes, or the stages of a training) may be given together; each is a line of its own.
"""
from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.backend_bases import FigureCanvasBase  # noqa: E402

from ibmd_basicsr.cli.errors import report_errors  # noqa: E402
from ibmd_basicsr.utils.errors import OptionError  # noqa: E402

ITERATION = re.compile(r'iter:\s*([\d,]+)')
TERM = re.compile(r'(\w+): (-?\d\.\d{4}e[+-]\d\d)\b')
METRIC = re.compile(r'# (\w+): (-?\d+\.\d+)\tBest')

Curves = dict[str, list[tuple[int, float]]]


def read_curves(log: Path) -> Curves:
    """Return (iteration, value) pairs of each term and metric; a metric belongs to the iteration logged before it."""
    curves: Curves = defaultdict(list)
    iteration = 0
    for line in log.read_text(encoding='utf-8', errors='replace').splitlines():
        if found := ITERATION.search(line):
            iteration = int(found[1].replace(',', ''))
            pattern = TERM
        else:
            pattern = METRIC
        for name, value in pattern.findall(line):
            curves[name].append((iteration, float(value)))
    return curves


def draw(runs: dict[str, Curves], output: Path) -> None:
    """Write the picture: losses and gradient norms on a logarithmic axis if they are positive, metrics on a linear one."""
    names = list(dict.fromkeys(name for curves in runs.values() for name in curves))
    figure, panels = plt.subplots(1, len(names), figsize=(3.6 * len(names), 2.8), layout='constrained', squeeze=False)
    for panel, name in zip(panels[0], names, strict=True):
        values = [value for curves in runs.values() for _, value in curves.get(name, ())]
        for label, curves in runs.items():
            if name in curves:
                panel.plot(*zip(*curves[name], strict=True), label=label, linewidth=1, marker='.' if len(curves[name]) < 30 else '')
        if name.startswith(('l_', 'grad_')) and min(values) > 0:
            panel.set_yscale('log')
        panel.set(title=name, xlabel='iteration')
        panel.grid(alpha=0.3)
    panels[0, 0].legend(fontsize='small')
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)


@report_errors('interrupted.')
def main() -> int:
    """Run the command; 2 if a log cannot be read or holds no curve, or the picture is of an unknown kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('logs', nargs='+', type=Path, metavar='LOG')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='PNG')
    args = parser.parse_args()
    formats = FigureCanvasBase.get_supported_filetypes()
    if args.output.suffix.removeprefix('.').lower() not in formats:
        raise OptionError(f'-o {args.output}: unknown kind of picture {args.output.suffix!r}. Allowed: .{", .".join(sorted(formats))}.')
    runs = {}
    for log in args.logs:
        runs[log.stem] = read_curves(log)
        if not runs[log.stem]:
            raise OptionError(f'{log}: no line of it has the form of a BasicSR training log.')
    draw(runs, args.output)
    print(f'{args.output}: {", ".join(dict.fromkeys(name for curves in runs.values() for name in curves))}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
