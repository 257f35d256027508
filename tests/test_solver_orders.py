"""The orders of the solvers of the probability-flow ODE, on two mixtures and under every schedule: extrapolated slopes, each with its own band."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from laws import level_grid

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import high_dimensional, three_modes
from diffusion_lib.samplers import ddim, deis, dpmpp, euler_maruyama, final, heun, unipc
from diffusion_lib.schedules import EDMSchedule, VPSchedule

pytestmark = pytest.mark.slow

MIXTURES = {"plane": three_modes(), "64-D": high_dimensional()}
HIGHEST, LOWEST, PATHS = 5.0, 0.05, 100
SOLVERS = {
    "ddim": (ddim, {}, 1),
    "euler in t": (euler_maruyama, {"stochasticity": 0.0}, 1),
    "heun": (heun, {}, 2),
    "dpmpp 2": (dpmpp, {"order": 2}, 2),
    "dpmpp 3": (dpmpp, {"order": 3}, 3),
    "unip 2": (unipc, {"order": 2, "corrector": False}, 2),
    "unipc 2": (unipc, {"order": 2}, 3),
    "deis 2": (deis, {"order": 2}, 2),
    "deis 3": (deis, {"order": 3}, 3),
}


def start(name):
    """y = x/alpha at the highest level, from its marginal."""
    generator, mixture = torch.Generator().manual_seed(0), MIXTURES[name]
    return mixture.sample(PATHS, generator) + HIGHEST * torch.randn(PATHS, mixture.dim, generator=generator, dtype=torch.float64)


@functools.cache
def arrived(name):
    """Where the exact flow carries ``start``: classical Runge-Kutta of order 4, 1600 steps in log level."""
    schedule, y, mixture = EDMSchedule(), start(name), MIXTURES[name]
    h = math.log(LOWEST / HIGHEST) / 1600

    def speed(u, y):
        return y - mixture.denoise(y, math.exp(u) / schedule.sigma_max, schedule)  # level * eps_hat

    for k in range(1600):
        u = math.log(HIGHEST) + k * h
        a = speed(u, y)
        b = speed(u + h / 2, y + h / 2 * a)
        c = speed(u + h / 2, y + h / 2 * b)
        y = y + h / 6 * (a + 2 * b + 2 * c + speed(u + h, y + h * c))
    return y


def rough_grid(schedule, steps):
    """Long and short steps in log level by turns, 3 to 1: their ratio does not go to 1 as the grid grows fine."""
    ends = torch.cat([torch.zeros(1, dtype=torch.float64), torch.tensor([3.0, 1.0], dtype=torch.float64).repeat(steps // 2).cumsum(0)])
    return schedule.time_of_log_snr(-(math.log(HIGHEST) + math.log(LOWEST / HIGHEST) * ends / ends[-1]))


def errors(solver, options, schedule, name, steps, grid=level_grid):
    """Each path's error in y = x/alpha at the lowest level, for each number of steps: (len(steps), PATHS)."""
    rows = []
    for n in steps:
        times = grid(schedule, n)  # both grids go from 5 to 0.05
        x = final(solver(ExactDenoiser(MIXTURES[name], schedule), schedule, schedule.alpha(times[0]) * start(name), times, **options))
        rows.append((x / schedule.alpha(times[-1]) - arrived(name)).norm(dim=1))
    return torch.stack(rows)


def order(errors):
    """(order, band) from errors (4, P) at 1, 2, 4, 8 times as many steps.

    The slopes s_1, s_2, s_3 of the median error between neighbours approach the order p as s_i = p + c h_i, h_i halving, so 2 s_3 - s_2 is p to
    second order in h. It is believed to within its change from 2 s_2 - s_1, plus 4 standard errors of its own, by resampling paths.
    """

    def extrapolated(medians):
        s = (medians[:-1] / medians[1:]).log2()
        return 2 * s[2] - s[1], 2 * s[1] - s[0]

    fine, coarse = extrapolated(errors.median(1).values)
    generator = torch.Generator().manual_seed(0)
    draws = [errors[:, torch.randint(errors.shape[1], (errors.shape[1],), generator=generator)].median(1).values for _ in range(100)]
    error = torch.stack([extrapolated(d)[0] for d in draws]).std()
    return float(fine), float((fine - coarse).abs() + 4 * error)


@pytest.mark.parametrize("name", MIXTURES)
def test_orders(schedule, name):
    """Every solver, judged by an order that is known to a quarter or better."""
    for label, (solver, options, expected) in SOLVERS.items():
        found, band = order(errors(solver, options, schedule, name, (40, 80, 160, 320)))
        assert band < 0.5 and abs(found - expected) < band, (label, found, band)


@pytest.mark.parametrize("name", MIXTURES)
def test_orders_on_a_rough_grid(name):
    """Where steps differ in length, the weights must know by how much; on an even grid many wrong ones are right."""
    for label, (solver, options, expected) in SOLVERS.items():
        found, band = order(errors(solver, options, VPSchedule(), name, (80, 160, 320, 640), rough_grid))
        assert band < 0.5 and abs(found - expected) < band, (label, found, band)


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("schedule", [VPSchedule(), EDMSchedule()], ids=["vp", "edm"])
def test_a_plain_start_caps_3m_at_order_two(schedule, name):
    """The error of the first step, of order 1, is of order 2 in the whole, and shows once the steps are fine."""
    found, band = order(errors(dpmpp, {"order": 3, "corrected_start": False}, schedule, name, (160, 320, 640, 1280)))
    assert band < 0.5 and abs(found - 2) < band, (found, band)
