"""Networks of torchvision and TorchScript from local files: no download, no trace in the random state."""
from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from ibmd_basicsr.checkpoints.state_dict import load_file, load_strictly
from ibmd_basicsr.utils.errors import CheckpointError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def find_torchvision(name: str, path: str | os.PathLike | None, option: str) -> Path:
    """Return the file of a torchvision network's weights: ``path`` if given, else the one in torch's cache.

    Args:
        name: the network's, such as ``vgg16``. In the cache (``TORCH_HOME/hub/checkpoints``) its first weights are looked for,
            ``IMAGENET1K_V1`` where there are such.
        path: a file with a state dict, of any floating type.
        option: the name of the option that gives ``path``, for the message.

    Raises:
        CheckpointError: there is no such file.
    """
    published = Path(next(iter(torchvision.models.get_model_weights(name))).url).name
    found = Path(path or Path(torch.hub.get_dir()) / 'checkpoints' / published)
    if not found.is_file():
        raise CheckpointError(f'{found}: no such weight file; torchvision\'s {name} ({published}) is needed. '
                              f'Nothing is downloaded: put the file there, or give its path as {option}.')
    return found


def load_script(path: str | os.PathLike, device: str) -> nn.Module:
    """Read a TorchScript file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    if not Path(path).is_file():
        raise CheckpointError(f'{path}: no such TorchScript file.')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # torch advises against writing this format, which whoever has only the file cannot follow
            return torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise CheckpointError(f'{path}: cannot be read as a TorchScript file.') from error


def load_features(name: str, weights: str | os.PathLike) -> nn.Sequential:
    """Build ``features`` of a network of torchvision, frozen, in float32 on the CPU, with torchvision's layer numbers.

    Args:
        name: ``alexnet`` or ``vgg16``.
        weights: state dict with ``features.*``; other parts (the classifier) are not read.

    Raises:
        CheckpointError: the file is missing, damaged or of another network.
    """
    # without memory or random numbers: VGG16's classifier alone would be 494 MB, filled for nothing
    with torch.device('meta'):
        features = getattr(torchvision.models, name)(weights=None).features
    features = features.to_empty(device='cpu')
    content = load_file(weights, mmap=True)
    load_strictly(features, {key.removeprefix('features.'): value for key, value in content.items()
                             if str(key).startswith('features.')}, str(weights))
    return features.eval().requires_grad_(False)


def to_rgb_batch(images: np.ndarray, device: str) -> Tensor:
    """Return images (H, W, 3) or (B, H, W, 3), BGR, uint8 or float in [0, 255], as (B, 3, H, W), RGB, float32 in [0, 1]."""
    rgb = np.ascontiguousarray(images[..., ::-1], dtype=np.float32)
    return torch.from_numpy(rgb.reshape(-1, *rgb.shape[-3:])).permute(0, 3, 1, 2).to(device) / 255


class ImageNetNorm(nn.Module):
    """(B, 3, H, W), RGB in [0, 1], to zero mean and unit variance over ImageNet, as torchvision's networks were trained."""

    def __init__(self):
        super().__init__()
        self.register_buffer('mean', torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer('std', torch.tensor(IMAGENET_STD).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std
