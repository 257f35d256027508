"""Noise levels of annealed Langevin sampling: NCSN's geometric list, and NCSNv2's rules for its ends, its ratio and
its step size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lib.schedules.base import Schedule
from diffusion_lib.validate import check_count, check_finite, check_positive, check_tensor


def geometric_levels(sigma_max: float, sigma_min: float, count: int) -> Tensor:
    """``count`` >= 2 noise levels from ``sigma_max`` down to ``sigma_min``, each the same fraction of the one before:
    (count,) float64.

    0 < sigma_min < sigma_max, in units of the data. Song & Ermon 2019, Sec. 4.1.
    """
    check_positive("sigma_min", sigma_min)
    check_positive("sigma_max", sigma_max)
    check_count("count", count, least=2)
    if sigma_max <= sigma_min:
        raise ValueError(
            f"sigma_max={sigma_max} is not above sigma_min={sigma_min}; expected levels that fall: swap them."
        )
    levels = torch.linspace(math.log(sigma_max), math.log(sigma_min), count, dtype=torch.float64).exp()
    levels[0], levels[-1] = sigma_max, sigma_min
    return levels


def largest_distance(x: Tensor) -> float:
    """The largest Euclidean distance between two of the samples ``x`` (N, ...): NCSNv2's sigma_max.

    With this much noise a walk can get from any sample to any other. Song & Ermon 2020, technique 1. O(N^2) time, in
    pieces. Book (4.23).
    """
    x = check_finite("x", check_tensor("x", x))
    if x.ndim < 2 or len(x) < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected at least 2 samples along the first axis, (N, ...).")
    x = x.flatten(1).double()
    return max(float(torch.cdist(part, x, compute_mode="donot_use_mm_for_euclid_dist").max()) for part in x.split(512))


def level_overlap(dim: int, ratio: float) -> float:
    """NCSNv2's measure of how far two neighbouring levels overlap: Phi(a + 3 ratio) - Phi(a - 3 ratio), a = sqrt(2
    dim) (ratio - 1).

    For data at a point, ||x|| at level sigma is nearly N(sigma sqrt(dim), sigma^2 / 2) when dim is large. This is the
    probability that the lower level gives to the upper one's range of three standard deviations. Song & Ermon 2020,
    Prop. 2 and technique 2. Book (4.24).
    """
    middle = math.sqrt(2 * check_count("dim", dim)) * (ratio - 1)
    return 0.5 * (math.erf((middle + 3 * ratio) / math.sqrt(2)) - math.erf((middle - 3 * ratio) / math.sqrt(2)))


def level_ratio(dim: int, overlap: float = 0.5) -> float:
    """The ratio > 1 of neighbouring levels at which :func:`level_overlap` in ``dim`` dimensions is ``overlap``, by
    bisection.

    For overlap 1/2 it is close to 1 / (1 - 3 / sqrt(2 dim)). Where sqrt(2 dim) <= 3, that is dim <= 4, the three
    standard deviations of the rule reach every lower level, the overlap never falls to 1/2 and the rule says nothing:
    ValueError. Song & Ermon 2020, technique 2. Book (4.24).
    """
    check_count("dim", dim)
    if not 0 < overlap < 0.9:
        raise ValueError(f"overlap={overlap!r} was given; expected a number in (0, 0.9), such as 0.5.")
    if dim <= 4:
        raise ValueError(
            f"dim={dim} was given; expected dim >= 5, as below it all levels overlap by this rule: "
            "choose a ratio yourself, such as 2."
        )
    low, high = 1.0, 2.0
    while level_overlap(dim, high) > overlap:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if level_overlap(dim, middle) > overlap else (low, middle)
    return (low + high) / 2


def level_count(sigma_max: float, sigma_min: float, ratio: float) -> int:
    """How many geometric levels from ``sigma_max`` to ``sigma_min`` keep neighbours at most ``ratio`` > 1 apart."""
    check_positive("sigma_min", sigma_min)
    if not sigma_max > sigma_min or not ratio > 1:
        raise ValueError(
            f"sigma_max={sigma_max}, sigma_min={sigma_min}, ratio={ratio} was given; "
            "expected sigma_max > sigma_min and ratio > 1."
        )
    return 1 + math.ceil(math.log(sigma_max / sigma_min) / math.log(ratio) - 1e-9)


def level_times(schedule: Schedule, levels: Tensor) -> Tensor:
    """The times at which sigma/alpha passes the falling ``levels`` (count,), and 0 at the end: a grid (count + 1,)
    float64.

    ValueError for levels that do not fall strictly, or lie outside (0, noise level at t_max].
    """
    levels = check_finite("levels", check_tensor("levels", levels, ndim=1)).double().cpu()
    highest = float(schedule.noise_level(schedule.t_max))
    if len(levels) == 0 or not bool((levels.diff() < 0).all()) or float(levels[-1]) <= 0:
        raise ValueError(
            "levels is not a list of falling numbers > 0; expected geometric_levels(sigma_max, sigma_min, count)."
        )
    if float(levels[0]) > highest * (1 + 1e-9):
        raise ValueError(
            f"levels starts at {float(levels[0]):.4g}, above the schedule's noise level {highest:.4g} at t_max; "
            "expected levels below it: raise sigma_max of the schedule or start lower."
        )
    times = schedule.time_of_log_snr(-levels.log()).clamp(max=schedule.t_max)
    return torch.cat([times, times.new_zeros(1)])


def variance_after_steps(ratio: float, steps: int, step_size: float) -> float:
    """Variance, in units of sigma^2, of ``steps`` Langevin steps h = step_size sigma^2 on N(0, sigma^2), started at
    (ratio sigma)^2.

    v = q + (1 - step_size / 2)^(2 steps) (ratio^2 - q) with q = 1 / (1 - step_size / 4), ULA's stationary variance.
    Song & Ermon 2020, Prop. 3, with their eps = h / 2 at the last level: step_size = 2 eps / sigma_L^2.
    Book (4.26).
    """
    q = 1 / (1 - step_size / 4)
    return q + (1 - step_size / 2) ** (2 * steps) * (ratio**2 - q)


def annealed_step_size(levels: Tensor, steps_per_level: int) -> float:
    """The dimensionless step size r in h = r sigma^2 that brings the variance at each level nearest to its aim, in
    (0, 2].

    It minimises :func:`variance_after_steps`, which is above 1 for every r, for the largest ratio of two neighbouring
    ``levels`` (falling, at least 2). Small r leaves the variance of the level before; large r adds Langevin's own
    bias. Song & Ermon 2020, technique 4. Book (4.26).
    """
    check_tensor("levels", levels, ndim=1)
    check_count("steps_per_level", steps_per_level)
    if len(levels) < 2 or not bool((levels.diff() < 0).all()) or float(levels[-1]) <= 0:
        raise ValueError(
            "levels is not a list of at least 2 falling numbers > 0; "
            "expected geometric_levels(sigma_max, sigma_min, count)."
        )
    ratio = float((levels[:-1] / levels[1:]).max())
    grid = torch.linspace(-12, math.log(2), 4001, dtype=torch.float64).exp()  # first a grid, then its finer cell
    for _ in range(3):
        values = torch.tensor([variance_after_steps(ratio, steps_per_level, r) for r in grid.tolist()], dtype=torch.float64)
        best = int(values.argmin())
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        grid = torch.linspace(float(low), float(high), 201, dtype=torch.float64)
    return float(grid[100])
