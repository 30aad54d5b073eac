"""What a training run costs, from the options alone: FLOPs and memory of its iterations."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ibmd_basicsr.models.network_cost import Activations, NetworkSize, measure_activations
from ibmd_basicsr.models.turns import DISCRIMINATOR, LEARN, SHARED, Pass, Turns, training_passes

OPTIMIZER_TENSORS = {'Adam': 2, 'AdamW': 2, 'RAdam': 2}
"""Tensors of a parameter's size that an optimiser keeps."""

FLOAT32 = 4  # bytes; parameters, gradients and optimiser state are float32 under autocast, too


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


def flops_per_turn(passes: Sequence[Pass], sizes: dict[str, NetworkSize]) -> dict[str, float]:
    """Return the FLOPs per image and cycle of each turn."""
    turns: dict[str, float] = {}
    for one in passes:
        turns[one.turn] = turns.get(one.turn, 0) + one.count * sizes[one.network].flops(one.kind)
    return turns


def flops_of_run(opt: dict[str, Any], sizes: dict[str, NetworkSize], images: int) -> float:
    """Return the FLOPs of all iterations; validation, metrics and degradations are not counted.

    Args:
        opt: checked options.
        sizes: by network name.
        images: of one iteration, on all GPUs.
    """
    turns = Turns.from_options(opt)
    counts, per_cycle = turns.counts(int(opt['train']['total_iter'])), turns.per_cycle
    counts[DISCRIMINATOR], per_cycle[DISCRIMINATOR] = counts[turns.last], 1
    each = flops_per_turn(training_passes(opt), sizes)
    return images * sum(flops / per_cycle[turn] * counts[turn] for turn, flops in each.items())


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
        if one.turn == SHARED and one.kind == LEARN:
            if one.network == 'net_bridge':
                learning = add
                continue
            add = Activations(add.fixed, 0, per_batch_image=add.per_image)
        turns[one.turn] = turns.get(one.turn, Activations(0, 0)) + add
    if SHARED in turns:
        judging = turns[SHARED]
        whole = Activations(learning.fixed, learning.per_image, judging.per_batch_image)
        turns[SHARED] = max(judging, whole, key=lambda kept: kept.per_image)
    return turns
