"""Picture autoencoders: to a small picture of latents and back, with a KL penalty or with a codebook. Chapter 1's VAEs are in vae.py.

Rombach et al. 2022, section 3.1 and appendix G. A latent is a picture again, (B, latent, H / f, W / f), so that a U-Net can denoise it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lib import noise
from diffusion_lib.nets.blocks import PlainBlock, group_norm
from diffusion_lib.nets.quantise import Codebook, Quantised
from diffusion_lib.validate import check_count, check_tensor

LOG_VAR_RANGE = (-30.0, 20.0)


class _PictureAutoencoder(nn.Module):
    """What the two share: the convolutions, the shapes, and ``latents(x)``, what a diffusion model is trained on."""

    def _make(self, channels: int, latent: int, width: int, multipliers: Sequence[int], blocks: int, outputs: int) -> None:
        for name, value in (("channels", channels), ("latent", latent), ("width", width), ("blocks", blocks)):
            check_count(name, value)
        check_count("levels (the length of multipliers)", len(multipliers))
        widths = [width * check_count("multipliers", m) for m in multipliers]
        self.channels, self.latent, self.factor = channels, latent, 2 ** (len(widths) - 1)
        down: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1)]
        for a, b in pairwise(widths):
            down += [*(PlainBlock(a, a) for _ in range(blocks)), nn.Conv2d(a, b, 2, stride=2)]
        down += [*(PlainBlock(widths[-1], widths[-1]) for _ in range(blocks)), group_norm(widths[-1]), nn.SiLU()]
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], outputs, 3, padding=1))
        up: list[nn.Module] = [nn.Conv2d(latent, widths[-1], 3, padding=1)]
        for b, a in pairwise(widths[::-1]):
            up += [*(PlainBlock(b, b) for _ in range(blocks)), nn.Conv2d(b, a, 1), nn.Upsample(scale_factor=2, mode="nearest")]
        up += [*(PlainBlock(widths[0], widths[0]) for _ in range(blocks)), group_norm(widths[0]), nn.SiLU()]
        self.decoder = nn.Sequential(*up, nn.Conv2d(widths[0], channels, 3, padding=1))

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape of the latent of a picture of ``height`` x ``width`` pixels: (latent, height / factor, width / factor)."""
        return self.latent, height // self.factor, width // self.factor

    def _encoded(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 4)
        if x.shape[1] != self.channels or x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected pictures (B, {self.channels}, H, W) with H and W multiples of "
                             f"{self.factor}: resize them, or rebuild the autoencoder.")
        return self.encoder(x.contiguous(memory_format=torch.channels_last)).contiguous()

    def _decoded(self, z: Tensor) -> Tensor:
        return self.decoder(self._check_latent(z).contiguous(memory_format=torch.channels_last)).contiguous()

    def _check_latent(self, z: Tensor) -> Tensor:
        if check_tensor("z", z, 4).shape[1] != self.latent:
            raise ValueError(f"z has shape {tuple(z.shape)}; expected latents (B, {self.latent}, H, W): this autoencoder's latents have "
                             f"{self.latent} channels, and pictures go through encode first.")
        return z


class KLAutoencoder(_PictureAutoencoder):
    """Autoencoder with a Gaussian latent: q(z|x) = N(mean, diag exp(log_var)), pulled a little towards N(0, I) by its loss.

    Args:
        channels: of the pictures.
        latent: channels of the latent.
        width: channels at full resolution.
        multipliers: channels of each level, as multiples of ``width``; each further level halves the resolution.
        blocks: residual blocks per level, on the way down and on the way up.

    Attributes:
        factor: how many times smaller the latent is on each side.
    """

    def __init__(self, channels: int = 3, latent: int = 4, width: int = 24, multipliers: Sequence[int] = (1, 2, 4), blocks: int = 1):
        super().__init__()
        self.config = dict(channels=channels, latent=latent, width=width, multipliers=list(multipliers), blocks=blocks)
        self._make(channels, latent, width, multipliers, blocks, 2 * latent)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x): pictures (B, C, H, W) in [-1, 1] -> (B, latent, H / f, W / f) each."""
        mean, log_var = self._encoded(x).chunk(2, dim=1)
        return mean, log_var.clamp(*LOG_VAR_RANGE)

    def latents(self, x: Tensor) -> Tensor:
        """The mean of q(z|x): what a latent diffusion model learns. (B, C, H, W) -> (B, latent, H / f, W / f)."""
        return self.encode(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, latent, h, w) -> pictures (B, C, f h, f w), not clamped."""
        return self._decoded(z)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, draw one z, decode: (reconstruction like x, mean, log_var)."""
        mean, log_var = self.encode(x)
        return self.decode(mean + (0.5 * log_var).exp() * noise.randn_like(mean, generator)), mean, log_var


class VQAutoencoder(_PictureAutoencoder):
    """Autoencoder with a discrete latent: each pixel of the encoder's output is replaced by the nearest of ``codes`` vectors.

    van den Oord et al. 2017. As in Rombach et al. 2022, a diffusion model learns the encoder's output, and ``decode`` quantises first.

    Args:
        codes: entries of the codebook.
        decay, revive_below: see :class:`~diffusion_lib.nets.quantise.Codebook`.
        channels, latent, width, multipliers, blocks: see :class:`KLAutoencoder`.
    """

    def __init__(
        self, channels: int = 3, latent: int = 4, width: int = 24, multipliers: Sequence[int] = (1, 2, 4), blocks: int = 1,
        codes: int = 512, decay: float = 0.99, revive_below: float = 1.0,
    ):
        super().__init__()
        self.config = dict(channels=channels, latent=latent, width=width, multipliers=list(multipliers), blocks=blocks, codes=codes,
                           decay=decay, revive_below=revive_below)
        self._make(channels, latent, width, multipliers, blocks, latent)
        self.codebook = Codebook(codes, latent, decay, revive_below)

    def encode(self, x: Tensor) -> Tensor:
        """The encoder's output, before it is quantised: pictures (B, C, H, W) -> (B, latent, H / f, W / f)."""
        return self._encoded(x)

    def latents(self, x: Tensor) -> Tensor:
        """As ``encode``: what a latent diffusion model learns."""
        return self.encode(x)

    def index(self, x: Tensor) -> Tensor:
        """The numbers of the codes that stand for pictures (B, C, H, W): (B, H / f, W / f) int64."""
        return self._nearest(self.encode(x))

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, latent, h, w), quantised here -> pictures (B, C, f h, f w), not clamped."""
        return self._decoded(self.codebook.lookup(self._nearest(self._check_latent(z))))

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Quantised]:
        """Encode, quantise, decode: (reconstruction like x, what the codebook returned). In training mode the codes move."""
        quantised = self.codebook(self.encode(x), generator)
        return self._decoded(quantised.values), quantised

    def _nearest(self, z: Tensor) -> Tensor:
        table = self.codebook.table
        return self.codebook.nearest(z.to(table).movedim(1, -1).reshape(-1, z.shape[1])).view(len(z), *z.shape[2:])


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair of pictures in [-1, 1], (B, ...) each, in decibels: 10 log10(4 / mean squared error), (B,)."""
    error = F.mse_loss(x, y.clamp(-1, 1), reduction="none").flatten(1).mean(1)
    return 10 * torch.log10(4 / error)
