"""The judges of chapter 7's coded exercises."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lib.checks.compare import close_to_reference, seeded
from diffusion_lib.checks.core import exercise
from diffusion_lib.schedules import CosineSchedule, EDMSchedule, VPSchedule


def _coefficients(level: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    total = level**2 + sigma_data**2
    return sigma_data**2 / total, level * sigma_data / total**0.5, 1 / total**0.5


def _for_unit_data(level, sigma_data):
    return _coefficients(level, 1.0)


def _c_out_squared(level, sigma_data):
    c_skip, c_out, c_in = _coefficients(level, sigma_data)
    return c_skip, c_out**2, c_in


def _skip_of_eps(level, sigma_data):
    c_skip, c_out, c_in = _coefficients(level, sigma_data)
    return torch.ones_like(c_skip), c_out, c_in


def _skip_of_noise(level, sigma_data):
    c_skip, c_out, c_in = _coefficients(level, sigma_data)
    return 1 - c_skip, c_out, c_in


def _input_of_noise_alone(level, sigma_data):
    c_skip, c_out, _ = _coefficients(level, sigma_data)
    return c_skip, c_out, 1 / level


@exercise("7.17f", "EDM's preconditioning", read="section 7.3, (7.5) to (7.7)", solution=_coefficients,
          wrong=((_for_unit_data, "sigma_data is not used"), (_c_out_squared, "its root"), (_skip_of_eps, "least"),
                 (_skip_of_noise, "share of the data"), (_input_of_noise_alone, "data too")))
def coefficients(answer):
    """Eleven levels, three sizes of the data."""
    levels = torch.logspace(-2, 2, 11, dtype=torch.float64)
    close_to_reference(answer, _coefficients, [(levels, size) for size in (0.25, 0.5, 2.0)], name="coefficients", mistakes={
        "sigma_data is not used: these are the coefficients for data of size 1": _for_unit_data,
        "c_out is the variance of the target: take its root": _c_out_squared,
        "c_skip is 1, as in eps-prediction: take the c_skip that makes c_out least": _skip_of_eps,
        "c_skip is level^2 / (level^2 + sigma_data^2): it is the share of the data in the input, which is near 1 at low levels": _skip_of_noise,
        "c_in scales the noise to size 1: the input holds the data too": _input_of_noise_alone,
    })
    return "At sigma_data = 1 this is v-prediction."


def _third_order(x, guesses, lams, sigma_t, alpha_s, sigma_s, *, weight: float = 1.0, slope: bool = True, keep_alpha: bool = False,
                 back: bool = False) -> Tensor:
    now, before, earlier, end = lams
    h = end - now
    r1, r2 = (now - before) / h, (before - earlier) / h
    m0 = 1 - math.exp(-h)
    m1 = 1 - m0 / h
    m2 = 1 - 2 * m1 / h
    a = (guesses[0] - guesses[1]) / r1
    b = (a - (guesses[1] - guesses[2]) / r2) / (r1 + r2)
    if back:
        a, b = -a, b
    integral = m0 * guesses[0] + m1 * (a + (b * r1 if slope else 0)) + weight * m2 * b
    return (alpha_s if keep_alpha else sigma_s) / sigma_t * x + alpha_s * integral


def _third_answer(x, guesses, lams, sigma_t, alpha_s, sigma_s):
    return _third_order(x, guesses, lams, sigma_t, alpha_s, sigma_s)


def _published(x, guesses, lams, sigma_t, alpha_s, sigma_s):
    return _third_order(x, guesses, lams, sigma_t, alpha_s, sigma_s, weight=0.5)


def _no_slope_of_b(x, guesses, lams, sigma_t, alpha_s, sigma_s):
    return _third_order(x, guesses, lams, sigma_t, alpha_s, sigma_s, slope=False)


def _keeps_alpha(x, guesses, lams, sigma_t, alpha_s, sigma_s):
    return _third_order(x, guesses, lams, sigma_t, alpha_s, sigma_s, keep_alpha=True)


def _looks_back(x, guesses, lams, sigma_t, alpha_s, sigma_s):
    return _third_order(x, guesses, lams, sigma_t, alpha_s, sigma_s, back=True)


def _second_order(x, guesses, lams, sigma_t, alpha_s, sigma_s):
    now, before, _, end = lams
    h = end - now
    m0 = 1 - math.exp(-h)
    return sigma_s / sigma_t * x + alpha_s * m0 * (guesses[0] + (guesses[0] - guesses[1]) * h / (2 * (now - before)))


@exercise("7.17g", "one step of the third-order multistep method", read="section 7.8, (7.24)", solution=_third_answer,
          wrong=((_published, "factor of 2"), (_no_slope_of_b, "y (y + r_1)"), (_keeps_alpha, "sigma_s / sigma_t"),
                 (_looks_back, "sign"), (_second_order, "2M")))
def third_order_step(answer):
    """Short and long steps on an uneven grid of three schedules."""
    generator, inputs = seeded(0), []
    for schedule in (VPSchedule(), CosineSchedule(), EDMSchedule()):
        for lams in ((0.0, -0.4, -0.9, 0.3), (-1.0, -1.2, -1.9, -0.2)):
            x, guesses = (torch.randn(n, 5, 2, generator=generator, dtype=torch.float64) for n in (1, 3))
            times = schedule.time_of_log_snr(torch.tensor([lams[0], lams[3]], dtype=torch.float64))
            sigma_t, sigma_s = schedule.sigma(times).tolist()
            inputs.append((x[0], list(guesses), lams, sigma_t, float(schedule.alpha(times[1])), sigma_s))
    close_to_reference(answer, _third_answer, inputs, name="third_order_step", mistakes={
        "b has half of its weight, as in the published method: b is half a second derivative, and the factor of 2 is missing": _published,
        "the parabola's term is b y (y + r_1), which has a part in y as well: M_1 multiplies a + b r_1": _no_slope_of_b,
        "x is scaled by alpha_s / sigma_t: what the linear part keeps is sigma_s / sigma_t": _keeps_alpha,
        "the slope a has the wrong sign: the newest guess comes first": _looks_back,
        "it is 2M: the third guess is not used": _second_order,
    })
    return "With (7.25) at the start this is of order 3."


def _raise(x: Tensor, t, gamma: float, schedule, z: Tensor, *, variance: str = "right", units: bool = True, scale: bool = True):
    t = torch.as_tensor(t, dtype=torch.float64)
    level = schedule.noise_level(t)
    up = (1 + gamma) * level
    t_new = schedule.time_of_log_snr(-up.log())
    added = {"right": (up**2 - level**2) ** 0.5, "difference": up - level, "whole": up}[variance]
    if not units:
        return x + added * z, t_new
    xbar = x / schedule.alpha(t) + added * z
    return schedule.alpha(t_new if scale else t) * xbar, t_new


def _raise_answer(x, t, gamma, schedule, z):
    return _raise(x, t, gamma, schedule, z)


def _difference_of_levels(x, t, gamma, schedule, z):
    return _raise(x, t, gamma, schedule, z, variance="difference")


def _whole_level(x, t, gamma, schedule, z):
    return _raise(x, t, gamma, schedule, z, variance="whole")


def _in_units_of_x(x, t, gamma, schedule, z):
    return _raise(x, t, gamma, schedule, z, units=False)


def _old_alpha(x, t, gamma, schedule, z):
    return _raise(x, t, gamma, schedule, z, scale=False)


def _time_raised(x, t, gamma, schedule, z):
    t = torch.as_tensor(t, dtype=torch.float64)
    level, up = schedule.noise_level(t), schedule.noise_level((1 + gamma) * t)
    xbar = x / schedule.alpha(t) + (up**2 - level**2) ** 0.5 * z
    return schedule.alpha((1 + gamma) * t) * xbar, (1 + gamma) * t


@exercise("7.17h", "churn on any path", read="section 7.6, (7.15)", solution=_raise_answer,
          wrong=((_difference_of_levels, "variances"), (_whole_level, "what was missing"), (_in_units_of_x, "x / alpha"),
                 (_old_alpha, "new time"), (_time_raised, "not the time")))
def raise_noise(answer):
    """Three schedules, small and large gamma; on EDM's path, where the level is a multiple of the time, some mistakes do not show."""
    generator = seeded(0)
    x, z = (torch.randn(6, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    inputs = [(x, t, gamma, schedule, z) for schedule in (VPSchedule(), CosineSchedule(), EDMSchedule())
              for t in (0.2, 0.6) for gamma in (0.05, 0.4)]
    close_to_reference(answer, _raise_answer, inputs, name="raise_noise", mistakes={
        "the added noise is the difference of the two levels: variances add up, so it is the root of the difference of squares": _difference_of_levels,
        "the noise of the whole new level is added: x has noise already, add what was missing": _whole_level,
        "the noise is added to x itself: levels are in units of x / alpha": _in_units_of_x,
        "the result is multiplied by the alpha of the old time: x belongs to the new time": _old_alpha,
        "the time is multiplied by 1 + gamma: it is the noise level that is raised, not the time": _time_raised,
    })
    return "The marginal at the new time is exact, for any gamma."
