"""LPIPSLoss: the learned perceptual distance as a loss, offline."""
from __future__ import annotations

import os

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from ibmd_basicsr.checkpoints.lpips_network import ALEXNET_FEATURES, build_lpips


@LOSS_REGISTRY.register()
class LPIPSLoss(nn.Module):
    """LPIPS v0.1 (Zhang et al., arXiv 1801.03924) between images, in the place of BasicSR's ``PerceptualLoss``, without a download.

    **A network must not be judged by the features it was trained with.** After training with ``net: alex``, ``calculate_lpips`` (AlexNet)
    and ``Diversity`` (which is made of it) are no judges any more; after ``net: vgg``, DISTS is none (VGG16).

    Args (keyword only):
        loss_weight: factor of the loss.
        net: ``vgg`` (VGG16) or ``alex`` (AlexNet).
        weights: file of torchvision's features, as for the metrics. Needed for ``vgg``; ``alex`` has a shipped default.

    Raises:
        ValueError: unknown ``net``; ``vgg`` without weights.
        CheckpointError: the weight file is missing or damaged.
    """

    SMALLEST = {'vgg': 16, 'alex': 32}
    """Smallest side for which the features of ``net`` have a pixel left."""

    def __init__(self, *, loss_weight: float = 1.0, net: str = 'vgg', weights: str | os.PathLike | None = None):
        super().__init__()
        if net not in self.SMALLEST:
            raise ValueError(f'LPIPSLoss: net must be one of {tuple(self.SMALLEST)}, got {net!r}.')
        if net == 'vgg' and weights is None:
            raise ValueError("LPIPSLoss: net vgg needs weights, a file of torchvision's VGG16; nothing is downloaded.")
        self.loss_weight = loss_weight
        self.smallest = self.SMALLEST[net]
        self.lpips = build_lpips(net, weights or ALEXNET_FEATURES)

    def forward(self, x: Tensor, gt: Tensor) -> tuple[Tensor, None]:
        """Return the scalar loss, a mean over the batch, and None for the style loss that the host's ``PerceptualLoss`` has.

        Args:
            x: (B, 3, H, W) RGB in [0, 1], not clamped.
            gt: the same of the clean images; no gradient is sent to it.

        Raises:
            ValueError: images too small for the network.
        """
        if min(x.shape[-2:]) < self.smallest:
            raise ValueError(f'LPIPSLoss: images must have at least {self.smallest} pixels a side, got {tuple(x.shape[-2:])}.')
        return self.loss_weight * self.lpips(x, gt, normalize=True).mean(), None
