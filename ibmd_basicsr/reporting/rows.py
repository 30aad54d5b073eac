"""The rows of a comparison: what the option files in options/compare may say."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.bridges import build_bridge
from ibmd_basicsr.restorer import SamplerOptions, make_grid
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.option_check import build_from_options, check_keys, option_parameters

KEYS = {'name', 'scale', 'manual_seed', 'crop_border', 'output', 'dataset', 'restorers', 'speed_reference', 'grid'}
ROW_KEYS = {'input': {'name', 'kind'}, 'bridge': {'name', 'kind', 'network', 'bridge', 'weights', 'param_key', 'sampler', 'steps'}}
GRID_KEYS = {'columns', 'images', 'crop', 'zoom'}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: unique; ``teacher@20`` for the row ``teacher`` with 20 steps.
        kind: ``input`` (the corrupted image, enlarged by bicubic interpolation where it is smaller) or ``bridge``.
        options: network, bridge, param_key, sampler; what :func:`~ibmd_basicsr.models.build_restorer` takes.
        weights: candidates, the first that exists is taken.
    """

    name: str
    kind: str
    options: dict[str, Any]
    weights: tuple[str, ...] = ()

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


def read_rows(opt: dict[str, Any], steps: list[int] | None = None) -> list[Row]:
    """Check the option file and return its rows, one for each number of steps.

    Args:
        opt: the option file.
        steps: replaces the ``steps`` of the teachers' rows that list several. ``few_step`` students keep their own: they know only the
            steps that they were trained with.

    Raises:
        OptionError: unknown or missing keys, values that network, bridge or sampler refuse, a sampler that does not fit its bridge, names
            that are given twice.
    """
    check_keys('', opt, KEYS, ('name', 'scale', 'output', 'dataset', 'restorers'))
    check_keys('grid', opt.get('grid') or {}, GRID_KEYS)
    if not isinstance(opt['scale'], int) or opt['scale'] < 1:
        raise OptionError(f'scale: must be a positive integer, got {opt["scale"]!r}.')
    if not isinstance(opt['restorers'], list) or not opt['restorers']:
        raise OptionError('restorers: must be a list of rows with a name and a kind.')
    rows = []
    for number, block in enumerate(opt['restorers']):
        if steps and _takes_other_steps(block):
            block = block | {'steps': steps}
        rows += _read_row(block, f'restorers[{number}]')
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f'restorers: the name {name!r} is given twice.')
    named = {'speed_reference': [opt['speed_reference']] if opt.get('speed_reference') else [],
             'grid.columns': (opt.get('grid') or {}).get('columns') or []}
    for key, values in named.items():
        for value in values:
            if value not in names:
                raise OptionError(f'{key}: no row {value!r}. Rows: {", ".join(names)}.')
    return rows


def _takes_other_steps(block: Any) -> bool:
    if not isinstance(block, dict) or not isinstance(block.get('steps'), list):
        return False
    return not isinstance(block.get('sampler'), dict) or block['sampler'].get('type') != 'few_step'


def _read_row(block: Any, path: str) -> list[Row]:
    if not isinstance(block, dict) or not isinstance(block.get('name'), str):
        raise OptionError(f'{path}: must be a block with a name, got {block!r}.')
    name, kind = block['name'], block.get('kind')
    path = f'{path} ({name})'
    if kind not in ROW_KEYS:
        raise OptionError(f'{path}.kind: must be one of {", ".join(map(repr, ROW_KEYS))}, got {kind!r}.')
    if not name or name != Path(name).name or name.startswith('.'):
        raise OptionError(f'{path}.name: names a folder of images, got {name!r}.')
    if kind == 'input':
        check_keys(path, block, ROW_KEYS[kind])
        return [Row(name, kind, {})]
    check_keys(path, block, ROW_KEYS[kind], ('network', 'bridge', 'weights', 'sampler'))
    network, bridge, sampler = block['network'], block['bridge'], block['sampler']
    for key in ('network', 'bridge', 'sampler'):
        if not isinstance(block[key], dict):
            raise OptionError(f'{path}.{key}: must be a block of keys, got {block[key]!r}.')
    if network.get('type') == ADMUNet.__name__:
        names, required = option_parameters(ADMUNet)
        check_keys(f'{path}.network', network, [*names, 'type'], required)
    try:
        built = build_bridge(**bridge)
    except (TypeError, ValueError) as error:
        raise OptionError(f'{path}.bridge: {error}') from error
    weights = block['weights'] if isinstance(block['weights'], list) else [block['weights']]
    if not weights or not all(isinstance(file, str) for file in weights):
        raise OptionError(f'{path}.weights: must be a file or a list of files, got {block["weights"]!r}.')
    if 'steps' in block and 'steps' in sampler:
        raise OptionError(f'{path}: steps is given twice, in the row and in its sampler.')
    steps = block.get('steps')
    samplers = {name: sampler} if steps is None else {
        f'{name}@{n}': sampler | {'steps': n} for n in (steps if isinstance(steps, list) else [steps])}
    for options in samplers.values():
        sampler = build_from_options(SamplerOptions, options, f'{path}.sampler')
        try:
            make_grid(sampler, built)
        except ValueError as error:
            raise OptionError(f'{path}: {error}') from error
    common = {'network': network, 'bridge': bridge, 'param_key': block.get('param_key', 'params_ema')}
    return [Row(row, kind, common | {'sampler': options}, tuple(weights)) for row, options in samplers.items()]
