"""What a variational autoencoder maximises, and two ways to differentiate it; with the linear case solved exactly.

All bounds are in nats for each sample, (B,), and they are lower bounds: larger is better. `VAELoss` turns the sign.
A ``vae`` is anything with encode, decode and decoder_log_var, as `diffusion_lib.nets.VAE` and `LinearVAE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffusion_lib import noise
from diffusion_lib.transitions import gaussian_kl, gaussian_log_prob
from diffusion_lib.validate import check_count, check_finite, check_non_negative, check_tensor

__all__ = [
    "PPCA",
    "VAELoss",
    "dequantise",
    "iwae_bound",
    "log_weights",
    "pathwise_gradient",
    "probabilistic_pca",
    "score_function_gradient",
    "vae_bound",
    "vae_terms",
]


def vae_terms(vae: nn.Module, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """The two terms of the bound, each (B,) in nats: log p(x|z) for one z ~ q(z|x), and KL(q(z|x) || N(0, I)).

    x: data (B, ...), the shape the vae was built for.        generator: draws z.
    The first is an unbiased estimate of its mean over q, differentiable through z; the second is exact.
    Book (1.4), (1.6), (1.8). Kingma & Welling 2014, eq. 10.
    """
    mean, log_var = vae.encode(x)                                                   # (B, L)
    z = mean + (0.5 * log_var).exp() * noise.randn_like(mean, generator)            # (B, L)
    reconstruction = gaussian_log_prob(x, vae.decode(z), vae.decoder_log_var)       # (B, ...)
    kl = gaussian_kl(mean, log_var, torch.zeros_like(mean), torch.zeros_like(mean))  # (B, L)
    return reconstruction.flatten(1).sum(1), kl.sum(1)


def vae_bound(vae: nn.Module, x: Tensor, *, beta: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """log p(x|z) - beta KL(q(z|x) || p(z)) for one z ~ q(z|x): (B, ...) -> (B,), nats.

    beta: weight of the KL, >= 0. At 1 this is the ELBO, whose mean over z is at most log p(x).
    Book (1.4), (1.16). Kingma & Welling 2014, eq. 3; Higgins et al. 2017, eq. 4.
    """
    check_non_negative("beta", beta)
    reconstruction, kl = vae_terms(vae, x, generator)
    return reconstruction - beta * kl


@dataclass
class VAELoss:
    """The loss `train` minimises: minus the mean of `vae_bound`, in nats per sample.

    beta: weight of the KL, >= 0        bin_width: distance of neighbouring grey values, >= 0, by which `dequantise` spreads
    Under several processes ``shard`` = (rank, world): draw for all rows, keep those of this process, as `train` asks.
    Book (1.4), (1.16).
    """

    beta: float = 1.0
    bin_width: float = 0.0

    def __post_init__(self) -> None:
        check_non_negative("beta", self.beta)
        check_non_negative("bin_width", self.bin_width)

    def __call__(
        self, vae: nn.Module, x0: Tensor, *, generator: torch.Generator | None = None, shard: tuple[int, int] = (0, 1)
    ) -> Tensor:
        """The loss of a batch x0 (B, ...), a scalar."""
        rank, world = shard
        rows = slice(rank * len(x0), (rank + 1) * len(x0))
        if self.bin_width:
            u = noise.rand((world * len(x0), *x0.shape[1:]), generator, x0.device, x0.dtype)[rows]
            x0 = x0 + self.bin_width * (u - 0.5)
        mean, log_var = vae.encode(x0)
        eps = noise.randn((world * len(mean), *mean.shape[1:]), generator, mean.device, mean.dtype)[rows]
        z = mean + (0.5 * log_var).exp() * eps
        reconstruction = gaussian_log_prob(x0, vae.decode(z), vae.decoder_log_var).flatten(1).sum(1)
        kl = gaussian_kl(mean, log_var, torch.zeros_like(mean), torch.zeros_like(mean)).sum(1)
        return (self.beta * kl - reconstruction).mean()


def dequantise(x: Tensor, bin_width: float, generator: torch.Generator | None = None) -> Tensor:
    """Spread each grey value evenly over its bin: x + bin_width (u - 1/2), u ~ U[0, 1); same shape as x.

    bin_width: distance of neighbouring grey values, >= 0: on [-1, 1] 1/8 for the digits, 2/255 for 8-bit pictures.
    Then the mean of log p over u, plus D log bin_width, is at most the log-probability of the grey values.
    Book (1.22). Theis et al. 2016, section 3.1.
    """
    check_non_negative("bin_width", bin_width)
    return x + bin_width * (noise.rand(x.shape, generator, x.device, x.dtype) - 0.5)


def log_weights(vae: nn.Module, x: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
    """log of p(x, z) / q(z|x) for ``k`` >= 1 draws z ~ q(z|x): (B, ...) -> (B, k), nats.

    Their mean estimates the ELBO, and the mean of their exponentials is unbiased for p(x).
    Book (1.19). Burda et al. 2016, section 3.
    """
    check_count("k", k)
    mean, log_var = vae.encode(x)                                                   # (B, L)
    z = mean + (0.5 * log_var).exp() * noise.randn((k, *mean.shape), generator, mean.device, mean.dtype)  # (k, B, L)
    log_p_x = gaussian_log_prob(x, vae.decode(z), vae.decoder_log_var).flatten(2).sum(2)               # (k, B)
    log_p_z = gaussian_log_prob(z, torch.zeros_like(mean), torch.zeros_like(mean)).sum(2)
    log_q_z = gaussian_log_prob(z, mean, log_var).sum(2)
    return (log_p_x + log_p_z - log_q_z).T


def iwae_bound(log_w: Tensor) -> Tensor:
    """log of the mean weight over the last axis, without overflow: log-weights (B, K) -> (B,), nats.

    Its mean is at most log p(x), never falls with K, and goes to log p(x). K = 1 is the ELBO.
    Book (1.19). Burda et al. 2016, eq. 8.
    """
    check_tensor("log_w", log_w)
    if log_w.ndim == 0 or log_w.shape[-1] == 0:
        raise ValueError(f"log_w has shape {tuple(log_w.shape)}; expected (B, K), K >= 1: draws along the last axis.")
    return log_w.logsumexp(-1) - math.log(log_w.shape[-1])


def pathwise_gradient(
    f: Callable[[Tensor], Tensor], mean: Tensor, log_var: Tensor, n: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """``n`` one-draw estimates of the gradient of E[f(z)], z ~ N(mean, diag exp(log_var)), through z itself.

    f: differentiable, (n, D) -> (n,), each row on its own.        mean, log_var: (D,).
    Returns the gradients in mean and in log_var, each (n, D); their averages over n are unbiased.
    Book (1.8), (1.9). Kingma & Welling 2014, section 2.4.
    """
    eps, z = _draw(mean, log_var, n, generator)
    z.requires_grad_()
    (slope,) = torch.autograd.grad(f(z).sum(), z)                                   # (n, D)
    return slope, 0.5 * slope * (0.5 * log_var).exp() * eps


def score_function_gradient(
    f: Callable[[Tensor], Tensor],
    mean: Tensor,
    log_var: Tensor,
    n: int,
    generator: torch.Generator | None = None,
    *,
    baseline: bool = False,
) -> tuple[Tensor, Tensor]:
    """As `pathwise_gradient`, through the density: f(z) times the gradient of log q(z). f needs no derivative.

    baseline: subtract from each f(z) the mean of the other n - 1 (needs n >= 2): still unbiased, smaller variance.
    Book (1.7). Williams 1992, section 4 (REINFORCE); Kool et al. 2019 (the leave-one-out baseline).
    """
    eps, z = _draw(mean, log_var, n, generator)
    with torch.no_grad():
        value = f(z)                                                                # (n,)
    if baseline:
        check_count("n", n, least=2)
        value = (value - value.mean()) * n / (n - 1)                                # = value - mean of the others
    value = value[:, None]                                                          # (n, 1)
    return value * eps * (-0.5 * log_var).exp(), value * 0.5 * (eps**2 - 1)


def _draw(mean: Tensor, log_var: Tensor, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    check_tensor("mean", mean, ndim=1)
    if log_var.shape != mean.shape:
        raise ValueError(
            f"log_var has shape {tuple(log_var.shape)} and mean {tuple(mean.shape)}; expected one log variance a dimension."
        )
    eps = noise.randn((check_count("n", n), len(mean)), generator, mean.device, mean.dtype)  # (n, D)
    return eps, (mean + (0.5 * log_var).exp() * eps).detach()


@dataclass(frozen=True)
class PPCA:
    """The best fit of p(x) = N(mean, weight weight^T + variance I): mean (D,), weight (D, L), two floats.

    Book (1.11). weight has orthogonal columns, by falling length; log_likelihood is the average over the data, in nats per sample.
    """

    mean: Tensor
    weight: Tensor
    variance: float
    log_likelihood: float


def probabilistic_pca(x: Tensor, latent: int, variance: float | None = None) -> PPCA:
    """The maximum of the likelihood of a linear-Gaussian latent model, in closed form.

    x: data (N, D), N >= 2.        latent: L, 0 <= L < D.
    variance: the decoder's, if it is given rather than fitted (> 0); directions with less than it get a zero column.
    Book (1.13), (1.14). Tipping & Bishop 1999, eqs. 7 and 8.
    """
    check_finite("x", check_tensor("x", x, ndim=2))
    n, dim = x.shape
    if n < 2 or not 0 <= check_count("latent", latent, least=0) < dim:
        raise ValueError(f"x has shape {tuple(x.shape)}, latent={latent}; expected at least 2 rows and latent < {dim}.")
    mean = x.mean(0)
    eigenvalues, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / n)          # rising
    eigenvalues, vectors = eigenvalues.flip(0).clamp(min=0), vectors.flip(1)
    if variance is None:
        variance = float(eigenvalues[latent:].mean())
    if not variance > 0:
        raise ValueError(f"variance={variance!r} leaves no density; expected > 0: take fewer latents, or dequantise the data.")
    signal = (eigenvalues[:latent] - variance).clamp(min=0)                         # (L,)
    total = torch.full_like(eigenvalues, variance)                                  # (D,) the model's eigenvalues
    total[:latent] += signal
    log_likelihood = -0.5 * (dim * math.log(2 * math.pi) + total.log().sum() + (eigenvalues / total).sum())
    return PPCA(mean, vectors[:, :latent] * signal.sqrt(), variance, float(log_likelihood))
