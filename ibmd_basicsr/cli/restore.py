"""``python -m ibmd_basicsr.restore INPUT... -o OUT``: photographs restored by the networks of this repository or by one's own."""
from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ibmd_basicsr.cli.arguments import CommandParser, above_zero, find_device, jpeg_quality, pixels, positive
from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.utils.allocator import keep_freed_memory
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.precision import PRECISIONS

if TYPE_CHECKING:
    import torch

    from ibmd_basicsr.models.recipes import Recipe
    from ibmd_basicsr.restoring.engine import Engine
    from ibmd_basicsr.restoring.runner import Listener, Outcome
    from ibmd_basicsr.restoring.sources import Plan

EPILOG = """\
examples:
  python -m ibmd_basicsr.restore photos -o restored                             # JPEG files of a folder
  python -m ibmd_basicsr.restore small.png -o large.png --task sr4x             # four times as large
  python -m ibmd_basicsr.restore photos -o restored -r --format same --skip-existing
  python -m ibmd_basicsr.restore 'scans/*.jpg' more.jpg -o restored --task jpeg --samples 3
  python -m ibmd_basicsr.restore photo.jpg -o out --weights jpeg10_nano_teacher --steps 20
  python -m ibmd_basicsr.restore photo.png -o out -opt options/test/sr4x_ibmd.yml --weights my_student.pth
  python -m ibmd_basicsr.restore - -o - --task sr4x < small.png > large.png
  python -m ibmd_basicsr.restore --list

Grey, palette, CMYK, 16 bit (PNG, TIFF) and transparent images are read; EXIF and colour profiles are kept, and EXIF's orientation is
applied. An image that fails is named with the reason, and the others are restored. Inputs are never overwritten. More: docs/restoring.md.

exit codes: 0 done; 1 some images failed; 2 wrong command line, option file or weights; 130 interrupted."""

AUTO = 'auto'


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog='python -m ibmd_basicsr.restore', epilog=EPILOG,
        description='Restore photographs: remove the traces of JPEG, or enlarge four times.')
    parser.add_argument('inputs', nargs='*', metavar='INPUT', help='images, folders, patterns such as "*.jpg"; - for the standard input')
    parser.add_argument('-o', '--output', metavar='OUT', help='folder; for one image also a file, or - for the standard output')
    parser.add_argument('-r', '--recursive', action='store_true', help='also the folders below a folder')
    parser.add_argument('--list', action='store_true', help='print the networks that are there, and end')
    network = parser.add_argument_group('network')
    network.add_argument('--task', metavar='TASK', help='jpeg or sr4x (--list); default: jpeg for JPEG files, others are refused')
    network.add_argument('--weights', metavar='NAME|FILE.pth', help='a network of --list, or with -opt a file')
    network.add_argument('-opt', metavar='FILE', help='option file of a network of your own, for training or testing')
    network.add_argument('--zoo', metavar='DIR', help='folder that holds weights/ and options/; default: the repository')
    network.add_argument('--steps', type=positive, metavar='N', help='network calls, for teachers and students of several steps')
    network.add_argument('--input-quality', type=jpeg_quality, metavar='Q', help="of JPEG files, instead of what their tables say")
    files = parser.add_argument_group('files')
    files.add_argument('--format', choices=('png', 'jpg', 'webp', 'same'),
                       help="of the results; default png (or OUT's ending); same: the input's ending, png for those that are not written")
    files.add_argument('--quality', type=jpeg_quality, default=95, metavar='Q', help='of jpg and webp results; default 95')
    files.add_argument('--suffix', default='', metavar='TEXT', help='behind the names of results in a folder')
    existing = files.add_mutually_exclusive_group()
    existing.add_argument('--overwrite', action='store_true', help='replace results that exist; default: refuse')
    existing.add_argument('--skip-existing', action='store_true', help='leave results that exist, make the others')
    files.add_argument('--max-megapixels', type=above_zero, default=100.0, metavar='M', help='refuse larger inputs; default 100')
    noise = parser.add_argument_group('noise')
    noise.add_argument('--seed', type=int, default=0, metavar='S', help='of the noise, with the name of the image; default 0')
    noise.add_argument('--samples', type=positive, default=1, metavar='N', help='restorations of each image: NAME_s0, NAME_s1, ...')
    machine = parser.add_argument_group('machine')
    machine.add_argument('--device', help='cpu, cuda, cuda:1; default: a GPU if there is one')
    machine.add_argument('--tile', type=pixels, metavar='N',
                         help='side of tiles without their halo, in pixels of the input; 0: whole images; default: tiles of the size that '
                              'the network was trained on, smaller where memory is short')
    machine.add_argument('--halo', type=pixels, metavar='N',
                         help='around tiles, in pixels of the input, whatever --tile says; default: an eighth of the size that the network '
                              'was trained on, 32 pixels of the result (8 of the input for x4)')
    machine.add_argument('--batch', type=positive, default=1, metavar='N', help='tiles at a time, faster on GPUs; default 1')
    machine.add_argument('--precision', choices=PRECISIONS, default='fp32',
                         help='of the network; auto: bf16 where the machine is faster with it; default fp32')
    machine.add_argument('--workers', type=positive, default=2, metavar='N', help='threads that read and write; default 2')
    return parser


@report_errors('interrupted; finished files stay, --skip-existing goes on.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command, with ``sys.argv`` by default, and return its exit code; see :data:`EPILOG`."""
    args = make_parser().parse_args(arguments)
    if args.list:
        _print_list(args.zoo)
        return 0
    if not args.inputs or not args.output:
        raise OptionError(f'{"-o OUT" if args.inputs else "INPUT"} is missing; --help shows examples.')
    if args.output == '-' and sys.stdout.isatty():
        raise OptionError('-o -: the standard output is a terminal; send it to a file: > FILE.')
    with _pillow_without_limits():
        # what is told goes where the image does not
        return _restore(args, told=sys.stderr if args.output == '-' else sys.stdout)


def _restore(args: argparse.Namespace, told: TextIO) -> int:
    from ibmd_basicsr.restoring.sources import STREAM, Plan, find_sources, plan_jobs
    plan = Plan()
    output = None if args.output == STREAM else Path(args.output)
    sources = find_sources(args.inputs, args.recursive, output, plan)
    plan_jobs(sources, plan, output=args.output, suffix=_checked_suffix(args.suffix), form=args.format, samples=args.samples,
              existing='overwrite' if args.overwrite else 'skip' if args.skip_existing else 'refuse')
    recipes = _find_recipes(args)
    for text in plan.notes:
        print(text, file=told)
    for name, reason in plan.failures:
        print(f'error: {name}: {reason}', file=sys.stderr)
    restored, failures = 0, list(plan.failures)
    if plan.jobs:
        outcome = _run(args, plan, recipes, told)
        restored, failures = outcome.restored, failures + outcome.failures
    skipped = f', {plan.skipped} there already' if plan.skipped else ''
    names = ', '.join(name for name, _ in failures[:10]) + (', ...' if len(failures) > 10 else '')
    print(f'{restored} restored{skipped}, {len(failures)} failed{f": {names}" if failures else "."}', file=told)
    return 1 if failures else 0


def _run(args: argparse.Namespace, plan: Plan, recipes: list[Recipe], told: TextIO) -> Outcome:
    from tqdm import tqdm

    from ibmd_basicsr.restoring.runner import Files, Listener, run_jobs
    keep_freed_memory()
    engine = _make_engine(args, recipes, find_device(args.device))
    files = Files(max_megapixels=args.max_megapixels, quality=args.quality, overwrite=args.overwrite, workers=args.workers,
                  stream=sys.stdout.buffer if args.output == '-' else None)
    # fractions of images, which the usual format would show with many digits; None: not where nobody sees it
    with tqdm(total=sum(len(job.results) for job in plan.jobs), file=sys.stderr, disable=None, leave=False,
              bar_format='{percentage:3.0f}%|{bar}| {elapsed}, {remaining} to go') as bar:
        return run_jobs(plan.jobs, engine, files, _listen(bar, Listener, told))


def _listen(bar: Any, listener: type[Listener], told: TextIO) -> Listener:
    def write(text: str, file: TextIO) -> None:
        with bar.external_write_mode(file=file):
            print(text, file=file)

    return listener(
        note=lambda name, text: write(f'warning: {name}: {text}', sys.stderr),
        done=lambda name, text: write(f'{name}: {text}', told),
        failed=lambda name, reason: write(f'error: {name}: {reason}', sys.stderr),
        progress=lambda number: bar.update(number - bar.n))


@contextlib.contextmanager
def _pillow_without_limits() -> Iterator[None]:
    """Let --max-megapixels alone decide how large images may be, and keep quiet about oddities of files: those that matter are errors."""
    from PIL import Image
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', module=r'PIL\.')
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _checked_suffix(suffix: str) -> str:
    if '/' in suffix or os.sep in suffix or '\0' in suffix:
        raise OptionError(f'--suffix {suffix!r}: is part of a file name, without folders.')
    return suffix


def _find_recipes(args: argparse.Namespace) -> list[Recipe]:
    """Return the networks that the command line names; several for JPEG files, whose quality decides."""
    from ibmd_basicsr.models.known_weights import misuse
    from ibmd_basicsr.models.recipes import recipe_from_options, recipes_in
    from ibmd_basicsr.restoring.zoo import find_zoo, recipes_for_task
    if args.task and (args.weights or args.opt):
        raise OptionError('--task chooses a network, and so do --weights and -opt: give one of them.')
    if args.opt:
        if args.weights and not Path(args.weights).is_file():
            raise OptionError(f'--weights {args.weights}: no such file.')
        recipe = recipe_from_options(args.opt, args.weights)
        warning = misuse(recipe.weights, recipe.task, recipe.scale, args.opt)
        if warning:
            print(f'warning: {warning}', file=sys.stderr)
    elif args.weights and (Path(args.weights).suffix == '.pth' or os.sep in args.weights):
        raise OptionError(f'--weights {args.weights}: a file needs the options of its network, too: -opt FILE.yml.')
    else:
        folder = find_zoo(args.zoo) / 'weights'
        if not args.weights:
            return recipes_for_task(recipes_in(folder), 'jpeg' if args.task in (None, AUTO) else args.task)
        recipe = _find_named(args.weights, folder)
    if recipe.takes:
        raise OptionError(f'{recipe.name}: takes {recipe.takes} beside the image, which this command does not have.')
    return [recipe]


def _find_named(name: str, folder: Path) -> Recipe:
    from ibmd_basicsr.models.recipes import find_weights, recipe_of_weights
    try:
        return recipe_of_weights(find_weights(name, [folder]))
    except OptionError as error:
        raise OptionError(f'--weights {error}') from error


def _make_engine(args: argparse.Namespace, recipes: list[Recipe], device: torch.device) -> Engine:
    from ibmd_basicsr.restoring.engine import Engine
    if args.steps:
        recipes = [recipe.with_steps(args.steps) for recipe in recipes]
    return Engine(recipes=recipes, device=device, seed=args.seed, tile=args.tile, halo=args.halo,
                  batch=args.batch, precision=args.precision,
                  jpeg_alone=args.task in (None, AUTO) and not (args.weights or args.opt), input_quality=args.input_quality)


def _print_list(zoo: str | None) -> None:
    from ibmd_basicsr.models.recipes import recipes_in
    from ibmd_basicsr.restoring.zoo import find_zoo, is_offered
    root = find_zoo(zoo)
    rows = [('name', 'task', 'steps', 'scale', 'what')]
    for recipe in recipes_in(root / 'weights').values():
        remark = f' (takes {recipe.takes}, not by this command)' if recipe.takes else ''
        remark = remark if recipe.weights.is_file() else ' (file missing)'
        rows.append((recipe.name, recipe.task if is_offered(recipe) else '-', str(recipe.steps), f'x{recipe.scale}', recipe.title + remark))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print(f'in {root.resolve() / "weights"}; --task takes the student; other numbers of steps: --steps')
