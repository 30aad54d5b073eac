"""Weight files and training states: damaged, foreign, dishonest, or with code in them; given to every command that reads some."""
from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
import yaml
from tiny import NETWORK, options, write

from malformed.case import EXECUTED, Case, compare_options, test_options
from malformed.files import encoded

NAME = 'bad.pth'
KEY = 'params_ema'
ENTRANCE, BIAS = 'input_blocks.0.0.weight', 'input_blocks.0.0.bias'


class Call:
    """Unpickling it calls a function."""

    def __init__(self, function: Callable, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _params(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / 'teacher.pth', weights_only=True)[KEY]


def _saved(content: object, **how) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def _plain(content: bytes) -> Callable[[Path], bytes]:
    return lambda folder: content


def _object(content: object) -> Callable[[Path], bytes]:
    return lambda folder: _saved(content)


def _cut(keep: Callable[[int], int]) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        whole = (folder / 'teacher.pth').read_bytes()
        return whole[:keep(len(whole))]
    return make


def _weights(change: Callable[[dict], object], key: str | None = KEY, **how) -> Callable[[Path], bytes]:
    """Return a function that changes good weights; ``change`` may work in place."""
    def make(folder: Path) -> bytes:
        params = _params(folder)
        changed = change(params)
        params = params if changed is None else changed
        return _saved(params if key is None else {key: params}, **how)
    return make


def _set(name: object, value: Callable[[torch.Tensor], object]) -> Callable[[dict], None]:
    """Return a change of one weight; of a name that is not there, a new one."""
    def change(params: dict) -> None:
        params[name] = value(params.get(name, torch.zeros(1)))
    return change


def _each(value: Callable[[torch.Tensor], object]) -> Callable[[dict], dict]:
    return lambda params: {name: value(weight) for name, weight in params.items()}


def _archive(change: Callable[[str, bytes], bytes | None], method: int = zipfile.ZIP_STORED) -> Callable[[Path], bytes]:
    """Return a function that rewrites the records of a good file; None leaves a record out."""
    def make(folder: Path) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(folder / 'teacher.pth') as old, zipfile.ZipFile(buffer, 'w', method) as new:
            for record in old.namelist():
                content = change(record, old.read(record))
                if content is not None:
                    new.writestr(record, content)
        return buffer.getvalue()
    return make


@cache
def _inflated() -> bytes:
    """Return an archive of a few MB with a tensor of 3 GiB, compressed."""
    entry = _saved({KEY: {ENTRANCE: torch.zeros(4)}})
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(entry)) as old, zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for record in old.namelist():
            with new.open(record, 'w', force_zip64=True) as file:
                if record.endswith('data/0'):
                    for _ in range(3 * 64):
                        file.write(bytes(2**24))
                elif record.endswith('data.pkl'):
                    file.write(old.read(record).replace(b'K\x04', b'J' + struct.pack('<i', 3 * 2**28)))
                else:
                    file.write(old.read(record))
    return buffer.getvalue()


def _claims(folder: Path) -> bytes:
    """Return a file whose list of tensors speaks of 4 GiB, of which 16 bytes are there."""
    entry = _saved({KEY: {ENTRANCE: torch.zeros(4)}})
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(entry)) as old, zipfile.ZipFile(buffer, 'w') as new:
        for record in old.namelist():
            new.writestr(record, old.read(record).replace(b'K\x04', b'J' + struct.pack('<i', 2**30)))
    return buffer.getvalue()


def _safetensors(folder: Path) -> bytes:
    from safetensors.torch import save
    return save(_params(folder))


def _spoilt(head: bytes | None = None, length: int | None = None) -> Callable[[Path], bytes]:
    """Return a function that gives a safetensors file another head, or claims another length of it."""
    def make(folder: Path) -> bytes:
        whole = _safetensors(folder)
        size = struct.unpack('<Q', whole[:8])[0]
        own = whole[8:8 + size] if head is None else head
        return struct.pack('<Q', len(own) if length is None else length) + own + whole[8 + size:]
    return make


def _script(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # it is out of fashion
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


UNREADABLE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    'empty': (_plain(b''), 'empty'),
    'text': (_plain(b'These are not weights.\n'), 'cannot be read'),
    'page': (_plain(b'<!DOCTYPE html><html>404</html>'), 'cannot be read'),
    'pointer to a large file': (_plain(b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'), 'cannot be read'),
    'image': (_plain(encoded('PNG')), 'cannot be read'),
    'noise': (_plain(np.random.default_rng(0).bytes(5000)), 'cannot be read'),
    'zeros': (_plain(bytes(5000)), 'cannot be read'),
    'magic alone': (_plain(b'PK\x03\x04'), 'cannot be read'),
    'cut off in its head': (_cut(lambda size: 10), 'cannot be read'),
    'cut off in the middle': (_cut(lambda size: size // 2), 'cannot be read'),
    'cut off at its end': (_cut(lambda size: size - 1), 'cannot be read'),
    'archive of something else': (lambda folder: _zip({'readme.txt': b'hello'}), 'cannot be read'),
    'archive of nothing': (lambda folder: _zip({}), 'cannot be read'),
    'list of tensors gone': (_archive(lambda record, content: None if record.endswith('data.pkl') else content), 'cannot be read'),
    'list of tensors is text': (_archive(lambda record, content: b'hello' if record.endswith('data.pkl') else content), 'cannot be read'),
    'a tensor gone': (_archive(lambda record, content: None if record.endswith('data/0') else content), 'cannot be read'),
    'a tensor cut off': (_archive(lambda record, content: content[:4] if record.endswith('data/0') else content), 'cannot be read'),
    'inflating to 3 GiB': (lambda folder: _inflated(), 'would unpack to 322'),
    'claiming 4 GiB': (_claims, 'cannot be read'),
    'safetensors under another name': (_safetensors, 'safetensors'),
    'safetensors with a head of text': (_spoilt(b'{"hello'), 'cannot be read'),
    'safetensors with an endless head': (_spoilt(length=2**60), 'cannot be read'),
    'safetensors claiming 4 GiB': (_spoilt(json.dumps({ENTRANCE: {'dtype': 'F32', 'shape': [2**30], 'data_offsets': [0, 2**32]}}).encode()),
                                   'safetensors'),
    'code: os.system': (_object(Call(os.system, f'mkdir {EXECUTED}')), 'needs code to be run'),
    'code: os.mkdir among weights': (_weights(_set('extra', lambda _: Call(os.mkdir, EXECUTED))), 'needs code to be run'),
    'code: eval': (_object({KEY: Call(builtins.eval, f"__import__('os').mkdir('{EXECUTED}')")}), 'needs code to be run'),
    'code: exec in a list of lists': (_object([[[Call(builtins.exec, f"import os; os.mkdir('{EXECUTED}')")]]]), 'needs code to be run'),
    'code: import': (_object(Call(builtins.__import__, 'this')), 'needs code to be run'),
    'code: in a bare pickle': (_plain(pickle.dumps(Call(os.mkdir, EXECUTED))), 'refused'),
    'code: in a bare pickle of protocol 0': (_plain(pickle.dumps(Call(os.mkdir, EXECUTED), 0)), 'needs code to be run'),
    'code: in an old file': (lambda folder: _saved(Call(os.mkdir, EXECUTED), _use_new_zipfile_serialization=False), 'needs code to be run'),
    'code: TorchScript': (_script, 'needs code to be run'),
    'a whole network': (_object(torch.nn.Linear(2, 2)), 'needs code to be run'),
}
"""Files that no command can read, and the reason."""
UNFIT: dict[str, tuple[Callable[[Path], bytes], str]] = {
    'a list': (_object([1, 2]), 'holds a list'),
    'a tensor': (_object(torch.zeros(3)), 'holds a Tensor'),
    'a number': (_object(3), 'holds a int'),
    'nothing': (_object({}), 'has no'),
    'another key': (_weights(lambda params: None, 'weights'), "has no 'params_ema'"),
    'key that is a list': (_object({KEY: [1]}), 'is a list, not a dictionary'),
    'no weights': (_object({KEY: {}}), 'missing'),
    'a weight missing': (_weights(lambda params: {name: value for name, value in params.items() if name != BIAS}), '1 missing'),
    'a weight too many': (_weights(_set('extra', lambda _: torch.zeros(1))), '1 unknown'),
    'another network': (_object({KEY: torch.nn.Linear(3, 3).state_dict()}), 'missing'),
    'other names': (_weights(lambda params: {f'net.{name}': value for name, value in params.items()}), 'missing'),
    'names that are numbers': (_weights(lambda params: dict(enumerate(params.values()))), 'in place of a name|missing'),
    'names with line ends': (_weights(_set('two\nlines\x1b[31m', lambda _: torch.zeros(1))), '1 unknown'),
    'another shape': (_weights(_set(BIAS, lambda _: torch.zeros(9))), '1 of another shape'),
    'no shape': (_weights(_set(BIAS, lambda _: torch.tensor(0.0))), '1 of another shape'),
    'a list in place of a weight': (_weights(_set(BIAS, lambda weight: weight.tolist())), 'is a list, not a tensor'),
    'a dictionary in place of a weight': (_weights(_set(BIAS, lambda weight: {'a': weight})), 'is a dict, not a tensor'),
    'nothing in place of a weight': (_weights(_set(BIAS, lambda weight: None)), 'is a NoneType, not a tensor'),
    'integers': (_weights(_each(lambda weight: weight.long())), 'int64'),
    'complex numbers': (_weights(_each(lambda weight: weight.to(torch.complex64))), 'complex64'),
    'truth values': (_weights(_set(BIAS, lambda weight: weight > 0)), 'bool'),
    'a sparse weight': (_weights(_set(ENTRANCE, lambda weight: weight.to_sparse())), 'sparse'),
    'a weight without values': (_weights(_set(ENTRANCE, lambda weight: weight.to('meta'))), 'not in the file'),
    'a weight of one value': (_weights(_set(ENTRANCE, lambda weight: torch.zeros(1).expand_as(weight))), 'not in the file'),
    'a weight of terabytes': (_weights(_set('extra', lambda _: torch.zeros(1).expand(2**20, 2**20))), '1 unknown|not in the file'),
    'NaN': (_weights(_set(BIAS, lambda weight: weight * float('nan'))), 'not finite'),
    'infinity': (_weights(_set(BIAS, lambda weight: weight + float('inf'))), 'not finite'),
}
"""Files that can be read, and do not fit the network; and the reason. Each holds what is asked for under ``params_ema``."""
NO_FILE = 'no such|is a folder|no weight file'
MISSING: dict[str, tuple[Callable[[Path], object], str]] = {
    'missing': (lambda path: None, NO_FILE), 'folder': (Path.mkdir, NO_FILE), 'pipe': (os.mkfifo, NO_FILE),
    'dead link': (lambda path: path.symlink_to('nowhere'), NO_FILE), 'device': (lambda path: path.symlink_to('/dev/zero'), NO_FILE),
}


def _zip(records: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _state(**changes: object) -> Callable[[Path], bytes]:
    """Return a function that makes a training state of iteration 4 that lacks nothing but what ``changes`` says (None: left out)."""
    state = {'epoch': 0, 'iter': 4, 'optimizers': [], 'schedulers': []} | changes
    return _object({key: value for key, value in state.items() if value is not None})


STATES: dict[str, tuple[Callable[[Path], bytes], str]] = {name: UNREADABLE[name] for name in (
    'empty', 'text', 'cut off in the middle', 'inflating to 3 GiB', 'code: os.system', 'code: in a bare pickle', 'a whole network')} | {
    'a list': (_object([1]), 'holds a list'),
    'weights': (lambda folder: (folder / 'teacher.pth').read_bytes(), 'is no training state'),
    'no iteration': (_state(iter=None), 'lacks iter'),
    'iteration that is a word': (_state(iter='four'), 'iter'),
    'iteration that is negative': (_state(iter=-4), 'iter'),
    'networks that are not there': (_state(), 'net_g_4.pth'),
}
"""Training states, and the reason."""
BESIDE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    'no optimiser': (_state(), 'optimizers'),
    'optimisers that are a word': (_state(optimizers='x'), 'optimizers'),
    'optimisers of another kind': (_state(optimizers=[{'a': 1}], schedulers=[{}]), 'optimizers'),
    'schedules that are none': (_state(optimizers=[{'state': {}, 'param_groups': []}], schedulers=[3]), 'schedulers|optimizers'),
    'digests that are a list': (_state(sha256=[1]), 'sha256'),
}
"""States whose networks are beside them."""


def cases() -> Iterator[Case]:
    """Yield the checkpoints."""
    for name, (content, says) in (UNREADABLE | UNFIT | MISSING).items():
        yield Case(f'checkpoint/restore: {name}', 'restore', _given(content, _restore), NAME, says)
    some = ('empty', 'cut off in the middle', 'code: os.system', 'inflating to 3 GiB', 'claiming 4 GiB', 'a list', 'another key',
            'a weight missing', 'another shape', 'a list in place of a weight', 'NaN', 'folder', 'missing')
    commands = {'train': (_train, 2), 'teacher': (_teacher, 2), 'test': (_test, 2), 'compare': (_compare, 1), 'export': (_export, 2),
                'import_checkpoint': (_import, 2)}
    for command, (call, code) in commands.items():
        for name in some:
            content, says = (UNREADABLE | UNFIT | MISSING)[name]
            if command == 'import_checkpoint' and content in dict(UNFIT.values()):
                continue
            module = 'train' if command == 'teacher' else command
            yield Case(f'checkpoint/{command}: {name}', module, _given(content, call), NAME, says, code, COMPARED if code == 1 else ())
    for name, (content, says) in IMPORTED.items():
        yield Case(f'checkpoint/import_checkpoint: {name}', 'import_checkpoint', _given(content, _import), NAME, says)
    packed = _archive(lambda record, content: content, zipfile.ZIP_DEFLATED)
    yield Case('checkpoint/restore: compressed', 'restore', _given(packed, _restore), '', '', 0, ('good.png',))
    for name, (content, says) in STATES.items():
        file = 'net_g_4.pth' if 'networks' in name else '4.state'
        yield Case(f'checkpoint/resume: {name}', 'train', _resumed(content, False), file, says)
    for name, (content, says) in BESIDE.items():
        yield Case(f'checkpoint/resume: {name}', 'train', _resumed(content, True), '4.state', says)


IMPORTED: dict[str, tuple[Callable[[Path], bytes], str]] = {
    'a list': UNFIT['a list'],
    'nothing': (_object({}), 'is empty'),
    "BasicSR's form": (lambda folder: (folder / 'teacher.pth').read_bytes(), 'nothing to import'),
    'another network': (_object(torch.nn.Linear(3, 3).state_dict()), 'holds no network'),
    'a weight missing': (_weights(lambda params: {name: value for name, value in params.items() if name != BIAS}, None), 'missing'),
    'another shape': (_weights(_set(BIAS, lambda _: torch.zeros(9)), None), 'of another shape'),
    'a list in place of a weight': (_weights(_set(BIAS, lambda weight: weight.tolist()), None), 'is a list, not a tensor'),
    'names that are numbers': (_weights(lambda params: dict(enumerate(params.values())), None), 'in place of a name'),
    'integers': (_weights(_each(lambda weight: weight.long()), None), 'int64'),
    'NaN': (_weights(_set(BIAS, lambda weight: weight * float('nan')), None), 'not finite'),
    'a weight without values': (_weights(_set(ENTRANCE, lambda weight: weight.to('meta')), None), 'not in the file'),
    'average that is a word': (lambda folder: _saved({'net': _params(folder), 'ema': 'x'}), 'shadow_params'),
    'average of another length': (lambda folder: _saved({'net': _params(folder), 'ema': {'shadow_params': []}}), 'the EMA list has 0'),
    'ordered weights of nothing': (_object(OrderedDict()), 'is empty'),
}
"""Files for import_checkpoint, which takes weights without a key."""
COMPARED = ('grid.png', 'images', 'images/input', *(f'images/input/photo_{n}.png' for n in range(3)), 'report.html', 'results.csv',
            'results.jsonl', 'summary.csv', 'table.md')
"""What a comparison leaves whose bridge has failed: the other row."""


def _given(content: Callable[[Path], object], call: Callable[[Path], list]) -> Callable[[Path], list]:
    """Return a function that makes the file, of bytes for the folder or in its own way, and calls a command with it."""
    def make(folder: Path) -> list:
        path = folder / NAME
        if content in dict(MISSING.values()):
            content(path)
        else:
            path.write_bytes(content(folder))
        return call(folder)
    return make


def _restore(folder: Path) -> list:
    opt = options(folder, scale=1, val__sampler={'type': 'ancestral', 'steps': 2})
    return ['good.png', '-o', 'out', '--device', 'cpu', '-opt', write(folder, opt), '--weights', folder / NAME]


def _train(folder: Path) -> list:
    return ['-opt', write(folder, options(folder, path__pretrain_network_g=str(folder / NAME), path__param_key_g=KEY))]


def _teacher(folder: Path) -> list:
    return ['-opt', write(folder, options(folder, 'IBMDModel', teacher__weights=str(folder / NAME)))]


def _test(folder: Path) -> list:
    opt = test_options(folder)
    opt['path'] = {'pretrain_network_g': str(folder / NAME), 'param_key_g': KEY}
    return ['-opt', write(folder, opt)]


def _compare(folder: Path) -> list:
    opt = compare_options(folder)
    opt['restorers'][1]['weights'] = NAME
    (folder / 'compare.yml').write_text(yaml.safe_dump(opt))
    return ['-opt', 'compare.yml', '--device', 'cpu']


def _export(folder: Path) -> list:
    opt = options(folder, scale=1, val__sampler={'type': 'one_step'}, network_g=dict(NETWORK))
    return [NAME, '-opt', write(folder, opt), '-o', 'out.safetensors']


def _import(folder: Path) -> list:
    return [NAME, '--num_head_channels', 8, '--family', 'i2sb']


def _resumed(content: Callable[[Path], bytes], networks: bool) -> Callable[[Path], list]:
    """Return a function that makes a state, with networks beside it or not, and resumes from it."""
    def make(folder: Path) -> list:
        models, states = folder / 'experiments/tiny/models', folder / 'experiments/tiny/training_states'
        for place in (models, states):
            place.mkdir(parents=True)
        (states / '4.state').write_bytes(content(folder))
        if networks:
            params = _params(folder)
            torch.save({'params': params, KEY: params}, models / 'net_g_4.pth')
        return ['-opt', write(folder, options(folder, path__resume_state=str(states / '4.state')))]
    return make
