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

from diffusion_lib.nets.attention import CrossAttention, SelfAttention
from diffusion_lib.nets.blocks import ResidualBlock, group_norm, zeroed
from diffusion_lib.nets.embeddings import Conditioning
from diffusion_lib.validate import check_count, check_tensor

WAVES = 3               # frequencies in `places`
PLACES = 2 + 4 * WAVES  # its channels


class Stage(nn.Module):
    """The residual blocks of one resolution, each followed by attention to pixels and to words where asked for."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, condition: int, attention: bool, context: int | None, dropout: float,
        adaptive_norm: bool,
    ):
        super().__init__()
        channels = [inputs] + [outputs] * blocks
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, condition, dropout, adaptive_norm) for a, b in pairwise(channels)
        )
        self.attention = nn.ModuleList(SelfAttention(outputs) for _ in range(blocks if attention else 0))
        self.words = nn.ModuleList(CrossAttention(outputs, context) for _ in range(blocks if context else 0))

    def forward(self, h: Tensor, condition: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        for i, block in enumerate(self.blocks):
            h = block(h, condition)
            if self.attention:
                h = self.attention[i](h)
            if self.words:
                h = self.words[i](h, context, mask)
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
        cross_attention: the levels whose blocks are followed by attention to word vectors, which ``forward`` is then given.
        context: width of the word vectors, needed with ``cross_attention``.
        pooled: width of one more vector a sample that is mapped to the conditioning vector and added, or None.
        coordinates: tell each level where its pixels lie: a linear map of `places` is added to its input, on the way down and up. Convolutions
            and attention treat all places alike, and learn where "left" is from the zeros around the picture alone; captions that name
            places need more. Liu et al. 2018 (coordinates as channels); Vaswani et al. 2017, section 3.5 (as sines and cosines).

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
        cross_attention: Sequence[int] = (),
        context: int | None = None,
        pooled: int | None = None,
        coordinates: bool = False,
    ):
        super().__init__()
        levels = len(multipliers)
        check_count("levels (the length of multipliers)", levels)
        counts = [blocks] * levels if isinstance(blocks, int) else list(blocks)
        self._check(channels, width, multipliers, counts, dropout)
        attend, read = _levels("attention", attention, levels), _levels("cross_attention", cross_attention, levels)
        if read and context is None:
            raise ValueError(f"cross_attention={tuple(cross_attention)} was given without context; expected the width of the word vectors.")
        self.config = dict(
            channels=channels, width=width, multipliers=list(multipliers),
            blocks=blocks if isinstance(blocks, int) else counts, attention=list(attention), classes=classes,
            learned_variance=learned_variance, dropout=dropout, adaptive_norm=adaptive_norm, time_range=list(time_range),
            cross_attention=list(cross_attention), context=context, pooled=pooled, coordinates=coordinates,
        )
        self.channels, self.multiple, self.null_label = channels, 2 ** (levels - 1), classes
        widths = [width * m for m in multipliers]
        condition = 4 * width
        self.conditioning = Conditioning(width, condition, classes, time_range)
        self.pooled = None if pooled is None else nn.Linear(check_count("pooled", pooled), condition)
        self.reads = bool(read)
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.where = nn.ModuleList(nn.Conv2d(PLACES, w, 1) for w in (widths + widths if coordinates else []))      # down, then up
        self.down = nn.ModuleList(
            Stage(w, w, n, condition, level in attend, context if level in read else None, dropout, adaptive_norm)
            for level, (w, n) in enumerate(zip(widths, counts, strict=True))
        )
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(
            Stage(2 * w if level + 1 < levels else w, w, n, condition, level in attend, context if level in read else None, dropout,
                  adaptive_norm)
            for level, (w, n) in enumerate(zip(widths, counts, strict=True))
        )
        self.norm = group_norm(widths[0])
        self.head = zeroed(nn.Conv2d(widths[0], channels * (2 if learned_variance else 1), 3, padding=1))

    @staticmethod
    def _check(
        channels: int, width: int, multipliers: Sequence[int], counts: list[int], dropout: float
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
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout!r} was given; expected a probability in [0, 1).")

    @property
    def null_condition(self) -> dict[str, Tensor]:
        """What stands for "nothing asked", for one sample: {"label": K}; empty without classes."""
        return {} if self.null_label is None else {"label": torch.tensor(self.null_label)}

    def forward(
        self, x: Tensor, t: Tensor | float, label: Tensor | None = None, *, context: Tensor | None = None,
        mask: Tensor | None = None, pooled: Tensor | None = None,
    ) -> Tensor:
        """Predict for pictures ``x`` (B, C, H, W) at times ``t`` (B,) in [0, 1], for classes ``label`` (B,) or None.

        context (B, L, context), mask (B, L) bool, True for a word: for a net with ``cross_attention``. pooled (B, pooled): for one with ``pooled``.
        """
        self._check_input(x)
        if (context is None) == self.reads or (mask is None) == self.reads or (pooled is None) != (self.pooled is None):
            raise ValueError("context and mask are for a network with cross_attention, pooled for one with pooled; expected each exactly where "
                             "the network was built for it: a CaptionedUNet passes them by itself.")
        vector = self.conditioning(x, t, label)                                     # (B, 4 width)
        condition = F.silu(vector if pooled is None else vector + self.pooled(pooled))
        h = self.stem(x).contiguous(memory_format=torch.channels_last)              # (B, width, H, W)
        skips = []
        for level, stage in enumerate(self.down):
            h = stage(h + self.where[level](places(h)) if self.where else h, condition, context, mask)
            if level < len(self.shrink):
                skips.append(h)
                h = self.shrink[level](h)                                           # (B, C_{l+1}, H / 2, W / 2)
        for level in reversed(range(len(self.up))):
            if level < len(self.grow):
                h = F.interpolate(self.grow[level](h), scale_factor=2, mode="nearest")
            if self.where:
                h = h + self.where[len(self.down) + level](places(h))
            if level < len(self.grow):
                h = torch.cat([h, skips[level]], dim=1)                             # (B, 2 C_l, H, W)
            h = self.up[level](h, condition, context, mask)
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


def places(x: Tensor) -> Tensor:
    """Where the pixels of x (B, C, H, W) lie: (1, 14, H, W).

    Channels: across and down, each in (-1, 1), from the middle of the first pixel to that of the last; then sine and cosine of pi/2, pi and
    3 pi/2 times both. So sums of a few channels are high in one part of the picture and low in the others.
    """
    across, down = ((2 * torch.arange(n, dtype=x.dtype, device=x.device) + 1) / n - 1 for n in (x.shape[3], x.shape[2]))
    plain = torch.stack(torch.broadcast_tensors(across, down[:, None]))                          # (2, H, W)
    waves = [wave(torch.pi / 2 * k * plain) for k in range(1, WAVES + 1) for wave in (torch.sin, torch.cos)]
    return torch.cat([plain, *waves])[None]


def _levels(name: str, given: Sequence[int], levels: int) -> set[int]:
    """The levels of ``given``, counted from 0. ValueError for one that is not there."""
    if any(type(level) is not int or not -levels <= level < levels for level in given):
        raise ValueError(
            f"{name}={tuple(given)} was given; expected levels from 0 (full resolution) to {levels - 1}, or -1 for the lowest."
        )
    return {level % levels for level in given}
