"""Losses of bridge matching and of inverse bridge matching: functions of tensors; they call no network and know no bridge."""
from __future__ import annotations

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

TIME_WEIGHT_NAMES = ('uniform', 'inverse_variance', 'clean_end', 'clean_end_inverse_variance')
"""Names of lambda(t), whose functions belong to the bridges: uniform (1), inverse_variance (1/c_out^2), clean_end (10^(2 (1 - t))) and
clean_end_inverse_variance (10^(1 - t) / c_out^2)."""


def _check_time_weight(time_weight: str) -> None:
    if time_weight not in TIME_WEIGHT_NAMES:
        raise ValueError(f'time_weight must be one of {TIME_WEIGHT_NAMES}, got {time_weight!r}.')


@LOSS_REGISTRY.register()
class BridgeMatchingLoss(nn.Module):
    """``E lambda(t) |x0_hat - x_0|^2``, the regression of bridge matching (I2SB eq. 12, IBMD eq. 6).

    Args (keyword only):
        loss_weight: factor of the whole loss.
        time_weight: name of lambda(t), looked up by the model: ``uniform`` (1), ``inverse_variance`` (1/c_out^2; then the loss is the plain
            MSE of the raw network output, on I2SB with 1/sigma_t^2), ``clean_end`` (10^(2 (1 - t))) or ``clean_end_inverse_variance``
            (10^(1 - t) / c_out^2).
        mask_only: count the pixels in the hole of inpainting tasks alone; the mean is still over all, as in I2SB.

    Raises:
        ValueError: unknown ``time_weight``.
    """

    def __init__(self, *, loss_weight: float = 1.0, time_weight: str = 'inverse_variance', mask_only: bool = True):
        super().__init__()
        _check_time_weight(time_weight)
        self.loss_weight = loss_weight
        self.time_weight = time_weight
        self.mask_only = mask_only

    def forward(self, x0_hat: Tensor, x_0: Tensor, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the scalar loss.

        Args:
            x0_hat: (B, C, H, W) estimate of the clean image, [-1, 1].
            x_0: (B, C, H, W) the clean image; no gradient is sent to it by this function's caller.
            weight: lambda(t), broadcastable against the batch.
            mask: (B, 1, H, W), 1 in the hole; None for tasks without one.
        """
        loss = weight * (x0_hat - x_0).square()
        return self.loss_weight * (loss if mask is None or not self.mask_only else loss * mask).mean()


@LOSS_REGISTRY.register()
class InverseBridgeLoss(nn.Module):
    """The student's side of inverse bridge matching (IBMD theorem 3.4): ``E lambda(t) (|r - x_0|^2 - |f - x_0|^2)``.

    r = teacher(x_t, t), f = bridge network(x_t, t), x_0 = G(x_T, z). Computed as ``2 lambda ((r - f)(r - x_0) - alpha |r - f|^2)``,
    which at alpha = 1/2 is the same number and the same gradient, and has no difference of two large terms.

    Args (keyword only):
        loss_weight: factor of the whole loss.
        time_weight: name of lambda(t), as in :class:`BridgeMatchingLoss`.
        gradient: ``full`` sends the gradient through x_0 and through x_t, hence through both networks' inputs (the paper);
            ``x0_only`` detaches x_t (what the released code does for I2SB's SR and JPEG), leaving ``2 lambda (f - r)`` on x_0.
        alpha: 0.5 is the exact objective; SiD (arXiv 2404.04057) uses up to 1.2. Only ``full`` feels it: with ``x0_only`` its term has no
            gradient, so another value is refused.
        normalize: divide each image's loss by its detached mean |r - x_0| (SiD).
        mask_only: as in :class:`BridgeMatchingLoss`.

    Raises:
        ValueError: unknown ``time_weight`` or ``gradient``, or an ``alpha`` that would do nothing.
    """

    GRADIENTS = ('full', 'x0_only')

    def __init__(self, *, loss_weight: float = 1.0, time_weight: str = 'uniform', gradient: str = 'full', alpha: float = 0.5,
                 normalize: bool = False, mask_only: bool = True):
        super().__init__()
        _check_time_weight(time_weight)
        if gradient not in self.GRADIENTS:
            raise ValueError(f'InverseBridgeLoss: gradient must be one of {self.GRADIENTS}, got {gradient!r}.')
        if gradient == 'x0_only' and alpha != 0.5:
            raise ValueError('InverseBridgeLoss: alpha has no effect with gradient x0_only: leave it out or use gradient full, '
                             f'got {alpha}.')
        self.loss_weight = loss_weight
        self.time_weight = time_weight
        self.gradient = gradient
        self.alpha = alpha
        self.normalize = normalize
        self.mask_only = mask_only

    def network_input(self, x_t: Tensor) -> Tensor:
        """Return x_t as the two frozen networks shall see it: with its gradient (``full``) or without (``x0_only``)."""
        return x_t if self.gradient == 'full' else x_t.detach()

    def forward(self, teacher_x0: Tensor, bridge_x0: Tensor, x_0: Tensor, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the scalar loss.

        Args:
            teacher_x0, bridge_x0: (B, C, H, W) estimates r and f of the clean image.
            x_0: (B, C, H, W) the student's output.
            weight: lambda(t), broadcastable against the batch.
            mask: (B, 1, H, W), 1 in the hole; None for tasks without one.
        """
        gap, residual = teacher_x0 - bridge_x0, teacher_x0 - x_0
        loss = 2 * weight * (gap * residual - self.alpha * gap.square())
        if mask is not None and self.mask_only:
            loss = loss * mask
        if self.normalize:
            loss = loss / residual.detach().abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
        return self.loss_weight * loss.mean()
