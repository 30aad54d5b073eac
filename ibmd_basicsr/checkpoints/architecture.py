"""The options of an ADM U-Net read off the shapes of its weights."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ibmd_basicsr.checkpoints.state_dict import ENTRANCE
from ibmd_basicsr.utils.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


def derive_architecture(shapes: Shapes, source: str, cond_channels: int | None = None) -> dict[str, Any]:
    """Return the options of ``ADMUNet`` that a state dict of guided-diffusion's layout determines.

    Head width, attention order and dropout leave no trace in names and shapes, so they are not among them. That all weights agree with
    the options is not checked here: build the network and compare.

    Args:
        shapes: name to shape; attention weights have three dimensions.
        source: what messages call the weights, usually the file.
        cond_channels: how many of the input channels are the condition's; by default half of them if there are six or twice as many
            as outputs, else none.

    Returns:
        in_channels, cond_channels, out_channels, model_channels, channel_mult, num_res_blocks, attention_resolutions,
        use_scale_shift_norm, resblock_updown, num_classes.

    Raises:
        CheckpointError: a weight is missing without which nothing can be said, or the blocks do not form a U-Net.
    """
    def shape(key: str, ndim: int) -> tuple[int, ...]:
        if key not in shapes:
            raise CheckpointError(f'{source}: is not a U-Net of guided-diffusion, it has no {key!r}.')
        if len(shapes[key]) != ndim or 0 in shapes[key]:
            raise CheckpointError(f'{source}: {key} must have {ndim} dimensions, its shape is {tuple(shapes[key])}.')
        return tuple(shapes[key])

    model_channels = shape('time_embed.0.weight', 2)[1]
    inputs = shape(ENTRANCE, 4)[1]
    outputs = shape('out.2.weight', 4)[0]

    blocks = _count_blocks(shapes, 'input_blocks', source)
    if _count_blocks(shapes, 'output_blocks', source) != blocks:
        raise CheckpointError(f'{source}: is not a U-Net of guided-diffusion, its input and output blocks differ in number.')
    # A residual block that halves looks like any other, one that doubles stands second or third in its output block: hence the levels.
    ups = {key.split('.')[1] for key in shapes if key.startswith('output_blocks.') and _is_up(key)}
    levels = len(ups) + 1
    if blocks % levels or blocks == levels:
        raise CheckpointError(f'{source}: is not a U-Net of guided-diffusion, its {blocks} input blocks do not make {levels} equal levels.')
    per_level = blocks // levels  # the entrance or the step down, then the residual blocks
    firsts = [1 + level * per_level for level in range(levels)]

    embedded = shape('input_blocks.1.0.emb_layers.1.weight', 2)[0]
    first_width = shape('input_blocks.1.0.out_layers.3.weight', 4)[0]
    widths = [shape(f'input_blocks.{first}.0.out_layers.3.weight', 4)[0] for first in firsts]
    if cond_channels is None:
        cond_channels = inputs // 2 if inputs in (6, 2 * outputs) else 0
    if not 0 <= cond_channels < inputs:
        raise CheckpointError(f'{source}: of {inputs} input channels, at most {inputs - 1} can be the condition, got {cond_channels}.')
    return {
        'in_channels': inputs - cond_channels,
        'cond_channels': cond_channels,
        'out_channels': outputs,
        'model_channels': model_channels,
        'channel_mult': [_multiplier(width, model_channels) for width in widths],
        'num_res_blocks': per_level - 1,
        'attention_resolutions': [2**level for level, first in enumerate(firsts) if f'input_blocks.{first}.1.qkv.weight' in shapes],
        'use_scale_shift_norm': embedded == 2 * first_width,
        'resblock_updown': not any(key.endswith('.op.weight') for key in shapes),
        'num_classes': shape('label_emb.weight', 2)[0] if 'label_emb.weight' in shapes else None,
    }


def _is_up(key: str) -> bool:
    """Tell whether a weight of an output block belongs to a step up: a second residual block, or a convolution of its own."""
    parts = key.split('.')
    return len(parts) > 3 and parts[2] != '0' and parts[3] in ('in_layers', 'conv')


def _count_blocks(shapes: Iterable[str], group: str, source: str) -> int:
    """Return the number of blocks of ``input_blocks`` or ``output_blocks``, which must be numbered without a gap."""
    numbers = {key.split('.')[1] for key in shapes if key.startswith(f'{group}.')}
    for number in range(len(numbers)):
        if str(number) not in numbers:
            raise CheckpointError(f'{source}: is not a U-Net of guided-diffusion, it has no {group}.{number}.')
    return len(numbers)


def _multiplier(width: int, model_channels: int) -> int | float:
    """Return m with ``int(m * model_channels) == width``, an integer where possible."""
    if width % model_channels == 0:
        return width // model_channels
    factor = width / model_channels
    return factor if int(factor * model_channels) == width else math.nextafter(factor, math.inf)
