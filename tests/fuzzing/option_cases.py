"""Random option files: shipped ones with values, keys and text changed at random, and what may come of them."""
from __future__ import annotations

import contextlib
import copy
import functools
import io
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import jsonschema
import yaml
from guard import Fault, check_message, fault_of, limits
from hypothesis import strategies as st

import ibmd_basicsr.data
import ibmd_basicsr.losses
import ibmd_basicsr.metrics
import ibmd_basicsr.models  # noqa: F401  (registration)
from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.compat.options import normalise_numbers, parse_options, read_option_file
from ibmd_basicsr.models.option_keys import OWN_MODELS
from ibmd_basicsr.models.option_rules import prepare_options
from ibmd_basicsr.models.option_schema import option_schema
from ibmd_basicsr.models.resolved_options import describe_run
from ibmd_basicsr.reporting.pictures import load_image_sets
from ibmd_basicsr.reporting.rows import read_rows
from ibmd_basicsr.utils.errors import exit_code, one_line
from ibmd_basicsr.utils.option_problems import Problems

REPOSITORY = Path(__file__).resolve().parents[2]
OTHER = {'ablations', 'zoo'}  # folders of other kinds of files
FILES = sorted(path for path in (REPOSITORY / 'options').rglob('*.yml') if not OTHER & set(path.parts))

NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 7, 64, 1000, 10**6, 10**9, 2**31, 2**63 - 1, 2**63, 10**30, -10**9, True, False]),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 1.5, -0.5, 1e-320, 1e-9, 1e9, 1e300, -1e300, float('inf'), float('-inf'), float('nan')]),
    st.integers(-10**4, 10**4), st.floats())
WORDS = ('ADMUNet I2SB VP VE L1Loss calculate_psnr FrechetDistance Diversity lmdb cuda bf16 EDSR UNetDiscriminatorSN VGGStyleDiscriminator '
         'PairedImageDataset few_step heun dbim StepLR auto null')
TEXTS = st.one_of(
    st.sampled_from(['', ' ', '~', 'x', '1', '1e-4', '-1', '.nan', '.inf', '1e999', '../..', '/dev/zero', '/', 'a' * 300, 'a\nb',
                     '\x1b[31m', 'ä', '\U0001f600', '!!python/object/apply:os.system [true]', '{}', '[', '%s', '{0}', 'a.b', '2001-01-01',
                     *WORDS.split()]),
    st.text(max_size=12), st.text(st.characters(categories=('Cc', 'Zl', 'Cf', 'So')), max_size=4))
LEAVES = st.one_of(st.none(), NUMBERS, TEXTS)
KEYS = st.one_of(st.sampled_from(['type', 'name', 'steps', 'weights', 'scale', 'x', 'train_2', 'val_2', 'a.b', '', 'phase', 'path',
                                  'gan_opt', 'network_d', 'optim_d', 'student', 'real_pairs', 'micro_batch', 'manual_seed', 'dist_params']),
                 st.text(max_size=6))
VALUES = st.one_of(LEAVES, st.recursive(LEAVES, lambda part: st.one_of(st.lists(part, max_size=3), st.dictionaries(KEYS, part, max_size=3)),
                                        max_leaves=6))
YAML_PIECES = st.one_of(
    st.sampled_from(list(' \n\t:-?,[]{}#&*!|>\'"%@`~.0\\\x00\x85\u2028\ufeff') + [
        '&a', '*a', '<<: *a', '!!python/name:os.system ', '!!binary ', '!!int ', '!!timestamp ', '!x ', '---\n', '...\n', '? ', '- ', ': ',
        '0x', '1:30', '2001-02-30', '"\\x00"', '&a [*a]', 'key: &a {b: *a}', '[' * 200, '{a: ' * 60, '9' * 5000,
        '%YAML 9.9\n---\n', '=', '<<']),
    st.text(max_size=5))


@dataclass(frozen=True)
class OptionCase:
    """An option file to try.

    Attributes:
        kind: ``train``, ``test`` or ``compare``: the command that reads it.
        text: of the file.
        origin: the shipped file that it was.
        changed: names in the path of the one value that was changed, empty if more or other things were.
    """

    kind: str
    text: str
    origin: str
    changed: tuple[str, ...] = ()


@functools.cache
def shipped(path: Path) -> tuple[str, str, dict[str, Any]]:
    """Return kind, text and content of a shipped option file."""
    kind = 'compare' if 'compare' in path.parts else 'test' if 'test' in path.parts else 'train'
    text = re.sub(r'^num_gpu: \d+', 'num_gpu: 0', path.read_text(encoding='utf-8'), flags=re.M)  # GPUs that are not here hide all else
    # YAML writes shared blocks as aliases; here every value is to change alone
    return kind, text, _own_blocks(yaml.safe_load(text))


def _own_blocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _own_blocks(item) for key, item in value.items()}
    return [_own_blocks(item) for item in value] if isinstance(value, list) else value


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Return the paths of everything inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in items:
        found += [(*path, key), *places(item, (*path, key))]
    return found


@st.composite
def option_cases(draw: st.DrawFn) -> OptionCase:
    """Draw a shipped file with one to four changes, of its content or of its text."""
    file = draw(st.sampled_from(FILES))
    kind, text, content = shipped(file)
    origin = str(file.relative_to(REPOSITORY))
    if draw(st.integers(0, 3)) == 0:
        return OptionCase(kind, draw(changed_text(text)), origin)
    opt = copy.deepcopy(content)
    number, changed = draw(st.sampled_from([1, 1, 1, 2, 3, 4])), ()
    for _ in range(number):
        path = draw(st.sampled_from(places(opt)))
        _change(draw, opt, path)
        changed = tuple(str(key) for key in path if isinstance(key, str))
    return OptionCase(kind, yaml.safe_dump(opt, sort_keys=False), origin, changed if number == 1 else ())


def _change(draw: st.DrawFn, opt: dict[str, Any], path: tuple) -> None:
    """Set, remove, add, rename or exchange what stands at ``path``."""
    *blocks, key = path
    block = opt
    for name in blocks:
        block = block[name]
    how = draw(st.sampled_from(['set', 'set', 'set', 'near', 'remove', 'add', 'exchange']))
    if how == 'set':
        block[key] = draw(VALUES)
    elif how == 'near' and isinstance(block[key], (int, float)):
        block[key] = draw(st.sampled_from([block[key] + 1, block[key] - 1, -block[key], block[key] * 1000, block[key] / 3, str(block[key]),
                                           [block[key]]]))
    elif how == 'remove':
        del block[key]
    elif how == 'add' and isinstance(block[key], dict):
        block[key][draw(KEYS)] = draw(VALUES)
    elif how == 'exchange':
        value = opt
        for name in draw(st.sampled_from(places(opt))):
            value = value[name]
        block[key] = copy.deepcopy(value)


@st.composite
def changed_text(draw: st.DrawFn, text: str) -> str:
    """Draw a text that differs from ``text`` in one to three places."""
    for _ in range(draw(st.integers(1, 3))):
        lines = text.splitlines(keepends=True) or ['']
        number = draw(st.integers(0, len(lines) - 1))
        line = lines[number]
        column = draw(st.integers(0, len(line)))
        how = draw(st.sampled_from(['insert', 'insert', 'delete', 'replace', 'drop', 'repeat', 'move', 'indent', 'cut']))
        if how in ('insert', 'delete', 'replace'):
            gone = 0 if how == 'insert' else draw(st.integers(1, 8))
            lines[number] = line[:column] + (draw(YAML_PIECES) if how != 'delete' else '') + line[column + gone:]
        elif how == 'drop':
            del lines[number]
        elif how == 'repeat':
            lines.insert(number, line)
        elif how == 'move':
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(number))
        elif how == 'indent':
            lines[number] = ' ' * draw(st.integers(0, 6)) + line.lstrip(' ')
        else:
            lines = lines[:number] + [line[:column]]
        text = ''.join(lines)
    return text


@functools.cache
def validator() -> jsonschema.Draft202012Validator:
    """Return the judge by the schema that editors use."""
    return jsonschema.Draft202012Validator(option_schema())


_networks: dict[str, ADMUNet] = {}


def _build_once(self: Problems, path: str, target: Any, block: dict[str, Any], build=Problems.build) -> Any:
    """Be ``Problems.build``, but build equal networks once: most cases leave them alone, and they take most of the time."""
    key = repr(block)
    if target is not ADMUNet or key not in _networks:
        net = build(self, path, target, block)
        if target is not ADMUNet or net is None:
            return net
        _networks[key] = net
        if len(_networks) > 200:
            _networks.pop(next(iter(_networks)))
    return _networks.get(key)


def read(case: OptionCase, folder: Path) -> None:
    """Read and check a file as its command does."""
    file = folder / 'options' / 'case.yml'
    file.parent.mkdir(exist_ok=True)
    # "surrogates" are texts that no file can hold
    file.write_bytes(case.text.encode('utf-8', 'replace'))
    if case.kind == 'compare':
        opt = normalise_numbers(read_option_file(file))
        read_rows(opt)
        load_image_sets(opt, 1)
        return
    is_train = case.kind == 'train'
    with (mock.patch.object(sys, 'argv', [case.kind, '-opt', str(file)]), mock.patch.object(Problems, 'build', _build_once),
          contextlib.redirect_stdout(io.StringIO())):
        parse_options(str(folder), is_train, prepare=prepare_options, describe=describe_run)


def try_case(case: OptionCase, folder: Path) -> str | None:
    """Return why a file was refused, None if it was accepted.

    Raises:
        Fault: neither.
    """
    try:
        with limits():
            read(case, folder)
    except SystemExit as error:
        raise fault_of(error) from error
    except (Fault, KeyboardInterrupt):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) or exit_code(error) is None:
            raise fault_of(error) from error
        message = one_line(error)
        check_message(message)
        return message
    return None


def check_options(case: OptionCase) -> str:
    """Check all properties of a case; return a word for what came of it.

    Raises:
        Fault: a property does not hold.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(REPOSITORY)
        refusal = try_case(case, folder)
        if refusal is not None:
            # YAML is named by line and column; files that are not here, by themselves
            named = any(re.search(rf'\b{re.escape(key)}\b', refusal) for key in (*case.changed, 'not valid YAML', 'no such'))
            if case.changed and not named:
                raise Fault('a message without the key', f'{".".join(case.changed)}: {refusal[:300]}')
            return 'refused: ' + re.sub(r"\d+|'[^']*'|\S*/\S*", '#', refusal)[:60]
        opt = normalise_numbers(read_option_file(folder / 'options' / 'case.yml'))
        if case.kind != 'compare' and opt['model_type'] in OWN_MODELS:
            for error in validator().iter_errors(opt):
                raise Fault('accepted, but not by the schema', f'{".".join(map(str, error.absolute_path))}: {error.message[:200]}')
        again = OptionCase(case.kind, yaml.safe_dump(opt, sort_keys=False), case.origin)
        refusal = try_case(again, folder)
        if refusal is not None:
            raise Fault('accepted, but not when written once more', refusal[:300])
        return 'accepted'
