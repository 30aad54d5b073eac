"""``python -m ibmd_basicsr.compare -opt FILE``: restorers side by side: quality, calls, FLOPs, seconds, pictures."""
from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ibmd_basicsr.cli.arguments import CommandParser, find_device
from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.utils.allocator import keep_freed_memory
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.project import find_option_file, project_root

EPILOG = """\
examples:
  python -m ibmd_basicsr.compare -opt options/compare/sr4x.yml
  python -m ibmd_basicsr.compare -opt options/compare/sr4x.yml --limit 2 -o /tmp/quick
  python -m ibmd_basicsr.compare -opt options/compare/sr4x.yml --fresh --device cpu
  python -m ibmd_basicsr.compare -opt options/compare/sr4x.yml --steps 1 5 20 100 999

rows of an option file (all keys: docs/comparing.md):
  - {name: bicubic, kind: input}
  - {name: student, kind: bridge, network: {...}, bridge: {...}, weights: student.pth, sampler: {type: one_step}}
  - {name: EDSR, kind: arch, network: {type: EDSR, num_in_ch: 3, num_out_ch: 3, upscale: 4}, weights: EDSR.pth, input_range: [0, 1]}
  - {name: HAT, kind: spandrel, weights: HAT.pth, tile: 256, tile_pad: 32}      # pip install 'ibmd_basicsr[peers]'
  - {name: SPAN, kind: ncnn, weights: SPAN.param}                               # the same; SPAN.bin beside it
several test sets: `datasets: [{name: Set5, type: ...}, ...]` in the place of `dataset`; more metrics: `metrics: [calculate_dists, ...]`

outputs, in the folder of the option file's `output` (relative to the project root) or of -o:
  table.md             means over the images, with the machine and the weights; a table for each test set
  report.html          all of it as one page for a browser: sortable table, plots, slider between pictures; needs no network
  grid.png             pictures of the first images; with several test sets grid_SET.png
  results.csv          one line a restorer and image: calls, GFLOPs, seconds, memory (GPU), parameters, quality
  summary.csv          one line a restorer and test set: the same, and the metrics of whole sets
  sets.csv             metrics of whole sets once more (left_out 0), and without each of up to 24 groups of images, for their errors
  images/ROW/IMAGE.png restored images; with several test sets images/SET/ROW/IMAGE.png
  results.jsonl        what is done: the same command again computes only what is missing or has changed (options, weights, images);
                       a metric that is added is measured on the images that are there

exit codes: 0 done; 1 a restorer failed, the others are in the table; 2 wrong command line, option file or images; 130 interrupted."""


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog='python -m ibmd_basicsr.compare', epilog=EPILOG,
        description='Run several restorers on the same images and compare quality, network calls, FLOPs and time.')
    parser.add_argument('-opt', required=True, metavar='FILE', help='option file (YAML), see options/compare/')
    parser.add_argument('-o', '--output', metavar='FOLDER', help="instead of the option file's output")
    parser.add_argument('--device', help='cpu, cuda, cuda:1; default: a GPU if there is one')
    parser.add_argument('--steps', type=int, nargs='+', metavar='N',
                        help="network calls, for the teachers' rows whose steps are a list; few_step students keep theirs")
    parser.add_argument('--limit', type=int, metavar='N', help='only the first N images of each test set')
    parser.add_argument('--fresh', action='store_true', help='ignore the results of earlier runs')
    return parser


@report_errors('interrupted; the same command continues.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command, with ``sys.argv`` by default, and return its exit code; see :data:`EPILOG`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = make_parser().parse_args(arguments)
    command = shlex.join(['python', '-m', 'ibmd_basicsr.compare', *arguments])
    option_file = find_option_file(args.opt).resolve()
    if args.limit is not None and args.limit < 1:
        raise OptionError(f'--limit must be at least 1, got {args.limit}.')
    output = Path(args.output).resolve() if args.output else None
    if output is not None and output.exists() and not output.is_dir():
        raise OptionError(f'-o {args.output}: is a file; name a folder.')
    start, root = Path.cwd(), project_root(option_file)
    os.chdir(root)
    keep_freed_memory()

    from ibmd_basicsr.compat.options import read_options
    from ibmd_basicsr.reporting.comparison import Comparison
    from ibmd_basicsr.reporting.report import write_report
    from ibmd_basicsr.reporting.rows import read_rows, replace_steps
    opt, notes = read_options(option_file), []
    _refuse_other_commands(opt, args.opt)
    try:
        if args.steps:
            opt, notes = replace_steps(opt, args.steps)
        rows = read_rows(opt)
    except OptionError as error:
        raise OptionError(f'{args.opt}: {error}') from error
    device = find_device(args.device)
    try:
        comparison = Comparison(opt, rows, output=output or root / opt['output'], device=device, limit=args.limit, fresh=args.fresh)
    except OptionError as error:
        raise OptionError(f'{args.opt}: {error}') from error
    for note in notes:
        print(f'note: {note}', file=sys.stderr)
    failures = comparison.run()
    print(write_report(comparison, command, failures, start))
    if failures:  # each was told when it failed
        print(f'{len(failures)} of {len(rows)} restorers failed: {", ".join(failures)}')
    return 1 if failures else 0


def _refuse_other_commands(opt: Mapping[str, Any], given: str) -> None:
    """Tell in one line what would be an unknown key each."""
    if 'restorers' not in opt and 'model_type' in opt:
        command = 'train' if 'train' in opt else 'test'
        raise OptionError(f'{given}: is an option file for python -m ibmd_basicsr.{command}; for comparing: options/compare/.')
