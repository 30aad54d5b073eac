"""Restorers in the format of ncnn, a .param (text: the layers) and a .bin (their weights), run by the package ncnn on the CPU."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ibmd_basicsr.reporting.peers import PeerRestorer
from ibmd_basicsr.utils.errors import CheckpointError, OptionError, printable

MAGIC = '7767517'
CHANNELS = ('RGB', 'BGR')
CONVOLUTIONS = {'Convolution', 'ConvolutionDepthWise', 'Deconvolution', 'DeconvolutionDepthWise'}
WITHOUT_PARAMETERS = {'BinaryOp', 'Clip', 'Concat', 'Crop', 'Dropout', 'ELU', 'Eltwise', 'Flatten', 'GELU', 'HardSigmoid', 'HardSwish',
                      'Input', 'Interp', 'MemoryData', 'Mish', 'Noop', 'Padding', 'Permute', 'PixelShuffle', 'Pooling', 'ReLU', 'Reduction',
                      'Reshape', 'Sigmoid', 'Slice', 'Softmax', 'Split', 'Swish', 'TanH', 'UnaryOp'}
"""MemoryData holds constants, such as a mean that is subtracted."""
BOTTOM = -233
"""ncnn's mark for a number that is not known before an input comes."""


@dataclass(frozen=True)
class Layer:
    """A line of a .param: type, names of the blobs that it takes and makes, options by their number."""

    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: dict[int, str]

    def number(self, key: int) -> int:
        """Return an option that is a whole number; 0 if the layer does not set it."""
        return int(self.options.get(key, 0))


def find_bin(weights: str) -> str:
    """Return the .bin beside a .param.

    Raises:
        CheckpointError: another ending than .param, or no such .bin.
    """
    path = Path(weights)
    if path.suffix != '.param':
        raise CheckpointError(f'{weights}: must end in .param for kind ncnn; the weights lie beside it in a .bin.')
    if not path.with_suffix('.bin').is_file():
        raise CheckpointError(f'{path.with_suffix(".bin")}: no such file; kind ncnn needs it beside {path.name}.')
    return str(path.with_suffix('.bin'))


def read_layers(path: str) -> list[Layer]:
    """Return the layers of a .param in their order.

    The text is its magic number, a line with two counts, then a layer each line: type, name, how many blobs it takes and makes, their
    names, options as ``NUMBER=VALUE``.

    Raises:
        CheckpointError: not such a text.
    """
    try:
        magic, _, *lines = Path(path).read_text(encoding='utf-8').split('\n')
        if magic.strip() != MAGIC:
            raise ValueError('the first line is not its magic number')
        return [_read_layer(line.split()) for line in lines if line.strip()]
    except ValueError as error:
        raise CheckpointError(f'{path}: not a text in the format of ncnn: {printable(error)}.') from error


def _read_layer(words: list[str]) -> Layer:
    if len(words) < 4:
        raise ValueError(f'a layer of {len(words)} words')
    takes, makes = int(words[2]), int(words[3])
    blobs, options = words[4:4 + takes + makes], words[4 + takes + makes:]
    pairs = (option.partition('=') for option in options)
    return Layer(words[0], tuple(blobs[:takes]), tuple(blobs[takes:]), {int(key): value for key, _, value in pairs})


def count_parameters(layers: Sequence[Layer]) -> int | None:
    """Return the number of weights and biases; None if there is a layer of which this function does not know how many it has."""
    total = 0
    for layer in layers:
        if layer.type in CONVOLUTIONS and len(layer.inputs) == 1:
            total += layer.number(6) + layer.number(5) * layer.number(0)
        elif layer.type == 'InnerProduct':
            total += layer.number(2) + layer.number(1) * layer.number(0)
        elif layer.type == 'PReLU':
            total += layer.number(0)
        elif layer.type not in WITHOUT_PARAMETERS and not (layer.type == 'Scale' and layer.number(0) == BOTTOM):
            return None
    return total


class NcnnNetwork:
    """A network that ncnn runs, called with tensors.

    Vulkan is off and float32 is kept throughout, so that the same file gives the same picture on every CPU up to rounding.

    Args:
        weights: the .param; the .bin lies beside it.
        input, output: names of blobs; default the one that the .param declares, the one that no layer takes.
        channels: order that the network takes and returns.
        scale: enlargement of one call.
        repeat: number of calls, each on the result of the one before.
        reduce: the last result is averaged over squares of this side.
        padding: pixels added on each side before a call, by edge repetition; the network eats them (convolutions without padding).
        limits: results between two calls are clamped to them.

    Raises:
        OptionError: ncnn is not installed, or there is no such blob.
        CheckpointError: the files cannot be read.
    """

    def __init__(self, weights: str, *, input: str | None = None, output: str | None = None, channels: str = 'RGB', scale: int = 1,
                 repeat: int = 1, reduce: int = 1, padding: int = 0, limits: Sequence[float] = (0, 1)):
        try:
            import ncnn
        except ImportError as error:
            raise OptionError("kind ncnn needs the package ncnn: pip install 'ibmd_basicsr[peers]'.") from error
        self.ncnn = ncnn
        layers = read_layers(weights)
        made = [blob for layer in layers for blob in layer.outputs]
        taken = {blob for layer in layers for blob in layer.inputs}
        declared = [blob for layer in layers if layer.type == 'Input' for blob in layer.outputs]
        self.input = _find_blob(weights, 'input', input, declared, made)
        self.output = _find_blob(weights, 'output', output, [blob for blob in made if blob not in taken], made)
        self.parameters = count_parameters(layers)
        self.flip = channels == 'BGR'
        self.scale, self.repeat, self.reduce, self.padding, self.limits = scale, repeat, reduce, padding, limits
        self.net = ncnn.Net()
        options = self.net.opt
        options.use_vulkan_compute = False
        options.num_threads = torch.get_num_threads()
        for name in ('packed', 'storage', 'arithmetic'):
            setattr(options, f'use_fp16_{name}', False)
        if self.net.load_param(weights) != 0:
            raise CheckpointError(f'{weights}: ncnn cannot read it, or lacks one of its layers.')
        if self.net.load_model(find_bin(weights)) != 0:
            raise CheckpointError(f'{find_bin(weights)}: ncnn cannot read it: cut short, or of another network than {Path(weights).name}.')

    def __call__(self, x: Tensor) -> Tensor:
        """Return (B, 3, H, W) of the images ``x`` (B, 3, h, w), RGB, float32, on the device of ``x``.

        Raises:
            ValueError: the network fails, or returns another size than its scale says.
        """
        y = torch.stack([self._restore(image) for image in x.cpu()])
        return (F.avg_pool2d(y, self.reduce) if self.reduce > 1 else y).to(x.device)

    def _restore(self, image: Tensor) -> Tensor:
        for number in range(self.repeat):
            image = self._call(image.clamp(*self.limits) if number else image)
        return image

    def _call(self, image: Tensor) -> Tensor:
        """Return one image (3, h, w) after one call: (3, scale h, scale w)."""
        expected = (3, *(self.scale * side for side in image.shape[1:]))
        if self.padding:
            image = F.pad(image, (self.padding,) * 4, mode='replicate')
        if self.flip:
            image = image.flip(0)
        extractor = self.net.create_extractor()
        extractor.input(self.input, self.ncnn.Mat(image.contiguous().numpy()))
        code, blob = extractor.extract(self.output)
        if code != 0:
            raise ValueError(f'ncnn cannot run the network on an image of {image.shape[2]}x{image.shape[1]} (error {code}).')
        restored = torch.from_numpy(np.array(blob))
        if restored.shape != expected:
            raise ValueError(f'the network returns {tuple(restored.shape)} for {tuple(image.shape)}, '
                             f'scale {self.scale} asks for {expected}.')
        return restored.flip(0) if self.flip else restored


def _find_blob(weights: str, role: str, name: str | None, candidates: list[str], blobs: list[str]) -> str:
    if name is not None:
        if name not in blobs:
            raise OptionError(f'{weights}: no blob {name!r} for {role}; it has {printable(", ".join(blobs), 200)}.')
        return name
    if len(candidates) != 1:
        raise OptionError(f'{weights}: {len(candidates)} blobs may be the {role}: {printable(", ".join(candidates), 200) or "none"}. '
                          f'Name one as {role}.')
    return candidates[0]


def build_ncnn(*, weights: str, input: str | None = None, output: str | None = None, channels: str = 'RGB',
               network_scale: int | None = None, padding: int = 0, input_range: Sequence[float] = (0, 1), size_multiple: int | None = None,
               scale: int = 1, device: torch.device | str = 'cpu') -> PeerRestorer:
    """Build a network in the format of ncnn.

    ncnn's reader is C++ and does not check a file as strictly as the other kinds: take files from sources you trust.

    Args:
        weights, input, output, channels, padding: see :class:`NcnnNetwork`.
        network_scale: enlargement of one call, default ``scale``. A network of scale 2 is called twice for scale 4; what is larger than
            asked for at the end is averaged down.
        input_range, size_multiple: see :class:`PeerRestorer`.
        scale: enlargement.
        device: of the images; ncnn runs on the CPU.

    Raises:
        OptionError: ncnn is not installed, there is no such blob, or no number of calls leads to the scale.
        CheckpointError: a file is missing or damaged.
    """
    find_bin(weights)
    network_scale = network_scale or scale
    repeat, reduce = _plan_calls(network_scale, scale)
    net = NcnnNetwork(weights, input=input, output=output, channels=channels, scale=network_scale, repeat=repeat, reduce=reduce,
                      padding=padding, limits=input_range)
    return PeerRestorer(net, net.parameters, scale=scale, size_multiple=size_multiple or 1, input_range=input_range, calls=repeat,
                        in_torch=False)


def _plan_calls(network_scale: int, scale: int) -> tuple[int, int]:
    """Return the number of calls and the side of the squares that are averaged afterwards."""
    calls, reached = 1, network_scale
    while reached < scale and network_scale > 1:
        calls, reached = calls + 1, reached * network_scale
    if reached < scale or reached % scale:
        raise OptionError(f'a network of scale {network_scale} does not lead to scale {scale}.')
    return calls, reached // scale
