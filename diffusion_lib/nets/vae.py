"""Variational autoencoders with a Gaussian encoder and a Gaussian decoder (Kingma & Welling 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffusion_lib import noise
from diffusion_lib.validate import check_count, check_tensor


class _GaussianVAE(nn.Module):
    """What the two VAEs share: q(z|x) = N(mean, diag exp(log_var)), p(x|z) = N(decode(z), exp(decoder_log_var) I)."""

    data_shape: tuple[int, ...]
    latent: int
    decoder_log_var: Tensor  # a scalar, in nats: the log of the decoder's variance per pixel

    def _set_scale(self, decoder_std: float, learn_scale: bool) -> None:
        if not (isinstance(decoder_std, (int, float)) and math.isfinite(decoder_std) and decoder_std > 0):
            raise ValueError(f"decoder_std={decoder_std!r} was given; expected a finite number > 0.")
        log_var = torch.tensor(2 * math.log(decoder_std))
        if learn_scale:
            self.decoder_log_var = nn.Parameter(log_var)
        else:
            self.register_buffer("decoder_log_var", log_var)

    def _check_data(self, x: Tensor) -> None:
        check_tensor("x", x)
        if x.shape[1:] != self.data_shape:
            expected = ", ".join(map(str, self.data_shape))
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (B, {expected}): reshape it or rebuild the VAE.")

    def _check_latent(self, z: Tensor) -> None:
        check_tensor("z", z)
        if z.ndim < 1 or z.shape[-1] != self.latent:
            raise ValueError(
                f"z has shape {tuple(z.shape)}; expected (..., {self.latent}): this VAE has {self.latent} latent dimensions."
            )

    def sample_latent(self, mean: Tensor, log_var: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw z = mean + std * eps, eps ~ N(0, I): the reparameterisation; all (B, latent).

        Book (1.8). Kingma & Welling 2014, section 2.4.
        """
        return mean + (0.5 * log_var).exp() * noise.randn_like(mean, generator)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, draw one z, decode: x (B, *data_shape) -> reconstruction like x, mean and log_var (B, latent)."""
        mean, log_var = self.encode(x)
        return self.decode(self.sample_latent(mean, log_var, generator)), mean, log_var


class VAE(_GaussianVAE):
    """Variational autoencoder: convolutions for pictures, an MLP for vectors.

    Args:
        data_shape: (C, H, W) of the pictures, H and W multiples of 4; or (D,) or D for vectors.
        latent: dimension of z.
        width: channels at full resolution (pictures) or hidden units (vectors).
        decoder_std: standard deviation of p(x|z) per pixel, at the start.
        learn_scale: whether ``decoder_log_var`` is a parameter (then it trains with the rest) or fixed.

    Attributes:
        decoder_log_var: scalar tensor, log variance of the decoder in every dimension.
    """

    def __init__(
        self,
        data_shape: int | Sequence[int],
        latent: int = 2,
        width: int = 32,
        decoder_std: float = 0.3,
        learn_scale: bool = True,
    ):
        super().__init__()
        shape = (data_shape,) if isinstance(data_shape, int) else tuple(data_shape)
        if len(shape) not in (1, 3) or (len(shape) == 3 and (shape[1] % 4 or shape[2] % 4)):
            raise ValueError(
                f"data_shape={shape} was given; expected (D,) for vectors, or (C, H, W) with H and W multiples of 4 for pictures."
            )
        for size in shape:
            check_count("data_shape", size)
        self.config = dict(
            data_shape=list(shape), latent=latent, width=width, decoder_std=decoder_std, learn_scale=learn_scale
        )
        self.data_shape, self.latent = shape, check_count("latent", latent)
        check_count("width", width)
        self._set_scale(decoder_std, learn_scale)
        make = _vector_layers if len(shape) == 1 else _picture_layers
        self.encoder, self.decoder = make(shape, latent, width)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x): (B, *data_shape) -> (B, latent), (B, latent)."""
        self._check_data(x)
        mean, log_var = self.encoder(x).chunk(2, dim=-1)
        return mean, log_var

    def decode(self, z: Tensor) -> Tensor:
        """Mean of p(x|z): (..., latent) -> (..., *data_shape); leading dimensions at will, for several draws at once."""
        self._check_latent(z)
        return self.decoder(z.reshape(-1, self.latent)).reshape(*z.shape[:-1], *self.data_shape)


def _vector_layers(shape: tuple[int, ...], latent: int, width: int) -> tuple[nn.Module, nn.Module]:
    (dim,) = shape

    def three_layers(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
        )

    return three_layers(dim, 2 * latent), three_layers(latent, dim)


def _picture_layers(shape: tuple[int, ...], latent: int, width: int) -> tuple[nn.Module, nn.Module]:
    channels, height, breadth = shape
    low = (2 * width, height // 4, breadth // 4)
    encoder = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.SiLU(),                       # (B, width, H, W)
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.SiLU(),            # (B, 2 width, H/2, W/2)
        nn.Conv2d(2 * width, 2 * width, 4, stride=2, padding=1), nn.SiLU(),        # (B, 2 width, H/4, W/4)
        nn.Flatten(), nn.Linear(math.prod(low), 4 * width), nn.SiLU(), nn.Linear(4 * width, 2 * latent),
    )
    decoder = nn.Sequential(
        nn.Linear(latent, 4 * width), nn.SiLU(), nn.Linear(4 * width, math.prod(low)), nn.SiLU(), nn.Unflatten(1, low),
        nn.ConvTranspose2d(2 * width, 2 * width, 4, stride=2, padding=1), nn.SiLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), nn.SiLU(),
        nn.Conv2d(width, channels, 3, padding=1),
    )
    return encoder, decoder


class LinearVAE(_GaussianVAE):
    """The VAE whose encoder mean and decoder are affine: at its optimum it is probabilistic PCA.

    Dai et al. 2018; Lucas et al. 2019; Tipping & Bishop 1999 for probabilistic PCA.
    q(z|x) = N(V (x - mu), diag exp(s)) with one s for all x, and p(x|z) = N(W z + mu, exp(decoder_log_var) I).

    Args:
        dim: dimension D of the data.
        latent: dimension of z, at most D.
        decoder_std: standard deviation of p(x|z) per dimension, at the start.
        learn_scale: whether ``decoder_log_var`` is a parameter or fixed.
    """

    def __init__(self, dim: int, latent: int = 2, decoder_std: float = 1.0, learn_scale: bool = True):
        super().__init__()
        self.config = dict(dim=dim, latent=latent, decoder_std=decoder_std, learn_scale=learn_scale)
        self.data_shape, self.latent = (check_count("dim", dim),), check_count("latent", latent)
        if latent > dim:
            raise ValueError(
                f"latent={latent} was given for dim={dim}; expected latent <= dim: a linear map has no use for more."
            )
        self._set_scale(decoder_std, learn_scale)
        self.mu = nn.Parameter(torch.zeros(dim))
        self.encoder_weight = nn.Parameter(torch.randn(latent, dim) / math.sqrt(dim))
        self.decoder_weight = nn.Parameter(torch.randn(dim, latent) / math.sqrt(dim))
        self.encoder_log_var = nn.Parameter(torch.zeros(latent))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x): (B, dim) -> (B, latent), (B, latent)."""
        self._check_data(x)
        mean = (x - self.mu) @ self.encoder_weight.T                                # (B, latent)
        return mean, self.encoder_log_var.expand_as(mean)

    def decode(self, z: Tensor) -> Tensor:
        """Mean of p(x|z): (..., latent) -> (..., dim)."""
        self._check_latent(z)
        return z @ self.decoder_weight.T + self.mu
