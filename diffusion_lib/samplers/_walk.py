"""What all samplers share: look at the input once, ask the denoiser at one time, and return the last state."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch
from torch import Tensor

from diffusion_lib.denoisers import Denoiser
from diffusion_lib.schedules import Schedule
from diffusion_lib.validate import check_finite, check_grid, check_tensor


def check_start(x: Tensor, times: Tensor, schedule: Schedule | None = None) -> Tensor:
    """Refuse a bad start ``x`` (B, ...) or a bad grid; return the grid in float64 on the CPU, where coefficients are made.

    A grid may begin and end anywhere on the path, since each state belongs to a time; with ``schedule``, not above its t_max.
    """
    check_finite("x", check_tensor("x", x))
    if x.ndim < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; expected a batch (B, ...): add a leading dimension with x[None]."
        )
    times = check_grid(times).double().cpu()
    if schedule is not None and float(times[0]) > schedule.t_max + 1e-6:  # a float32 grid may be off by 3e-8
        raise ValueError(
            f"times starts at {float(times[0]):.6g}, above t_max={schedule.t_max:.6g} of {type(schedule).__name__}, where no signal is left; "
            "expected a grid inside [0, t_max]: use time_grid(schedule, steps)."
        )
    return times


def at(t: float, x: Tensor) -> Tensor:
    """The time ``t`` for each sample of ``x``: (B,) in its dtype, on its device."""
    return x.new_full((x.shape[0],), t)


def evaluate(denoiser: Denoiser, x: Tensor, t: float, condition: dict[str, Tensor] | None) -> Tensor:
    """x0_hat at one time for the whole batch: one evaluation."""
    return denoiser(x, at(t, x), **(condition or {}))


def final(states: Iterable[Tensor]) -> Tensor:
    """Run a sampler to its end and return its last state, x_0. ValueError if it holds NaN or there is no state."""
    tail = deque(states, maxlen=1)
    if not tail:
        raise ValueError("the sampler gave no state; expected a sampler that has not been run yet: call it again.")
    if not bool(torch.isfinite(tail[0]).all()):
        raise ValueError(
            "the sampler ended with NaN or infinite values; expected finite states: use more steps, or a denoiser that is finite at t_max."
        )
    return tail[0]
