"""DDIM: the family of samplers that share DDPM's marginals, from deterministic (eta = 0) to ancestral (eta = 1), and its way back."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.denoisers import Denoiser
from diffusion_lib.samplers._walk import check_start, evaluate
from diffusion_lib.schedules import Schedule
from diffusion_lib.transitions import posterior_kernel
from diffusion_lib.validate import check_non_negative


def ddim_coefficients(schedule: Schedule, times: Tensor, eta: float = 0.0) -> list[tuple[float, float, float]]:
    """For each step t -> s of a grid: (a, b, c) with x_s = a x_t + b x0_hat + c z, as plain floats.

    The step x_s = alpha_s x0_hat + sqrt(sigma_s^2 - c^2) eps_hat + c z with eps_hat = (x_t - alpha_t x0_hat) / sigma_t and
    c = eta * (the posterior's standard deviation). Book (3.6), (3.8). Song et al. 2021 (DDIM), eqs. 12 and 16.
    """
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    added = torch.zeros_like(sigma[1:])
    if eta > 0:
        posterior = posterior_kernel(schedule, times[1:], times[:-1])[2]
        added = eta**2 * posterior
        highest = (sigma[1:] ** 2 / posterior)[posterior > 0].sqrt()  # above it: more noise than x_s holds
        if len(highest) and eta > float(highest.min()) * (1 + 1e-9):
            raise ValueError(
                f"eta={eta!r} was given; expected at most {float(highest.min()):.6g} on this grid, where a step's noise is all the noise "
                "there is: 1 is ancestral sampling and is always allowed."
            )
    a = (sigma[1:] ** 2 - added).clamp(min=0.0).sqrt() / sigma[:-1]
    b = alpha[1:] - a * alpha[:-1]
    return list(zip(a.tolist(), b.tolist(), added.sqrt().tolist(), strict=True))


def ddim_step(
    x: Tensor, x0_hat: Tensor, a: float, b: float, c: float, generator: torch.Generator | None = None
) -> Tensor:
    """x_s = a x_t + b x0_hat + c z, with z ~ N(0, I) drawn only where c > 0."""
    x = a * x + b * x0_hat
    return x + c * noise.randn_like(x, generator) if c > 0 else x


def ddim(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """DDIM from x_T = ``x`` (B, ...) over a decreasing grid ``times`` (N + 1,): yields N + 1 states, x_T first.

    eta >= 0 scales the noise of each step: 0 is deterministic, 1 is ancestral sampling with the posterior variance. It must not exceed
    sqrt(sigma_s^2 / posterior variance) in any step, which 1 never exceeds. Book (3.8), (3.9). Order 1 in the step of the noise level (eta = 0);
    N evaluations. ValueError for a bad grid, a NaN in x, or an eta out of its range.
    """
    times = check_start(x, times, schedule)
    check_non_negative("eta", eta)
    return _walk(denoiser, x, times.tolist(), ddim_coefficients(schedule, times, eta), generator, condition)


@torch.no_grad()
def _walk(denoiser, x, times, coefficients, generator, condition) -> Iterator[Tensor]:
    yield x
    for t, (a, b, c) in zip(times, coefficients, strict=False):
        x = ddim_step(x, evaluate(denoiser, x, t, condition), a, b, c, generator)
        yield x


def ddim_invert(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    condition: dict[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """Encode data ``x`` (B, ...) into noise: the DDIM step with eta = 0, walked up a grid. Yields N + 1 states, ``x`` first.

    times: the same decreasing grid (N + 1,) that :func:`ddim` takes; it is walked from its last entry to its first, so that
    state i belongs to times[N - i] and the last state is x_T. Each step uses the prediction at the time where it stands, as Euler's
    method does; at a time without noise (t = 0) eps_hat is 0/0, and there the prediction at the step's other end is used.
    Order 1: the error of going up and down again halves when N doubles. N evaluations.
    Book (3.15). Song et al. 2021 (DDIM), Sec. 4.3. ValueError for a bad grid or a NaN in x.
    """
    times = check_start(x, times, schedule)
    return _walk_up(denoiser, schedule, x, times.flip(0), condition)


@torch.no_grad()
def _walk_up(denoiser, schedule, x, times, condition) -> Iterator[Tensor]:
    alpha, sigma = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    times = times.tolist()
    yield x
    for k in range(len(times) - 1):
        if sigma[k] == 0:  # x / alpha stays, and moves by (noise level) * eps_hat, asked for at the end of the step
            x = alpha[k + 1] / alpha[k] * x
            x = 2 * x - alpha[k + 1] * evaluate(denoiser, x, times[k + 1], condition)
        else:
            a = sigma[k + 1] / sigma[k]
            x = ddim_step(x, evaluate(denoiser, x, times[k], condition), a, alpha[k + 1] - a * alpha[k], 0.0)
        yield x
