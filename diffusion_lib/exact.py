"""The test bed M: Gaussian mixtures, whose score, denoiser, posterior and density are known at every noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.schedules import Schedule
from diffusion_lib.validate import check_batch_time, check_count, check_finite, check_tensor


class GaussianMixture:
    """sum_k weights_k N(means_k, covariances_k) on R^D, exact at every noise level of every schedule.

    weights (K,) >= 0, summing to 1; means (K, D); covariances (K,) variances of round components, (K, D) diagonals, or
    (K, D, D) full matrices, all >= 0; a variance of 0 is a point mass (its density exists only where sigma(t) > 0).
    Results take the dtype and device of the ``x`` they are asked about. ValueError for shapes or numbers that are no mixture.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor):
        weights = check_finite("weights", check_tensor("weights", weights, ndim=1))
        means = check_finite("means", check_tensor("means", means, ndim=2))
        covariances = check_finite("covariances", check_tensor("covariances", covariances))
        if len(means) != len(weights) or len(covariances) != len(weights):
            raise ValueError(
                f"weights, means and covariances have {len(weights)}, {len(means)} and {len(covariances)} components; expected the same K in each."
            )
        if bool((weights < 0).any()) or abs(float(weights.sum()) - 1) > 1e-5:
            raise ValueError(
                f"weights={weights.tolist()} sum to {float(weights.sum()):.6g}; expected weights >= 0 that sum to 1: divide by their sum."
            )
        self.weights, self.means, self.covariances = weights, means, covariances
        self.variances, self.basis = _eigen(covariances, means)  # (K, D) along the axes of basis (K, D, D), or of R^D

    @property
    def dim(self) -> int:
        """D, the dimension of the space."""
        return self.means.shape[1]

    def to(self, x: Tensor) -> GaussianMixture:
        """This mixture in the dtype and on the device of ``x``."""
        if self.means.dtype == x.dtype and self.means.device == x.device:
            return self
        other = object.__new__(GaussianMixture)
        for name, value in vars(self).items():
            setattr(other, name, None if value is None else value.to(x))
        return other

    def mean(self) -> Tensor:
        """E[x], (D,)."""
        return self.weights @ self.means

    def covariance(self) -> Tensor:
        """Cov[x], (D, D)."""
        basis = (
            torch.eye(self.dim).to(self.means).expand(len(self.weights), -1, -1) if self.basis is None else self.basis
        )
        within = torch.einsum("k,kde,ke,kfe->df", self.weights, basis, self.variances, basis)
        centred = self.means - self.mean()
        return within + torch.einsum("k,kd,ke->de", self.weights, centred, centred)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent draws, (n, D), on the mixture's device, from ``generator``."""
        check_count("n", n)
        return self.sample_labelled(n, generator)[0]

    def sample_labelled(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` draws (n, D) and the component each came from (n,), 0..K-1."""
        source = generator.device if generator is not None else self.means.device
        k = torch.multinomial(self.weights.to(source), n, replacement=True, generator=generator).to(self.means.device)
        z = self.variances[k].sqrt() * noise.randn((n, self.dim), generator, self.means.device, self.means.dtype)
        return self.means[k] + self._from_basis(z, k), k

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (B,), for x (B, D). Book (1.1)."""
        one, zero = x.new_ones(len(x)), x.new_zeros(len(x))
        return self.to(x)._terms(x, one, zero)[0].logsumexp(1)

    def marginal(self, schedule: Schedule, t: float) -> GaussianMixture:
        """The mixture of x_t at one time ``t`` (a float): means alpha m, covariances alpha^2 C + sigma^2 I."""
        time = torch.as_tensor(t, dtype=self.means.dtype, device=self.means.device)
        alpha, sigma = schedule.alpha(time), schedule.sigma(time)
        eye = torch.eye(self.dim).to(self.means) if self.covariances.ndim == 3 else 1.0
        return GaussianMixture(self.weights, alpha * self.means, alpha**2 * self.covariances + sigma**2 * eye)

    def score(self, x: Tensor, t: Tensor | float, schedule: Schedule) -> Tensor:
        """grad_x log p_t(x), (B, D), for x (B, D) and t (B,) or a float. Book (4.1), (4.2)."""
        mixture, alpha, sigma = self._at(x, t, schedule)
        logs, coordinates, total = mixture._terms(x, alpha, sigma)
        return -(logs.softmax(1)[..., None] * mixture._from_basis(coordinates / total)).sum(1)

    def denoise(self, x: Tensor, t: Tensor | float, schedule: Schedule) -> Tensor:
        """E[x_0 | x_t = x], (B, D): the best denoiser there is, for x (B, D) and t (B,) or a float. Book (4.12)."""
        return self.posterior(x, t, schedule).mean

    def class_posterior(self, x: Tensor, t: Tensor | float, schedule: Schedule) -> Tensor:
        """P(component k | x_t = x), (B, K)."""
        mixture, alpha, sigma = self._at(x, t, schedule)
        return mixture._terms(x, alpha, sigma)[0].softmax(1)

    def posterior(self, x: Tensor, t: Tensor | float, schedule: Schedule) -> MixturePosterior:
        """p(x_0 | x_t = x), again a mixture for each row of x (B, D): see :class:`MixturePosterior`."""
        mixture, alpha, sigma = self._at(x, t, schedule)
        logs, coordinates, total = mixture._terms(x, alpha, sigma)
        gain = alpha[:, None, None] * mixture.variances / total  # (B, K, D)
        means = mixture.means + mixture._from_basis(gain * coordinates)
        variances = mixture.variances * sigma[:, None, None] ** 2 / total
        return MixturePosterior(logs.softmax(1), means, variances, mixture.basis)

    def _at(self, x: Tensor, t: Tensor | float, schedule: Schedule) -> tuple[GaussianMixture, Tensor, Tensor]:
        check_tensor("x", x, ndim=2)
        if x.shape[1] != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (B, {self.dim}), the dimension of the mixture.")
        t = check_batch_time(t, x)
        return self.to(x), schedule.alpha(t).to(x), schedule.sigma(t).to(x)

    def _terms(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log(weight_k N_k) (B, K), x - alpha m in each component's eigenbasis, and the variance along it (B, K, D)."""
        offset = x[:, None] - alpha[:, None, None] * self.means  # (B, K, D)
        coordinates = offset if self.basis is None else torch.einsum("bkd,kde->bke", offset, self.basis)
        total = alpha[:, None, None] ** 2 * self.variances + sigma[:, None, None] ** 2
        if x.device.type == "cpu" and not bool((total > 0).all()):
            raise ValueError(
                "a component of zero variance has no density without noise; expected t > 0 or a variance > 0."
            )
        logs = -0.5 * (coordinates**2 / total + (2 * math.pi * total).log()).sum(-1)
        return logs + self.weights.log(), coordinates, total

    def _from_basis(self, z: Tensor, k: Tensor | None = None) -> Tensor:
        """Back from eigenbasis coordinates: z (B, K, D), or (n, D) with the component ``k`` (n,) of each row."""
        if self.basis is None:
            return z
        return (
            torch.einsum("nde,ne->nd", self.basis[k], z)
            if k is not None
            else torch.einsum("kde,bke->bkd", self.basis, z)
        )


@dataclass(frozen=True)
class MixturePosterior:
    """p(x_0 | x_t) for a batch: weights (B, K), means (B, K, D), variances (B, K, D) along ``basis`` (K, D, D) or the axes."""

    weights: Tensor
    means: Tensor
    variances: Tensor
    basis: Tensor | None

    @property
    def mean(self) -> Tensor:
        """E[x_0 | x_t], (B, D)."""
        return (self.weights[..., None] * self.means).sum(1)

    @property
    def within(self) -> Tensor:
        """Var[x_0 | x_t, component k] of each coordinate, (B, K, D)."""
        return self.variances if self.basis is None else torch.einsum("kde,bke->bkd", self.basis**2, self.variances)

    @property
    def variance(self) -> Tensor:
        """Var[x_0 | x_t] of each coordinate, (B, D)."""
        between = (self.means - self.mean[:, None]) ** 2
        return (self.weights[..., None] * (self.within + between)).sum(1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of x_0 for each row, (B, D)."""
        source = generator.device if generator is not None else self.means.device
        k = torch.multinomial(self.weights.to(source), 1, generator=generator)[:, 0].to(self.means.device)
        row = torch.arange(len(k), device=k.device)
        z = self.variances[row, k].sqrt() * noise.randn(
            self.means.shape[::2], generator, self.means.device, self.means.dtype
        )
        return self.means[row, k] + (z if self.basis is None else torch.einsum("bde,be->bd", self.basis[k], z))


def _eigen(covariances: Tensor, means: Tensor) -> tuple[Tensor, Tensor | None]:
    """Variances (K, D) along the eigenvectors (K, D, D), or None where the axes are the eigenvectors."""
    k, d = means.shape
    if covariances.shape not in {(k,), (k, d), (k, d, d)}:
        raise ValueError(
            f"covariances has shape {tuple(covariances.shape)}; expected ({k},), ({k}, {d}) or ({k}, {d}, {d}) for means of shape ({k}, {d})."
        )
    basis = None
    if covariances.ndim == 1:
        variances = covariances[:, None].expand(k, d)
    elif covariances.ndim == 2:
        variances = covariances
    else:
        if not torch.allclose(covariances, covariances.mT, atol=1e-6):
            raise ValueError("covariances holds a matrix that is not symmetric; expected C = C^T: use (C + C^T) / 2.")
        variances, basis = torch.linalg.eigh(covariances)
        variances = torch.where(variances.abs() < 1e-12 * variances.abs().amax(1, keepdim=True), 0.0, variances)
    if bool((variances < 0).any()):
        raise ValueError(
            f"covariances holds a negative variance, {float(variances.min()):.4g}; expected variances >= 0: square standard deviations."
        )
    return variances, basis


def two_modes(dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """The 1-D test bed: N(-1, 0.3^2) with weight 0.4 and N(1, 0.2^2) with weight 0.6."""
    return GaussianMixture(*(torch.tensor(v, dtype=dtype) for v in ([0.4, 0.6], [[-1.0], [1.0]], [0.09, 0.04])))


def three_modes(dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """The 2-D test bed: three round components of standard deviation 0.15, with weights 0.5, 0.3 and 0.2."""
    means = [[1.5, 0.0], [-1.0, 1.0], [-0.5, -1.5]]
    return GaussianMixture(
        torch.tensor([0.5, 0.3, 0.2], dtype=dtype),
        torch.tensor(means, dtype=dtype),
        torch.full((3,), 0.15**2, dtype=dtype),
    )


def high_dimensional(dim: int = 64, dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """The 64-D test bed ("does it scale"): two components whose variances fall as k^-1, like those of pictures, and average 0.25."""
    k = torch.arange(1, dim + 1, dtype=dtype)
    variances = 1 / k
    variances = 0.25 * variances / variances.mean()
    direction = torch.cos(k) / math.sqrt(dim) * 2
    return GaussianMixture(
        torch.tensor([0.7, 0.3], dtype=dtype),
        torch.stack([direction, -direction]),
        torch.stack([variances, variances.flip(0)]),
    )
