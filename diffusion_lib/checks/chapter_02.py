"""The judges of chapter 2's coded exercises."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lib.checks.compare import close_to_reference, seeded
from diffusion_lib.checks.core import exercise


def _betas(T: int = 50) -> Tensor:
    return torch.linspace(1e-3, 0.3, T, dtype=torch.float64)


def _step(x_k: Tensor, eps_hat: Tensor, k: int, betas: Tensor, z: Tensor, *, last_noise: bool = False, shift: int = 0, root: bool = True) -> Tensor:
    beta = betas[min(k - 1 + shift, len(betas) - 1)]
    sigma = (1 - torch.prod(1 - betas[:k])).sqrt()
    mean = (x_k - beta / sigma * eps_hat) / (1 - beta).sqrt()
    return mean + (beta.sqrt() if root else beta) * z if k > 1 or last_noise else mean


def _step_answer(x_k: Tensor, eps_hat: Tensor, k: int, betas: Tensor, z: Tensor) -> Tensor:
    return _step(x_k, eps_hat, k, betas, z)


def _noise_on_last(x_k: Tensor, eps_hat: Tensor, k: int, betas: Tensor, z: Tensor) -> Tensor:
    return _step(x_k, eps_hat, k, betas, z, last_noise=True)


def _shifted(x_k: Tensor, eps_hat: Tensor, k: int, betas: Tensor, z: Tensor) -> Tensor:
    return _step(x_k, eps_hat, k, betas, z, shift=1)


def _variance_as_std(x_k: Tensor, eps_hat: Tensor, k: int, betas: Tensor, z: Tensor) -> Tensor:
    return _step(x_k, eps_hat, k, betas, z, root=False)


def _beta_for_sigma(x_k: Tensor, eps_hat: Tensor, k: int, betas: Tensor, z: Tensor) -> Tensor:
    beta = betas[k - 1]
    mean = (x_k - beta.sqrt() * eps_hat) / (1 - beta).sqrt()
    return mean + beta.sqrt() * z if k > 1 else mean


@exercise("2.13c", "one step of ancestral sampling", read="section 2.8, (2.25)", solution=_step_answer,
          wrong=((_noise_on_last, "last step"), (_shifted, "one step late"), (_variance_as_std, "variance"), (_beta_for_sigma, "sigma_k")))
def ancestral_step(answer):
    """Every step of a short chain, the last one (k = 1) first among them, on given noise."""
    generator = seeded(0)
    x_k, eps_hat, z = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    close_to_reference(answer, _step_answer, [(x_k, eps_hat, k, _betas(), z) for k in (1, 2, 10, 49)], name="ancestral_step", mistakes={
        "noise is added on the last step, k = 1, too: there z = 0": _noise_on_last,
        "the rate is one step late: beta_k is betas[k - 1]": _shifted,
        "z is multiplied by the variance beta_k: its standard deviation is the square root": _variance_as_std,
        "eps_hat is multiplied by sqrt(beta_k): the factor is beta_k / sigma_k, with sigma_k the noise in x_k": _beta_for_sigma,
    })
    return "Without noise at k = 1 the sample is the mean that you want to see."


def _cosine(T: int, s: float = 0.008, *, power: int = 2, clip: bool = True, shift: int = 0) -> Tensor:
    t = (torch.arange(T + 1, dtype=torch.float64) + shift) / T
    bar = torch.cos(math.pi / 2 * (t + s) / (1 + s)) ** power
    betas = 1 - bar[1:] / bar[:-1]
    return betas.clamp(max=0.999) if clip else betas


def _cosine_answer(T: int, s: float = 0.008) -> Tensor:
    return _cosine(T, s)


def _not_squared(T: int, s: float = 0.008) -> Tensor:
    return _cosine(T, s, power=1)


def _not_clipped(T: int, s: float = 0.008) -> Tensor:
    return _cosine(T, s, clip=False)


def _one_late(T: int, s: float = 0.008) -> Tensor:
    return _cosine(T, s, shift=-1)


def _no_offset(T: int, s: float = 0.008) -> Tensor:
    return _cosine(T, 0.0)


@exercise("2.13d", "the betas of the cosine schedule", read="section 2.10, (2.26)", solution=_cosine_answer,
          wrong=((_not_squared, "squared"), (_not_clipped, "clip"), (_one_late, "one step"), (_no_offset, "offset")))
def cosine_betas(answer):
    """Three lengths and another offset."""
    close_to_reference(answer, _cosine_answer, [(10,), (100,), (1000,), (50, 0.02)], name="cosine_betas", mistakes={
        "the cosine is not squared: f is cos^2, since alpha-bar is a power": _not_squared,
        "the last beta is not clipped: it must not exceed 0.999": _not_clipped,
        "the list is one step late: beta_1 compares alpha-bar at k = 1 with that at k = 0": _one_late,
        "the offset s is missing": _no_offset,
    })
    return "The linear schedule needs no clip; this one does, because alpha-bar ends at 0."


def _zero_terminal(alphas_bar: Tensor) -> Tensor:
    alpha = alphas_bar.sqrt()
    return ((alpha - alpha[-1]) / (1 - alpha[-1])) ** 2


def _on_the_power(alphas_bar: Tensor) -> Tensor:
    return (alphas_bar - alphas_bar[-1]) / (1 - alphas_bar[-1])


def _shift_only(alphas_bar: Tensor) -> Tensor:
    alpha = alphas_bar.sqrt()
    return (alpha - alpha[-1]) ** 2


def _last_only(alphas_bar: Tensor) -> Tensor:
    return torch.cat([alphas_bar[:-1], alphas_bar.new_zeros(1)])


@exercise("2.13e", "a schedule that ends in pure noise", read="section 2.11", solution=_zero_terminal,
          wrong=((_on_the_power, "alphas_bar itself"), (_shift_only, "starts at 1"), (_last_only, "only the last")))
def zero_terminal_snr(answer):
    """The schedule of the section's failure, and one that ends higher still."""
    tables = [torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - torch.linspace(1e-4, 0.02, T, dtype=torch.float64), 0)])
              for T in (50, 150)]
    close_to_reference(answer, _zero_terminal, [(table,) for table in tables], name="zero_terminal_snr", mistakes={
        "alphas_bar itself was shifted: the text shifts its square root, the signal scale": _on_the_power,
        "the shift is there and the scale is not: the result no longer starts at 1": _shift_only,
        "only the last entry was changed: the step before it then loses all its signal at once": _last_only,
    })
    return "Train with target v: at k = T a prediction of the noise would say nothing about the picture."
