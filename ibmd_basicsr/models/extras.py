"""Extras: losses on the student's clean images beside the distillation's own, against the true ones and against a discriminator."""
from __future__ import annotations

from typing import Any

import torch
from basicsr.losses import build_loss
from torch import Tensor, nn

EXTRA_LOSSES = {
    'pixel_opt': ('L1Loss', 'MSELoss', 'CharbonnierLoss'),
    'perceptual_opt': ('LPIPSLoss', 'PerceptualLoss'),
    'gan_opt': ('GANLoss',),
}
"""Block of ``train`` -> types of losses that it takes: BasicSR's, and our ``LPIPSLoss``."""

GAN_TYPES = ('vanilla', 'lsgan', 'wgan', 'wgan_softplus', 'hinge')
"""What BasicSR's ``GANLoss`` knows."""


class Extras:
    """The blocks ``train.pixel_opt``, ``perceptual_opt`` and ``gan_opt``, each of which may be absent; not in the IBMD paper.

    Images are the host's, (B, 3, H, W), RGB in [0, 1] but not clamped. The terms have the host's names and their ``loss_weight``. The
    GAN is the one of BasicSR's ``RealESRGANModel``: not relativistic, the discriminator's terms without weight.

    Args:
        train: the block ``train``.
        device: of the losses' own networks.
    """

    def __init__(self, train: dict[str, Any], device: torch.device):
        self.pixel, self.perceptual, self.gan = (
            build_loss(train[block]).to(device) if train.get(block) else None for block in EXTRA_LOSSES)

    @staticmethod
    def wanted(train: dict[str, Any]) -> str | None:
        """Return the path of the first block that is there, None where there is none."""
        return next((f'train.{block}' for block in EXTRA_LOSSES if train.get(block)), None)

    def student_terms(self, image: Tensor, clean: Tensor, net_d: nn.Module | None) -> dict[str, Tensor]:
        """Return the terms that the student minimises beside its own loss.

        Args:
            image: the student's output.
            clean: the true images.
            net_d: the discriminator, frozen; None without ``gan_opt``.
        """
        terms: dict[str, Tensor | None] = {}
        if self.pixel is not None:
            terms['l_g_pix'] = self.pixel(image, clean)
        if self.perceptual is not None:
            terms['l_g_percep'], terms['l_g_style'] = self.perceptual(image, clean)
        if self.gan is not None:
            terms['l_g_gan'] = self.gan(net_d(image), True, is_disc=False)
        return {name: term for name, term in terms.items() if term is not None}

    def discriminator_terms(self, net_d: nn.Module, image: Tensor, real: bool) -> dict[str, Tensor]:
        """Return ``l_d_real`` (or ``l_d_fake``), what the discriminator minimises, and ``out_d_real``, the mean of its output."""
        kind, scores = 'real' if real else 'fake', net_d(image)
        return {f'l_d_{kind}': self.gan(scores, real, is_disc=True), f'out_d_{kind}': scores.mean()}
