"""Option files: what happens before and after BasicSR's ``parse_options``."""
from __future__ import annotations

import argparse
import ast
import copy
import functools
import importlib
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from ibmd_basicsr.compat.distributed import DIST_PARAMS, check_dist_params, init_dist
from ibmd_basicsr.compat.safe_yaml import OptionLoader, load_options
from ibmd_basicsr.utils.ending import note_states
from ibmd_basicsr.utils.errors import OptionError, hint, printable
from ibmd_basicsr.utils.numbers import is_integer
from ibmd_basicsr.utils.option_problems import shown
from ibmd_basicsr.utils.project import find_option_file

NUMBER = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?')
TEXT_KEYS = re.compile(r'name|type|weights|reference|features|classifier|labels|suffix|project|resume_id|codec|kernel|filename_tmpl|'
                       r'backend|(meta_info|dataroot|param_key)\w*|\w+_(name|path|file|root|dir)')
"""Keys whose values are names or paths: they stay text even where they look like a number."""
LONGEST = 2**20
"""Bytes of an option file at most. Those of this repository have a few thousand."""
LARGEST_SEED = 2**31 - 1
"""numpy takes twice as much; the host adds the number of the process."""

_texts: dict[str, str] = {}  # option file -> its text, read before the host may move the folder that it lies in
_descriptions: dict[str, str] = {}  # option file -> its options with all defaults


def read_option_file(path: str | os.PathLike) -> dict[str, Any]:
    """Read an option file; blocks that it names by aliases are copies.

    Raises:
        OptionError: missing, longer than :data:`LONGEST` or not text, not YAML (with line and column), or not a mapping at its top level.
    """
    file = find_option_file(path)
    try:
        with open(file, 'rb') as stream:
            content = stream.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise OptionError(f'{path}: is no option file, it has more than {LONGEST} bytes.')
        text = content.decode('utf-8')
    except UnicodeDecodeError as error:
        raise OptionError(f'{path}: is not text in UTF-8 (byte {error.start}: {error.reason}).') from error
    except OSError as error:
        raise OptionError(f'{path}: cannot read the option file ({error.strerror or error}).') from error
    try:
        opt = load_options(text)
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        place = f'{path}:{mark.line + 1}:{mark.column + 1}' if mark else str(path)
        reason = getattr(error, 'problem', None) or ' '.join(str(error).split())
        raise OptionError(f'{place}: not valid YAML ({printable(reason, 400)}).') from error
    if not isinstance(opt, dict):
        raise OptionError(f'{path}: must hold keys and values, found {"nothing" if opt is None else type(opt).__name__}.')
    _texts[str(path)] = text
    return opt


def normalise_numbers(value: Any, key: str = '') -> Any:
    """Return ``value`` with text that is entirely a number turned into int or float, in nested dicts and lists.

    YAML 1.1 reads ``1e-4`` as text, and ``--force_yml`` leaves ``1e-4`` and ``-1`` so. Values of keys that hold names or paths are kept.
    """
    if isinstance(value, dict):
        # in place: the host has handed out references to these dictionaries
        for name, item in value.items():
            value[name] = item if name == 'path' else normalise_numbers(item, str(name))
        return value
    if isinstance(value, list):
        return [normalise_numbers(item, key) for item in value]
    if isinstance(value, str) and not TEXT_KEYS.fullmatch(key) and NUMBER.fullmatch(value):
        return int(value) if re.fullmatch(r'[-+]?\d+', value) else float(value)
    return value


def read_options(path: str | os.PathLike) -> dict[str, Any]:
    """Read an option file with numbers as numbers: :func:`read_option_file`, then :func:`normalise_numbers`.

    Raises:
        OptionError: as :func:`read_option_file`.
    """
    return normalise_numbers(read_option_file(path))


def check_forced(entries: list[str] | None, opt: dict[str, Any]) -> dict[str, Any]:
    """Check ``--force_yml`` entries ``a:b=value`` against the option file; the host's own failures do not name the entry.

    Returns:
        a copy of ``opt`` with what is forced.

    Raises:
        OptionError: no or several ``=``, a block that the file does not have, or what the host would run as code.
    """
    opt = copy.deepcopy(opt)
    for entry in entries or ():
        if entry.count('=') != 1:
            raise OptionError(f'--force_yml takes block:key=value with one "=", got {entry!r}.')
        block, path = opt, []
        for key in entry.partition('=')[0].strip().split(':')[:-1]:
            path.append(key)
            if not isinstance(block, dict) or not isinstance(block.get(key), dict):
                known = block if isinstance(block, dict) else ()
                raise OptionError(f'--force_yml {entry!r}: the option file has no block {":".join(path)!r}{hint(key, known)} '
                                  'Values are changed in blocks that it has; write new blocks into the file.')
            block = block[key]
        key, value = entry.partition('=')[0].strip().split(':')[-1], entry.partition('=')[2].strip()
        if not re.fullmatch(r'[\w.-]+', key):
            raise OptionError(f'--force_yml {entry!r}: a key is of letters, digits, "_", "-" and ".", got {key!r}.')
        try:
            if value.startswith('['):
                ast.literal_eval(value)
            block[key] = importlib.import_module('basicsr.utils.options')._postprocess_yml_value(value)
        except (SyntaxError, ValueError) as error:
            raise OptionError(f'--force_yml {entry!r}: a value is text, a number or a list of numbers and quoted text, '
                              f'got {value!r}.') from error
    return opt


def check_purpose(file: str, raw: dict[str, Any], is_train: bool) -> None:
    """Refuse the option file of another command, which has other blocks.

    Raises:
        OptionError: it is one; with its command, and where those of this command are.
    """
    datasets = raw['datasets'] if isinstance(raw.get('datasets'), dict) else {}
    kinds = {str(phase).partition('_')[0] for phase in datasets}
    if 'restorers' in raw and not datasets:
        command = 'compare'
    elif 'train' in raw and 'train' in kinds and 'test' not in kinds:
        command = 'train'
    elif 'test' in kinds and 'train' not in raw and 'train' not in kinds:
        command = 'test'
    else:
        return
    if command != ('train' if is_train else 'test'):
        here = 'training: options/NAME_bridge.yml, options/NAME_ibmd.yml' if is_train else 'tests: options/test/NAME.yml'
        raise OptionError(f'{file}: is an option file for `python -m ibmd_basicsr.{command}`; for {here}.')


def check_host_options(file: str, raw: dict[str, Any], is_train: bool) -> None:
    """Check what the host's parser takes for granted, whatever the model.

    Raises:
        OptionError: the first thing that it would stumble over.
    """
    absent = [key for key in ('name', 'model_type', 'num_gpu', 'datasets', 'path', 'logger' if is_train else 'val') if key not in raw]
    if absent:
        raise OptionError(f'{file}: missing at the top level: {", ".join(absent)}.')
    for block in ('datasets', 'path') + (('logger', 'train') if is_train else ('val',)):
        if block in raw and not isinstance(raw[block], dict):
            raise OptionError(f'{file}: {block} must be a block of keys, got {shown(raw[block])}.')
    name = raw['name']
    if (not isinstance(name, str) or name.strip() in ('', '.') or not name.isprintable() or Path(name).is_absolute()
            or '..' in Path(name).parts):
        raise OptionError(f'{file}: name must be text that can name a folder, got {shown(name)}.')
    if not isinstance(raw['model_type'], str):
        raise OptionError(f'{file}: model_type must be text, got {shown(raw["model_type"])}.')
    number = raw['num_gpu']
    if number != 'auto' and not is_integer(number, least=0):
        raise OptionError(f"{file}: num_gpu must be 'auto', 0 or a number of GPUs, got {shown(number)}.")
    seed = raw.get('manual_seed')
    if seed is not None and not is_integer(seed, 0, LARGEST_SEED):
        raise OptionError(f'{file}: manual_seed must be an integer from 0 to {LARGEST_SEED}, got {shown(seed)}.')
    for key, value in raw['path'].items():
        if value is not None and not isinstance(value, str) and not key.startswith(('ignore_resume_networks', 'strict_load_')):
            raise OptionError(f'{file}: path.{key} must be text or ~, got {shown(value)}.')
    for phase, dataset in raw['datasets'].items():
        if not isinstance(dataset, dict):
            raise OptionError(f'{file}: datasets.{phase} must be a block of keys, got {shown(dataset)}.')
        for key in ('dataroot_gt', 'dataroot_lq'):
            if dataset.get(key) is not None and not isinstance(dataset[key], str):
                raise OptionError(f'{file}: datasets.{phase}.{key} must be text, got {shown(dataset[key])}.')


Prepare = Callable[[dict[str, Any], bool], None]
Describe = Callable[[dict[str, Any]], 'str | None']


def parse_options(root_path: str, is_train: bool = True, *, prepare: Prepare,
                  describe: Describe = lambda opt: None) -> tuple[dict[str, Any], argparse.Namespace]:
    """BasicSR's ``parse_options`` (same arguments and results) between a first look at the file and ``prepare``.

    Args:
        root_path: where relative outputs start.
        is_train: training or testing.
        prepare: completes and checks the parsed options: ``prepare(opt, auto_gpu)``, see ``models.option_rules.prepare_options``.
        describe: returns the text of ``resolved_options.yml`` for :func:`copy_opt_file`, or None; called for training.

    Raises:
        OptionError: whatever is wrong with the option file, in one message.
    """
    host = importlib.import_module('basicsr.utils.options')

    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('-opt', required=True)
    parser.add_argument('--force_yml', nargs='+')
    given, _ = parser.parse_known_args()
    raw = read_option_file(given.opt)
    check_purpose(given.opt, raw, is_train)
    forced_options = check_forced(given.force_yml, raw)
    check_host_options(given.opt, raw, is_train)
    check_host_options(given.opt, forced_options, is_train)

    asked = _forced(given.force_yml, 'num_gpu') or str(raw['num_gpu'])
    # the host hands dist_params on for slurm only, and knows num_gpu and what is forced only after the process group stands
    forced = {key: value for key in DIST_PARAMS if (value := _forced(given.force_yml, f'dist_params:{key}')) is not None}
    block = raw.get('dist_params')
    dist_params = check_dist_params(normalise_numbers({**block, **forced} if isinstance(block, dict) else block))
    host.init_dist = functools.partial(init_dist, cpu=asked == '0', dist_params=dist_params)
    # the host would read the file once more, by a loader that could run code
    host.yaml_load = lambda file: copy.deepcopy(raw)
    host.ordered_yaml = lambda: (OptionLoader, yaml.SafeDumper)  # the release of 2022 has no function for it
    opt, args = host.parse_options(root_path, is_train=is_train)

    normalise_numbers(opt)
    if raw.get('manual_seed') is None:
        _share_seed(opt)
    for dataset in opt['datasets'].values():
        dataset.setdefault('manual_seed', opt['manual_seed'])
    try:
        prepare(opt, asked == 'auto')
    except OptionError as error:
        raise type(error)(f'{given.opt}: {error}') from error
    note_states(opt['path'].get('training_states'))
    description = describe(opt) if is_train else None
    if description is not None:
        _descriptions[given.opt] = description
    return opt, args


def _forced(entries: list[str] | None, path: str) -> str | None:
    """Return the value that ``--force_yml`` gives to ``path`` (``block:key``), None if it does not; as for the host the last one counts."""
    values = [value.strip() for name, _, value in (entry.partition('=') for entry in entries or ()) if name.strip() == path]
    return values[-1] if values else None


def _share_seed(opt: dict[str, Any]) -> None:
    """Give all ranks the seed that rank 0 drew: the host lets each draw its own, and with it its own data order."""
    if opt['dist']:
        from basicsr.utils import set_random_seed
        seeds = [opt['manual_seed']]
        torch.distributed.broadcast_object_list(seeds, src=0)
        opt['manual_seed'] = seeds[0]
        set_random_seed(opt['manual_seed'] + opt['rank'])


def copy_opt_file(opt_file: str, experiments_root: str) -> None:
    """Write the option file that the run was started with, under a comment with time and command, into the experiment folder (rank 0).

    Beside it, for our models, ``resolved_options.yml``: the same with ``--force_yml`` and all defaults, and the versions. Unlike the
    host's, works when ``opt_file`` is that very copy, or was in the folder that has just been archived.
    """
    from basicsr.utils.dist_util import get_dist_info
    if get_dist_info()[0] == 0:
        text = _texts[opt_file]
        header = f'# GENERATE TIME: {time.asctime()}\n# CMD:\n# {" ".join(sys.argv)}\n\n'
        (Path(experiments_root) / Path(opt_file).name).write_text(header + text, encoding='utf-8')
        if opt_file in _descriptions:
            (Path(experiments_root) / 'resolved_options.yml').write_text(header + _descriptions[opt_file], encoding='utf-8')
