"""Vector quantisation: a codebook, its nearest entry for each vector, and what keeps the entries in use.

van den Oord et al. 2017 (VQ-VAE): straight-through gradient, commitment loss; their appendix A.1: the codebook as a moving average.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lib import noise
from diffusion_lib.validate import check_count, check_non_negative, check_tensor


class Use(NamedTuple):
    """How a codebook is used. perplexity: exp of the entropy of the codes' frequencies, in [1, K]. share: of the K codes, those seen at all."""

    perplexity: float
    share: float


class Quantised(NamedTuple):
    """What :class:`Codebook` returns.

    values: like z, each vector replaced by its code; the gradient passes straight through to z. index: which code, (B, H, W) int64.
    commitment: the mean squared distance of z from its codes, which moves z and not the codes; a scalar.
    """

    values: Tensor
    index: Tensor
    commitment: Tensor


class Codebook(nn.Module):
    """K vectors of dimension C; each pixel of z (B, C, H, W) is replaced by the nearest one.

    codes: K >= 1. dim: C. decay: in [0, 1), of the moving averages N_k <- decay N_k + (1 - decay) n_k and m_k <- decay m_k + (1 - decay) (sum
    of the n_k vectors of the batch that chose code k), whose ratio m_k / N_k is code k (van den Oord et al. 2017, eqs. 6 to 8). revive_below: a
    code whose N_k, its uses a batch, falls below this is put on a random vector of the batch; 0 never does. All N_k start at 0, so that the
    first training batch lays the codes out on its own vectors.

    The codes are buffers: they move in training mode only, without an optimizer. ``forward`` works in float32 under autocast.
    Book (8.6), (8.7), (8.9).
    """

    table: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, dim: int, decay: float = 0.99, revive_below: float = 1.0):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay!r} was given; expected a number in [0, 1), such as 0.99.")
        self.decay, self.revive_below = decay, check_non_negative("revive_below", revive_below)
        table = torch.randn(check_count("codes", codes), check_count("dim", dim))
        self.register_buffer("table", table)                      # (K, C)
        self.register_buffer("counts", torch.zeros(codes))        # (K,)
        self.register_buffer("sums", torch.zeros(codes, dim))     # (K, C)

    def nearest(self, vectors: Tensor) -> Tensor:
        """The code with the least squared distance to each of ``vectors`` (N, C): (N,) int64."""
        return (self.table.square().sum(1) - 2 * vectors @ self.table.T).argmin(1)

    def lookup(self, index: Tensor) -> Tensor:
        """Codes by their number: (B, H, W) -> (B, C, H, W)."""
        return self.table[index].movedim(-1, 1).contiguous()

    def forward(self, z: Tensor, generator: torch.Generator | None = None) -> Quantised:
        """z (B, C, H, W) -> Quantised. In training mode the codes then move; ``generator`` draws where dead ones go."""
        if check_tensor("z", z, 4).shape[1] != self.table.shape[1]:
            raise ValueError(f"z has shape {tuple(z.shape)}; expected (B, {self.table.shape[1]}, H, W): this codebook's vectors have "
                             f"{self.table.shape[1]} entries.")
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(self.table.dtype)
            vectors = z.detach().movedim(1, -1).reshape(-1, z.shape[1])          # (B H W, C)
            if self.training:
                self._revive(vectors, generator)
            index = self.nearest(vectors)
            values = self.lookup(index.view(len(z), *z.shape[2:]))
            commitment = (z - values).square().mean()
            if self.training:
                self._follow(vectors, index)
            return Quantised(z + (values - z).detach(), index.view(len(z), *z.shape[2:]), commitment)

    @torch.no_grad()
    def _follow(self, vectors: Tensor, index: Tensor) -> None:
        """One step of the moving averages. A code that has never been chosen stays where it is."""
        chosen = torch.zeros_like(self.counts).index_add_(0, index, vectors.new_ones(len(index)))
        total = torch.zeros_like(self.sums).index_add_(0, index, vectors)
        self.counts.lerp_(chosen, 1 - self.decay)
        self.sums.lerp_(total, 1 - self.decay)
        seen = self.counts > 0
        self.table[seen] = self.sums[seen] / self.counts[seen, None]

    @torch.no_grad()
    def _revive(self, vectors: Tensor, generator: torch.Generator | None) -> None:
        """Put each code that is chosen less than ``revive_below`` times a batch on a random vector, with an average code's count."""
        dead = self.counts < self.revive_below
        if not bool(dead.any()):
            return
        n = int(dead.sum())
        rows = (noise.rand((n,), generator, vectors.device) * len(vectors)).long().clamp(max=len(vectors) - 1)
        self.table[dead] = vectors[rows]
        self.counts[dead] = max(len(vectors) / len(self.table), self.revive_below)
        self.sums[dead] = self.table[dead] * self.counts[dead, None]


def codebook_use(index: Tensor, codes: int) -> Use:
    """Perplexity and share of a codebook of ``codes`` entries, over the chosen codes ``index`` (any shape, integers 0..codes-1)."""
    p = torch.bincount(index.flatten(), minlength=codes).double()
    p = p / p.sum()
    return Use(float(torch.special.entr(p).sum().exp()), float((p > 0).double().mean()))
