"""Building blocks of the ADM U-Net, with the parameter names and the arithmetic of guided-diffusion.

Source: Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis" (arXiv 2105.05233), appendix A, and the layout of its public
checkpoints. Nothing here knows what a bridge is: blocks map feature maps ``x`` (B, C, H, W) and a time embedding ``emb`` (B, E) to maps.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class GroupNorm32(nn.GroupNorm):
    """Group normalisation that computes half-precision input in float32 and returns the dtype it was given."""

    def forward(self, x: Tensor) -> Tensor:
        # not F.group_norm, which refuses groups of one value: a 1x1 map of a tiny picture is normalised to the bias
        wide = x if x.dtype == torch.float64 else x.float()
        return torch.group_norm(wide, self.num_groups, self.weight, self.bias, self.eps).type(x.dtype)


class Linear32(nn.Linear):
    """Linear layer that autocast leaves in float32.

    The time embedding passes through these: neighbouring times differ in the last digits of its sinusoids, which bfloat16 does not have.
    The layers see one vector for each image, so they cost nothing beside the convolutions.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not _autocast_is_on(x.device.type):  # to ask costs a tenth of the context
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


def _autocast_is_on(device_type: str) -> bool:
    if device_type == 'meta':  # autocast does not know it
        return False
    if ASKS_FOR_DEVICE:
        return torch.is_autocast_enabled(device_type)
    return torch.is_autocast_cpu_enabled() if device_type == 'cpu' else torch.is_autocast_enabled()


ASKS_FOR_DEVICE = torch.__version__ >= '2.4'
"""torch.is_autocast_enabled takes a device; before, it meant CUDA's. Not asked where it is needed, for torch.compile's sake."""


def normalization(channels: int) -> GroupNorm32:
    """Return the network's norm: 32 groups, eps 1e-5; fewer groups only where ``channels`` is not a multiple of 32 (nano sizes)."""
    return GroupNorm32(math.gcd(32, channels), channels)


def zero_module(module: nn.Module) -> nn.Module:
    """Set every parameter of ``module`` to zero and return it: residual branches start as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 1e4) -> Tensor:
    """Embed times sinusoidally, cosines first.

    Args:
        timesteps: (B,) times in the unit that the network was trained with (I2SB: 0.1 to 1000); may be fractional.
        dim: embedding width; an odd width is padded with one zero.
        max_period: longest period of the sinusoids.

    Returns:
        (B, dim) float32.
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half)
    angles = timesteps[:, None].float() * frequencies[None]
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, dim % 2))


class TimestepSequential(nn.Sequential):
    """Sequential that hands the time embedding to the layers that take it (:class:`ResBlock`)."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class Upsample(nn.Module):
    """Nearest-neighbour x2, then an optional 3x3 convolution ``conv``."""

    def __init__(self, channels: int, *, use_conv: bool):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if use_conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode='nearest'))


class Downsample(nn.Module):
    """Halve the size by a strided 3x3 convolution ``op`` or, without parameters, by 2x2 averaging."""

    def __init__(self, channels: int, *, use_conv: bool):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if use_conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class ResBlock(nn.Module):
    """Residual block modulated by the time embedding; may halve (``down``) or double (``up``) the size inside.

    The resampling of an ``up``/``down`` block stands after the first activation and before the first convolution, on the
    skip path as well. With ``use_scale_shift_norm`` the embedding gives ``GN(h) * (1 + scale) + shift``, else it is added to ``h``.

    With ``recompute`` a backward finds nothing but the block's inputs and computes the block again: same values, less memory, more time.
    """

    def __init__(self, channels: int, emb_channels: int, *, out_channels: int | None = None, dropout: float = 0.0,
                 use_scale_shift_norm: bool = True, up: bool = False, down: bool = False, recompute: bool = False):
        super().__init__()
        out_channels = out_channels or channels
        self.use_scale_shift_norm = use_scale_shift_norm
        self.recompute = recompute
        self.in_layers = nn.Sequential(normalization(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.resample = (Upsample(channels, use_conv=False) if up else Downsample(channels, use_conv=False) if down else None)
        self.emb_layers = nn.Sequential(
            nn.SiLU(), Linear32(emb_channels, 2 * out_channels if use_scale_shift_norm else out_channels))
        self.out_layers = nn.Sequential(
            normalization(out_channels), nn.SiLU(), nn.Dropout(dropout),
            zero_module(nn.Conv2d(out_channels, out_channels, 3, padding=1)))
        self.skip_connection = nn.Identity() if out_channels == channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        if not self.recompute or not torch.is_grad_enabled():
            return self._forward(x, emb)
        # without dropout nothing is drawn, and the generators' states need not be kept
        return checkpoint(self._forward, x, emb, use_reentrant=False, preserve_rng_state=self.out_layers[2].p > 0)

    def _forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, activation, conv = self.in_layers
        h = activation(norm(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv(h)
        modulation = self.emb_layers(emb).type(h.dtype)[:, :, None, None]
        norm, *rest = self.out_layers
        if self.use_scale_shift_norm:
            scale, shift = modulation.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + modulation)
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """Multi-head self-attention over all pixels, with a residual connection.

    ``qkv`` and ``proj_out`` are 1x1 Conv1d, so their weights are (3C, C, 1) and (C, C, 1) as in the published files.
    The two channel orders found in the field have the same names and shapes, and are not interchangeable:

    * ``legacy`` (ADM, I2SB, DBIM inpainting): channels are split into heads first, each head holds its own q, k, v;
    * ``new`` (DDBM, DBIM edges and DIODE): channels are split into q, k, v first, each then into heads.
    """

    ORDERS = ('legacy', 'new')

    def __init__(self, channels: int, *, num_head_channels: int, order: str):
        super().__init__()
        if order not in self.ORDERS:
            raise ValueError(f'attention_order must be one of {self.ORDERS}, got {order!r}.')
        if channels % num_head_channels:
            raise ValueError(f'num_head_channels must divide the {channels} channels of an attention block, got {num_head_channels}.')
        self.num_heads = channels // num_head_channels
        self.order = order
        self.norm = normalization(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero_module(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        flat = x.reshape(batch, channels, height * width)
        qkv = self.qkv(self.norm(flat))
        if self.order == 'legacy':
            parts = qkv.reshape(batch, self.num_heads, 3, -1, height * width).permute(2, 0, 1, 4, 3)
        else:
            parts = qkv.reshape(batch, 3, self.num_heads, -1, height * width).permute(1, 0, 2, 4, 3)
        # (3, B, heads, T, d). Contiguous, or torch falls back on the kernel that writes out all T x T weights
        h = F.scaled_dot_product_attention(*parts.contiguous())  # scaled by 1/sqrt(d) inside
        h = h.transpose(-1, -2).reshape(batch, channels, height * width)
        return (flat + self.proj_out(h)).reshape(batch, channels, height, width)
