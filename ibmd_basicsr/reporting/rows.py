"""The rows of a comparison: what the option files in options/compare may say."""
from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import basicsr.archs  # noqa: F401  (registers the host's)
from basicsr.utils.registry import ARCH_REGISTRY

from ibmd_basicsr.models.builders import checked_bridge, checked_network, checked_sampler
from ibmd_basicsr.reporting.html_report import ReportOptions
from ibmd_basicsr.reporting.ncnn_peer import CHANNELS
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.files import is_folder_name
from ibmd_basicsr.utils.option_check import build_from_options, check_keys
from ibmd_basicsr.utils.option_problems import shown
from ibmd_basicsr.utils.precision import check_precision

KEYS = {'name', 'scale', 'manual_seed', 'crop_border', 'output', 'dataset', 'datasets', 'metrics', 'restorers', 'speed_reference', 'grid',
        'report', 'tile', 'tile_pad', 'crops_after'}
TILE_KEYS = {'tile', 'tile_pad'}
ROW_KEYS = {
    'input': {'name', 'kind'},
    'bridge': {'name', 'kind', 'network', 'bridge', 'weights', 'param_key', 'sampler', 'steps', 'precision'} | TILE_KEYS,
    'arch': {'name', 'kind', 'network', 'weights', 'param_key', 'size_multiple', 'input_range', 'upsampled_input'} | TILE_KEYS,
    'spandrel': {'name', 'kind', 'weights', 'size_multiple'} | TILE_KEYS,
    'ncnn': {'name', 'kind', 'weights', 'input', 'output', 'channels', 'scale', 'padding', 'input_range', 'size_multiple'} | TILE_KEYS,
}
GRID_KEYS = {'columns', 'images', 'crop', 'zoom'}
LARGEST = {'scale': 64, 'manual_seed': 2**63 - 1, 'crop_border': 4096, 'images': 1000, 'crop': 4096, 'zoom': 16}
"""Upper bounds of integers: what is larger is a slip, and some of it would be found when the memory is full."""
TILE_PAD = 32
"""Halo of tiles, in pixels of the input, where the option file names none."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: unique; ``teacher@20`` for the row ``teacher`` with 20 steps.
        kind: ``input`` (the corrupted image, enlarged by bicubic interpolation where it is smaller), ``bridge``, ``arch`` (a network of
            BasicSR's registry), ``spandrel`` or ``ncnn`` (files that these packages read).
        options: what the function that builds this kind takes beside weights, scale and device, such as network, bridge, param_key,
            sampler and precision of :func:`~ibmd_basicsr.models.build_restorer`.
        weights: candidates, the first that exists is taken.
        tile, tile_pad: see :func:`~ibmd_basicsr.utils.tiling.restore_tiled`.
    """

    name: str
    kind: str
    options: dict[str, Any]
    weights: tuple[str, ...] = ()
    tile: int = 0
    tile_pad: int = 0

    def find_weights(self) -> str | None:
        """Return the first weight file that exists; None for rows without weights.

        Raises:
            FileNotFoundError: none of the candidates exists.
        """
        if not self.weights:
            return None
        for path in self.weights:
            if Path(path).is_file():
                return path
        raise FileNotFoundError(f'no weight file: {" or ".join(self.weights)} not found.')


def read_rows(opt: dict[str, Any]) -> list[Row]:
    """Check the option file and return its rows, one for each number of steps.

    Raises:
        OptionError: unknown or missing keys, values that network, bridge or sampler refuse, a sampler that does not fit its bridge, names
            that are given twice.
    """
    check_keys('', opt, KEYS, ('name', 'scale', 'output', 'restorers'))
    _check_values(opt)
    build_from_options(ReportOptions, opt.get('report') or {}, 'report')
    if not isinstance(opt['restorers'], list) or not opt['restorers']:
        raise OptionError('restorers: must be a list of rows with a name and a kind.')
    rows = []
    for number, block in enumerate(opt['restorers']):
        rows += _read_row(block, f'restorers[{number}]', opt)
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f'restorers: the name {name!r} is given twice.')
    for key, values in _named_rows(opt).items():
        for value in values:
            if value not in names:
                raise OptionError(f'{key}: no row {value!r}. Names of restorers: {", ".join(names)}.')
    return rows


def _named_rows(opt: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return which rows the option file names elsewhere, by key."""
    return {'speed_reference': [opt['speed_reference']] if opt.get('speed_reference') else [],
            'grid.columns': (opt.get('grid') or {}).get('columns') or []}


def replace_steps(opt: dict[str, Any], steps: Sequence[int]) -> tuple[dict[str, Any], list[str]]:
    """Return the option file with other ``steps`` in the teachers' rows that list several, and notes for the user.

    ``few_step`` students keep their own: they know only the steps that they were trained with. Where ``speed_reference`` or
    ``grid.columns`` name rows that are gone by this, they lose them, with a note each.

    Raises:
        OptionError: as :func:`read_rows`, of the file as it was or of the new rows.
    """
    before = {row.name for row in read_rows(opt)}
    changed = opt | {'restorers': [block | {'steps': list(dict.fromkeys(steps))} if _takes_other_steps(block) else block
                                   for block in opt['restorers']]}
    bare = {key: value for key, value in changed.items() if key not in ('speed_reference', 'grid')}
    gone, named = before - {row.name for row in read_rows(bare)}, _named_rows(opt)
    notes = []
    if gone.intersection(named['speed_reference']):
        changed['speed_reference'] = None
        notes.append(f'--steps: no row {opt["speed_reference"]} (speed_reference), so no column of speed.')
    lost = [name for name in named['grid.columns'] if name in gone]
    if lost:
        changed['grid'] = opt['grid'] | {'columns': [name for name in named['grid.columns'] if name not in gone]}
        notes.append(f'--steps: no rows {", ".join(lost)} (grid.columns), so no pictures of them in the grid.')
    return changed, notes


def _check_values(opt: dict[str, Any]) -> None:
    """Check what is used when the images are restored, which may be after hours."""
    for key in ('name', 'output'):
        if not isinstance(opt[key], str) or not opt[key] or not opt[key].isprintable():
            raise OptionError(f'{key}: must be text, got {shown(opt[key])}.')
    separator = opt.get('crops_after')
    if separator is not None and (not isinstance(separator, str) or not separator):
        raise OptionError(f'crops_after: must be text such as "_", got {shown(separator)}.')
    grid = opt.get('grid') or {}
    if not isinstance(grid, dict):
        raise OptionError(f'grid: must be a block of keys, got {shown(grid)}.')
    check_keys('grid', grid, GRID_KEYS)
    if not isinstance(grid.get('columns') or [], list):
        raise OptionError(f'grid.columns: must be a list of rows, got {shown(grid["columns"])}.')
    for path, block, least, most in (('scale', opt, 1, LARGEST['scale']), ('manual_seed', opt, 0, LARGEST['manual_seed']),
                                     ('crop_border', opt, 0, LARGEST['crop_border']), ('grid.images', grid, 1, LARGEST['images']),
                                     ('grid.crop', grid, 1, LARGEST['crop']), ('grid.zoom', grid, 1, LARGEST['zoom'])):
        value = block.get(path.rpartition('.')[2], least)
        optional = value is None and path == 'manual_seed'
        if not optional and (not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most):
            raise OptionError(f'{path}: must be an integer from {least} to {most}, got {shown(value)}.')


def _takes_other_steps(block: Any) -> bool:
    if not isinstance(block, dict) or not isinstance(block.get('steps'), list):
        return False
    return not isinstance(block.get('sampler'), dict) or block['sampler'].get('type') != 'few_step'


def _read_row(block: Any, path: str, opt: dict[str, Any]) -> list[Row]:
    if not isinstance(block, dict) or not isinstance(block.get('name'), str):
        raise OptionError(f'{path}: must be a block with a name, got {shown(block)}.')
    name, kind = block['name'], block.get('kind')
    if not is_folder_name(name):
        raise OptionError(f'{path}.name: names a folder of images, got {shown(name)}.')
    path = f'{path} ({name})'
    if not isinstance(kind, str) or kind not in ROW_KEYS:
        raise OptionError(f'{path}.kind: must be one of {", ".join(map(repr, ROW_KEYS))}, got {shown(kind)}.')
    read = {'input': _read_input, 'bridge': _read_bridge, 'arch': _read_arch, 'spandrel': _read_spandrel, 'ncnn': _read_ncnn}[kind]
    options_by_name = read(block, path)
    if kind == 'input':
        return [Row(name, kind, {})]
    tile, tile_pad = _read_tile(block, path, opt)
    return [Row(row, kind, options, _read_weights(block, path), tile, tile_pad) for row, options in options_by_name.items()]


def _read_tile(block: dict[str, Any], path: str, opt: dict[str, Any]) -> tuple[int, int]:
    """Return ``tile`` and ``tile_pad`` of a row: its own, or those of the whole file. A halo without tiles changes nothing: 0."""
    values = {'tile': 0, 'tile_pad': TILE_PAD}
    for key in values:
        where = f'{path}.{key}' if key in block else key
        value = values[key] = block.get(key, opt.get(key, values[key]))
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise OptionError(f'{where}: must be a number of pixels of the input, 0 for whole images, got {shown(value)}.')
    return values['tile'], values['tile_pad'] if values['tile'] else 0


def _read_weights(block: dict[str, Any], path: str) -> tuple[str, ...]:
    weights = block['weights'] if isinstance(block['weights'], list) else [block['weights']]
    if not weights or not all(isinstance(file, str) for file in weights):
        raise OptionError(f'{path}.weights: must be a file or a list of files, got {shown(block["weights"])}.')
    return tuple(weights)


def _read_input(block: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    check_keys(path, block, ROW_KEYS['input'])
    return {block['name']: {}}


def _read_spandrel(block: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    check_keys(path, block, ROW_KEYS['spandrel'], ('weights',))
    _check_multiple(block, path)
    return {block['name']: {key: block[key] for key in ('size_multiple',) if key in block}}


def _read_ncnn(block: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    check_keys(path, block, ROW_KEYS['ncnn'], ('weights',))
    _check_multiple(block, path)
    _check_range(block, path)
    for key in ('input', 'output'):
        if not isinstance(block.get(key), (str, type(None))):
            raise OptionError(f'{path}.{key}: must be the name of a blob, got {shown(block[key])}.')
    if not isinstance(block.get('channels', 'RGB'), str) or block.get('channels', 'RGB') not in CHANNELS:
        raise OptionError(f'{path}.channels: must be one of {", ".join(map(repr, CHANNELS))}, got {shown(block["channels"])}.')
    for key, least in (('scale', 1), ('padding', 0)):
        value = block.get(key, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise OptionError(f'{path}.{key}: must be a whole number, at least {least}, got {shown(value)}.')
    options = {key: block[key] for key in ('input', 'output', 'channels', 'padding', 'input_range', 'size_multiple') if key in block}
    return {block['name']: options | ({'network_scale': block['scale']} if 'scale' in block else {})}


def _check_multiple(block: dict[str, Any], path: str) -> None:
    multiple = block.get('size_multiple', 1)
    if not isinstance(multiple, int) or isinstance(multiple, bool) or multiple < 1:
        raise OptionError(f'{path}.size_multiple: must be a positive integer, got {shown(multiple)}.')


def _check_range(block: dict[str, Any], path: str) -> None:
    span = block.get('input_range', [0, 1])
    if not isinstance(span, list) or len(span) != 2 or not all(isinstance(end, (int, float)) for end in span) or span[0] >= span[1]:
        raise OptionError(f'{path}.input_range: must be the lowest and the highest value, such as [0, 255], got {shown(span)}.')


def _read_arch(block: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """Check what is certain before the network is built: its own options are checked then, and a row that fails leaves the others."""
    check_keys(path, block, ROW_KEYS['arch'], ('network', 'weights'))
    network = block['network']
    if not isinstance(network, dict) or not isinstance(network.get('type'), str):
        raise OptionError(f'{path}.network: must be a block with a type, got {shown(network)}.')
    kind, known = network['type'], sorted(name.removesuffix('_basicsr') for name in ARCH_REGISTRY.keys())
    if kind not in known and kind not in ARCH_REGISTRY:
        near = difflib.get_close_matches(kind, known, 1)
        hint = f', did you mean {near[0]!r}?' if near else '.'
        raise OptionError(f'{path}.network.type: no architecture {kind!r}{hint} Known: {", ".join(known)}.')
    _check_multiple(block, path)
    _check_range(block, path)
    if not isinstance(block.get('upsampled_input', False), bool):
        raise OptionError(f'{path}.upsampled_input: must be true or false, got {shown(block["upsampled_input"])}.')
    if not isinstance(block.get('param_key'), (str, type(None))):
        raise OptionError(f'{path}.param_key: must be a name, got {shown(block["param_key"])}.')
    return {block['name']: {key: block[key] for key in ('network', 'param_key', 'size_multiple', 'input_range', 'upsampled_input')
                            if key in block}}


def _read_bridge(block: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """Check a bridge and return its options by row name, one for each number of steps."""
    check_keys(path, block, ROW_KEYS['bridge'], ('network', 'bridge', 'weights', 'sampler'))
    name, network, bridge, sampler = block['name'], block['network'], block['bridge'], block['sampler']
    if not isinstance(sampler, dict):
        raise OptionError(f'{path}.sampler: must be a block of keys, got {shown(sampler)}.')
    checked_network(network, f'{path}.network')
    built = checked_bridge(bridge, f'{path}.bridge')
    if 'precision' in block:
        try:
            check_precision(block['precision'])
        except OptionError as error:
            raise OptionError(f'{path}.{error}') from error
    if 'steps' in block and 'steps' in sampler:
        raise OptionError(f'{path}: steps is given twice, in the row and in its sampler.')
    steps = block.get('steps')
    samplers = {name: sampler} if steps is None else {
        f'{name}@{n}': sampler | {'steps': n} for n in (steps if isinstance(steps, list) else [steps])}
    for options in samplers.values():
        checked_sampler(options, built, f'{path}.sampler')
    common = {'network': network, 'bridge': bridge, 'param_key': block.get('param_key', 'params_ema')}
    common |= {key: block[key] for key in ('precision',) if key in block}  # left out otherwise: results without it stay valid
    return {row: common | {'sampler': options} for row, options in samplers.items()}
