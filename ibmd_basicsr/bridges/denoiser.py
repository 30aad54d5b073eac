"""The narrow waist of the package: ``(x_t, t, x_T) -> x0_hat``. Teacher, bridge network and student are all this class."""
from __future__ import annotations

from torch import Tensor, nn

from ibmd_basicsr.bridges.precond import Precond


class Denoiser(nn.Module):
    """A network seen as an estimator of the clean image.

    Args (keyword only):
        net: callable module ``net(x, timesteps, cond=None, z=None)`` with the raw head (see :mod:`ibmd_basicsr.bridges.precond`).
        precond: gives ``scalings(t, ndim)``.
        conditional: hand x_T to the network as ``cond`` (conditional bridges).
        labels: (B,) class indices of the batch, handed to class-conditional networks as ``y``.
    """

    def __init__(self, *, net: nn.Module, precond: Precond, conditional: bool = False, labels: Tensor | None = None):
        super().__init__()
        self.net = net
        self.precond = precond
        self.conditional = conditional
        self.given = {} if labels is None else {'y': labels}

    def forward(self, x_t: Tensor, t: Tensor, x_T: Tensor, z: Tensor | None = None) -> Tensor:
        """Estimate x_0.

        Args:
            x_t: (B, C, H, W) bridge sample, float32 or float64; the network runs in float32.
            t: (B,) float64 times in [0, 1].
            x_T: (B, C, H, W) corrupted image in [-1, 1]; used by conditional networks only.
            z: (B, Cz, H, W) generator noise, for students with noise channels.

        Returns:
            (B, C, H, W) in the dtype of ``x_t``, not clamped.
        """
        s = self.precond.scalings(t, x_t.ndim)
        cond = x_T.float() if self.conditional else None
        F_x = self.net(_times(s.c_in, x_t).float(), s.c_noise.float(), cond=cond, z=z, **self.given)
        # in place, and nothing multiplied by one: samplers of small networks spend their time on fields that are written once more
        return (s.c_out.to(x_t.dtype) * F_x).add_(_times(s.c_skip, x_t).to(x_t.dtype))


def _times(scaling: Tensor | float, x: Tensor) -> Tensor:
    """Return ``scaling`` times ``x``; ``x`` itself for a scaling of exactly one."""
    return x if isinstance(scaling, float) and scaling == 1 else scaling * x
