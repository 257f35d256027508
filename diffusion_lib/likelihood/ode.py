"""The exact likelihood of the probability-flow ODE: carry a point to the noise, and keep count of how volume changes on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.denoisers import Denoiser
from diffusion_lib.samplers._walk import evaluate
from diffusion_lib.schedules import Schedule
from diffusion_lib.transitions import gaussian_log_prob
from diffusion_lib.validate import check_choice, check_count, check_finite, check_positive, check_tensor

DIVERGENCES = ("exact", "hutchinson")
PROBES = ("rademacher", "gaussian")
# Adams-Bashforth weights of orders 1 to 4, newest slope first (Hairer, Norsett & Wanner 1993, Sec. III.1).
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class OdeLikelihood:
    """What :func:`ode_likelihood` returns.

    nats (B,): log p(x). standard_error (B,): of the divergence estimate, over independent probes; zeros for the exact divergence,
    None where one probe tells nothing about its spread. latent (B, ...): the x_T to which the ODE carries x.
    """

    nats: Tensor
    standard_error: Tensor | None
    latent: Tensor


def ode_log_likelihood(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    *,
    steps: int = 256,
    divergence: str = "exact",
    probes: int = 1,
    probe: str = "rademacher",
    noise_min: float = 1e-3,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Tensor:
    """log p(x) in nats, (B,), of the model that the probability-flow ODE of this denoiser defines; see :func:`ode_likelihood`."""
    return ode_likelihood(
        denoiser,
        schedule,
        x,
        steps=steps,
        divergence=divergence,
        probes=probes,
        probe=probe,
        noise_min=noise_min,
        generator=generator,
        condition=condition,
    ).nats


def ode_likelihood(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    *,
    steps: int = 256,
    divergence: str = "exact",
    probes: int = 1,
    probe: str = "rademacher",
    noise_min: float = 1e-3,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> OdeLikelihood:
    """Integrate d(x/alpha) = eps_hat d(sigma/alpha) from data to noise, and the divergence of eps_hat beside it.

    log p(x) = log N(x_T; 0, prior_std^2) + D log alpha_T + integral of div eps_hat d(sigma/alpha), from the noise level ``noise_min`` > 0
    to that at t_max; it is the density at noise_min, in units of the data, which stands for that of clean data. x (B, ...).

    steps: evaluations of the denoiser. The integrator is the Adams-Bashforth method of order 4 in u = asinh(level / scale),
    evenly spaced, scale = min(20 noise_min, 0.02): one evaluation a step. Its first three steps are of lower order and short: the
    error falls with the fourth power of ``steps`` down to about 1e-5 nats, and from there with the second.
    divergence: "exact", D vector-Jacobian products an evaluation, or "hutchinson", one for each of ``probes`` random vectors v, with
    E[v^T J v] = tr J. Each probe is kept along the whole path, so its integral is one unbiased number and their spread gives the
    standard error. probe: "rademacher" (+-1; the least variance) or "gaussian". condition: passed to the denoiser.
    Book (5.27), (5.28). Chen et al. 2018, eq. 8; Grathwohl et al. 2019, eq. 7; Song et al. 2021 (SDE), eq. 39.
    ValueError for NaN in x, steps < 1, an unknown divergence or probe, or a denoiser without a gradient in x.
    """
    check_finite("x", check_tensor("x", x))
    check_count("steps", steps)
    check_count("probes", probes)
    check_choice("divergence", divergence, DIVERGENCES)
    check_choice("probe", probe, PROBES)
    check_positive("noise_min", noise_min)
    levels, step = _levels(schedule, steps, noise_min)
    directions = _directions(x, divergence, probes, probe, generator)
    y, volume, history = x.double(), x.new_zeros(len(directions), len(x), dtype=torch.float64), []
    for level, speed in levels:
        slope, divergences = _slope(denoiser, schedule, y, level, directions, x, condition)
        history = [(slope * speed, divergences * speed), *history[:3]]
        for weight, (dy, dv) in zip(ADAMS_BASHFORTH[len(history) - 1], history, strict=True):
            y, volume = y + step * weight * dy, volume + step * weight * dv
    alpha = float(schedule.alpha(schedule.t_max))
    latent = alpha * y
    log_var = torch.full_like(latent, 2 * math.log(schedule.prior_std))
    prior = gaussian_log_prob(latent, torch.zeros_like(latent), log_var).flatten(1).sum(1)
    total, error = _combine(volume, divergence)
    nats = prior + x[0].numel() * math.log(alpha) + total
    return OdeLikelihood(nats.to(x.dtype), None if error is None else error.to(x.dtype), latent.to(x.dtype))


def _levels(schedule: Schedule, steps: int, noise_min: float) -> tuple[list[tuple[float, float]], float]:
    """The noise level and its derivative in u at each of ``steps`` even places, and the distance between them."""
    noise_max = float(schedule.noise_level(torch.tensor(schedule.t_max, dtype=torch.float64)))
    if not noise_min < noise_max:
        raise ValueError(
            f"noise_min={noise_min} is not below the schedule's highest noise level {noise_max:.4g}; expected a small level such as 1e-3."
        )
    scale = min(20 * noise_min, 0.02)  # with a larger noise_min the first steps must be short in log level from the start
    first, last = math.asinh(noise_min / scale), math.asinh(noise_max / scale)
    step = (last - first) / steps
    places = [first + k * step for k in range(steps)]
    return [(scale * math.sinh(u), scale * math.cosh(u)) for u in places], step


def _directions(x: Tensor, divergence: str, probes: int, probe: str, generator: torch.Generator | None) -> list[Tensor]:
    """The vectors v of the products v^T J v, each (B, ...): the D unit vectors, or random ones."""
    if divergence == "exact":
        unit = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
        return [e.reshape(x[0].shape).expand_as(x) for e in unit]
    if probe == "gaussian":
        return [noise.randn_like(x, generator) for _ in range(probes)]
    return [noise.rand(x.shape, generator, x.device, x.dtype).sub(0.5).sign() for _ in range(probes)]


def _slope(denoiser, schedule, y, level, directions, like, condition) -> tuple[Tensor, Tensor]:
    """eps_hat at x/alpha = y (B, ...) and this noise level, and v^T (d eps_hat / d y) v for each direction: (K, B). One evaluation."""
    t = float(schedule.time_of_log_snr(torch.tensor(-math.log(level), dtype=torch.float64)))
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    with torch.enable_grad():
        x = (alpha * y).to(like.dtype).requires_grad_()
        x0_hat = evaluate(denoiser, x, t, condition)
        if not x0_hat.requires_grad:
            raise ValueError(
                "the denoiser's output does not depend on x through autograd; expected a differentiable denoiser: "
                "remove torch.no_grad() or .detach() from it."
            )
        products = [
            torch.autograd.grad(x0_hat, x, v, retain_graph=k + 1 < len(directions))[0].mul(v).flatten(1).sum(1)
            for k, v in enumerate(directions)
        ]
    jacobian = torch.stack(products).double()
    squares = torch.stack([v.double().square().flatten(1).sum(1) for v in directions])
    return ((x - alpha * x0_hat) / sigma).detach().double(), (squares - alpha * jacobian) * alpha / sigma


def _combine(volume: Tensor, divergence: str) -> tuple[Tensor, Tensor | None]:
    """Per-direction integrals (K, B) to the trace (B,) and its standard error."""
    if divergence == "exact":
        return volume.sum(0), torch.zeros_like(volume[0])
    return volume.mean(0), (volume.std(0) / len(volume) ** 0.5 if len(volume) > 1 else None)
