"""The Gaussians between two times s < t: forward step, its posterior, the reverse step, and what they cost in nats.

Coefficients are computed in float64 from the times (differences of near-equal numbers), then take the data's dtype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lib.schedules import Schedule, expand
from diffusion_lib.validate import check_choice, check_time

VARIANCES = ("posterior", "forward", "learned", "optimal")


def _pair(s: Tensor | float, t: Tensor | float) -> tuple[Tensor, Tensor]:
    s, t = check_time(s, "s"), check_time(t, "t")
    if t.device.type == "cpu" and not bool((s < t).all()):
        raise ValueError(
            f"s in [{float(s.min()):.6g}, {float(s.max()):.6g}] is not before t in [{float(t.min()):.6g}, {float(t.max()):.6g}] everywhere; "
            "expected s < t: the reverse step goes from t down to s."
        )
    double = torch.float32 if t.device.type == "mps" else torch.float64
    return s.to(device=t.device, dtype=double), t.to(double)


def forward_kernel(schedule: Schedule, s: Tensor | float, t: Tensor | float) -> tuple[Tensor, Tensor]:
    """q(x_t | x_s) = N(scale x_s, variance I) for s < t: returns (scale, variance), each of t's shape, float64.

    scale = alpha_t / alpha_s, variance = sigma_t^2 - scale^2 sigma_s^2. For neighbouring DDPM steps these are sqrt(1 - beta) and
    beta. Book (2.1). Kingma et al. 2021 (VDM), eqs. 23 and 24.
    """
    s, t = _pair(s, t)
    scale = schedule.alpha(t) / schedule.alpha(s)
    return scale, schedule.sigma(t) ** 2 - scale**2 * schedule.sigma(s) ** 2


def posterior_kernel(schedule: Schedule, s: Tensor | float, t: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """q(x_s | x_t, x_0) = N(c_x0 x_0 + c_xt x_t, variance I) for s < t: returns (c_x0, c_xt, variance), float64.

    With the forward step's (scale, beta): c_x0 = alpha_s beta / sigma_t^2, c_xt = scale sigma_s^2 / sigma_t^2 and
    variance = beta sigma_s^2 / sigma_t^2 (DDPM's beta-tilde). Book (2.5), (2.6). Ho et al. 2020, eqs. 6 and 7.
    """
    scale, beta = forward_kernel(schedule, s, t)
    s, t = _pair(s, t)
    variance_s, variance_t = schedule.sigma(s) ** 2, schedule.sigma(t) ** 2
    return schedule.alpha(s) * beta / variance_t, scale * variance_s / variance_t, beta * variance_s / variance_t


def reverse_kernel(
    x0_hat: Tensor,
    x: Tensor,
    s: Tensor | float,
    t: Tensor | float,
    schedule: Schedule,
    variance: str = "posterior",
    fraction: Tensor | None = None,
    data_variance: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The model's step p(x_s | x_t): (mean, log_variance), given the prediction ``x0_hat`` and x_t = ``x``, both (B, ...).

    The mean is the posterior's with x0_hat in place of x_0. The variance is one of
    "posterior" beta-tilde, right for point data; "forward" beta, right for N(0, I) data (both Ho et al. 2020, Sec. 3.2);
    "learned": log-interpolated between the two by ``fraction`` in [0, 1], same shape as x (Nichol & Dhariwal 2021, eq. 15);
    "optimal": beta-tilde + c_x0^2 Var[x_0 | x_t], with ``data_variance`` = Var[x_0 | x_t], same shape as x (Bao et al. 2022, eq. 7).
    At s = 0 the posterior variance is 0 and "posterior" and "learned" fall back to "forward", so that a density exists.
    log_variance broadcasts against x. Book (2.7), (2.17), (2.27). ValueError for an unknown kind or a missing ``fraction`` / ``data_variance``.
    """
    check_reverse(variance, fraction, data_variance)
    c_x0, c_xt, posterior = posterior_kernel(schedule, s, t)
    _, forward = forward_kernel(schedule, s, t)
    mean = expand(c_x0, x) * x0_hat + expand(c_xt, x) * x
    if variance == "optimal":
        return mean, (expand(posterior, x) + expand(c_x0, x) ** 2 * data_variance).log()
    log_forward, log_posterior = forward.log(), torch.where(posterior > 0, posterior, forward).log()
    if variance == "forward":
        return mean, expand(log_forward, x)
    if variance == "posterior":
        return mean, expand(log_posterior, x)
    return mean, fraction * expand(log_forward, x) + (1 - fraction) * expand(log_posterior, x)


def check_reverse(variance: str, fraction: Tensor | None, data_variance: Tensor | None) -> None:
    """ValueError for an unknown kind of reverse variance, or for one without what it needs."""
    check_choice("variance", variance, VARIANCES)
    if variance == "optimal" and data_variance is None:
        raise ValueError(
            "variance='optimal' was given without data_variance; expected a denoiser that knows Var[x_0 | x_t], as ExactDenoiser."
        )
    if variance == "learned" and fraction is None:
        raise ValueError(
            "variance='learned' was given without a fraction; expected a denoiser with learned_variance=True."
        )


def gaussian_log_prob(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log N(x; mean, exp(log_var)), elementwise, in nats; the arguments broadcast."""
    return -0.5 * (math.log(2 * math.pi) + log_var + (x - mean) ** 2 * torch.exp(-log_var))


def gaussian_kl(mean_q: Tensor, log_var_q: Tensor, mean_p: Tensor, log_var_p: Tensor) -> Tensor:
    """KL( N(mean_q, exp(log_var_q)) || N(mean_p, exp(log_var_p)) ), elementwise, in nats; the arguments broadcast. Book (1.5), (1.6), (2.10)."""
    return 0.5 * (
        log_var_p - log_var_q - 1 + torch.exp(log_var_q - log_var_p) + (mean_q - mean_p) ** 2 * torch.exp(-log_var_p)
    )


def discretized_log_prob(x: Tensor, mean: Tensor, log_var: Tensor, bins: int = 256) -> Tensor:
    """Log-probability (nats, elementwise, <= 0) that N(mean, exp(log_var)) falls into the bin of ``x``.

    ``x`` takes ``bins`` equally spaced values from -1 to 1; a bin reaches half a spacing to both sides, and the two outer bins
    reach to infinity, so that the probabilities of all bins sum to 1. Ho et al. 2020, eq. 13.
    """
    half = 1.0 / (bins - 1)
    inverse_std = torch.exp(-0.5 * log_var)
    upper = torch.where(x > 1 - half, torch.inf, (x + half - mean) * inverse_std)
    lower = torch.where(x < -1 + half, -torch.inf, (x - half - mean) * inverse_std)
    # Phi(b) - Phi(a) = Phi(-a) - Phi(-b): take the side on which both are small, and subtract in logs.
    flip = lower + upper > 0
    upper, lower = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    gap = (log_lower - log_upper).clamp(max=-1e-30)
    return log_upper + torch.log(-torch.expm1(gap))
