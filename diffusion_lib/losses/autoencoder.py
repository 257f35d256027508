"""What the picture autoencoders minimise: squared error, and a small price for the latent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffusion_lib import noise
from diffusion_lib.transitions import gaussian_kl
from diffusion_lib.validate import check_non_negative


@dataclass
class KLLoss:
    """|| x - decode(z) ||^2 / D + beta KL(q(z|x) || N(0, I)) / D, with one z ~ q(z|x), D numbers in a picture, the KL in nats a picture.

    beta: >= 0. It is 2 s^2 in minus the ELBO of a Gaussian decoder of standard deviation s, times 2 s^2 / D: 1e-4 says that errors of
    s = 0.007 are noise. Rombach et al. 2022, appendix G, use such a small weight. Called as loss(net, x0, generator=…) with a KLAutoencoder. Book (8.1), (8.2).
    """

    beta: float = 1e-4

    def __post_init__(self) -> None:
        check_non_negative("beta", self.beta)

    def __call__(
        self, net: nn.Module, x0: Tensor, *, generator: torch.Generator | None = None, shard: tuple[int, int] = (0, 1)
    ) -> Tensor:
        """The loss of a batch of pictures x0 (B, C, H, W), a scalar. shard: (rank, world), see `train`."""
        rank, world = shard
        mean, log_var = net.encode(x0)
        mean, log_var = mean.to(x0.dtype), log_var.to(x0.dtype)                              # a rate in bf16 would be coarse
        eps = noise.randn((world * len(mean), *mean.shape[1:]), generator, mean.device, mean.dtype)[rank * len(x0):(rank + 1) * len(x0)]
        error = (net.decode(mean + (0.5 * log_var).exp() * eps).to(x0.dtype) - x0).square().mean()
        rate = gaussian_kl(mean, log_var, torch.zeros_like(mean), torch.zeros_like(mean)).sum() / x0.numel()
        return error + self.beta * rate


@dataclass
class VQLoss:
    """|| x - decode(codes) ||^2 / D + commitment || z - codes ||^2 / D_z, the codes held fixed in the second term.

    commitment: >= 0, van den Oord et al. 2017, eq. 3 (their beta, 0.25). The codes themselves follow moving averages inside the net, so their
    eq. 3's middle term is not needed. Called as loss(net, x0, generator=…) with a VQAutoencoder; on one process, whose codes these are. Book (8.8).
    """

    commitment: float = 0.25

    def __post_init__(self) -> None:
        check_non_negative("commitment", self.commitment)

    def __call__(
        self, net: nn.Module, x0: Tensor, *, generator: torch.Generator | None = None, shard: tuple[int, int] = (0, 1)
    ) -> Tensor:
        """The loss of a batch of pictures x0 (B, C, H, W), a scalar."""
        if shard[1] > 1:
            raise ValueError(f"VQLoss was called on {shard[1]} processes, whose codebooks would drift apart; expected one: train on one process.")
        reconstruction, quantised = net(x0, generator)
        return (reconstruction.to(x0.dtype) - x0).square().mean() + self.commitment * quantised.commitment
