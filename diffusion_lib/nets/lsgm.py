"""A VAE whose prior is a diffusion model on its latents: encoder, decoder and prior as one network (LSGM)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffusion_lib.nets.mlp import MLP
from diffusion_lib.nets.vae import VAE
from diffusion_lib.validate import check_number


class LSGM(nn.Module):
    """``vae``, the prior's network ``prior``, and how much of it is mixed in. Vahdat et al. 2021.

    The prior is N(0, I) corrected: in each latent dimension, a share ``mix`` of the network and 1 - mix of the denoiser that is exact for N(0, I);
    see ``denoisers.MixedDenoiser``, which makes a denoiser of ``prior`` and ``mix``.

    Args:
        data_shape, latent, width, decoder_std: of the VAE, see :class:`VAE`.
        prior_width, prior_depth: of the prior's MLP.
        mix_logit: sigmoid(mix_logit) is the mix at the start: -4 starts near the plain VAE.
    """

    def __init__(
        self, data_shape: int | Sequence[int], latent: int = 8, width: int = 32, decoder_std: float = 0.3, prior_width: int = 128,
        prior_depth: int = 3, mix_logit: float = -4.0,
    ):
        super().__init__()
        self.config = dict(
            data_shape=data_shape if isinstance(data_shape, int) else list(data_shape), latent=latent, width=width, decoder_std=decoder_std,
            prior_width=prior_width, prior_depth=prior_depth, mix_logit=mix_logit,
        )
        self.vae = VAE(data_shape, latent, width, decoder_std)
        self.prior = MLP(latent, prior_width, prior_depth)
        self.logit = nn.Parameter(torch.full((latent,), check_number("mix_logit", mix_logit)))
        self.latent = latent

    @property
    def mix(self) -> Tensor:
        """The share of the network in each dimension, (latent,), in (0, 1)."""
        return self.logit.sigmoid()

    def forward(self, z: Tensor, t: Tensor | float) -> Tensor:
        """The prior's network alone, at noisy latents z (B, latent) and times t (B,): its prediction of eps, (B, latent)."""
        return self.prior(z, t)
