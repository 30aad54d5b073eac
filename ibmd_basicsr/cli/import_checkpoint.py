"""``python -m ibmd_basicsr.import_checkpoint FILE``: a published checkpoint of a bridge or of ADM into BasicSR's form."""
from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibmd_basicsr.cli.arguments import CommandParser, positive
from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.importing.choices import ATTENTION_ORDERS, CONDITIONS, FAMILIES, SCHEDULES, ImportChoices
from ibmd_basicsr.utils.errors import OptionError, SaveError, printable

if TYPE_CHECKING:
    from ibmd_basicsr.importing.published_import import Imported

EPILOG = """\
examples:
  python -m ibmd_basicsr.import_checkpoint results/sr4x-bicubic/latest.pt             # I2SB; reads options.pkl beside it
  python -m ibmd_basicsr.import_checkpoint latest.pt --beta_max 1.0 --ot_ode          # I2SB without options.pkl: inpainting
  python -m ibmd_basicsr.import_checkpoint 256x256_diffusion_uncond.pt --drop_sigma   # ADM, to start an I2SB bridge from
  python -m ibmd_basicsr.import_checkpoint e2h_ema_0.9999_420000.pt --schedule vp     # DDBM
  python -m ibmd_basicsr.import_checkpoint imagenet256_inpaint_ema_0.9999_400000.pt   # DBIM
  python -m ibmd_basicsr.import_checkpoint FILE -o teacher.pth > network.yml          # what is printed is YAML

The architecture is read off the shapes of the weights; all names and shapes are compared with the network built from it. What shapes do not
show (attention order, head width, dropout, schedule) comes from the family and is printed with the reason; the options overrule it.
No code from a file is ever run: a file that needs that is refused.

exit codes: 0 done; 2 wrong command line or a file that does not fit; 130 interrupted."""

ENDINGS = ('.pt', '.pth', '.ckpt', '.bin')


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog='python -m ibmd_basicsr.import_checkpoint', epilog=EPILOG,
        description='Turn a published checkpoint of I2SB, ADM, DDBM or DBIM into one of BasicSR and print the option blocks for it.')
    parser.add_argument('file', metavar='FILE', type=Path, help='published checkpoint')
    parser.add_argument('-o', '--output', metavar='OUT.pth', type=Path,
                        help='checkpoint to write; default: FILE with .basicsr.pth at its end')
    parser.add_argument('--overwrite', action='store_true', help='replace OUT.pth if it exists')
    parser.add_argument('--half', action='store_true', help='write float16 instead of float32, half the size')
    told = parser.add_argument_group(
        'what shapes do not show', 'needed where the family leaves it open or the network is not a published one')
    told.add_argument('--family', choices=FAMILIES, help='instead of the family detected')
    told.add_argument('--attention_order', choices=ATTENTION_ORDERS, help='instead of the order that the family uses')
    heads = told.add_mutually_exclusive_group()
    heads.add_argument('--num_head_channels', type=positive, metavar='N', help='width of an attention head; default 64')
    heads.add_argument('--num_heads', type=positive, metavar='N', help='number of attention heads, in place of their width')
    told.add_argument('--cond_channels', type=int, metavar='N',
                      help='input channels for x_T, the last ones; default: half of six, else none')
    told.add_argument('--dropout', type=float, default=0.0, metavar='P', help='for training on; default 0')
    change = parser.add_argument_group('changes, to start a bridge from ADM')
    change.add_argument('--drop_sigma', action='store_true', help="leave out the outputs for ADM's learned variance (6 outputs to 3)")
    change.add_argument('--add_cond', choices=CONDITIONS,
                        help='add input channels for x_T, with zero weights or with those of the image channels (as DBIM does)')
    bridge = parser.add_argument_group('the bridge block')
    bridge.add_argument('--options', metavar='FILE',
                        help="I2SB's settings; default: options.pkl beside FILE if it is there; none: not read")
    bridge.add_argument('--beta_max', type=float, metavar='B',
                        help='i2sb: 0.3 for super-resolution and JPEG, 1.0 for inpainting and deblurring')
    bridge.add_argument('--ot_ode', action='store_true', default=None, help='i2sb: the network was trained with --ot-ode')
    bridge.add_argument('--schedule', choices=SCHEDULES, help='ddbm: default vp, as both released checkpoints')
    return parser


@report_errors('interrupted; nothing was written.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command, with ``sys.argv`` by default, and return its exit code; see :data:`EPILOG`."""
    args = make_parser().parse_args(arguments)
    output = args.output or args.file.with_name(
        (args.file.stem if args.file.suffix in ENDINGS else args.file.name) + '.basicsr.pth')
    _check_paths(args.file, output, args.overwrite)

    from ibmd_basicsr.importing.published_import import import_published  # not above: torch takes seconds
    found = import_published(args.file, ImportChoices(**{one.name: getattr(args, one.name) for one in fields(ImportChoices)}))
    try:
        found.save(output)
    except SaveError as error:
        raise OptionError(str(error)) from error
    print(_report(found, args.file, output, args.half))
    return 0


def _report(found: Imported, file: Path, output: Path, half: bool) -> str:
    """Return what the command prints: YAML with comments."""
    own = found.weights[found.param_key]
    total = sum(value.numel() for value in own.values())
    path = {'pretrain_network_g': os.path.abspath(output), 'param_key_g': found.param_key, 'strict_load_g': True}
    return '\n'.join([
        f'# {printable(file, 400)}: family {found.family or "unknown"} ({found.family_reason})',
        f'# {total:,} parameters in {len(own)} tensors, names and shapes checked',
        f'# attention order {found.network["attention_order"]}: {found.network_reasons["attention_order"]}',
        f'# {printable(output, 400)}: {" and ".join(found.weights)}, {"float16" if half else "float32"}',
        '', _yaml('network_g', found.network, found.network_reasons),
        '', _bridge_block(found),
        '', _yaml('path', path, {})])


def _bridge_block(found: Imported) -> str:
    """Return the ``bridge`` block, or comments where there is none."""
    if found.bridge is not None:
        return _yaml('bridge', found.bridge, found.bridge_reasons)
    lines = ['# bridge: none, this network denoises; a start for training a bridge (path.pretrain_network_g)']
    if found.learned_variance:
        lines.append('# the outputs of a learned variance must go first: --drop_sigma')
    return '\n'.join(lines)


def _check_paths(file: Path, output: Path, overwrite: bool) -> None:
    if not file.is_file():
        raise OptionError(f'{file}: {"is a folder, name the file in it" if file.is_dir() else "no such file"}.')
    if output.exists() and output.samefile(file):
        raise OptionError(f'{output}: is the file to import; choose another name with -o.')
    if output.exists() and not overwrite:
        raise OptionError(f'{output}: exists already; --overwrite replaces it, -o chooses another name.')
    if output.is_dir() or not output.parent.is_dir():
        raise OptionError(f'{output}: {"is a folder" if output.is_dir() else "its folder does not exist"}.')


def _yaml(name: str, values: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """Return a block of options; those without meaning (None, no condition, as many outputs as image channels) are left out."""
    import yaml
    lines = [f'{name}:'] + (['  type: ADMUNet'] if name == 'network_g' else [])
    for key, value in values.items():
        if value is None or (key == 'cond_channels' and not value) or (key == 'out_channels' and value == values['in_channels']):
            continue
        style = None if isinstance(value, list) else False  # lists as [1, 2], the block itself as lines
        line = yaml.safe_dump({key: value}, default_flow_style=style, allow_unicode=True, width=float('inf')).strip()
        comment = f'  # {printable(comments[key], 400)}' if key in comments else ''
        lines.append(f'  {line}{comment}')
    return '\n'.join(lines)
