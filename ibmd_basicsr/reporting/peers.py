"""Restorers of other makes, called like a :class:`~ibmd_basicsr.restorer.Restorer`: BasicSR's networks, files that spandrel reads."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from ibmd_basicsr.checkpoints.state_dict import load_params, load_preferred_params, load_strictly
from ibmd_basicsr.models.builders import build_quietly
from ibmd_basicsr.utils.errors import CheckpointError, OptionError, first_line
from ibmd_basicsr.utils.frozen import ready_to_restore

SPANDREL_FILES = ('.pth', '.ckpt', '.safetensors')
"""Not .pt: spandrel takes such a file for TorchScript, which is code, first."""


PROBE_SIDE = 16
"""Of the image that tells whether a network runs with its channels innermost."""


def enlarge(lq: Tensor, scale: int) -> Tensor:
    """Return images (B, 3, h, w) in [0, 1] enlarged by ``cv2.INTER_CUBIC``: (B, 3, scale h, scale w), clamped."""
    if scale == 1:
        return lq.clamp(0, 1)
    images = [cv2.resize(image.permute(1, 2, 0).numpy(), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for image in lq.cpu()]
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images]).clamp(0, 1).to(lq.device)


class InputRestorer:
    """The corrupted image as it is, enlarged by :func:`enlarge` for super-resolution."""

    calls = 0
    parameters = 0

    def __init__(self, scale: int):
        self.scale = scale

    def __call__(self, lq, noise, on_step=None, *, mask=None, labels=None):
        """Return (B, 3, scale h, scale w) in [0, 1]; all arguments but ``lq`` are not used."""
        return enlarge(lq, self.scale)


class PeerRestorer:
    """A network that needs no noise.

    Args:
        net: (B, 3, h, w) to (B, 3, scale h, scale w), RGB in ``input_range``.
        parameters: number of its parameters, None if it is not known.
        scale: enlargement.
        size_multiple: ``lq`` is padded at the bottom and the right to multiples of it, in pixels of ``lq``; the result is cropped. Tiles
            begin at its multiples.
        input_range: lowest and highest value of the network's input and output.
        upsampled_input: the network takes images of the size of its output, enlarged by :func:`enlarge`.
        param_key: name of the set of weights, for reports; None where there is no choice.
        calls: of the network, that ``net`` makes for an image.
        in_torch: torch runs the network, and can count its operations.
    """

    def __init__(self, net: Callable[[Tensor], Tensor], parameters: int | None, *, scale: int, size_multiple: int = 1,
                 input_range: Sequence[float] = (0, 1), upsampled_input: bool = False, param_key: str | None = None, calls: int = 1,
                 in_torch: bool = True):
        self.net = net
        self.parameters = parameters
        self.scale = scale
        self.size_multiple = size_multiple
        self.low, self.high = input_range
        self.upsampled_input = upsampled_input
        self.param_key = param_key
        self.calls = calls
        self.in_torch = in_torch

    @torch.no_grad()
    def __call__(self, lq: Tensor, noise=None, on_step: Callable[[Tensor, Tensor], None] | None = None, *, mask=None,
                 labels=None) -> Tensor:
        """Restore ``lq`` (B, 3, h, w), RGB in [0, 1]: (B, 3, scale h, scale w), clamped. Noise, mask and labels are not used.

        Raises:
            ValueError: the network returns another shape, or values that are not finite.
        """
        height, width = (self.scale * side for side in lq.shape[-2:])
        x = pad_by_reflection(lq, self.size_multiple)
        expected = (*lq.shape[:2], self.scale * x.shape[-2], self.scale * x.shape[-1])
        if self.upsampled_input:
            x = enlarge(x, self.scale)
        y = self.net(x * (self.high - self.low) + self.low)
        if on_step:
            on_step(y, y)
        if not isinstance(y, Tensor) or y.shape != expected:
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f'the network returns {got} for {tuple(x.shape)}, scale {self.scale} asks for {expected}.')
        if not y.isfinite().all():
            raise ValueError('the network returns values that are not finite.')
        return ((y - self.low) / (self.high - self.low))[..., :height, :width].clamp(0, 1)


def pad_by_reflection(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the bottom and the right to multiples of ``multiple``, as BasicSR's SwinIR model does.

    By reflection; by edge repetition where the image is too small to be reflected.
    """
    for axis in (-1, -2):
        missing = -x.shape[axis] % multiple
        if missing:
            pad = (0, missing, 0, 0) if axis == -1 else (0, 0, 0, missing)
            x = F.pad(x, pad, mode='reflect' if missing < x.shape[axis] else 'replicate')
    return x


def build_arch(*, network: dict[str, Any], weights: str, param_key: str | None = None, size_multiple: int | None = None,
               input_range: Sequence[float] = (0, 1), upsampled_input: bool = False, scale: int = 1,
               device: torch.device | str = 'cpu') -> PeerRestorer:
    """Build a network of BasicSR's registry with its weights.

    Args:
        network: ``type``, a name of ``ARCH_REGISTRY``, and its options.
        weights: checkpoint, read without running code from it and loaded strictly.
        param_key: which weights of it; default ``params_ema``, else ``params``, else the file itself.
        size_multiple: see :class:`PeerRestorer`; default ``window_size`` of the network's options, without which windows of another size
            than the image's end in an error of torch, else 1.
        input_range, upsampled_input, scale: see :class:`PeerRestorer`.
        device: where to run.

    Raises:
        OptionError: an option that the network does not take.
        CheckpointError: the file is missing, damaged, lacks the key or does not fit.
    """
    net = build_quietly(network)
    params, key = load_preferred_params(weights) if param_key is None else (load_params(weights, param_key), param_key)
    load_strictly(net, params, weights)
    restorer = PeerRestorer(net, sum(p.numel() for p in net.parameters()), scale=scale, input_range=input_range,
                            size_multiple=size_multiple or network.get('window_size', 1), upsampled_input=upsampled_input, param_key=key)
    ready_to_restore(net, device, _probe(restorer, device))
    return restorer


def build_spandrel(*, weights: str, size_multiple: int | None = None, scale: int = 1,
                   device: torch.device | str = 'cpu') -> PeerRestorer:
    """Build the network of a file of any architecture that spandrel knows; it finds out which by the names and shapes of the weights.

    Its unpickler admits tensors and ordered dictionaries alone, so no code from the file is run. It pads to what the network needs.

    Args:
        weights: a file with an ending of :data:`SPANDREL_FILES`.
        size_multiple: see :class:`PeerRestorer`; default what spandrel says, which leaves out what a network pads by itself.
        scale: enlargement that the file must have.
        device: where to run.

    Raises:
        OptionError: spandrel is not installed.
        CheckpointError: the file cannot be read, or its network does not do the task.
    """
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except ImportError as error:
        raise OptionError("kind spandrel needs the package spandrel: pip install 'ibmd_basicsr[peers]'.") from error
    if Path(weights).suffix.lower() not in SPANDREL_FILES:
        raise CheckpointError(f'{weights}: must end in {", ".join(SPANDREL_FILES)} for kind spandrel.')
    try:
        found = ModelLoader(torch.device(device)).load_from_file(weights)
    except Exception as error:  # unpickling, an unknown architecture, weights that do not fit: many types
        raise CheckpointError(f'{weights}: spandrel cannot load it: {first_line(error)}') from error
    if not isinstance(found, ImageModelDescriptor):
        raise CheckpointError(f'{weights}: {found.architecture.name} needs a mask, kind spandrel restores images alone.')
    if found.scale != scale:
        raise CheckpointError(f'{weights}: {found.architecture.name} of scale {found.scale}, the comparison has scale {scale}.')
    if (found.input_channels, found.output_channels) != (3, 3):
        raise CheckpointError(f'{weights}: {found.architecture.name} takes {found.input_channels} channels and returns '
                              f'{found.output_channels}, not RGB.')
    restorer = PeerRestorer(found, sum(p.numel() for p in found.model.parameters()), scale=scale,
                            size_multiple=size_multiple or found.size_requirements.multiple_of)
    ready_to_restore(found.model, device, _probe(restorer, device))
    return restorer


def _probe(restorer: PeerRestorer, device: torch.device | str) -> Callable[[], Tensor]:
    side = PROBE_SIDE + -PROBE_SIDE % restorer.size_multiple
    return lambda: restorer.net(torch.zeros(1, 3, side, side, device=device))
