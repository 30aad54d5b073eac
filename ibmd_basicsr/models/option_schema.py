"""JSON schema of the option files of our models, for editors: made of what :mod:`~ibmd_basicsr.models.option_rules` checks.

Keys, types and defaults are those of the classes that the blocks are handed to; texts are those of their docstrings. A schema cannot say
all that the rules say (that periods reach ``total_iter``, say): a file that passes here may still be refused at the start of a run.
"""
from __future__ import annotations

import collections.abc
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection
from typing import Any

import torch
from basicsr.utils.registry import DATASET_REGISTRY, LOSS_REGISTRY

from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.bridges import HOLES, SCHEDULES, bridge_options
from ibmd_basicsr.data.degradations import DEGRADATIONS
from ibmd_basicsr.data.degraded_image_dataset import DegradedImageDataset
from ibmd_basicsr.losses.bridge_loss import TIME_WEIGHT_NAMES
from ibmd_basicsr.metrics.catalogue import find_metric, metric_types
from ibmd_basicsr.models import option_keys
from ibmd_basicsr.models.bridge_model import OPTIMIZERS
from ibmd_basicsr.models.extras import EXTRA_LOSSES, GAN_TYPES
from ibmd_basicsr.models.metric_rules import FROM_VALIDATION
from ibmd_basicsr.models.real_pairs import RealPairs
from ibmd_basicsr.models.student_options import StudentOptions
from ibmd_basicsr.models.switches import SWITCHES
from ibmd_basicsr.restorer import SamplerOptions
from ibmd_basicsr.utils.option_check import option_parameters

Schema = dict[str, Any]

SIMPLE = {int: 'integer', float: 'number', str: 'string', bool: 'boolean', dict: 'object', list: 'array', tuple: 'array',
          type(None): 'null'}
SECTION = re.compile(r'(Args|Attributes|Options)\b.*:')
ENTRY = re.compile(r'((?:\w+, )*\w+): (.*)')

TEXTS = {
    # top level
    'name': 'Name of the run and of its folder in experiments/ or results/.',
    'model_type': 'BridgeModel trains or tests a teacher, IBMDModel distils one; other models are those of BasicSR.',
    'scale': 'Enlargement of super-resolution, 1 for other tasks.',
    'num_gpu': 'auto: the GPUs there are, or the CPU; 0: the CPU; several GPUs are driven by one process each (torchrun).',
    'manual_seed': 'Seed of all noise, crops and orders.',
    'find_unused_parameters': 'Of DistributedDataParallel; default false.',
    'dist_params': 'backend (nccl or gloo) and port of the process group.',
    'datasets': 'train, val, val_2, ... for training; test, test_2, val, ... for testing.',
    'network_g': 'The network that is trained or tested.',
    'network_bridge': "Bridge network of the distillation; default: like the teacher's.",
    'network_d': 'Discriminator, with train.gan_opt.',
    'path': 'Weights to start from and where results go. The host makes a folder of other keys, so that they are refused.',
    'train': 'Losses, optimisers, schedules.',
    'val': 'Validation, or what a test measures.',
    'logger': 'Logs and checkpoints.',
    'bridge': 'Schedule and preconditioner of the diffusion bridge.',
    'teacher': 'The trained bridge that is distilled: network, weights, param_key.',
    # path
    'resume_state': 'A .state file to go on from; --auto_resume finds the newest.',
    'ignore_resume_networks': 'Networks that a resumed run does not load, such as [network_d].',
    'experiments_root': 'Folder of the experiments, in place of experiments/ beside options/.',
    'results_root': 'Folder of the results, in place of results/ beside options/.',
    # train
    'ema_decay': 'Decay of the exponential moving average of net_g, in [0, 1); 0: none.',
    'amp': 'auto: bf16 where it is faster; bf16; false: float32.',
    'compile': 'true: torch.compile for student, bridge network and teacher; eager, aot_eager: its first stages alone, to find faults.',
    'tf32': "Whether a GPU may round the factors of float32 products to 10 bits; none: torch's choice.",
    'channels_last': 'Convolutions with the channels innermost in memory; auto: with bf16 on CPUs.',
    'shard_optimizer': 'Optimiser states shared out over the processes.',
    'share_generator_pass': "The last bridge update of a cycle and the student's learn from one pass of the student.",
    'grad_clip': 'Largest norm of the gradient; none by default.',
    'micro_batch': 'Images that go through the networks at once; divides batch_size_per_gpu, gradients are summed.',
    'optim_g': 'Optimiser of net_g.',
    'optim_bridge': 'Optimiser of net_bridge.',
    'optim_d': 'Optimiser of net_d.',
    'scheduler': 'Learning rates over the iterations of the host.',
    'total_iter': 'Number of iterations.',
    'warmup_iter': 'Iterations of linear warm-up; -1: none.',
    'bridge_opt': 'Loss of bridge matching.',
    'ibmd_opt': "The student's loss of inverse bridge matching.",
    'bridge_updates_per_student': "K: updates of the bridge network before each of the student's; default 5.",
    'student': 'Number of steps of the student, and how it is trained for them.',
    'real_pairs': 'The bridge network learns from real pairs, too.',
    'pixel_opt': "A loss of pixels on the student's clean images.",
    'perceptual_opt': "A perceptual loss on the student's clean images.",
    'gan_opt': "An adversarial loss on the student's clean images; needs network_d and optim_d.",
    # teacher
    'network': 'Block of a network.',
    'weights': 'Checkpoint of BasicSR.',
    'param_key': 'Which weights of the file: params_ema (default) or params.',
    # logger
    'print_freq': 'Iterations between two lines of the log.',
    'save_checkpoint_freq': 'Iterations between two checkpoints.',
    'keep_checkpoints': 'How many checkpoints are kept, the newest; default: all.',
    'use_tb_logger': 'Write tb_logger/NAME for tensorboard.',
    'wandb': 'project and resume_id of Weights & Biases; needs use_tb_logger.',
    # val
    'val_freq': 'Iterations between two validations.',
    'save_img': 'Keep the restored images.',
    'suffix': "Ending of their names, in place of the run's name.",
    'pbar': 'Show a progress bar; default true.',
    'metrics': 'Blocks with a type, by the name of their column: metrics of an image, of sets, diversity.',
    'sampler': 'How images are restored.',
    # bridge
    'type': 'What the block is of.',
    'conditional': 'x_T is an extra input of the networks.',
    'hole': 'What x_T holds where pixels are missing: keep (what the data set filled in) or noise, drawn anew each time.',
    'better': 'higher or lower: follows from the metric where it is one of ours or of BasicSR.',
    # data sets, the host's part
    'dataset_enlarge_ratio': 'Passes over the images that count as an epoch.',
    'num_worker_per_gpu': 'Processes that load images.',
    'batch_size_per_gpu': 'Images of an iteration, for each process.',
    'prefetch_mode': '~, or cuda on a GPU with pin_memory: true.',
    'num_prefetch_queue': 'Of prefetch_mode: cpu, which is refused.',
    'pin_memory': 'Page-locked batches, which reach a GPU faster.',
    'persistent_workers': 'Keep the loading processes from one epoch to the next.',
    'phase': 'Set by the host.', 'start_iter': 'Set by the host.',
}
"""What no docstring says about a key."""


def option_schema() -> Schema:
    """Return the schema (draft 2020-12) of option files for training and testing; of models of BasicSR only the top level is described."""
    ours = [{'if': {'properties': {'model_type': {'const': model}}, 'required': ['model_type']}, 'then': _model(model == 'IBMDModel')}
            for model in option_keys.OWN_MODELS]
    return {'$schema': 'https://json-schema.org/draft/2020-12/schema', 'title': 'Option file of ibmd_basicsr',
            'description': 'Made by scripts/option_schema.py; what a run checks beyond it: ibmd_basicsr/models/option_rules.py.',
            'type': 'object', 'required': ['name', 'model_type', 'num_gpu', 'datasets', 'path'],
            'properties': {'model_type': {'type': 'string', 'description': TEXTS['model_type']}}, 'allOf': ours,
            '$defs': {'network': _network(), 'dataset': _dataset(), 'optimizer': _optimizer(), 'metric': _metric()}}


def _model(ibmd: bool) -> Schema:
    networks = ('g', 'bridge', 'd') if ibmd else ('g',)
    keys = option_keys.TOP | (option_keys.IBMD_TOP if ibmd else set())
    known = {
        'scale': {'type': 'integer', 'minimum': 1}, 'num_gpu': {'anyOf': [{'const': 'auto'}, {'type': 'integer', 'minimum': 0}]},
        'name': {'type': 'string'}, 'model_type': {'type': 'string'}, 'manual_seed': {'type': ['integer', 'null']},
        'find_unused_parameters': {'type': 'boolean'}, 'dist_params': _open_block(),
        'network_g': _ref('network'), 'network_bridge': _ref('network'), 'network_d': _open_block(),
        'bridge': _bridge(), 'datasets': {'type': 'object', 'additionalProperties': _ref('dataset')}, 'path': _path(networks),
        'train': _train(ibmd), 'val': _val(), 'logger': _logger(),
        'teacher': _block({'network': _ref('network'), 'weights': {'type': 'string'}, 'param_key': {'type': 'string'}},
                          ['network', 'weights']),
    }
    return _block({key: known[key] for key in sorted(keys)}, ['bridge', 'network_g', 'scale'])


def _network() -> Schema:
    return _typed({ADMUNet.__name__: _parameters(ADMUNet)})


def _bridge() -> Schema:
    own = {'conditional': {'type': 'boolean', 'default': False}, 'hole': {'enum': list(HOLES), 'default': 'keep'}}
    kinds = {}
    for kind in SCHEDULES:
        found: dict[str, Schema] = {}
        for target in SCHEDULES[kind]:
            found |= {name: schema for name, schema in _parameters(target).items() if name in bridge_options(kind)}
        kinds[kind] = found | own
    return _typed(kinds)


def _dataset() -> Schema:
    texts = _texts(DegradedImageDataset)
    shapes: dict[str, Schema] = {
        'io_backend': _block({'type': {'enum': ['disk', 'lmdb']}}, open_=True) | {'type': ['object', 'null']},
        'degradation': _degradation(), 'manual_seed': {'type': ['integer', 'null'], 'minimum': 0},
        **{name: {'type': 'boolean'} for name in ('use_hflip', 'use_rot', 'return_gt', 'cache')},
        **{name: {'type': ['boolean', 'null']} for name in ('pin_memory', 'persistent_workers')},
        **{name: {'type': 'integer', 'minimum': 1} for name in ('gt_size', 'crop_multiple', 'detail_crops', 'batch_size_per_gpu', 'scale')},
        **{name: {'type': 'integer', 'minimum': 0} for name in ('num_worker_per_gpu', 'start_iter', 'num_prefetch_queue')},
        'dataset_enlarge_ratio': {'type': 'number'}, 'prefetch_mode': {'enum': [None, 'cuda']}}
    keys = {name: _with_text(shapes.get(name, {'type': ['string', 'null']}), name, texts) for name in sorted(
        DegradedImageDataset.OPTIONS) if name != 'type'}
    known = sorted(DATASET_REGISTRY.keys())
    common = {key: keys[key] for key in ('dataroot_gt', 'dataroot_lq', 'io_backend', 'meta_info_file')}  # of the host's sets, too
    return {'type': 'object', 'required': ['type'], 'properties': {'type': {'enum': known}, **common},
            'if': {'properties': {'type': {'const': DegradedImageDataset.__name__}}},
            'then': _block(keys | {'type': {'type': 'string', 'description': inspect.getdoc(DegradedImageDataset).splitlines()[0]}})}


def _degradation() -> Schema:
    return _typed({kind: _parameters(target) for kind, target in DEGRADATIONS.items()})


def _path(networks: Collection[str]) -> Schema:
    text, null = {'type': ['string', 'null']}, {'type': ['array', 'null'], 'items': {'type': 'string'}}
    keys: dict[str, Schema] = {key: dict(null if key == 'ignore_resume_networks' else text) for key in sorted(option_keys.PATH)}
    for name in networks:
        keys |= {f'pretrain_network_{name}': {'type': ['string', 'null'], 'description': f'Weights that net_{name} starts from.'},
                 f'param_key_{name}': {'type': 'string', 'description': 'Which weights of the file: params or params_ema.'},
                 f'strict_load_{name}': {'const': True, 'description': 'Weights either fit or are refused.'}}
    return _block(keys)


def _train(ibmd: bool) -> Schema:
    positive = {'type': 'integer', 'minimum': 1}
    losses = {name: _typed({kind: _parameters(LOSS_REGISTRY.get(kind)) for kind in kinds})
              for name, kinds in (('bridge_opt', ['BridgeMatchingLoss']), ('ibmd_opt', ['InverseBridgeLoss']), *EXTRA_LOSSES.items())}
    for block, key, choices in (('bridge_opt', 'time_weight', TIME_WEIGHT_NAMES), ('ibmd_opt', 'time_weight', TIME_WEIGHT_NAMES),
                                ('gan_opt', 'gan_type', GAN_TYPES)):
        losses[block]['allOf'][0]['then']['properties'][key]['enum'] = list(choices)
    known: dict[str, Schema] = {
        'ema_decay': {'type': 'number', 'minimum': 0, 'exclusiveMaximum': 1},
        **{name: {'enum': [*values, None]} for name, values in SWITCHES.items()},
        'grad_clip': {'type': ['number', 'null'], 'exclusiveMinimum': 0}, 'micro_batch': positive | {'type': ['integer', 'null']},
        'total_iter': positive,
        'shard_optimizer': {'type': 'boolean'}, 'share_generator_pass': {'type': 'boolean'},
        'warmup_iter': {'type': 'number'}, 'bridge_updates_per_student': positive,
        'scheduler': _typed({kind: _parameters(target, ('optimizer', 'last_epoch')) for kind, target in option_keys.SCHEDULERS.items()}),
        'student': _optional(_parameters(StudentOptions)), 'real_pairs': _optional(_parameters(RealPairs)),
        **dict.fromkeys(('optim_g', 'optim_bridge', 'optim_d'), _ref('optimizer')), **losses}
    keys = option_keys.TRAIN | (option_keys.IBMD_TRAIN if ibmd else set())
    return _block({key: known[key] for key in sorted(keys)})


def _optimizer() -> Schema:
    return _typed({kind: _parameters(getattr(torch.optim, kind), ('params',)) for kind in OPTIMIZERS})


def _metric() -> Schema:
    better = {'better': {'enum': ['higher', 'lower'], 'description': TEXTS['better']}}
    kinds = {name: _parameters(find_metric(name).target, FROM_VALIDATION) | better for name in metric_types()}
    return _typed(kinds) | {'type': 'object'}


def _val() -> Schema:
    sampler = _parameters(SamplerOptions)
    sampler['type']['enum'] = list(SamplerOptions.TYPES)
    return _block({'val_freq': {'type': 'integer', 'minimum': 1}, 'save_img': {'type': 'boolean'}, 'suffix': {'type': ['string', 'null']},
                   'pbar': {'type': 'boolean'}, 'metrics': {'type': ['object', 'null'], 'additionalProperties': _ref('metric')},
                   'sampler': _optional(sampler)})


def _logger() -> Schema:
    positive = {'type': 'integer', 'minimum': 1}
    known = {'print_freq': positive, 'save_checkpoint_freq': positive, 'keep_checkpoints': positive | {'type': ['integer', 'null']},
             'use_tb_logger': {'type': 'boolean'}, 'wandb': _open_block()}
    return _block({key: known[key] for key in sorted(option_keys.LOGGER)})


def _block(keys: dict[str, Schema], required: Collection[str] = (), *, open_: bool = False) -> Schema:
    """Return the schema of a block with just these keys (with others, too, if it is open), each with a text."""
    properties = {key: _with_text(schema, key) for key, schema in keys.items()}
    schema: Schema = {'type': 'object', 'properties': properties, 'additionalProperties': open_}
    return schema | ({'required': sorted(required)} if required else {})


def _optional(keys: dict[str, Schema]) -> Schema:
    """Return the schema of a block that ~ leaves out."""
    return _block(keys) | {'type': ['object', 'null']}


def _ref(name: str) -> Schema:
    return {'$ref': f'#/$defs/{name}'}


def _open_block() -> Schema:
    return {'type': ['object', 'null']}


def _typed(kinds: dict[str, dict[str, Schema]]) -> Schema:
    """Return the schema of a block whose ``type`` says which other keys it has; ~ leaves it out."""
    return {'type': ['object', 'null'], 'required': ['type'], 'properties': {'type': {'enum': list(kinds)}},
            'allOf': [{'if': {'type': 'object', 'properties': {'type': {'const': kind}}, 'required': ['type']},
                       'then': _block(keys | {'type': {'const': kind}})} for kind, keys in kinds.items()]}


def _with_text(schema: Schema, key: str, texts: dict[str, str] | None = None) -> Schema:
    text = (texts or {}).get(key) or schema.get('description') or TEXTS.get(key)
    return schema | ({'description': text} if text else {})


def _parameters(target: Callable, hidden: Collection[str] = ()) -> dict[str, Schema]:
    """Return a schema for each parameter that options can set: type by its annotation, text by the docstring, default by the signature."""
    names, _ = option_parameters(target, hidden)
    holder = target if not inspect.isclass(target) else target.__init__
    try:
        hints = typing.get_type_hints(holder)
    except (NameError, TypeError):  # annotations that only a type checker can see
        hints = {}
    texts, signature = _texts(target), inspect.signature(target)
    schemas = {}
    for name in names:
        schema = _of_hint(hints.get(name, Any))
        default = signature.parameters[name].default
        if isinstance(default, (bool, int, float, str)):
            schema = schema | {'default': default}
        schemas[name] = _with_text(schema, name, texts)
    return schemas


def _of_hint(hint: Any) -> Schema:
    """Return the schema of a value with a Python annotation; empty (anything) where JSON has no such type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        schemas = [_of_hint(part) for part in parts]
        simple = [schema['type'] for schema in schemas if set(schema) == {'type'}]
        if len(simple) == len(schemas):
            return {'type': simple}
        return {} if {} in schemas else {'anyOf': schemas}
    if isinstance(origin, type) and issubclass(origin, collections.abc.Sequence):
        items = [_of_hint(part) for part in parts[:1]]
        return {'type': 'array'} | ({'items': items[0]} if items and items[0] else {})
    return {'type': SIMPLE[hint]} if hint in SIMPLE else {}


def _texts(target: Callable) -> dict[str, str]:
    """Return what the docstring of a class or function says about each argument, attribute or option, in one line each."""
    # a class inherits what its bases say
    holders = [part for base in reversed(target.__mro__) for part in (base, base.__init__)] if inspect.isclass(target) else [target]
    found: dict[str, list[str]] = {}
    for holder in holders:
        inside, current = False, []
        for line in inspect.cleandoc(holder.__doc__ or '').splitlines():
            indent, text = len(line) - len(line.lstrip()), line.strip()
            if not indent and text:
                inside = SECTION.fullmatch(text) is not None
            elif inside and indent == 4 and (entry := ENTRY.fullmatch(text)):
                current = [entry[2]]
                found |= dict.fromkeys(entry[1].split(', '), current)
            elif inside and text and current:
                current.append(text)
    return {name: plain(' '.join(lines)) for name, lines in found.items()}


def plain(text: str) -> str:
    """Return a docstring's text without its markup: roles, backquotes."""
    return re.sub(r':\w+:`~?([^`]*)`', lambda match: match[1].rpartition('.')[2], text).replace('``', '')
