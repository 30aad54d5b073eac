"""The network of LPIPS v0.1 from local files, for the metric and the loss: no download, no trace in the random state."""
from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from torch import nn

from ibmd_basicsr.checkpoints.state_dict import load_file, load_strictly

ALEXNET_FEATURES = Path(__file__).parents[1] / 'metrics' / 'weights' / 'alexnet_features_fp16.pth'


def build_lpips(net: str, weights: str | os.PathLike) -> nn.Module:
    """Build LPIPS on the CPU, in eval mode and frozen: heads from the ``lpips`` package, features from ``weights``.

    Gradients to its inputs, (B, 3, H, W), RGB in [-1, 1], still flow.

    Args:
        net: ``alex`` or ``vgg``.
        weights: state dict of torchvision's AlexNet or VGG16, whole or ``features.*`` alone, of any floating type.

    Raises:
        CheckpointError: the weight file is missing, damaged or of another network.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torchvision's deprecated argument names, inside lpips
        import lpips

        # without memory or random numbers: VGG16's classifier, which lpips builds and drops, would be 494 MB
        with torch.device('meta'):
            model = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    model = model.to_empty(device='cpu')
    model.scaling_layer = lpips.ScalingLayer()  # constants, lost on the meta device
    heads = load_file(Path(lpips.__file__).parent / 'weights' / 'v0.1' / f'{net}.pth')
    for number, head in enumerate(model.lins):
        prefix = f'lin{number}.'
        load_strictly(head, {name.removeprefix(prefix): value for name, value in heads.items() if name.startswith(prefix)}, 'the heads')
    content = load_file(weights, mmap=True)
    features = {name.removeprefix('features.'): value for name, value in content.items() if str(name).startswith('features.')}
    for part in (model.net.slice1, model.net.slice2, model.net.slice3, model.net.slice4, model.net.slice5):
        # the slices keep torchvision's layer numbers as names
        load_strictly(part, {name: features[name] for name in part.state_dict() if name in features}, str(weights))
    return model.eval().requires_grad_(False)
