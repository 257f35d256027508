"""From a density of continuous values to bits per dimension of grey values: dequantisation and its price."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffusion_lib import noise
from diffusion_lib.transitions import gaussian_log_prob
from diffusion_lib.validate import check_count, check_same_shape, check_tensor


def bits_per_dim(nats: Tensor, dims: int, bins: int | None = None) -> Tensor:
    """Nats per sample -> bits per dimension: nats / (dims log 2). Book (2.29).

    For a *density* of data scaled to [-1, 1] that has ``bins`` grey levels, give ``bins``: a bin is 2 / (bins - 1) wide, so
    log2((bins - 1) / 2) is added per dimension. Leave it out for probabilities, as from the discretized decoder.
    """
    bits = nats / (dims * math.log(2))
    return bits if bins is None else bits + math.log2((bins - 1) / 2)


class VariationalDequantiser(nn.Module):
    """A learned spread of each grey value over its bin: y = x + w (u - 1/2), u = sigmoid(m(x) + exp(s(x)) z), z ~ N(0, I).

    net: maps x (B, C, ...) to (B, 2C, ...): m, then s. bins >= 2: number of equally spaced grey values in [-1, 1], so that a bin is
    w = 2 / (bins - 1) wide. With log q(y|x) its density, E[log p(y) - log q(y|x)] is at most log P(x), the log-probability of
    the grey values, with equality where q is the density inside the bin. ``losses.dequantise`` is the case of an even spread, where
    log q = -D log w. Book (5.30). Ho et al. 2019 (Flow++), Sec. 3.1.
    """

    def __init__(self, net: nn.Module, bins: int):
        super().__init__()
        self.net, self.bins = net, check_count("bins", bins, least=2)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """(y, log q(y|x)): y like x (B, C, ...), log q (B,) in nats; differentiable in the net's parameters.

        ValueError for values outside [-1, 1], or a net with another number of outputs.
        """
        check_grey(x)
        mean, log_scale = self.net(x).chunk(2, dim=1)
        check_same_shape("half of the net's output", mean, "x", x)
        z = noise.randn_like(x, generator)
        logit = mean + log_scale.exp() * z
        log_u, log_1_u = nn.functional.logsigmoid(logit), nn.functional.logsigmoid(-logit)
        width = 2 / (self.bins - 1)
        log_q = gaussian_log_prob(z, torch.zeros_like(z), torch.zeros_like(z)) - log_scale - log_u - log_1_u
        return x + width * (log_u.exp() - 0.5), (log_q - math.log(width)).flatten(1).sum(1)


def check_grey(x: Tensor) -> Tensor:
    """Return ``x`` if it holds grey values in [-1, 1]; else ValueError."""
    check_tensor("x", x)
    if x.device.type == "cpu" and bool((x.abs() > 1 + 1e-6).any()):
        raise ValueError(
            f"x spans [{float(x.min()):.4g}, {float(x.max()):.4g}]; expected grey values in [-1, 1]: scale pictures by x / 127.5 - 1."
        )
    return x
