"""Time grids: where a sampler stops on its way from noise to data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lib.schedules.base import Schedule
from diffusion_lib.validate import check_choice, check_count, check_positive

GRIDS = ("uniform", "karras", "log_snr", "quadratic", "asinh")


def time_grid(
    schedule: Schedule,
    steps: int,
    kind: str = "uniform",
    *,
    noise_min: float = 0.002,
    noise_max: float | None = None,
    rho: float = 7.0,
    detail: float = 0.028,
) -> Tensor:
    """``steps + 1`` times from ``schedule.t_max`` (or ``noise_max``) down to exactly 0, strictly decreasing: (steps + 1,) float64.

    kind: "uniform" in t; "quadratic", uniform in sqrt(t) (Song et al. 2021, DDIM, Sec. D.2); "log_snr", uniform in log-SNR
    (Lu et al. 2022, Sec. 3.4); "karras", uniform in noise_level^(1/rho) (Karras et al. 2022, eq. 5; Book (7.14)). The last two place ``steps``
    points between the noise levels ``noise_max`` (default: that at t_max) and ``noise_min``, and then add 0. Both are sigma/alpha,
    in units of the data. "asinh", uniform in asinh(noise_level / detail): as "log_snr" above ``detail``, evenly down to 0 below it;
    it has no noise_min, and suits samplers whose last step is of full order, as ``samplers.deis``.
    A sampler on a grid spends ``steps`` evaluations, or ``steps`` times its evaluations per step.
    """
    check_count("steps", steps)
    check_choice("kind", kind, GRIDS)
    check_positive("noise_min", noise_min)
    check_positive("rho", rho)
    start = torch.tensor(schedule.t_max, dtype=torch.float64)
    if noise_max is not None:
        check_positive("noise_max", noise_max)
        start = schedule.time_of_log_snr(torch.tensor(-math.log(noise_max), dtype=torch.float64)).clamp(
            max=schedule.t_max
        )
    unit = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    if kind == "uniform":
        return start * unit
    if kind == "quadratic":
        return start * unit**2
    highest = float(schedule.noise_level(start))
    if kind == "asinh":
        check_positive("detail", detail)
        log_snr = -torch.log(detail * torch.sinh(unit[:-1] * math.asinh(highest / detail)))
    else:
        log_snr = _down_to(noise_min, highest, steps, kind, rho)
    times = schedule.time_of_log_snr(log_snr)
    times[0] = start
    return torch.cat([times, times.new_zeros(1)])


def _down_to(noise_min: float, highest: float, steps: int, kind: str, rho: float) -> Tensor:
    """Half log-SNR at ``steps`` places from the noise level ``highest`` to ``noise_min``: "log_snr" or "karras"."""
    if not noise_min < highest:
        raise ValueError(
            f"noise_min={noise_min} is not below the noise level {highest:.4g} at the start; expected 0 < noise_min < noise_max."
        )
    unit = torch.linspace(1.0, 0.0, steps, dtype=torch.float64) if steps > 1 else torch.ones(1, dtype=torch.float64)
    if kind == "log_snr":
        return -(unit * math.log(highest) + (1 - unit) * math.log(noise_min))
    return -rho * torch.log(unit * highest ** (1 / rho) + (1 - unit) * noise_min ** (1 / rho))
