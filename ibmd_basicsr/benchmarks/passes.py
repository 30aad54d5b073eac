"""The network passes of a training iteration, bare: shapes, precision and gradients as there, and nothing around them."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ibmd_basicsr.benchmarks.timing import Case
from ibmd_basicsr.models.turns import LEARN, THROUGH, Pass, Turns, training_passes


@dataclass(frozen=True)
class Inputs:
    """What a network is called with; ``kwargs`` holds z or x_T where it takes them."""

    x: Tensor
    times: Tensor
    kwargs: dict[str, Tensor]


def network_inputs(net: nn.Module, images: int, side: int, device: torch.device) -> Inputs:
    """Return random inputs of an ADMUNet for ``images`` of ``side`` x ``side`` pixels."""
    generator = torch.Generator().manual_seed(1)

    def draw(channels: int) -> Tensor:
        return torch.randn(images, channels, side, side, generator=generator).to(device)

    extra = {name: draw(channels) for name, channels in (('cond', net.cond_channels), ('z', net.noise_channels)) if channels}
    return Inputs(draw(net.in_channels), torch.full((images,), 500.0, device=device), extra)


def bare_pass(net: nn.Module, inputs: Inputs, kind: str, autocast: torch.dtype | None) -> Callable[[], None]:
    """Return a function that makes one pass.

    Args:
        net: its ``requires_grad`` is set before each pass, as ``kind`` has it.
        inputs: of the pass.
        kind: a key of :data:`~ibmd_basicsr.models.turns.FORWARDS`: forward without gradient, forward and backward to the parameters, or
            forward and backward to the input alone.
        autocast: dtype of mixed precision; None for float32.
    """
    parameters = list(net.parameters())
    direction = torch.randn_like(inputs.x)

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            return net(x, inputs.times, **inputs.kwargs)

    def run() -> None:
        if kind not in (LEARN, THROUGH):
            with torch.no_grad():
                forward(inputs.x)
            return
        x = inputs.x.detach().requires_grad_(kind == THROUGH)
        wanted = parameters if kind == LEARN else [x]
        torch.autograd.grad(forward(x).float(), wanted, direction)

    def prepared() -> None:
        learns = kind == LEARN
        if parameters[0].requires_grad is not learns:
            net.requires_grad_(learns)
        run()

    return prepared


def pass_cases(model) -> list[tuple[Pass, Case]]:
    """Return the passes of a cycle of a model's iterations, each with what makes all of them; times are per iteration.

    Networks are those of the model, so that a pass meets the same weights; gradients do not reach the optimisers.
    """
    opt, device = model.opt, model.device
    block = opt['datasets']['train']
    cases = []
    for one in training_passes(opt):
        if one.count != int(one.count):
            raise ValueError(f'{one}: a number of passes that is drawn at random has no bare counterpart.')
        net = model.get_bare_model(getattr(model, one.network))
        inputs = network_inputs(net, block['batch_size_per_gpu'], block['gt_size'], device)
        call = bare_pass(net, inputs, one.kind, model.switches.autocast)
        cases.append((one, Case(f'{one.turn}: {one.network}, {one.kind}, x {one.count:g}', times(call, int(one.count)),
                                per=Turns.from_options(opt).length)))
    return cases


def times(call: Callable[[], None], count: int) -> Callable[[], None]:
    """Return a function that makes ``count`` calls."""
    def run() -> None:
        for _ in range(count):
            call()
    return run
