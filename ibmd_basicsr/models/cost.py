"""What training costs, from the options alone: passes, FLOPs and memory of an iteration.

Networks are built and run under ``FakeTensorMode``: tensors with shape, dtype and device (here the CPU's) on meta storage, without memory
or arithmetic. The plain meta device would do for float32, but autocast does not see it.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ibmd_basicsr.archs.adm_layers import ResBlock
from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.models.builders import find_arch
from ibmd_basicsr.models.ibmd_model import StudentOptions
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.option_check import build_from_options

FORWARD = 'forward'
ROLLOUT = 'forward, rollout'
LEARN = 'forward, backward'
THROUGH = 'forward, backward to the input'
FORWARDS = {FORWARD: 1, ROLLOUT: 1, LEARN: 3, THROUGH: 2}
"""Kinds of passes, and what they cost in forward passes: a backward costs one for the inputs of all layers and one for the parameters."""


def _attention(query, key, value, *_, out_shape=None, **__) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient, query, key, value, *_, out_shape=None, **__) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
                 torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward}
"""torch's counter knows the attention kernels of GPUs alone; without these, attention would cost nothing on a CPU."""

OPTIMIZER_TENSORS = {'Adam': 2, 'AdamW': 2, 'RAdam': 2}
"""Tensors of a parameter's size that an optimiser keeps."""

FLOAT32 = 4  # bytes; parameters, gradients and optimiser state are float32 under autocast, too


@dataclass(frozen=True)
class Pass:
    """A row of the cost of a cycle.

    Attributes:
        turn: ``bridge update``, ``student update``, ``shared update`` (``train.share_generator_pass``: both on one pass of the student),
            or ``discriminator update``, which belongs to the iterations of the student's.
        network: ``net_g`` (also where its EMA copy runs), ``net_bridge``, ``teacher`` or ``net_d``.
        kind: a key of :data:`FORWARDS`.
        count: passes of a batch per cycle; a mean where the number is drawn.
    """

    turn: str
    network: str
    kind: str
    count: float

    def flops(self, size: NetworkSize) -> float:
        """Return the FLOPs per image and cycle, of a network of this size."""
        return self.count * (FORWARDS[self.kind] * size.forward + (FORWARDS[self.kind] > 1) * size.recomputed)


@dataclass(frozen=True)
class NetworkSize:
    """A network in numbers.

    Attributes:
        type: name of the architecture.
        parameters: number of parameters.
        tensors: number of tensors of its state dict.
        forward: FLOPs (two per multiply-add) of a forward pass per image.
        recomputed: those of them that every backward spends again (``checkpoint_levels``).
        tensor_sizes: numbers in each parameter; empty where they do not matter.
    """

    type: str
    parameters: int
    tensors: int
    forward: int
    recomputed: int = 0
    tensor_sizes: tuple[int, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Activations:
    """Bytes that a pass keeps for its backward, the largest block that is computed again in it included.

    Attributes:
        fixed: whatever the batch size (under autocast: the bf16 copies of the weights).
        per_image: for each image of the batch (of the micro-batch, if there are any).
        per_batch_image: for each image of the batch, also where there are micro-batches.
    """

    fixed: int
    per_image: int
    per_batch_image: int = 0

    def bytes(self, at_once: int, batch: int) -> int:
        """Return all bytes, for ``at_once`` images of a ``batch`` in the networks together."""
        return self.fixed + at_once * self.per_image + batch * self.per_batch_image

    def most_images(self, free: int, batch: int | None) -> int:
        """Return how many images at once fit ``free`` bytes: micro-batches of a ``batch``, or (None) the batch itself."""
        if batch is None:
            return (free - self.fixed) // (self.per_image + self.per_batch_image)
        return (free - self.bytes(0, batch)) // self.per_image


def network_blocks(opt: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the ``network`` blocks of the networks that a training run calls, by name.

    They are ``net_g``; for IBMD ``net_bridge`` and ``teacher``; ``net_d`` if there is a GAN. Networks inside losses are not counted.
    """
    blocks = {'net_g': opt['network_g']}
    if opt['model_type'] == 'IBMDModel':
        blocks |= {'net_bridge': opt['network_bridge'], 'teacher': opt['teacher']['network']}
        if opt['train'].get('gan_opt'):
            blocks['net_d'] = opt['network_d']
    return blocks


def images_at_once(opt: dict[str, Any]) -> int:
    """Return how many images of a GPU's batch go through the networks together: ``train.micro_batch``, or all of them."""
    return int(opt['train'].get('micro_batch') or opt['datasets']['train']['batch_size_per_gpu'])


def cycle_length(opt: dict[str, Any]) -> int:
    """Return the number of iterations after which the turns repeat: 1, for IBMD K + 1, or K with ``train.share_generator_pass``."""
    return bridge_updates(opt) + (not shares_pass(opt)) if opt['model_type'] == 'IBMDModel' else 1


def shares_pass(opt: dict[str, Any]) -> bool:
    """Tell whether the last bridge update of a cycle and the student's are one iteration."""
    return bool(opt['train'].get('share_generator_pass', False))


def update_counts(opt: dict[str, Any]) -> dict[str, int]:
    """Return how many of ``train.total_iter`` iterations are turns of which kind."""
    total = int(opt['train']['total_iter'])
    if opt['model_type'] != 'IBMDModel':
        return {'bridge update': total}
    students = total // cycle_length(opt)
    return {'bridge update': total - students, 'shared update' if shares_pass(opt) else 'student update': students}


def training_passes(opt: dict[str, Any]) -> list[Pass]:
    """Return the passes of one cycle (:func:`cycle_length`), by turn and network.

    A student of several steps runs without gradient to the state that an update starts from: N calls of the posterior scheme, (N - 1)/2
    in the mean of the bridge scheme.
    """
    if opt['model_type'] != 'IBMDModel':
        return [Pass('bridge update', 'net_g', LEARN, 1)]
    updates, rollout = bridge_updates(opt), _rollout_calls(opt)
    full = opt['train']['ibmd_opt'].get('gradient', 'full') == 'full'
    frozen = THROUGH if full else FORWARD
    shared, regressions = shares_pass(opt), 2 if opt['train'].get('real_pairs') else 1
    turn, alone = ('shared update', updates - 1) if shared else ('student update', updates)
    passes = [Pass('bridge update', 'net_g', ROLLOUT, alone * rollout),
              Pass('bridge update', 'net_g', FORWARD, alone),
              Pass('bridge update', 'net_bridge', LEARN, alone * regressions),
              Pass(turn, 'net_g', ROLLOUT, rollout),
              Pass(turn, 'net_g', LEARN, 1),
              Pass(turn, 'net_bridge', LEARN, regressions * shared),
              Pass(turn, 'teacher', frozen, 1),
              Pass(turn, 'net_bridge', frozen, 1)]
    if opt['train'].get('gan_opt'):
        # true and made images one after the other, each with its own backward
        passes += [Pass(turn, 'net_d', THROUGH, 1), Pass('discriminator update', 'net_d', LEARN, 2)]
    return [one for one in passes if one.count]


def bridge_updates(opt: dict[str, Any]) -> int:
    """Return K, the updates of the bridge network for each of the student's."""
    return int(opt['train'].get('bridge_updates_per_student', 5))


def _rollout_calls(opt: dict[str, Any]) -> float:
    student = StudentOptions(**(opt['train'].get('student') or {}))
    if student.steps == 1:
        return 0
    return student.steps if student.scheme == 'posterior' else (student.steps - 1) / 2


def flops_per_turn(passes: Sequence[Pass], sizes: dict[str, NetworkSize]) -> dict[str, float]:
    """Return the FLOPs per image and cycle of each turn."""
    turns: dict[str, float] = {}
    for one in passes:
        turns[one.turn] = turns.get(one.turn, 0) + one.flops(sizes[one.network])
    return turns


def flops_of_run(opt: dict[str, Any], sizes: dict[str, NetworkSize], images: int) -> float:
    """Return the FLOPs of all iterations; validation, metrics and degradations are not counted.

    Args:
        opt: checked options.
        sizes: by network name.
        images: of one iteration, on all GPUs.
    """
    turns, counts = flops_per_turn(training_passes(opt), sizes), update_counts(opt)
    counts['discriminator update'] = counts.get('student update', 0) or counts.get('shared update', 0)
    per_cycle = {'bridge update': cycle_length(opt) - 1 or 1}
    return images * sum(flops / per_cycle.get(turn, 1) * counts[turn] for turn, flops in turns.items())


def measure_network(block: dict[str, Any], size: int) -> NetworkSize:
    """Build a network, run it on an image of ``size`` x ``size`` pixels, both without memory, and count.

    Raises:
        OptionError: the network does not take this size.
    """
    with FakeTensorMode():
        net = build_network(block)
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
            blocks = _recomputed_blocks(net)
            # torch leaves a block once it has what the backward needs: before its last layer
            last = [block.out_layers[-1] if isinstance(block.skip_connection, nn.Identity) else block.skip_connection for block in blocks]
            with _growth(blocks, counter.get_total_flops) as again, _growth(last, counter.get_total_flops) as spared:
                _call(net, size, batch=1, input_grad=False)
    numbers = tuple(p.numel() for p in net.parameters())
    return NetworkSize(type=block['type'], parameters=sum(numbers), tensors=len(net.state_dict()), forward=counter.get_total_flops(),
                       recomputed=sum(again) - sum(spared), tensor_sizes=numbers)


def measure_activations(block: dict[str, Any], size: int, kind: str, autocast: torch.dtype | None = None) -> Activations:
    """Measure, without memory, what a pass over images of ``size`` x ``size`` pixels keeps for its backward.

    Args:
        block: ``network`` block.
        size: side of the images.
        kind: a key of :data:`FORWARDS`.
        autocast: dtype of mixed precision; None for float32.

    Raises:
        OptionError: the network does not take this size.
    """
    if FORWARDS[kind] == 1:
        return Activations(0, 0)
    with FakeTensorMode():
        net = build_network(block)
        # attention in the new order keeps other tensors for a single image than for several
        two, three = (kept_bytes(net, size, batch, kind, autocast) for batch in (2, 3))
    return Activations(fixed=3 * two - 2 * three, per_image=three - two)


def build_network(block: dict[str, Any]) -> nn.Module:
    """Build the network of a ``network`` block on the current device (the host's function of this name also logs).

    Raises:
        OptionError: a key or value that the network does not take.
    """
    return build_from_options(find_arch(block['type']), block, block['type'])


def kept_bytes(net: nn.Module, size: int, batch: int, kind: str, autocast: torch.dtype | None = None) -> int:
    """Run ``net`` forward and return the bytes that autograd keeps for the backward, parameters not counted.

    Where blocks keep nothing but their inputs (``checkpoint_levels``), the largest of them is added as it is once computed again: the
    backward meets the fine levels, which hold most, while it still holds everything else.

    Args:
        net: on the CPU, real or under ``FakeTensorMode``; its ``requires_grad`` is set as ``kind`` has it.
        size: side of the images.
        batch: number of images.
        kind: a key of :data:`FORWARDS`.
        autocast: dtype of mixed precision; None for float32.

    Raises:
        OptionError: the network does not take this size.
    """
    net.requires_grad_(kind == LEARN)
    own = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # views keep the whole storage alive, and several nodes keep the same one

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    def gauge() -> int:
        return sum(storage.nbytes() for storage in kept.values())

    def forward() -> int:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            with torch.autocast('cpu', dtype=autocast or torch.bfloat16, enabled=autocast is not None):
                _call(net, size, batch, input_grad=kind == THROUGH)
        return gauge()

    total, blocks = forward(), _recomputed_blocks(net)
    if not blocks:
        return total
    for block in blocks:
        block.recompute = False
    try:
        with _growth(blocks, gauge, seen=pack) as grown:
            forward()
    finally:
        for block in blocks:
            block.recompute = True
    return total + max(grown)


def _recomputed_blocks(net: nn.Module) -> list[ResBlock]:
    return [block for block in net.modules() if isinstance(block, ResBlock) and block.recompute]


@contextmanager
def _growth(blocks: Sequence[nn.Module], gauge: Callable[[], int], seen: Callable[[Tensor], Any] = id) -> Iterator[list[int]]:
    """While open, note by how much ``gauge`` grows in each call of one of the blocks; ``seen`` is told of their inputs before."""
    grown: list[int] = []

    def enter(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for tensor in inputs:
            seen(tensor)
        grown.append(-gauge())

    def leave(*_) -> None:
        grown[-1] += gauge()

    handles = [handle for block in blocks
               for handle in (block.register_forward_pre_hook(enter), block.register_forward_hook(leave))]
    try:
        yield grown
    finally:
        for handle in handles:
            handle.remove()


def _call(net: nn.Module, size: int, batch: int, input_grad: bool) -> None:
    if not isinstance(net, ADMUNet):  # a discriminator, which the option checks have called on this size
        net(torch.zeros(batch, 3, size, size, requires_grad=input_grad))
        return
    x = torch.zeros(batch, net.in_channels, size, size, requires_grad=input_grad)
    cond, z = (torch.zeros(batch, channels, size, size) if channels else None for channels in (net.cond_channels, net.noise_channels))
    y = torch.zeros(batch, dtype=torch.long) if net.num_classes is not None else None
    try:
        net(x, torch.zeros(batch), cond=cond, z=z, y=y)
    except ValueError as error:
        raise OptionError(f'datasets.train.gt_size: {error}') from error


def gpu_bytes(opt: dict[str, Any], sizes: dict[str, NetworkSize], processes: int) -> dict[str, int]:
    """Return the bytes that stay on each GPU whatever the batch and micro-batch size, by purpose.

    Args:
        opt: checked options.
        sizes: by network name.
        processes: of the run; from two on, DistributedDataParallel keeps a second copy of the gradients in its buckets, and
            ``train.shard_optimizer`` shares out the state of the optimisers.
    """
    optimizers = {'net_g': 'optim_g', 'net_bridge': 'optim_bridge', 'net_d': 'optim_d'}
    learning = {name: block for name, block in optimizers.items() if name in sizes}
    # gradients are dropped just before the next backward of the same network, so those of a network at rest stay
    gradients = FLOAT32 * sum(sizes[name].parameters for name in learning)
    rows = {'parameters': FLOAT32 * sum(size.parameters for size in sizes.values()),
            'EMA copy of net_g': FLOAT32 * sizes['net_g'].parameters if opt['train'].get('ema_decay', 0) else 0,
            'gradients': gradients,
            'buckets of DistributedDataParallel': gradients if processes > 1 else 0,
            'optimiser state': FLOAT32 * sum(_optimizer_numbers(opt, sizes[name], processes) * _optimizer_tensors(opt['train'][block])
                                             for name, block in learning.items())}
    return {name: number for name, number in rows.items() if number}


def _optimizer_numbers(opt: dict[str, Any], size: NetworkSize, processes: int) -> int:
    """Return for how many parameters of a network a process keeps optimiser state; of the process that keeps most."""
    return largest_share(size.tensor_sizes, processes) if opt['train'].get('shard_optimizer') else size.parameters


def largest_share(sizes: Sequence[int], processes: int) -> int:
    """Return the numbers in the largest share of tensors of ``sizes``, given out as :class:`ShardedOptimizer` does.

    The largest first, each to the process that has the least: about one ``processes``-th of all, but never less than the largest tensor.
    """
    shares = [0] * processes
    for size in sorted(sizes, reverse=True):
        shares[shares.index(min(shares))] += size
    return max(shares)


def _optimizer_tensors(block: dict[str, Any]) -> int:
    if block['type'] == 'SGD':
        return 1 if block.get('momentum') else 0
    return OPTIMIZER_TENSORS[block['type']] + bool(block.get('amsgrad'))


def activations_per_turn(opt: dict[str, Any], size: int, autocast: torch.dtype | None) -> dict[str, Activations]:
    """Return what each turn keeps for its backward: the sum over its rows of passes, all of which are kept until then.

    A shared update keeps the student's pass of the whole batch while the bridge network learns, and while the student's loss is formed:
    beside it counts the larger of the two.

    Args:
        opt: checked options.
        size: side of the images.
        autocast: dtype of mixed precision; None for float32.

    Raises:
        OptionError: a network does not take this size.
    """
    blocks, turns, learning = network_blocks(opt), {}, Activations(0, 0)
    for one in training_passes(opt):
        add = measure_activations(blocks[one.network], size, one.kind, autocast)
        if one.turn == 'shared update' and one.kind == LEARN:
            if one.network == 'net_bridge':
                learning = add
                continue
            add = Activations(add.fixed, 0, per_batch_image=add.per_image)
        turns[one.turn] = _sum(turns.get(one.turn, Activations(0, 0)), add)
    if 'shared update' in turns:
        judging = turns['shared update']
        whole = Activations(learning.fixed, learning.per_image, judging.per_batch_image)
        turns['shared update'] = max(judging, whole, key=lambda kept: kept.per_image)
    return turns


def _sum(a: Activations, b: Activations) -> Activations:
    return Activations(a.fixed + b.fixed, a.per_image + b.per_image, a.per_batch_image + b.per_batch_image)
