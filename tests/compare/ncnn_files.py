"""Networks in the format of ncnn, written by hand: text for the layers, float32 for the weights."""
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


def write_network(path: Path, lines: list[str], tensors: list[tuple[Tensor, Tensor | None]] = ()) -> str:
    """Write a .param with these layers and its .bin: before each weight 4 bytes of zeros, which say float32; a bias has none."""
    blobs = sum(int(line.split()[3]) for line in lines)
    path.write_text('\n'.join(['7767517', f'{len(lines)} {blobs}', *lines]) + '\n')
    content = b''
    for weight, bias in tensors:
        content += bytes(4) + weight.numpy().astype(np.float32).tobytes() + (b'' if bias is None else bias.numpy().tobytes())
    path.with_suffix('.bin').write_bytes(content)
    return str(path)


def upscaler(path: Path, scale: int = 4, *, pad: int = 1, seed: int = 0) -> tuple[str, nn.Module]:
    """Write a 3x3 convolution and a pixel shuffle; return the .param and the same network in torch."""
    torch.manual_seed(seed)
    channels = 3 * scale**2
    net = nn.Sequential(nn.Conv2d(3, channels, 3, padding=pad), nn.PixelShuffle(scale)).eval().requires_grad_(False)
    net[0].weight *= 0.3
    net[0].bias += 0.4
    param = write_network(path, [
        'Input in 0 1 data',
        f'Convolution conv 1 1 data features 0={channels} 1=3 4={pad} 5=1 6={net[0].weight.numel()}',
        f'PixelShuffle up 1 1 features output 0={scale}'], [(net[0].weight, net[0].bias)])
    return param, net


def enlarger(path: Path, scale: int) -> str:
    """Write a network without weights that repeats pixels."""
    return write_network(path, ['Input in 0 1 data', f'Interp up 1 1 data output 0=1 1={scale}.0 2={scale}.0'])
