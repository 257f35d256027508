"""The forward SDE, its reversal, and the corrector: Euler-Maruyama and predictor-corrector sampling."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.denoisers import Denoiser
from diffusion_lib.samplers._walk import check_start, evaluate
from diffusion_lib.samplers.ddim import ddim_coefficients, ddim_step
from diffusion_lib.schedules import Schedule
from diffusion_lib.validate import check_choice, check_count, check_non_negative, check_positive, check_time

PREDICTORS = ("euler_maruyama", "ancestral")


def forward_sde(
    schedule: Schedule, x0: Tensor, times: Tensor, *, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Euler-Maruyama on dx = f x dt + g dw from data ``x0`` (B, ...) over an *increasing* grid ``times`` (N + 1,): N + 1 states.

    x_t = x_s + f(s) x_s (t - s) + g(s) sqrt(t - s) z. No network. Strong order 1, since g does not depend on x; weak order 1.
    It is here to be compared with ``targets.diffuse``, which draws x_t in one exact step. Book (5.9). Song et al. 2021 (SDE), eq. 5.
    ValueError for a grid that does not increase.
    """
    check_time(times, "times")
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
        raise ValueError(
            "times is not strictly increasing; expected a 1-D grid of at least 2 times from data (t = 0) to noise: "
            "use time_grid(schedule, steps).flip(0)."
        )
    times = check_start(x0, times.flip(0), schedule).flip(0)
    return _walk_forward(schedule, x0, times, generator)


@torch.no_grad()
def _walk_forward(schedule, x, times, generator) -> Iterator[Tensor]:
    step = times.diff()
    kept = (1 + schedule.drift(times[:-1]) * step).tolist()
    added = (schedule.diffusion_sq(times[:-1]) * step).sqrt().tolist()
    yield x
    for a, c in zip(kept, added, strict=True):
        x = a * x + c * noise.randn_like(x, generator)
        yield x


def euler_maruyama_coefficients(
    schedule: Schedule, times: Tensor, stochasticity: float = 1.0
) -> list[tuple[float, float, float]]:
    """For each step t -> s of a grid: (a, b, c) with x_s = a x_t + b x0_hat + c z, as plain floats.

    With h = t - s and score = (alpha x0_hat - x) / sigma^2, all taken at t:
    x_s = x_t - h (f x_t - (1 + stochasticity^2) / 2 g^2 score) + stochasticity g sqrt(h) z. The step to s = 0 adds no noise.
    """
    t, h = times[:-1], -times.diff()
    drift, g_sq, sigma = schedule.drift(t), schedule.diffusion_sq(t), schedule.sigma(t)
    pull = h * 0.5 * (1 + stochasticity**2) * g_sq / sigma**2
    a, b = 1 - h * drift - pull, schedule.alpha(t) * pull
    c = stochasticity * (g_sq * h).sqrt() * (times[1:] > 0)
    return list(zip(a.tolist(), b.tolist(), c.tolist(), strict=True))


def euler_maruyama(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    stochasticity: float = 1.0,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """Euler-Maruyama on the reverse SDE from x_T = ``x`` (B, ...) over a decreasing grid ``times`` (N + 1,): yields N + 1 states.

    dx = [f x - (1 + stochasticity^2) / 2 g^2 score] dt + stochasticity g dw, backwards in time: 1 is Anderson's reversal, 0 Euler's
    method on the probability-flow ODE in t; every value >= 0 has the same marginals. The last step, to t = 0, adds no noise.
    The equation is stiff at both ends of most schedules: use a grid that is fine there, ``time_grid(schedule, N, "log_snr")``.
    Strong and weak order 1 in the step of log-SNR; N evaluations. Book (5.16), (5.19). Song et al. 2021 (SDE), eqs. 6 and 13; the family is that of Zhang &
    Chen 2023 (DEIS), Sec. 2. ValueError for a bad grid, a NaN in x or a negative stochasticity.
    """
    times = check_start(x, times, schedule)
    check_non_negative("stochasticity", stochasticity)
    coefficients = euler_maruyama_coefficients(schedule, times, stochasticity)
    return _walk(denoiser, schedule, x, times, coefficients, 0, 0.0, generator, condition)


def predictor_corrector(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    predictor: str = "euler_maruyama",
    corrector_steps: int = 1,
    snr: float = 0.16,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """A predictor's step to the next time, then ``corrector_steps`` of Langevin dynamics at that time: yields N + 1 states.

    predictor: "euler_maruyama" on the reverse SDE, or "ancestral", DDPM's posterior step. corrector: x + (h/2) score + sqrt(h) z
    with h = 4 (snr sigma)^2, Book (5.25). This is Song et al. 2021 (SDE), Algorithms 4 and 5, with eps = h / 2, where their
    ||z|| / ||score||, measured over the batch, is replaced by its expected value sigma: a sample then does not depend on its
    neighbours in the batch. No correction at t = 0. N + corrector_steps (N - 1) evaluations on a grid that ends at 0.
    ValueError for a bad grid, a NaN in x, an unknown predictor, snr <= 0 or corrector_steps < 0.
    """
    times = check_start(x, times, schedule)
    check_choice("predictor", predictor, PREDICTORS)
    check_count("corrector_steps", corrector_steps, least=0)
    check_positive("snr", snr)
    if predictor == "ancestral":
        coefficients = ddim_coefficients(schedule, times, eta=1.0)
    else:
        coefficients = euler_maruyama_coefficients(schedule, times)
    return _walk(denoiser, schedule, x, times, coefficients, corrector_steps, snr, generator, condition)


@torch.no_grad()
def _walk(denoiser, schedule, x, times, coefficients, corrector_steps, snr, generator, condition) -> Iterator[Tensor]:
    alpha, sigma = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    times = times.tolist()
    yield x
    for k, (a, b, c) in enumerate(coefficients):
        x = ddim_step(x, evaluate(denoiser, x, times[k], condition), a, b, c, generator)
        if sigma[k + 1] > 0:
            h = 4 * (snr * sigma[k + 1]) ** 2
            for _ in range(corrector_steps):
                score = (alpha[k + 1] * evaluate(denoiser, x, times[k + 1], condition) - x) / sigma[k + 1] ** 2
                x = x + 0.5 * h * score + h**0.5 * noise.randn_like(x, generator)
        yield x
