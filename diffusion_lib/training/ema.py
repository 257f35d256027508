"""The exponential moving average of a network's weights, which is what one samples from."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """Keeps ``net``, the average of another network's weights over training.

    With warm-up: at step k (from 1) the decay is min(decay, (1 + k) / (10 + k)), so that the random start is soon forgotten
    and a short training is averaged over a fixed share of its past instead of over 1 / (1 - decay) steps it never had.
    Ho et al. 2020, appendix B, use decay 0.9999 without warm-up, over 800 000 steps.

    net: the network to follow; copied here, in eval mode, without gradients
    decay: in [0, 1); 0 copies the weights
    """

    def __init__(self, net: nn.Module, decay: float = 0.999) -> None:
        if not isinstance(decay, (int, float)) or not 0 <= decay < 1:
            raise ValueError(f"ema={decay!r} was given; expected a decay in [0, 1), such as 0.999, or None for no average.")
        self.decay = decay
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self._shadow = [p for p in self.net.parameters() if p.is_floating_point()]

    def decay_at(self, step: int) -> float:
        """The decay of step ``step`` (from 1), warm-up included."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Move the average towards ``net``'s weights; buffers are copied. One fused call, no host sync."""
        weights = [p for p in net.parameters() if p.is_floating_point()]
        torch._foreach_lerp_(self._shadow, weights, 1 - self.decay_at(step))
        for mine, theirs in zip(self.net.buffers(), net.buffers(), strict=True):
            mine.copy_(theirs)
