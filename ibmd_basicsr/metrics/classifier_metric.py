"""calculate_classifier_accuracy: does a frozen classifier still see in the restored image what is there?"""
from __future__ import annotations

import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from basicsr.utils.registry import METRIC_REGISTRY
from torch import Tensor, nn

from ibmd_basicsr.checkpoints.state_dict import load_file, load_strictly
from ibmd_basicsr.metrics.backbones import ImageNetNorm, find_torchvision, load_script, to_rgb_batch
from ibmd_basicsr.metrics.pairs import crop_pair
from ibmd_basicsr.utils.errors import CheckpointError

SIZE = 224
"""Side that images are brought to for torchvision's classifiers."""


@METRIC_REGISTRY.register()
def calculate_classifier_accuracy(img: np.ndarray, img2: np.ndarray | None = None, crop_border: int = 0, classifier: str = 'resnet50',
                                  weights: str | None = None, size: int | None = None, labels: str | None = None,
                                  label: int | None = None, device: str | None = None, **kwargs: Any) -> float:
    """Return 100 if the classifier's first choice is right, else 0: the mean over images is the top-1 accuracy in percent.

    Right is the true label or, without labels, the first choice on the reference image. As in the tables of I2SB (arXiv 2302.05872) and
    IBMD with ResNet-50, images are resized to 224x224, bicubic without antialiasing, and normalised by ImageNet's mean and deviation.

    Args:
        img: (H, W, 3), restored, BGR, uint8 or float in [0, 255].
        img2: the reference, of the same size; not looked at where there is a label.
        crop_border: pixels left out on each side.
        classifier: a classifier of ``torchvision.models`` by name, or a TorchScript file that maps (B, 3, H, W), RGB, float32 in [0, 1]
            to scores (B, classes). TorchScript is code: use files of people you trust.
        weights: file of torchvision's weights, of any floating type; default the name's ``IMAGENET1K_V1`` in torch's cache
            (``TORCH_HOME/hub/checkpoints``). Not for a TorchScript file.
        size: side to resize to; default 224 for torchvision's classifiers, none for a TorchScript file.
        labels: label file of the images. Validation reads it and hands over ``label``.
        label: true class, an index of the scores.
        device: where to run; default the GPU if there is one.
        kwargs: further keys of the host's metric block, not used.

    Raises:
        ValueError: no such classifier, sizes that differ, ``labels`` without ``label``, neither label nor reference, or scores that are
            not (B, classes) or have no such class.
        CheckpointError: a weight file is missing or damaged.
    """
    if labels is not None and label is None:
        raise ValueError('calculate_classifier_accuracy: labels are looked up by our models\' validation; elsewhere leave labels out, or '
                         'give label, the class of this image.')
    if label is None and img2 is None:
        raise ValueError('calculate_classifier_accuracy: needs labels or a reference image.')
    model = _load(classifier, weights and str(weights), size, device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    img, img2 = crop_pair('calculate_classifier_accuracy', img, img if img2 is None else img2, crop_border, 1)
    if label is None:
        return 100.0 * (model.first_choice(img) == model.first_choice(img2))
    return 100.0 * (model.first_choice(img, label) == label)


class Classifier:
    """A frozen classifier with what happens to an image before it.

    Args:
        network: (B, 3, h, w), RGB, float32 in [0, 1], to scores (B, classes).
        size: side to resize to, or None.
        device: where the network lies.
    """

    def __init__(self, network: nn.Module, size: int | None, device: str):
        self.network = network
        self.size = size
        self.device = device

    @torch.no_grad()
    def first_choice(self, image: np.ndarray, label: int = 0) -> int:
        """Return the class with the largest score of an image (H, W, 3), BGR, uint8 or float in [0, 255].

        Raises:
            ValueError: the scores are not (1, classes), or ``label`` is none of the classes.
        """
        x = to_rgb_batch(image, self.device)
        if self.size is not None:
            x = F.interpolate(x, size=(self.size, self.size), mode='bicubic')
        scores: Tensor = self.network(x)
        if scores.ndim != 2 or len(scores) != 1:
            raise ValueError(f'a classifier must return (B, classes), got {tuple(scores.shape)} for one image.')
        if not 0 <= label < scores.shape[1]:
            raise ValueError(f'label {label} is none of the classifier\'s {scores.shape[1]} classes.')
        return int(scores.argmax())


def find_classifier(classifier: str = 'resnet50', weights: str | os.PathLike | None = None) -> Path:
    """Return the file that a classifier's weights will be read from; arguments as of :func:`calculate_classifier_accuracy`.

    Raises:
        CheckpointError: there is no such file.
        ValueError: no such classifier, or ``weights`` beside a TorchScript file.
    """
    if classifier in torchvision.models.list_models(module=torchvision.models):
        return find_torchvision(classifier, weights, 'weights')
    if not Path(classifier).is_file():
        raise ValueError(f'classifier must be a classifier of torchvision.models or a TorchScript file, got {classifier!r}.')
    if weights is not None:
        raise ValueError(f'classifier {classifier}: a TorchScript file holds its weights, leave weights out.')
    return Path(classifier)


@lru_cache(maxsize=2)
def _load(classifier: str, weights: str | None, size: int | None, device: str) -> Classifier:
    """Build a classifier from local files."""
    file = find_classifier(classifier, weights)
    if classifier not in torchvision.models.list_models(module=torchvision.models):
        return Classifier(load_script(file, device), size, device)
    # the constructor fills the network with random numbers: that must not move the random state of a training run
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # GoogLeNet and Inception warn that this filling will change
        network = torchvision.models.get_model(classifier, weights=None)
    params = load_file(file, mmap=True)
    if not all(isinstance(value, Tensor) for value in params.values()):
        raise CheckpointError(f'{file}: must be a state dict of torchvision\'s {classifier}.')
    # the counts of batches seen, which files older than they are lack, have no part in evaluation
    counts = {name: value for name, value in network.state_dict().items() if name.endswith('num_batches_tracked')}
    load_strictly(network, counts | params, str(file))
    network = nn.Sequential(ImageNetNorm(), network).eval().requires_grad_(False)
    return Classifier(network.to(device), size or SIZE, device)
