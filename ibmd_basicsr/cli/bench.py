"""``python -m ibmd_basicsr.bench``: iterations, samplers, data and memory, side by side with what they consist of."""
from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from ibmd_basicsr.cli.arguments import CommandParser, find_device, prepare_folder
from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.utils.allocator import keep_freed_memory
from ibmd_basicsr.utils.errors import OptionError

LETTERS = 'abcdefghij'
PHOTOGRAPHS = Path('datasets/photos/train')
EPILOG = """\
examples:
  python -m ibmd_basicsr.bench
  python -m ibmd_basicsr.bench --parts a b c --repeats 15
  python -m ibmd_basicsr.bench --size s --device cuda
  python -m ibmd_basicsr.bench --parts a b c --amp false        # float32, where the machine would take bf16
  python -m ibmd_basicsr.bench --parts f --data datasets/my_photos
  python -m ibmd_basicsr.bench --quick -o /tmp/bench            # a trial in a minute; its figures mean nothing

parts:
  a  IBMD iteration against its bare network passes      e  student against its teacher, RRDBNet, MSRResNet and SwinIR
  b  teacher iteration likewise                          f  data: images/s from folder and LMDB, waiting
  c  the same iterations as published programs do them   g  peak memory
  d  samplers against their bare network calls           h  8 megapixels in tiles: seconds, memory, agreement
  i  TFLOP/s of iterations against a matrix product      j  what an iteration's time goes into (profile)

sizes: nano is options/sr4x_bridge.yml and sr4x_ibmd.yml, s is sr4x_s_bridge.yml and sr4x_s_ibmd.yml, adm256 the networks of
options/paper/sr4x_*.yml with batches of a few images, for one GPU of 80 GB; weights are random.
On a CPU set OMP_NUM_THREADS to the cores that are free. nano takes half an hour on one free core, most of it for part e.

outputs, in results/bench/SIZE_DEVICE or the folder of -o:
  table.md      medians, quartiles, ratios, targets, with machine, date and command (docs/speed.md explains the rows)
  results.json  the same with every single repeat

  Both are written after each part.

exit codes: 0 done, whether targets are met or not; 1 a part failed; 2 wrong command line or data; 130 interrupted."""


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog='python -m ibmd_basicsr.bench', epilog=EPILOG,
        description='Measure training and restoring against the bare network passes they consist of, and against other programs.')
    parser.add_argument('--size', choices=('nano', 's', 'adm256'), default='nano', help='networks and batches; default nano')
    parser.add_argument('--parts', nargs='+', choices=tuple(LETTERS), default=list(LETTERS), metavar='PART', help='default: all, a to j')
    parser.add_argument('--repeats', type=int, metavar='N', help='of each measurement; default 9 (nano) or 5 (s), three of slow ones')
    parser.add_argument('--device', help='cpu, cuda, cuda:1; default: a GPU if there is one')
    parser.add_argument('--gradient', choices=('x0_only', 'full'), default='x0_only', help="of the student's loss; default x0_only")
    parser.add_argument('--amp', choices=('auto', 'bf16', 'false'), default='auto',
                        help='of the trainings; the reference is float32 always; default auto: bf16 where the machine multiplies it')
    parser.add_argument('--compile', action='store_true', help='compile the networks of the trainings, not those of the reference')
    parser.add_argument('--channels-last', choices=('auto', 'true', 'false'), default='auto',
                        help='channels innermost in the networks of the trainings; default auto: with bf16 on CPUs')
    parser.add_argument('--data', type=Path, metavar='FOLDER',
                        help=f'photographs for parts f and h; default {PHOTOGRAPHS} if it is there, else random pictures')
    parser.add_argument('--quick', action='store_true', help='tiny networks and images, two repeats: to see that everything runs')
    parser.add_argument('-o', '--output', type=Path, metavar='FOLDER', help='default results/bench/SIZE_DEVICE')
    return parser


@report_errors('interrupted; the parts that were done are written.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command, with ``sys.argv`` by default, and return its exit code; see :data:`EPILOG`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = make_parser().parse_args(arguments)
    command = shlex.join(['python', '-m', 'ibmd_basicsr.bench', *arguments])
    if args.repeats is not None and args.repeats < 1:
        raise OptionError(f'--repeats must be at least 1, got {args.repeats}.')
    if args.data is not None and not args.data.is_dir():
        raise FileNotFoundError(f'--data {args.data}: no such folder.')

    keep_freed_memory()

    from tqdm import tqdm

    from ibmd_basicsr.benchmarks.report import describe_run, write_results
    from ibmd_basicsr.benchmarks.session import Session
    from ibmd_basicsr.benchmarks.sizes import SIZES, TrainingChoices
    from ibmd_basicsr.benchmarks.suite import run_parts, total_ticks
    device = find_device(args.device)
    size = 'quick' if args.quick else args.size
    repeats = args.repeats or SIZES[size].repeats
    letters = sorted(set(args.parts))
    data = args.data or (PHOTOGRAPHS if PHOTOGRAPHS.is_dir() and not args.quick else None)
    output = args.output or Path('results/bench') / f'{size}_{device.type}'
    prepare_folder(output)
    choices = TrainingChoices(gradient=args.gradient, amp=args.amp != 'false' and args.amp, compiled=args.compile,
                              channels_last={'true': True, 'false': False}.get(args.channels_last, 'auto'))

    with tempfile.TemporaryDirectory(prefix='ibmd_bench_') as folder:
        session = Session(size_name=size, device=device, folder=Path(folder), repeats=repeats, training=choices, data=data)
        about = describe_run(command, session)
        with tqdm(total=total_ticks(letters, session), unit='repeat', dynamic_ncols=True) as bar:
            def tick(name: str) -> None:
                bar.set_description(name[:40])
                bar.update()

            parts = run_parts(letters, replace(session, tick=tick), partial(write_results, output, about))
    print(write_results(output, about, parts))
    print(f'written: {output / "table.md"}, {output / "results.json"}')
    return int(any(part.failure is not None for part in parts.values()))
