"""Heun's method on the probability-flow ODE: two looks a step, order two."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion_lib.denoisers import Denoiser
from diffusion_lib.samplers._walk import check_start, evaluate
from diffusion_lib.schedules import Schedule


def heun(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """Heun's method from x_T = ``x`` (B, ...) over a decreasing grid ``times`` (N + 1,): yields N + 1 states, x_T first.

    It integrates d(x/alpha) / d(sigma/alpha) = eps_hat, the probability-flow ODE in the variables in which it is shortest: an
    Euler step (which is DDIM's), then the mean of the slopes at both of its ends. Where a step ends without noise (sigma = 0)
    the second slope does not exist and the Euler step stays. Order 2 in the step of the noise level; 2N evaluations, or 2N - 1 where
    the grid ends at t = 0. It draws no noise: ``generator`` is there so that all samplers are called alike.
    Book (5.24). Karras et al. 2022 (EDM), Algorithm 1, for any schedule. ValueError for a bad grid or a NaN in x.
    """
    times = check_start(x, times, schedule)
    return _walk(denoiser, schedule, x, times, condition)


@torch.no_grad()
def _walk(denoiser, schedule, x, times, condition) -> Iterator[Tensor]:
    alpha, sigma = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    times = times.tolist()
    level = [b / a for a, b in zip(alpha, sigma, strict=True)]
    yield x
    for k in range(len(times) - 1):
        step = level[k + 1] - level[k]
        slope = (x - alpha[k] * evaluate(denoiser, x, times[k], condition)) / sigma[k]  # eps_hat
        y = x / alpha[k]
        x = alpha[k + 1] * (y + step * slope)
        if sigma[k + 1] > 0:
            second = (x - alpha[k + 1] * evaluate(denoiser, x, times[k + 1], condition)) / sigma[k + 1]
            x = alpha[k + 1] * (y + step * 0.5 * (slope + second))
        yield x
