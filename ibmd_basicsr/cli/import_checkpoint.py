"""``python -m ibmd_basicsr.import_checkpoint FILE``: a published checkpoint of a bridge or of ADM into BasicSR's form."""
from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.utils.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from ibmd_basicsr.checkpoints.published import Published

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

FAMILIES = ('i2sb', 'adm', 'ddbm', 'dbim')
ENDINGS = ('.pt', '.pth', '.ckpt', '.bin')


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog='python -m ibmd_basicsr.import_checkpoint', epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Turn a published checkpoint of I2SB, ADM, DDBM or DBIM into one of BasicSR and print the option blocks for it.')
    parser.add_argument('file', metavar='FILE', type=Path, help='published checkpoint')
    parser.add_argument('-o', '--output', metavar='OUT.pth', type=Path,
                        help='checkpoint to write; default: FILE with .basicsr.pth at its end')
    parser.add_argument('--overwrite', action='store_true', help='replace OUT.pth if it exists')
    parser.add_argument('--half', action='store_true', help='write float16 instead of float32, half the size')
    told = parser.add_argument_group(
        'what shapes do not show', 'needed where the family leaves it open or the network is not a published one')
    told.add_argument('--family', choices=FAMILIES, help='instead of the family detected')
    told.add_argument('--attention_order', choices=('legacy', 'new'), help='instead of the order that the family uses')
    heads = told.add_mutually_exclusive_group()
    heads.add_argument('--num_head_channels', type=_positive, metavar='N', help='width of an attention head; default 64')
    heads.add_argument('--num_heads', type=_positive, metavar='N', help='number of attention heads, in place of their width')
    told.add_argument('--cond_channels', type=int, metavar='N',
                      help='input channels for x_T, the last ones; default: half of six, else none')
    told.add_argument('--dropout', type=float, default=0.0, metavar='P', help='for training on; default 0')
    change = parser.add_argument_group('changes, to start a bridge from ADM')
    change.add_argument('--drop_sigma', action='store_true', help="leave out the outputs for ADM's learned variance (6 outputs to 3)")
    change.add_argument('--add_cond', choices=('zero', 'duplicate'),
                        help='add input channels for x_T, with zero weights or with those of the image channels (as DBIM does)')
    bridge = parser.add_argument_group('the bridge block')
    bridge.add_argument('--options', metavar='FILE',
                        help="I2SB's settings; default: options.pkl beside FILE if it is there; none: not read")
    bridge.add_argument('--beta_max', type=float, metavar='B',
                        help='i2sb: 0.3 for super-resolution and JPEG, 1.0 for inpainting and deblurring')
    bridge.add_argument('--ot_ode', action='store_true', default=None, help='i2sb: the network was trained with --ot-ode')
    bridge.add_argument('--schedule', choices=('vp', 've'), help='ddbm: default vp, as both released checkpoints')
    return parser


@report_errors('interrupted; nothing was written.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command, with ``sys.argv`` by default, and return its exit code; see :data:`EPILOG`."""
    args = make_parser().parse_args(arguments)
    output = args.output or args.file.with_name(
        (args.file.stem if args.file.suffix in ENDINGS else args.file.name) + '.basicsr.pth')
    _check_paths(args.file, output, args.overwrite)

    import torch

    from ibmd_basicsr.checkpoints.conversion import check_weights, stand_alone
    from ibmd_basicsr.checkpoints.published import recognise
    from ibmd_basicsr.checkpoints.state_dict import CheckpointError, load_file, printable, save_atomically
    from ibmd_basicsr.utils.torch_files import UnreadableFile, check_records
    source = str(args.file)
    content = load_file(args.file, mmap=True)
    try:
        check_records(args.file)
    except UnreadableFile as error:
        raise CheckpointError(f'{source}: {error}.') from error
    published = recognise(content, source)
    family = args.family or published.family
    network, comments = _describe_network(published, family, args)
    own = _state_dict_of(network, source)
    check_weights(published, own, source)
    published, network = _changed(published, network, args)
    own = _state_dict_of(network, source)
    check_weights(published, own, source)
    bridge = _describe_bridge(family, network, args)

    weights = {key: stand_alone(params, own, torch.float16 if args.half else torch.float32, f'{source}: {key}')
               for key, params in published.weights.items()}
    try:
        save_atomically(weights, output)
    except (OSError, RuntimeError) as error:  # torch reports a full disk by a RuntimeError
        raise OptionError(f'{output}: cannot be written ({printable(error)}).') from error

    total = sum(value.numel() for value in own.values())
    told = 'as given on the command line' if args.family else published.reason
    print(f'# {printable(source, 400)}: family {family or "unknown"} ({told})')
    print(f'# {total:,} parameters in {len(own)} tensors, names and shapes checked')
    print(f'# attention order {network["attention_order"]}: {comments["attention_order"]}')
    print(f'# {printable(output, 400)}: {" and ".join(weights)}, {"float16" if args.half else "float32"}\n')
    print(_yaml('network_g', network, comments))
    print()
    print(bridge)
    print()
    key = 'params_ema' if 'params_ema' in weights else 'params'
    print(_yaml('path', {'pretrain_network_g': os.path.abspath(output), 'param_key_g': key, 'strict_load_g': True}, {}))
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a positive integer, got {text!r}')
    return int(text)


def _check_paths(file: Path, output: Path, overwrite: bool) -> None:
    if not file.is_file():
        raise FileNotFoundError(f'{file}: no such file.')
    if output.exists() and output.samefile(file):
        raise OptionError(f'{output}: is the file to import; choose another name with -o.')
    if output.exists() and not overwrite:
        raise OptionError(f'{output}: exists already; --overwrite replaces it, -o chooses another name.')
    if output.is_dir() or not output.parent.is_dir():
        raise OptionError(f'{output}: {"is a folder" if output.is_dir() else "its folder does not exist"}.')


def _describe_network(published: Published, family: str | None, args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options of the network in a file, and for those that shapes do not show where they are from."""
    from ibmd_basicsr.checkpoints.architecture import derive_architecture
    from ibmd_basicsr.checkpoints.undetermined import choose_attention_order, choose_heads
    source = str(args.file)
    network = derive_architecture({key: tuple(value.shape) for key, value in published.main.items()}, source, args.cond_channels)
    order = choose_attention_order(published, family, network, args.attention_order, source)
    heads_name, heads = choose_heads(family, network, args.num_head_channels, args.num_heads)
    network |= {heads_name: heads.value, 'attention_order': order.value, 'dropout': args.dropout}
    comments = {heads_name: heads.reason, 'attention_order': order.reason, 'dropout': 'the file does not show it; matters to training only'}
    return network, comments


def _state_dict_of(network: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Return the state dict, on the meta device, of the network built from options."""
    import torch

    from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
    from ibmd_basicsr.checkpoints.state_dict import printable
    try:
        with torch.device('meta'):
            return ADMUNet(**network).state_dict()
    except (ValueError, RuntimeError) as error:  # the latter for sizes beyond all memory
        raise OptionError(f'{source}: {printable(error, 200)} '
                          '(--num_head_channels, --num_heads and --dropout say what shapes do not show.)') from error


def _changed(published: Published, network: dict[str, Any], args: argparse.Namespace) -> tuple[Published, dict[str, Any]]:
    """Return weights and options after ``--drop_sigma`` and ``--add_cond``."""
    from ibmd_basicsr.checkpoints.conversion import add_condition, drop_sigma

    def change(function: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Published:
        return replace(published, weights={key: function(params) for key, params in published.weights.items()})

    if args.drop_sigma:
        if network['out_channels'] != 2 * network['in_channels']:
            raise OptionError(f'--drop_sigma: the network has {network["out_channels"]} outputs for {network["in_channels"]} image '
                              'channels, no learned variance.')
        published, network = change(drop_sigma), network | {'out_channels': network['in_channels']}
    if args.add_cond:
        if network['cond_channels']:
            raise OptionError(f'--add_cond: the network has {network["cond_channels"]} input channels for x_T already.')
        published = change(lambda params: add_condition(params, args.add_cond))
        network = network | {'cond_channels': network['in_channels']}
    return published, network


def _describe_bridge(family: str | None, network: Mapping[str, Any], args: argparse.Namespace) -> str:
    """Return the ``bridge`` block of a family, or comments where the file tells of none."""
    from ibmd_basicsr.bridges import build_bridge
    comments = {}
    denoises = family == 'adm' or network['out_channels'] != network['in_channels']
    i2sb = not denoises and (family == 'i2sb' or (family is None and network['attention_order'] == 'legacy'))
    inpaints = family == 'dbim' and network['num_classes'] is not None
    ddbm = not (denoises or i2sb or inpaints)
    for name, applies in (('beta_max', i2sb), ('ot_ode', i2sb), ('options', i2sb), ('schedule', ddbm)):
        if getattr(args, name) is not None and not applies:
            raise OptionError(f'--{name} has no meaning for this file, whose family is {family}.')
    if denoises:
        lines = ['# bridge: none, this network denoises; a start for training a bridge (path.pretrain_network_g)']
        if network['out_channels'] == 2 * network['in_channels']:
            lines.append('# the outputs of a learned variance must go first: --drop_sigma')
        return '\n'.join(lines)
    if i2sb:
        values, comments = _i2sb_bridge(network, args)
    elif inpaints:
        values = {'type': 'I2SB_DBIM', 'n_timestep': 1000, 'beta_max': 1.0}
    elif args.schedule != 've':
        values = {'type': 'VP', 'beta_min': 0.1, 'beta_d': 2.0, 't_min': 0.0001}
        comments['type'] = 'as both released checkpoints; --schedule ve for the other'
    else:
        values = {'type': 'VE', 'sigma_max': 80.0, 'sigma_min': 0.002}
        comments['sigma_max'] = 'the published setting at 64x64; at 256x256 20.0 and 0.0005'
    values['conditional'] = network['cond_channels'] > 0
    try:
        build_bridge(**values)
    except ValueError as error:
        raise OptionError(str(error)) from error
    return _yaml('bridge', values, comments)


def _i2sb_bridge(network: Mapping[str, Any], args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    from ibmd_basicsr.checkpoints.i2sb_options import read_i2sb_options
    beside = args.file.with_name('options.pkl')
    path = None if args.options == 'none' else args.options or (beside if beside.is_file() else None)
    settings = {} if path is None else read_i2sb_options(path)
    known = f'from {path}'
    if 'cond_x1' in settings and settings['cond_x1'] != (network['cond_channels'] > 0) and not args.add_cond:
        raise OptionError(f'{path}: cond_x1 is {settings["cond_x1"]}, but the network has {network["cond_channels"]} input channels for '
                          'x_T; the two do not belong together (--options none: not read).')
    values = {'type': 'I2SB', 'n_timestep': settings.get('interval', 1000)}
    comments = {'n_timestep': known} if 'interval' in settings else {}
    for name, default, given, choices in (
            ('beta_max', 0.3, args.beta_max, '0.3 for super-resolution and JPEG, 1.0 for deblurring and inpainting (with hole: noise)'),
            ('ot_ode', False, args.ot_ode, 'false for super-resolution and JPEG, true for inpainting and deblurring')):
        values[name] = given if given is not None else settings.get(name, default)
        comments[name] = 'as given on the command line' if given is not None else (
            known if name in settings else f'a choice, the file does not show it: {choices}')
    if settings.get('corrupt', '').startswith('inpaint'):
        values['hole'], comments['hole'] = 'noise', known
    differing = [f'{name} = {settings[name]}' for name, usual in (('t0', 1e-4), ('T', 1.0), ('add_x1_noise', False))
                 if settings.get(name, usual) != usual]
    if differing:
        comments['type'] = f'trained with {", ".join(differing)}, which this bridge does not have'
    return values, comments


def _yaml(name: str, values: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """Return a block of options; those without meaning (None, no condition, as many outputs as image channels) are left out."""
    import yaml

    from ibmd_basicsr.checkpoints.state_dict import printable
    lines = [f'{name}:'] + (['  type: ADMUNet'] if name == 'network_g' else [])
    for key, value in values.items():
        if value is None or (key == 'cond_channels' and not value) or (key == 'out_channels' and value == values['in_channels']):
            continue
        style = None if isinstance(value, list) else False  # lists as [1, 2], the block itself as lines
        line = yaml.safe_dump({key: value}, default_flow_style=style, allow_unicode=True, width=float('inf')).strip()
        comment = f'  # {printable(comments[key], 400)}' if key in comments else ''
        lines.append(f'  {line}{comment}')
    return '\n'.join(lines)
