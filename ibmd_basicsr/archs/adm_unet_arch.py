"""ADMUNet: the guided-diffusion U-Net, state-dict compatible with its published files, plus what small fast restorers need."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ibmd_basicsr.archs.adm_layers import (
    AttentionBlock,
    Downsample,
    Linear32,
    ResBlock,
    TimestepSequential,
    Upsample,
    normalization,
    timestep_embedding,
    zero_module,
)
from ibmd_basicsr.utils.numbers import is_integer


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """What the blocks of an :class:`ADMUNet` have in common; makes them. ``factor``: downsampling of a level (a size change: the finer)."""

    emb_channels: int
    dropout: float
    use_scale_shift_norm: bool
    resblock_updown: bool
    attention_resolutions: Sequence[int]
    num_head_channels: int
    num_heads: int | None
    attention_order: str
    checkpoint_levels: Sequence[int]

    def residual(self, channels: int, factor: int, **kwargs: Any) -> ResBlock:
        return ResBlock(channels, self.emb_channels, dropout=self.dropout, use_scale_shift_norm=self.use_scale_shift_norm,
                        recompute=factor in self.checkpoint_levels, **kwargs)

    def attention(self, channels: int) -> AttentionBlock:
        if self.num_heads is not None and channels % self.num_heads:
            raise ValueError(f'ADMUNet: num_heads must divide the {channels} channels of an attention block, got {self.num_heads}.')
        head_width = self.num_head_channels if self.num_heads is None else channels // self.num_heads
        return AttentionBlock(channels, num_head_channels=head_width, order=self.attention_order)

    def pair(self, channels: int, width: int, factor: int) -> list[nn.Module]:
        """Return a residual block from ``channels`` to ``width`` and, where the level has it, attention."""
        layers: list[nn.Module] = [self.residual(channels, factor, out_channels=width)]
        return layers + [self.attention(width)] if factor in self.attention_resolutions else layers

    def shrink(self, width: int, factor: int) -> nn.Module:
        return self.residual(width, factor, down=True) if self.resblock_updown else Downsample(width, use_conv=True)

    def grow(self, width: int, factor: int) -> nn.Module:
        return self.residual(width, factor, up=True) if self.resblock_updown else Upsample(width, use_conv=True)


@ARCH_REGISTRY.register()
class ADMUNet(nn.Module):
    """U-Net of ADM (arXiv 2105.05233), parameter names and registration order as in guided-diffusion's checkpoints.

    With ``patch_size=1`` and the sizes of I2SB (``model_channels=256, channel_mult=(1,1,2,2,4,4), num_res_blocks=2,
    attention_resolutions=(8,16,32), num_head_channels=64``) it has 552,807,171 parameters in 566 tensors.

    Beyond the published network:

    * ``patch_size`` p: the image is pixel-unshuffled to (p^2 C, H/p, W/p) at the entrance and shuffled back at the exit, which
      divides the cost by p^2; p = 1 is the published network.
    * ``cond_channels``, ``noise_channels``: extra input channels behind the image's, for x_T and for generator noise z. Those of
      z start at zero weight, and so do those of x_T: the network then starts as the one without them.

    Args (keyword only):
        in_channels: channels of the image (and of the output unless ``out_channels`` is given).
        out_channels: channels of the output; default ``in_channels``. ADM's learned-sigma files have 6.
        cond_channels: channels of ``cond`` (conditional bridges: 3), 0 for none.
        noise_channels: channels of ``z`` (students: 3), 0 for none.
        model_channels: width of the first level; the time embedding has 4 times as many.
        channel_mult: width of each level in units of ``model_channels``; its length is the number of levels.
        num_res_blocks: residual blocks per level.
        attention_resolutions: *downsampling factors* (not sizes) of the levels with attention, after patching.
        num_head_channels: channels of an attention head.
        num_heads: number of heads of every attention block, in place of ``num_head_channels`` (guided-diffusion's other way).
        attention_order: ``legacy`` (ADM, I2SB) or ``new`` (DDBM); see :class:`~ibmd_basicsr.archs.adm_layers.AttentionBlock`.
        use_scale_shift_norm: modulate the norm (scale and shift) instead of adding the embedding.
        resblock_updown: change size inside residual blocks; else by a strided convolution / nearest + convolution.
        dropout: dropout rate in the residual blocks.
        num_classes: number of classes of a class-conditional network, or None.
        patch_size: see above.
        checkpoint_levels: *downsampling factors*, as in ``attention_resolutions``, of the levels whose residual blocks keep nothing for the
            backward but their inputs, and are computed again in it. Attention is never computed again. A block that changes size
            belongs to the finer of its two levels. Values and parameters are the same; see ``train --dry-run`` for memory and time.

    Raises:
        ValueError: an argument out of range, named with its value.
    """

    WIDEST = 2**14
    """Most channels of a level. What is larger is a slip: it would be found when the memory is full, or after hours of building."""
    LARGEST = {'in_channels': 2**10, 'out_channels': 2**10, 'cond_channels': 2**10, 'noise_channels': 2**10, 'num_res_blocks': 32,
               'patch_size': 64, 'num_classes': 10**6}
    MOST_LEVELS = 10
    OPTIONAL = ('out_channels', 'num_heads', 'num_classes')
    """Integers that may be None."""

    def __init__(
            self,
            *,
            in_channels: int = 3,
            out_channels: int | None = None,
            cond_channels: int = 0,
            noise_channels: int = 0,
            model_channels: int = 256,
            channel_mult: Sequence[float] = (1, 1, 2, 2, 4, 4),
            num_res_blocks: int = 2,
            attention_resolutions: Sequence[int] = (8, 16, 32),
            num_head_channels: int = 64,
            num_heads: int | None = None,
            attention_order: str = 'legacy',
            use_scale_shift_norm: bool = True,
            resblock_updown: bool = True,
            dropout: float = 0.0,
            num_classes: int | None = None,
            patch_size: int = 1,
            checkpoint_levels: Sequence[int] = ()):
        super().__init__()
        self._check_integers(
            in_channels=in_channels, out_channels=out_channels, cond_channels=cond_channels, noise_channels=noise_channels,
            model_channels=model_channels, num_res_blocks=num_res_blocks, patch_size=patch_size, num_head_channels=num_head_channels,
            num_heads=num_heads, num_classes=num_classes)
        if not 0 <= dropout < 1:
            raise ValueError(f'ADMUNet: dropout must lie in [0, 1), got {dropout!r}.')
        self._check_levels(channel_mult, model_channels, checkpoint_levels)
        self.in_channels = in_channels
        self.out_channels = in_channels if out_channels is None else out_channels
        self.cond_channels = cond_channels
        self.noise_channels = noise_channels
        self.model_channels = model_channels
        self.patch_size = patch_size
        self.num_classes = num_classes
        self.size_multiple = patch_size * 2**(len(channel_mult) - 1)

        emb_channels = 4 * model_channels
        blocks = _Blocks(
            emb_channels=emb_channels, dropout=dropout, use_scale_shift_norm=use_scale_shift_norm, resblock_updown=resblock_updown,
            attention_resolutions=attention_resolutions, num_head_channels=num_head_channels, num_heads=num_heads,
            attention_order=attention_order, checkpoint_levels=checkpoint_levels)
        widths = [int(mult * model_channels) for mult in channel_mult]
        # modules are registered, and their weights drawn, in guided-diffusion's order
        self.time_embed = nn.Sequential(
            Linear32(model_channels, emb_channels), nn.SiLU(), Linear32(emb_channels, emb_channels))
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, emb_channels)
        skips = self._add_input_half(blocks, widths, num_res_blocks)
        width, factor = widths[-1], 2**(len(widths) - 1)
        self.middle_block = TimestepSequential(
            blocks.residual(width, factor), blocks.attention(width), blocks.residual(width, factor))
        self._add_output_half(blocks, widths, num_res_blocks, skips)
        self.out = nn.Sequential(
            normalization(widths[0]), nn.SiLU(),
            zero_module(nn.Conv2d(widths[0], patch_size**2 * self.out_channels, 3, padding=1)))

    def _check_integers(self, **given: int | None) -> None:
        for name, value in given.items():
            if value is None and name in self.OPTIONAL:
                continue
            least, most = 0 if name in ('cond_channels', 'noise_channels') else 1, self.LARGEST.get(name, self.WIDEST)
            if not is_integer(value, least):
                raise ValueError(f'ADMUNet: {name} must be an integer of at least {least}, got {value!r}.')
            if value > most:
                raise ValueError(f'ADMUNet: {name} must be an integer of at most {most}, got {value}.')

    def _check_levels(self, channel_mult: Sequence[float], model_channels: int, checkpoint_levels: Sequence[int]) -> None:
        if not channel_mult:
            raise ValueError('ADMUNet: channel_mult must name at least one level, got an empty list.')
        if len(channel_mult) > self.MOST_LEVELS:
            raise ValueError(f'ADMUNet: channel_mult must name at most {self.MOST_LEVELS} levels, got {len(channel_mult)}.')
        for mult in channel_mult:
            if not 1 <= mult * model_channels <= self.WIDEST:
                raise ValueError(f'ADMUNet: channel_mult must give each level 1 to {self.WIDEST} channels, got {mult!r} times '
                                 f'model_channels: {model_channels}.')
        factors = [2**level for level in range(len(channel_mult))]
        if not isinstance(checkpoint_levels, (list, tuple)) or not set(checkpoint_levels) <= set(factors):
            raise ValueError(f'ADMUNet: checkpoint_levels must be a list of downsampling factors out of {factors}, '
                             f'got {checkpoint_levels!r}.')

    def _add_input_half(self, blocks: _Blocks, widths: Sequence[int], num_res_blocks: int) -> list[int]:
        """Register ``input_blocks``; return the width of each block's output, for the concatenations of the output half."""
        width, patch_area = widths[0], self.patch_size**2
        entrance = nn.Conv2d(patch_area * (self.in_channels + self.cond_channels + self.noise_channels), width, 3, padding=1)
        with torch.no_grad():
            entrance.weight[:, patch_area * self.in_channels:].zero_()
        self.input_blocks = nn.ModuleList([TimestepSequential(entrance)])
        skips = [width]
        for level, level_width in enumerate(widths):
            factor = 2**level
            for _ in range(num_res_blocks):
                self.input_blocks.append(TimestepSequential(*blocks.pair(width, level_width, factor)))
                width = level_width
                skips.append(width)
            if level < len(widths) - 1:
                self.input_blocks.append(TimestepSequential(blocks.shrink(width, factor)))
                skips.append(width)
        return skips

    def _add_output_half(self, blocks: _Blocks, widths: Sequence[int], num_res_blocks: int, skips: Sequence[int]) -> None:
        """Register ``output_blocks``; ``skips`` as :meth:`_add_input_half` returns them."""
        width, skips = widths[-1], list(skips)
        self.output_blocks = nn.ModuleList()
        for level, level_width in reversed(list(enumerate(widths))):
            for i in range(num_res_blocks + 1):
                layers = blocks.pair(width + skips.pop(), level_width, 2**level)
                width = level_width
                if level and i == num_res_blocks:
                    layers.append(blocks.grow(width, 2**(level - 1)))
                self.output_blocks.append(TimestepSequential(*layers))

    def forward(self, x: Tensor, timesteps: Tensor, cond: Tensor | None = None, z: Tensor | None = None,
                y: Tensor | None = None) -> Tensor:
        """Run the network.

        Args:
            x: (B, in_channels, H, W), H and W multiples of ``size_multiple``.
            timesteps: (B,) network times (I2SB: 0.1 to 1000).
            cond: (B, cond_channels, H, W), given exactly when ``cond_channels`` > 0.
            z: (B, noise_channels, H, W), given exactly when ``noise_channels`` > 0.
            y: (B,) class indices, given exactly when ``num_classes`` is set.

        Returns:
            (B, out_channels, H, W).

        Raises:
            ValueError: an input is missing, superfluous or of the wrong size.
        """
        self._check_inputs(x, cond, z, y)
        h = torch.cat([F.pixel_unshuffle(part, self.patch_size) for part in (x, cond, z) if part is not None], dim=1)
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels))
        if y is not None:
            emb = emb + self.label_emb(y)

        stack = []
        for block in self.input_blocks:
            h = block(h, emb)
            stack.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, stack.pop()], dim=1), emb)
        return F.pixel_shuffle(self.out(h), self.patch_size)

    def _check_inputs(self, x: Tensor, cond: Tensor | None, z: Tensor | None, y: Tensor | None) -> None:
        for name, value, channels in (('x', x, self.in_channels), ('cond', cond, self.cond_channels),
                                      ('z', z, self.noise_channels)):
            got = 0 if value is None else value.shape[1]
            if got != channels:
                raise ValueError(f'ADMUNet: {name} must have {channels} channels, got {got}.')
        if (y is None) != (self.num_classes is None):
            raise ValueError(f'ADMUNet: y must be {"left out" if self.num_classes is None else "given"} (num_classes={self.num_classes}).')
        if x.shape[-2] % self.size_multiple or x.shape[-1] % self.size_multiple:
            raise ValueError(f'ADMUNet: height and width must be multiples of {self.size_multiple}, got {tuple(x.shape[-2:])}.')
