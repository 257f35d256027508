"""Ancestral sampling: undo the noise one step at a time (Ho et al. 2020, Algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.denoisers import Denoiser, check_variance, reverse_prediction
from diffusion_lib.samplers._walk import at, check_start
from diffusion_lib.schedules import Schedule
from diffusion_lib.transitions import check_reverse, forward_kernel, posterior_kernel


class Reverse(NamedTuple):
    """One step t -> s as plain floats: the posterior's c_x0 and c_xt, its variance and the forward step's (0 and 0: add no noise)."""

    c_x0: float
    c_xt: float
    posterior: float
    forward: float


def ddpm_coefficients(schedule: Schedule, times: Tensor) -> list[Reverse]:
    """One row for each step of a decreasing grid ``times`` (N + 1,). The step to s = 0 adds no noise. Book (2.25)."""
    t, s = times[:-1].double(), times[1:].double()
    c_x0, c_xt, posterior = posterior_kernel(schedule, s, t)
    forward = torch.where(s > 0, forward_kernel(schedule, s, t)[1], 0.0)
    return [Reverse(*row) for row in zip(c_x0.tolist(), c_xt.tolist(), posterior.tolist(), forward.tolist(), strict=True)]


def ddpm_step(
    x: Tensor,
    x0_hat: Tensor,
    s: float,
    t: float,
    schedule: Schedule,
    variance: str = "posterior",
    fraction: Tensor | None = None,
    data_variance: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One draw of x_s from p(x_s | x_t), given x_t = ``x`` and ``x0_hat``, both (B, ...). The step to s = 0 adds no noise.

    Book (2.25). Ho et al. 2020, eqs. 7 and 11. variance, fraction, data_variance: see ``transitions.reverse_kernel``.
    """
    check_reverse(variance, fraction, data_variance)
    row = ddpm_coefficients(schedule, torch.tensor([t, s], dtype=torch.float64))[0]
    return _draw(x, x0_hat, row, variance, fraction, data_variance, generator)


def _draw(x, x0_hat, row: Reverse, variance, fraction, data_variance, generator) -> Tensor:
    mean = row.c_x0 * x0_hat + row.c_xt * x
    if row.forward == 0:
        return mean
    if variance == "forward":
        std = math.sqrt(row.forward)
    elif variance == "posterior":
        std = math.sqrt(row.posterior)
    elif variance == "learned":
        std = torch.exp(0.5 * (fraction * math.log(row.forward) + (1 - fraction) * math.log(row.posterior)))
    else:
        std = (row.posterior + row.c_x0**2 * data_variance).sqrt()
    return mean + std * noise.randn_like(x, generator)


def ddpm(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    variance: str = "posterior",
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """Ancestral sampling from x_T = ``x`` (B, ...) over a decreasing grid ``times`` (N + 1,): yields N + 1 states, x_T first.

    Book (2.7), (2.25). Any grid of any schedule will do; DDPM's own is t = k / T. variance: "posterior", "forward", "learned" (needs a NetDenoiser
    with learned_variance) or "optimal" (needs a denoiser with ``variance(x, t)``); see ``transitions.reverse_kernel``.
    Weak order 1 in the step size; N evaluations. ValueError for a bad grid, a NaN in x, or a variance the denoiser cannot give.
    """
    times = check_start(x, times, schedule)
    check_variance(denoiser, variance)
    return _walk(denoiser, x, times.tolist(), ddpm_coefficients(schedule, times), variance, generator, condition or {})


@torch.no_grad()
def _walk(denoiser, x, times, rows, variance, generator, condition) -> Iterator[Tensor]:
    yield x
    for t, row in zip(times, rows, strict=False):
        x0_hat, options = reverse_prediction(denoiser, x, at(t, x), variance, condition)
        x = _draw(x, x0_hat, row, **options, generator=generator)
        yield x
