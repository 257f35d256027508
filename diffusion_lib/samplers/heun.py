"""Heun's method on the probability-flow ODE: two looks a step, order two; with churn, EDM's stochastic sampler."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.denoisers import Denoiser
from diffusion_lib.samplers._walk import check_start, evaluate
from diffusion_lib.schedules import Schedule
from diffusion_lib.validate import check_interval, check_non_negative, check_positive

MOST_RAISE = math.sqrt(2) - 1  # fresh noise then has as much variance as there was


def heun(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    churn: float = 0.0,
    churn_interval: tuple[float, float] = (0.0, math.inf),
    churn_noise: float = 1.0,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """Heun's method from x_T = ``x`` (B, ...) over a decreasing grid ``times`` (N + 1,): yields N + 1 states, x_T first.

    It integrates d(x/alpha) / d(sigma/alpha) = eps_hat, the probability-flow ODE in the variables in which it is shortest: an
    Euler step (which is DDIM's), then the mean of the slopes at both of its ends. Where a step ends without noise (sigma = 0)
    the second slope does not exist and the Euler step stays. Order 2 in the step of the noise level; 2N evaluations, or 2N - 1 where
    the grid ends at t = 0. Without churn it draws no noise.

    churn: S_churn, in [0, N (sqrt(2) - 1)]. Each step that begins at a noise level sigma/alpha inside ``churn_interval`` (S_tmin, S_tmax)
    first adds noise, so that the level rises by the factor 1 + churn / N (not above the schedule's highest), and then comes down from there.
    churn_noise: S_noise > 0, the standard deviation of that noise; 1 keeps the marginals.
    Book (5.24), (7.15). Karras et al. 2022 (EDM), Algorithms 1 and 2, for any schedule. ValueError for a bad grid, a NaN in x, churn out of its range.
    """
    times = check_start(x, times, schedule)
    check_positive("churn_noise", churn_noise)
    steps = heun_steps(schedule, times, churn, churn_interval)
    return _walk(denoiser, x, steps, churn_noise, generator, condition)


class Step(NamedTuple):
    """One step, as plain floats: from ``start`` (time, alpha, sigma), noise ``added`` up to ``begin``, then down to ``end``."""

    start: tuple[float, float, float]
    added: float
    begin: tuple[float, float, float]
    end: tuple[float, float, float]


def heun_steps(
    schedule: Schedule, times: Tensor, churn: float = 0.0, churn_interval: tuple[float, float] = (0.0, math.inf)
) -> list[Step]:
    """One Step for each step of a grid ``times`` (N + 1,); ``added`` is in units of x/alpha: sqrt(begin level^2 - start level^2)."""
    count = len(times) - 1
    check_non_negative("churn", churn)
    if churn > count * MOST_RAISE * (1 + 1e-9):
        raise ValueError(
            f"churn={churn:g} was given for {count} steps; expected at most {count * MOST_RAISE:.4g}, which doubles the noise's variance at "
            "each step: use more steps or less churn."
        )
    low, high = check_interval("churn_interval", churn_interval)
    places = _places(schedule, times)
    level = times.new_tensor([sigma / alpha for _, alpha, sigma in places])
    highest = float(schedule.noise_level(torch.tensor(schedule.t_max, dtype=torch.float64)))
    raised = torch.where((level >= low) & (level <= high), (level * (1 + churn / count)).clamp(max=highest), level)[:-1]
    above = raised > level[:-1]
    begin = _places(schedule, torch.where(above, schedule.time_of_log_snr(-raised.log()), times[:-1]))
    steps = []
    for k, (start, first, up) in enumerate(zip(places[:-1], begin, above.tolist(), strict=True)):
        added = math.sqrt(max((first[2] / first[1]) ** 2 - (start[2] / start[1]) ** 2, 0.0)) if up else 0.0
        steps.append(Step(start, added, first, places[k + 1]))
    return steps


def _places(schedule: Schedule, times: Tensor) -> list[tuple[float, float, float]]:
    """(time, alpha, sigma) at each time."""
    return list(zip(times.tolist(), schedule.alpha(times).tolist(), schedule.sigma(times).tolist(), strict=True))


@torch.no_grad()
def _walk(denoiser, x, steps, churn_noise, generator, condition) -> Iterator[Tensor]:
    yield x
    for start, added, (t, alpha, sigma), (t_end, alpha_end, sigma_end) in steps:
        y = x / start[1]
        if added > 0:
            y = y + added * churn_noise * noise.randn_like(x, generator)
            x = alpha * y
        step = sigma_end / alpha_end - sigma / alpha
        slope = (x - alpha * evaluate(denoiser, x, t, condition)) / sigma  # eps_hat
        x = alpha_end * (y + step * slope)
        if sigma_end > 0:
            second = (x - alpha_end * evaluate(denoiser, x, t_end, condition)) / sigma_end
            x = alpha_end * (y + step * 0.5 * (slope + second))
        yield x
