"""Ancestral sampling: undo the noise one step at a time (Ho et al. 2020, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.denoisers import Denoiser, check_variance, reverse_prediction
from diffusion_lib.samplers._walk import at, check_start
from diffusion_lib.schedules import Schedule
from diffusion_lib.transitions import reverse_kernel


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
    times = torch.tensor([s, t], dtype=torch.float64)
    mean, log_var = reverse_kernel(x0_hat, x, times[0], times[1], schedule, variance, fraction, data_variance)
    return mean if s == 0 else mean + torch.exp(0.5 * log_var) * noise.randn_like(x, generator)


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
    return _walk(denoiser, schedule, x, times.tolist(), variance, generator, condition or {})


@torch.no_grad()
def _walk(denoiser, schedule, x, times, variance, generator, condition) -> Iterator[Tensor]:
    yield x
    for t, s in zip(times[:-1], times[1:], strict=True):
        x0_hat, options = reverse_prediction(denoiser, x, at(t, x), variance, condition)
        x = ddpm_step(x, x0_hat, s, t, schedule, **options, generator=generator)
        yield x
