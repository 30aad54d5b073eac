"""What the option files of our models may say. Everything wrong with a file is found before anything is built."""
from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from basicsr.utils.registry import DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY

from ibmd_basicsr.bridges import Bridge
from ibmd_basicsr.compat.distributed import check_dist_params
from ibmd_basicsr.data.degradations import build_degradation
from ibmd_basicsr.data.degraded_image_dataset import DegradedImageDataset
from ibmd_basicsr.models.builders import checked_bridge, checked_network, checked_sampler
from ibmd_basicsr.models.learning_rules import check_extras, check_optimizer, check_scheduler, check_truth
from ibmd_basicsr.models.metric_rules import fill_directions, metric_problems, needs_truth
from ibmd_basicsr.models.option_keys import (
    ADDED_TO_PATH,
    ADDED_TO_TOP,
    IBMD_TOP,
    IBMD_TRAIN,
    LOGGER,
    OWN_MODELS,
    PATH,
    PATH_PREFIXES,
    TEACHER,
    TOP,
    TRAIN,
    VAL,
)
from ibmd_basicsr.models.option_values import make_whole, value_problems
from ibmd_basicsr.models.real_pairs import RealPairs
from ibmd_basicsr.models.student_options import StudentOptions
from ibmd_basicsr.models.switches import SWITCHES, compile_problems
from ibmd_basicsr.utils.errors import OptionError, hint
from ibmd_basicsr.utils.files import is_folder_name
from ibmd_basicsr.utils.numbers import is_integer, is_number
from ibmd_basicsr.utils.option_problems import Problems, shown


def prepare_options(opt: dict[str, Any], auto_gpu: bool, this_machine: bool = True) -> None:
    """Complete, then check the parsed options of :data:`OWN_MODELS`; those of other models only get the directions of our metrics.

    Args:
        opt: what the host's parser left, changed in place.
        auto_gpu: the file says ``num_gpu: auto``.
        this_machine: refuse what lacks GPUs here; False where nothing will be run.

    Raises:
        OptionError: all problems found, one a line.
    """
    if isinstance(opt.get('val'), dict):
        fill_directions(opt['val'].get('metrics'))
    if opt['model_type'] not in MODEL_REGISTRY:
        known = sorted(MODEL_REGISTRY.keys())
        raise OptionError(f'model_type: no model {opt["model_type"]!r} is registered{hint(opt["model_type"], known)} '
                          f'Registered: {", ".join(known)}.')
    if opt['model_type'] not in OWN_MODELS:
        return
    make_whole(opt)
    if auto_gpu and opt['num_gpu'] > 1 and not opt['dist']:
        opt['num_gpu'] = 1  # several GPUs are driven by one process each (torchrun), not by DataParallel
    teacher = opt.get('teacher')
    if opt['is_train'] and isinstance(teacher, dict) and 'network' in teacher and opt.get('network_bridge') is None:
        # like the teacher's unless said otherwise; written down, since the host resumes networks that the options name
        opt['network_bridge'] = copy.deepcopy(teacher['network'])
    train = opt['datasets'].get('train') if opt['is_train'] else None
    if isinstance(train, dict):
        # the host's loader starts its workers anew in every epoch, and with them their caches of photographs
        if train.get('persistent_workers') is None and train.get('num_worker_per_gpu'):
            train['persistent_workers'] = True
        # without, the copy to the GPU waits until the GPU has nothing else to do
        if train.get('pin_memory') is None and opt['num_gpu']:
            train['pin_memory'] = True
    check_options(opt, this_machine)


def check_options(opt: dict[str, Any], this_machine: bool = True) -> None:
    """Refuse options that :func:`find_problems` objects to (same arguments).

    Raises:
        OptionError: all problems found, one a line.
    """
    problems = find_problems(opt, this_machine)
    if len(problems) == 1:
        raise OptionError(problems[0])
    if problems:
        raise OptionError('\n  '.join([f'{len(problems)} problems in the option file:', *problems]))


def find_problems(opt: dict[str, Any], this_machine: bool = True) -> list[str]:
    """Return one line for each problem in the parsed options of one of :data:`OWN_MODELS`; see :func:`prepare_options`.

    Values of a wrong type are told alone: all else assumes that there are none.
    """
    return value_problems(opt, types_only=True) or _rule_problems(opt, this_machine) or value_problems(opt, types_only=False)


def _rule_problems(opt: dict[str, Any], this_machine: bool) -> list[str]:
    """Return what the schema of option files cannot say: keys with the nearest valid one, and what belongs together."""
    training, ibmd = opt['is_train'], opt['model_type'] == 'IBMDModel'
    required = ['scale', 'bridge', 'network_g'] + (['train', 'logger'] if training else ['val'])
    required += ['teacher'] if training and ibmd else []
    found = Problems(opt)
    found.keys('', TOP | (IBMD_TOP if ibmd else set()), required, added=ADDED_TO_TOP)
    found.positive('scale', integer=True)
    _check_gpus(opt, this_machine, found)
    try:
        check_dist_params(opt.get('dist_params'))
    except OptionError as error:
        found.append(str(error))
    bridge = _check_bridge(found)
    for block in ('network_g', 'network_bridge', 'teacher.network'):
        _check_network(block, bridge, this_machine, found)
    found.keys('teacher', TEACHER, ['network', 'weights'])
    _check_path(opt, found)
    if training:
        _check_train(opt, ibmd, found)
        _check_switches(opt, this_machine, found)
        _check_logger(found)
    _check_val(opt, training, bridge, this_machine, found)
    if 'train' not in opt['datasets'] if training else not opt['datasets']:
        found.append(f'datasets: missing {"train" if training else "a test set, such as test_1"}.')
    for block in ('datasets', 'val.metrics'):
        found.extend(f'{block}: a name without dots is needed, got {name!r}.' for name in found.get(block) or () if '.' in str(name))
    for phase in opt['datasets']:
        _check_dataset(opt, phase, this_machine, found)
    _check_names(opt, found)
    _check_labels(opt, found)
    return found


def _check_labels(opt: dict[str, Any], found: Problems) -> None:
    """Networks with classes need labels, others take none."""
    classes = found.get('network_g.num_classes')
    for phase, block in opt['datasets'].items():
        if not isinstance(block, dict) or block.get('type') != DegradedImageDataset.__name__:
            continue
        labelled = block.get('label_file') is not None
        if labelled and classes is None:
            found.append(f'datasets.{phase}.label_file: network_g has no num_classes and takes no labels, leave it out.')
        elif classes is not None and not labelled:
            found.append(f'datasets.{phase}.label_file: missing, network_g needs the class of each image (num_classes: {shown(classes)}).')


def _check_names(opt: dict[str, Any], found: Problems) -> None:
    """Names of test sets and the suffix of images become parts of paths; metrics and their best values are kept by the sets' names."""
    suffix = found.get('val.suffix')
    if suffix is not None and not is_folder_name(f'image_{suffix}'):
        found.append(f'val.suffix: becomes part of file names, without slashes, got {shown(suffix)}.')
    first: dict[str, str] = {}
    for phase, block in opt['datasets'].items():
        name = block.get('name') if isinstance(block, dict) and not phase.startswith('train') else None
        if name is None:
            continue
        if not is_folder_name(name):
            found.append(f'datasets.{phase}.name: names a folder of images, got {shown(name)}.')
        elif first.setdefault(name, phase) != phase:
            found.append(f'datasets.{phase}.name: {shown(name)} is the name of datasets.{first[name]}, too: give each test set its own.')


def _check_gpus(opt: dict[str, Any], this_machine: bool, found: Problems) -> None:
    number, present = opt['num_gpu'], torch.cuda.device_count()
    if not is_integer(number, least=0):
        found.append(f"num_gpu: must be 'auto', 0 or a number of GPUs, got {number!r}.")
    elif not this_machine:
        return
    elif number > present:
        found.append(f'num_gpu: {number} asked for, {present} found on this machine; auto takes what there is, 0 runs on the CPU.')
    elif number > 1 and not opt['dist']:
        found.append(f'num_gpu: {number} GPUs are driven by one process each: torchrun --nproc_per_node={number} -m ibmd_basicsr.train '
                     '-opt ... --launcher pytorch')


def _check_bridge(found: Problems) -> Bridge | None:
    """Check the bridge and return it, None if there is something wrong with it."""
    block = found.block('bridge')
    return None if block is None else _or_problem(found, checked_bridge, block, 'bridge')


def _check_network(path: str, bridge: Bridge | None, this_machine: bool, found: Problems) -> None:
    block = found.block(path)
    net = None if block is None else _or_problem(found, checked_network, block, path, this_machine)
    if net is not None and bridge is not None and (net.cond_channels > 0) != bridge.conditional:
        found.append(f'{path}.cond_channels: must be {net.in_channels if bridge.conditional else 0} with bridge.conditional: '
                     f'{str(bridge.conditional).lower()}, got {net.cond_channels}.')


def _or_problem(found: Problems, check: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a check returns, None where it objects, which is a problem then."""
    try:
        return check(*arguments)
    except OptionError as error:
        found.append(str(error))
        return None


def _check_path(opt: dict[str, Any], found: Problems) -> None:
    # the host makes a folder of every key that it does not know, hence teacher weights are not given here
    networks = [key.removeprefix('network_') for key in opt if key.startswith('network_')]
    allowed = {f'{prefix}{name}' for prefix in PATH_PREFIXES for name in networks}
    found.keys('path', PATH | allowed, added=ADDED_TO_PATH)
    ignored = found.get('path.ignore_resume_networks')
    if ignored is not None and not isinstance(ignored, (list, tuple)):
        found.append(f'path.ignore_resume_networks: must be a list such as [network_g], got {ignored!r}.')
    for root in ('experiments_root', 'results_root'):
        # given but empty, the host would make a folder of it in the phase that does not fill it in
        if root in opt['path'] and opt['path'][root] is None:
            found.append(f'path.{root}: must name a folder or be left out.')


def _check_train(opt: dict[str, Any], ibmd: bool, found: Problems) -> None:
    losses = {'bridge_opt': 'BridgeMatchingLoss'} | ({'ibmd_opt': 'InverseBridgeLoss'} if ibmd else {})
    optimizers = ['optim_g'] + (['optim_bridge'] if ibmd else [])
    found.keys('train', TRAIN | (IBMD_TRAIN if ibmd else set()), [*optimizers, *losses, 'scheduler', 'total_iter'])
    for name in optimizers:
        check_optimizer(f'train.{name}', found)
    check_scheduler(found)
    for name, kind in losses.items():
        path = f'train.{name}'
        block = found.block(path)
        if block is not None and found.choice(f'{path}.type', (kind,)):
            loss = LOSS_REGISTRY.get(kind)
            if found.signature(path, loss, {'type'}):
                found.build(path, loss, block)
    found.positive('train.total_iter', integer=True)
    found.positive('train.grad_clip')
    found.positive('train.bridge_updates_per_student', integer=True)
    share = found.get('train.share_generator_pass', False)
    if not isinstance(share, bool):
        found.append(f'train.share_generator_pass: must be true or false, got {share!r}.')
    student = found.block('train.student')
    if student is not None and found.signature('train.student', StudentOptions):
        found.build('train.student', StudentOptions, student)
    pairs = found.block('train.real_pairs')
    if pairs is not None and found.signature('train.real_pairs', RealPairs):
        found.build('train.real_pairs', RealPairs, pairs)
        check_truth('train.real_pairs', found)
    if ibmd:
        check_extras(opt, found)
        wanted, given = int(found.get('train.student.tell_bridge') is True), found.get('network_bridge.noise_channels', 0)
        if given != wanted:
            found.append(f'network_bridge.noise_channels: must be {wanted} with train.student.tell_bridge: {str(bool(wanted)).lower()}, '
                         f'got {given}.')
    micro, batch = found.get('train.micro_batch'), found.get('datasets.train.batch_size_per_gpu')
    found.positive('train.micro_batch', integer=True)
    if isinstance(micro, int) and isinstance(batch, int) and micro > 0 and batch % micro:
        found.append(f'train.micro_batch: must divide datasets.train.batch_size_per_gpu ({batch}), got {micro}.')
    shard = found.get('train.shard_optimizer')
    if shard is not None and not isinstance(shard, bool):
        found.append(f'train.shard_optimizer: must be true or false, got {shard!r}.')
    warmup = found.get('train.warmup_iter')
    if warmup is not None and not is_number(warmup):
        found.append(f'train.warmup_iter: must be a number of iterations, or -1 for none, got {warmup!r}.')
    decay = found.get('train.ema_decay')
    if decay is not None and not (is_number(decay) and 0 <= decay < 1):
        found.append(f'train.ema_decay: must lie in [0, 1), got {decay!r}.')


def _check_switches(opt: dict[str, Any], this_machine: bool, found: Problems) -> None:
    good = {name: found.get(f'train.{name}') is None or found.choice(f'train.{name}', choices) for name, choices in SWITCHES.items()}
    if this_machine and good['compile']:
        found.extend(compile_problems(found.get('train.compile'), 'cuda' if opt['num_gpu'] else 'cpu'))


def _check_logger(found: Problems) -> None:
    found.keys('logger', LOGGER, ['print_freq', 'save_checkpoint_freq', 'use_tb_logger'])
    for key in ('print_freq', 'save_checkpoint_freq', 'keep_checkpoints'):
        found.positive(f'logger.{key}', integer=True)
    wandb = found.block('logger.wandb')
    if wandb and wandb.get('project') is not None and not found.get('logger.use_tb_logger'):
        found.append('logger.wandb: needs use_tb_logger: true.')


def _check_val(opt: dict[str, Any], training: bool, bridge: Bridge | None, this_machine: bool, found: Problems) -> None:
    found.keys('val', VAL, ['save_img', 'val_freq'] if training else ['save_img'])
    found.positive('val.val_freq', integer=True)
    sampler = found.block('val.sampler')
    if sampler is not None:
        _or_problem(found, checked_sampler, sampler, bridge, 'val.sampler')
    metrics = found.block('val.metrics')
    for name in metrics or ():
        block = found.block(f'val.metrics.{name}')
        if block is None:
            if metrics[name] is None:
                found.append(f'val.metrics.{name}: must be a block of keys, got None.')
            continue
        problems = metric_problems(f'val.metrics.{name}', block, this_machine)
        if not problems and needs_truth(block):
            problems = [f'val.metrics.{name}: {block["type"]} compares with clean images, which datasets.{phase} does not have; '
                        'leave it out, or give dataroot_gt.' for phase in _phases_without_truth(opt)]
        found.extend(problems)


def _phases_without_truth(opt: dict[str, Any]) -> list[str]:
    """Return the phases other than train whose data sets hand out no clean images."""
    blocks = {phase: block for phase, block in opt['datasets'].items() if isinstance(block, dict) and not phase.startswith('train')}
    return [phase for phase, block in blocks.items() if block.get('type') == DegradedImageDataset.__name__
            and not block.get('return_gt', block.get('dataroot_lq') is None)]


def _check_dataset(opt: dict[str, Any], phase: str, this_machine: bool, found: Problems) -> None:
    path, kind = f'datasets.{phase}', phase.split('_')[0]
    block = found.block(path)
    if block is None:
        return
    expected = ('train', 'val') if opt['is_train'] else ('test', 'val')
    if kind not in expected:
        found.append(f'{path}: phases here are {" and ".join(expected)}, each also with a number (val_2), got {phase!r}.')
    if block.get('type') not in DATASET_REGISTRY:
        known = ', '.join(sorted(DATASET_REGISTRY.keys()))
        found.append(f'{path}.type: no dataset {block.get("type")!r} is registered. Registered: {known}.')
    elif block['type'] == DegradedImageDataset.__name__:
        found.keys(path, set(DegradedImageDataset.OPTIONS), ['name'])
        if block.get('degradation') is not None:
            try:
                build_degradation(copy.deepcopy(block['degradation']), f'{path}.degradation')
            except OptionError as error:
                found.append(str(error))
    if kind == 'train':
        found.positive(f'{path}.dataset_enlarge_ratio')
        for key in ('batch_size_per_gpu', 'num_worker_per_gpu'):
            least = int(key == 'batch_size_per_gpu')
            if not is_integer(block.get(key), least):
                found.append(f'{path}.{key}: must be {"a positive integer" if least else "0 or more"}, got {block.get(key)!r}.')
        if block.get('persistent_workers') and not block.get('num_worker_per_gpu'):
            found.append(f'{path}.persistent_workers: needs num_worker_per_gpu of at least 1.')
    elif block.get('persistent_workers'):
        found.append(f'{path}.persistent_workers: the host loads {kind} images in the main process, leave it out.')
    _check_prefetch(opt, path, block, this_machine, found)


def _check_prefetch(opt: dict[str, Any], path: str, block: dict[str, Any], this_machine: bool, found: Problems) -> None:
    mode = block.get('prefetch_mode')
    if mode == 'cpu':
        found.append(f'{path}.prefetch_mode: cpu waits for ever when an image cannot be read; use ~ (or cuda on a GPU).')
    elif mode == 'cuda' and (opt['num_gpu'] == 0 or (this_machine and not torch.cuda.is_available())):
        found.append(f'{path}.prefetch_mode: cuda needs a GPU; use ~.')
    elif mode == 'cuda' and not block.get('pin_memory'):
        found.append(f'{path}.prefetch_mode: cuda needs pin_memory: true.')
    elif mode not in (None, 'cuda'):
        found.append(f"{path}.prefetch_mode: must be ~ or 'cuda', got {mode!r}.")
