"""Networks that only restore: frozen, and laid out in memory as the machine is fastest with."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def ready_to_restore(net: nn.Module, device: torch.device | str, probe: Callable[[], Any] | None = None) -> nn.Module:
    """Move a network to its device, in eval mode and without gradients of its parameters, and return it.

    On CPUs its convolutions hold their channels innermost, and so do all feature maps behind them. A forward pass takes 0.7 to 0.9 of the
    time then (docs/speed.md); backward passes gain nothing, which is why this is for restoring alone. Values differ in their last digits,
    by the order of sums; names, shapes and values of the weights stay.

    Args:
        net: the network; changed in place.
        device: where to run.
        probe: calls the network once. A network that asks its feature maps for another layout (``view``) fails in it, and keeps its own.
            None for networks that are known to run.
    """
    net = net.to(device).eval().requires_grad_(False)
    if torch.device(device).type != 'cpu':
        return net
    net = net.to(memory_format=torch.channels_last)
    if probe is not None:
        try:
            with torch.no_grad():
                probe()
        except Exception:  # whatever it is, a second time it would be reported where the network is used
            net = net.to(memory_format=torch.contiguous_format)
    return net
