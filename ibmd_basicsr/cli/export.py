"""``python -m ibmd_basicsr.export WEIGHTS -o FILE``: a student as safetensors or as an ONNX graph."""
from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from ibmd_basicsr.cli.arguments import CommandParser
from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.utils.errors import OptionError

EPILOG = """\
examples:
  python -m ibmd_basicsr.export sr4x_nano_student -o student.onnx                       # a file of weights/ by name
  python -m ibmd_basicsr.export jpeg10_nano_student -o student.safetensors
  python -m ibmd_basicsr.export experiments/mine/models/net_g_latest.pth -opt options/sr4x_ibmd.yml -o mine.onnx
  python docs/examples/onnx_restore.py student.onnx small.png large.png                 # onnxruntime, numpy and Pillow alone

student.onnx: inputs lq (B, 3, h, w), RGB in [0, 1], of any size, and z, standard normal noise; output image (B, 3, scale h, scale w),
  RGB in [0, 1]. Enlargement, padding and clamping are in the graph. It is run in onnxruntime on two sizes and refused if a pixel differs
  from torch by more than 1e-4. Students of one step, without masks and labels.
student.safetensors: the weights in the precision of the source.
Both hold task, scale, licence, source and its sha256, network, bridge and sampler as metadata (docs/exporting.md).

exit codes: 0 done; 2 wrong command line, option file or weights; 5 not written: no place, or it differs from torch; 130 interrupted."""

PACKAGES = {'.safetensors': ('safetensors',), '.onnx': ('onnx', 'onnxruntime')}


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog='python -m ibmd_basicsr.export', epilog=EPILOG,
        description='Write a student as safetensors or as an ONNX graph, with what its user must know inside.')
    parser.add_argument('weights', metavar='WEIGHTS', help="BasicSR checkpoint, or the name of one in weights/")
    parser.add_argument('-o', '--output', required=True, type=Path, metavar='FILE', help='FILE.safetensors or FILE.onnx')
    parser.add_argument('-opt', type=Path, metavar='FILE',
                        help='option file of its training or test; default: what cards.yml beside the weights names')
    parser.add_argument('--param_key', help="which weights of the checkpoint; default: the option file's path.param_key_g, else params_ema")
    parser.add_argument('--steps', type=int, choices=(1,), help='export a student of several steps as it runs in one')
    parser.add_argument('--overwrite', action='store_true', help='replace FILE if it exists')
    parser.add_argument('--licence', help='instead of what cards.yml says')
    return parser


@report_errors('interrupted; nothing was written.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command, with ``sys.argv`` by default, and return its exit code; see :data:`EPILOG`."""
    args = make_parser().parse_args(arguments)
    ending = args.output.suffix
    if ending not in PACKAGES:
        raise OptionError(f'-o {args.output}: must end in {" or ".join(PACKAGES)}.')
    missing = [name for name in PACKAGES[ending] if find_spec(name) is None]
    if missing:
        raise OptionError(f"-o {args.output}: needs {', '.join(missing)}: pip install 'ibmd_basicsr[export]'.")
    if not args.output.resolve().parent.is_dir():
        raise OptionError(f'-o {args.output}: no such folder.')
    if args.output.is_dir():
        raise OptionError(f'-o {args.output}: is a folder.')
    if args.output.exists() and not args.overwrite:
        raise OptionError(f'-o {args.output}: exists already; --overwrite replaces it.')

    from ibmd_basicsr.exporting.student import read_student
    from ibmd_basicsr.models.known_weights import misuse
    from ibmd_basicsr.models.recipes import find_weights, recipe_from_options, recipe_of_weights
    weights = find_weights(args.weights)
    recipe = recipe_from_options(args.opt, weights, args.param_key) if args.opt else recipe_of_weights(weights, args.param_key)
    warning = misuse(recipe.weights, recipe.task, recipe.scale, str(args.opt)) if args.opt else None
    if warning:
        print(f'warning: {warning}', file=sys.stderr)
    student = read_student(recipe.with_steps(args.steps) if args.steps else recipe)
    if args.licence:
        student = replace(student, about=student.about | {'licence': args.licence})
    if ending == '.onnx':
        from ibmd_basicsr.exporting.onnx_file import OPSET, save_onnx
        for (batch, height, width), difference in save_onnx(student, args.output).items():
            print(f'onnxruntime and torch on {batch}x3x{height}x{width}: max abs difference {difference:.2g}')
        print(f'opset {OPSET}')
    else:
        from ibmd_basicsr.exporting.safetensors_file import save_safetensors
        save_safetensors(student, args.output)
    for key in ('task', 'scale', 'licence', 'source', 'source_sha256'):
        print(f'{key}: {student.about[key]}')
    print(f'{args.output}: {args.output.stat().st_size:,} bytes')
    return 0
