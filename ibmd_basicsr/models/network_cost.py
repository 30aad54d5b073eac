"""What a network costs: parameters, FLOPs and what a pass keeps for its backward.

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
from ibmd_basicsr.models.builders import build_quietly
from ibmd_basicsr.models.turns import FORWARDS, LEARN, THROUGH
from ibmd_basicsr.utils.errors import OptionError


def _attention(query, key, value, *_, out_shape=None, **__) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient, query, key, value, *_, out_shape=None, **__) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
                 torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward}
"""torch's counter knows the attention kernels of GPUs alone; without these, attention would cost nothing on a CPU."""


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

    def flops(self, kind: str) -> int:
        """Return the FLOPs of a pass per image; ``kind`` is a key of :data:`~ibmd_basicsr.models.turns.FORWARDS`."""
        return FORWARDS[kind] * self.forward + (FORWARDS[kind] > 1) * self.recomputed


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

    def __add__(self, other: Activations) -> Activations:
        """Return what is kept of two passes together."""
        return Activations(self.fixed + other.fixed, self.per_image + other.per_image, self.per_batch_image + other.per_batch_image)


def measure_network(block: dict[str, Any], size: int) -> NetworkSize:
    """Build a network, run it on an image of ``size`` x ``size`` pixels, both without memory, and count.

    Raises:
        OptionError: the network does not take this size.
    """
    with FakeTensorMode():
        net = build_quietly(block)
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
        kind: a key of :data:`~ibmd_basicsr.models.turns.FORWARDS`.
        autocast: dtype of mixed precision; None for float32.

    Raises:
        OptionError: the network does not take this size.
    """
    if FORWARDS[kind] == 1:
        return Activations(0, 0)
    with FakeTensorMode():
        net = build_quietly(block)
        # attention in the new order keeps other tensors for a single image than for several
        two, three = (kept_bytes(net, size, batch, kind, autocast) for batch in (2, 3))
    return Activations(fixed=3 * two - 2 * three, per_image=three - two)


def kept_bytes(net: nn.Module, size: int, batch: int, kind: str, autocast: torch.dtype | None = None) -> int:
    """Run ``net`` forward and return the bytes that autograd keeps for the backward, parameters not counted.

    Where blocks keep nothing but their inputs (``checkpoint_levels``), the largest of them is added as it is once computed again: the
    backward meets the fine levels, which hold most, while it still holds everything else.

    Args:
        net: on the CPU, real or under ``FakeTensorMode``; its ``requires_grad`` is set as ``kind`` has it.
        size: side of the images.
        batch: number of images.
        kind: a key of :data:`~ibmd_basicsr.models.turns.FORWARDS`.
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
