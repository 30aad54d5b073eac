"""One restoration whose result is known: the numbers of this machine, not only its imports."""
from __future__ import annotations

import time
from collections.abc import Iterator

import cv2
import torch
from torch import Tensor

from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.bridges import build_bridge
from ibmd_basicsr.data.degradations import sr_bicubic
from ibmd_basicsr.data.tensors import quantize_uint8
from ibmd_basicsr.diagnosis.findings import FAIL, OK, Finding
from ibmd_basicsr.models.recipes import recipe_of_weights
from ibmd_basicsr.restorer import Restorer, SamplerOptions
from ibmd_basicsr.utils.files import file_digest
from ibmd_basicsr.utils.project import REPOSITORY
from ibmd_basicsr.utils.seeding import PerImageNoise

WEIGHTS = 'weights/sr4x_nano_student.pth'
PHOTO = 'datasets/photos/test/chelsea.png'
SIZE = 128
RECORDED = {'84ccb30bf215': 27.169}
"""PSNR in dB of the shipped x4 student (by the first digits of its sha256) on the upper left corner of the photograph, seed 0."""
RECORDED_RANDOM = 19.280
"""PSNR in dB of the random network's output to the picture that :func:`random_case` makes."""
TOLERANCE = 0.02
"""dB. Other kernels (threads, without oneDNN) moved the result by 1e-6 dB on the machine of the record."""


def psnr(image: Tensor, truth: Tensor) -> float:
    """Return the peak signal-to-noise ratio of two images in [0, 1], in dB."""
    return -10 * float(torch.log10((image.double() - truth.double()).square().mean()))


def shipped_case() -> tuple[Restorer, Tensor, float] | None:
    """Return restorer, clean image (1, 3, H, W) and recorded PSNR; None where weights or photograph are not here, or are others."""
    weights, photo = REPOSITORY / WEIGHTS, REPOSITORY / PHOTO
    if not (weights.is_file() and photo.is_file() and file_digest(weights)[:12] in RECORDED):
        return None
    image = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)[:SIZE, :SIZE]
    truth = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    return recipe_of_weights(weights).build(), truth, RECORDED[file_digest(weights)[:12]]


def random_case() -> tuple[Restorer, Tensor, float]:
    """Return the same for a small network with fixed random weights and a smooth picture, which need no files."""
    generator = torch.Generator().manual_seed(0)
    net = ADMUNet(model_channels=8, channel_mult=[1, 2], num_res_blocks=1, attention_resolutions=[2], num_head_channels=8, patch_size=2,
                  noise_channels=3).eval()
    state = {}
    for name, value in net.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        # layers that keep the size of what they get, so that every one of them counts
        state[name] = noise / (value[0].numel()**0.5) if value.ndim > 1 else 0.1 * noise + name.endswith('weight')
    net.load_state_dict(state)
    rows, columns = torch.meshgrid(torch.arange(64) / 10, torch.arange(64) / 7, indexing='ij')
    truth = 0.5 + 0.4 * torch.stack([rows.sin(), columns.cos(), (rows + columns).sin()])[None]
    bridge = build_bridge(type='I2SB', n_timestep=1000, beta_max=0.3)
    return Restorer(net=net, bridge=bridge, sampler=SamplerOptions(), scale=4), truth, RECORDED_RANDOM


def measure(restorer: Restorer, truth: Tensor, device: torch.device | str) -> float:
    """Return the PSNR of restoring ``truth`` (1, 3, H, W) from its bicubic reduction by four, with the noise of seed 0."""
    restorer.net.to(device)
    lq = quantize_uint8(sr_bicubic(truth[0]))[None]
    return psnr(restorer(lq.to(device), PerImageNoise.for_images(0, ['doctor'])).cpu(), truth)


def check_restoration() -> Iterator[Finding]:
    """Restore one image on the CPU, and on a GPU if there is one, and compare with the recorded PSNR."""
    case = shipped_case()
    what = 'the shipped x4 student' if case else 'a random network (no shipped weights here)'
    restorer, truth, recorded = case or random_case()
    for device in ('cpu', *(['cuda'] if torch.cuda.is_available() else [])):
        start = time.perf_counter()
        value = measure(restorer, truth, device)
        text = f'{what} on {device}: {value:.3f} dB, recorded {recorded:.3f} dB, {time.perf_counter() - start:.2f} s'
        if abs(value - recorded) <= TOLERANCE:
            yield Finding(OK, 'self-test', text)
        else:
            yield Finding(FAIL, 'self-test', text, 'this machine computes something else: try another version of torch, OMP_NUM_THREADS=1, '
                          'and please report the lines above')
