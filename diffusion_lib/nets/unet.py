"""The U-Net that denoises pictures.

Ronneberger et al. 2015 (the shape); Ho et al. 2020, appendix B (residual blocks, time, attention); Dhariwal & Nichol 2021,
section 3 (adaptive group norm). Most of the arithmetic of such a network is spent at full resolution, and most of its
parameters sit at the lowest. So this one keeps few channels at the top and puts its depth at the bottom: at an equal
number of parameters that halves the work, and the loss does not suffer (benchmarks/unet_training.py measures both).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lib.nets.embeddings import Conditioning
from diffusion_lib.validate import check_count, check_tensor


def zeroed(layer: nn.Module) -> nn.Module:
    """Set all parameters of ``layer`` to zero and return it: its branch starts as "add nothing"."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with at most 8 groups of at least 4 channels each (fewer groups where they would not divide)."""
    return nn.GroupNorm(max(g for g in (8, 4, 2, 1) if channels % g == 0 and (channels // g >= 4 or g == 1)), channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions on a residual path; the conditioning vector scales and shifts the features between them.

    "Adaptive group normalisation" (Dhariwal & Nichol 2021, section 3.1); without ``adaptive_norm`` the vector is only added before the
    norm, as in Ho et al. 2020. Book (6.8). The second convolution starts at zero.

    Args:
        inputs, outputs: channels in and out.
        condition: width of the conditioning vector.
        dropout: probability in [0, 1) of dropping a feature before the second convolution.
    """

    def __init__(self, inputs: int, outputs: int, condition: int, dropout: float = 0.0, adaptive_norm: bool = True):
        super().__init__()
        self.norm_in = group_norm(inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.adaptive_norm = adaptive_norm
        self.modulation = nn.Linear(condition, 2 * outputs if adaptive_norm else outputs)
        self.norm_out = group_norm(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        inner = self.conv_in(F.silu(self.norm_in(h)))                                   # (B, outputs, H, W)
        modulation = self.modulation(condition)[:, :, None, None]
        if self.adaptive_norm:
            scale, shift = modulation.chunk(2, dim=1)                                   # (B, outputs, 1, 1) each
            inner = self.norm_out(inner) * (1 + scale) + shift
        else:
            inner = self.norm_out(inner + modulation)
        return self.shortcut(h) + self.conv_out(self.dropout(F.silu(inner)))


class SelfAttention(nn.Module):
    """Every pixel looks at every other one (Vaswani et al. 2017, eq. 1), on a residual path that starts at zero.

    Args:
        channels: channels in and out.
        head: channels per head; the number of heads is ``channels // head`` (at least one).
    """

    def __init__(self, channels: int, head: int = 32):
        super().__init__()
        self.heads = channels // head if channels % head == 0 else 1
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, h: Tensor) -> Tensor:
        batch, channels, height, width = h.shape
        tokens = self.norm(h).permute(0, 2, 3, 1).reshape(batch, height * width, channels)     # (B, HW, C)
        qkv = self.qkv(tokens).view(batch, height * width, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)                                         # (B, heads, HW, C / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, height * width, channels))       # (B, HW, C)
        return h + mixed.view(batch, height, width, channels).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """The residual blocks of one resolution, each followed by attention where asked for."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, condition: int, attention: bool, dropout: float, adaptive_norm: bool
    ):
        super().__init__()
        channels = [inputs] + [outputs] * blocks
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, condition, dropout, adaptive_norm) for a, b in pairwise(channels)
        )
        self.attention = nn.ModuleList(SelfAttention(outputs) for _ in range(blocks if attention else 0))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            h = block(h, condition)
            if self.attention:
                h = self.attention[i](h)
        return h


class UNet(nn.Module):
    """Denoising U-Net: net(x, t, label=None), (B, C, H, W) -> (B, C, H, W), or (B, 2C, H, W) with learned variance.

    Level l works at 1 / 2^l of the resolution with ``width * multipliers[l]`` channels. One skip connection per level
    joins the way down to the way up.

    Args:
        channels: channels C of the pictures.
        width: channels at full resolution, even.
        multipliers: channels of each level, as multiples of ``width``; their number is the number of levels.
        blocks: residual blocks per level on the way down, and again on the way up: one number, or one for each level.
        attention: the levels that have self-attention after each block (0 is full resolution, -1 the lowest).
        classes: number of classes K, or None; the null class is ``net.null_label = K``; ``label=None`` means null for all.
        learned_variance: double the output channels; the second half is for the variance (Nichol & Dhariwal 2021, eq. 15).
        dropout: probability in [0, 1) inside the residual blocks, at training time only.
        adaptive_norm: let time and class scale and shift the normalised features (True), or only add to them before the norm.
        time_range: the lowest and the highest t; ``C_NOISE_RANGE`` for a network inside an EDMDenoiser.

    The output layer starts at zero, so an untrained network predicts 0. H and W are multiples of ``2 ** (levels - 1)``.

    Raises:
        ValueError, TypeError: for a wrong shape, a time outside [0, 1], a label out of range or without classes.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int | Sequence[int] = 1,
        attention: Sequence[int] = (-1,),
        classes: int | None = None,
        learned_variance: bool = False,
        dropout: float = 0.0,
        adaptive_norm: bool = True,
        time_range: tuple[float, float] = (0.0, 1.0),
    ):
        super().__init__()
        levels = len(multipliers)
        check_count("levels (the length of multipliers)", levels)
        counts = [blocks] * levels if isinstance(blocks, int) else list(blocks)
        self._check(channels, width, multipliers, counts, attention, dropout)
        self.config = dict(
            channels=channels, width=width, multipliers=list(multipliers),
            blocks=blocks if isinstance(blocks, int) else counts, attention=list(attention), classes=classes,
            learned_variance=learned_variance, dropout=dropout, adaptive_norm=adaptive_norm, time_range=list(time_range),
        )
        self.channels, self.multiple, self.null_label = channels, 2 ** (levels - 1), classes
        widths = [width * m for m in multipliers]
        attend = {level % levels for level in attention}
        condition = 4 * width
        self.conditioning = Conditioning(width, condition, classes, time_range)
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            Stage(w, w, n, condition, level in attend, dropout, adaptive_norm)
            for level, (w, n) in enumerate(zip(widths, counts, strict=True))
        )
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(
            Stage(2 * w if level + 1 < levels else w, w, n, condition, level in attend, dropout, adaptive_norm)
            for level, (w, n) in enumerate(zip(widths, counts, strict=True))
        )
        self.norm = group_norm(widths[0])
        self.head = zeroed(nn.Conv2d(widths[0], channels * (2 if learned_variance else 1), 3, padding=1))

    @staticmethod
    def _check(
        channels: int, width: int, multipliers: Sequence[int], counts: list[int], attention: Sequence[int], dropout: float
    ) -> None:
        levels = len(multipliers)
        check_count("channels", channels)
        check_count("width", width, least=2)
        for multiplier in multipliers:
            check_count("multipliers", multiplier)
        if len(counts) != levels:
            raise ValueError(f"blocks={counts} was given; expected one number, or one for each of the {levels} levels.")
        for count in counts:
            check_count("blocks", count)
        if any(type(level) is not int or not -levels <= level < levels for level in attention):
            raise ValueError(
                f"attention={tuple(attention)} was given; expected levels from 0 (full resolution) to {levels - 1}, or -1 for "
                "the lowest."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout!r} was given; expected a probability in [0, 1).")

    def forward(self, x: Tensor, t: Tensor | float, label: Tensor | None = None) -> Tensor:
        """Predict for pictures ``x`` (B, C, H, W) at times ``t`` (B,) in [0, 1], for classes ``label`` (B,) or None."""
        self._check_input(x)
        condition = F.silu(self.conditioning(x, t, label))                          # (B, 4 width)
        h = self.stem(x).contiguous(memory_format=torch.channels_last)              # (B, width, H, W)
        skips = []
        for level, stage in enumerate(self.down):
            h = stage(h, condition)
            if level < len(self.shrink):
                skips.append(h)
                h = self.shrink[level](h)                                           # (B, C_{l+1}, H / 2, W / 2)
        for level in reversed(range(len(self.up))):
            if level < len(self.grow):
                h = F.interpolate(self.grow[level](h), scale_factor=2, mode="nearest")
                h = torch.cat([h, skips[level]], dim=1)                             # (B, 2 C_l, H, W)
            h = self.up[level](h, condition)
        return self.head(F.silu(self.norm(h))).contiguous()                         # (B, C or 2C, H, W)

    def _check_input(self, x: Tensor) -> None:
        check_tensor("x", x, 4)
        if x.shape[1] != self.channels:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; expected (B, {self.channels}, H, W): this network was built with "
                f"channels={self.channels}."
            )
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise ValueError(
                f"x has pictures of {x.shape[2]}x{x.shape[3]} pixels; expected multiples of {self.multiple}, since this network "
                f"halves the resolution {self.multiple.bit_length() - 1} times: pad or resize them, or use fewer multipliers."
            )
