"""A residual MLP for points: the network of the two-dimensional experiments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_lib.nets.embeddings import Conditioning
from diffusion_lib.validate import check_count, check_tensor


class Block(nn.Module):
    """Residual layer whose hidden units are scaled and shifted by the conditioning vector; starts as the identity."""

    def __init__(self, width: int, condition: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.modulation = nn.Linear(condition, 2 * width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition).chunk(2, dim=-1)          # (B, width) each
        inner = nn.functional.silu(self.inner(self.norm(h)) * (1 + scale) + shift)
        return h + self.outer(inner)                                        # (B, width)


class MLP(nn.Module):
    """Time- and class-conditioned residual MLP: net(x, t, label=None), (B, dim) -> (B, out_dim).

    Args:
        dim: dimension D of the data.
        width: hidden units, even and >= 2.
        depth: residual blocks (two layers each).
        classes: number of classes K, or None; the null class is ``net.null_label = K``; ``label=None`` means null for all.
        out_dim: dimension of the output; None means ``dim``.
        time_range: the lowest and the highest t; ``C_NOISE_RANGE`` for a network inside an EDMDenoiser.

    The output layer starts at zero, so an untrained network predicts 0.

    Raises:
        ValueError, TypeError: for a wrong shape, a time outside [0, 1], a label out of range or without classes.
    """

    def __init__(
        self,
        dim: int,
        width: int = 128,
        depth: int = 3,
        classes: int | None = None,
        out_dim: int | None = None,
        time_range: tuple[float, float] = (0.0, 1.0),
    ):
        super().__init__()
        self.config = dict(
            dim=dim, width=width, depth=depth, classes=classes, out_dim=out_dim, time_range=list(time_range)
        )
        self.dim, self.null_label = check_count("dim", dim), classes
        check_count("depth", depth)
        check_count("width", width, least=2)
        self.conditioning = Conditioning(width, width, classes, time_range)
        self.stem = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(Block(width, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, dim if out_dim is None else check_count("out_dim", out_dim))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def null_condition(self) -> dict[str, Tensor]:
        """What stands for "nothing asked", for one sample: {"label": K}; empty without classes."""
        return {} if self.null_label is None else {"label": torch.tensor(self.null_label)}

    def forward(self, x: Tensor, t: Tensor | float, label: Tensor | None = None) -> Tensor:
        """Predict at points ``x`` (B, dim), times ``t`` (B,) in [0, 1], classes ``label`` (B,) or None -> (B, out_dim)."""
        check_tensor("x", x, 2)
        if x.shape[1] != self.dim:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; expected (B, {self.dim}): this network was built with dim={self.dim}."
            )
        condition = nn.functional.silu(self.conditioning(x, t, label))      # (B, width)
        h = self.stem(x)                                                    # (B, width)
        for block in self.blocks:
            h = block(h, condition)
        return self.head(nn.functional.silu(self.norm(h)))                  # (B, out_dim)


