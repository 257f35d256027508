"""Five things a network may predict, and the one 2x2 solve that turns any of them into any other."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lib.schedules import Schedule, expand
from diffusion_lib.validate import check_batch_time, check_choice, check_same_shape

TARGETS = ("x0", "eps", "score", "v", "velocity")


def diffuse(x0: Tensor, eps: Tensor, t: Tensor | float, schedule: Schedule) -> Tensor:
    """x_t = alpha(t) x_0 + sigma(t) eps, for x0 and eps (B, ...) and t (B,) in [0, 1]. Book (2.3). Ho et al. 2020, eq. 4."""
    check_same_shape("x0", x0, "eps", eps)
    t = check_batch_time(t, x0)
    return expand(schedule.alpha(t), x0) * x0 + expand(schedule.sigma(t), x0) * eps


def target_coefficients(target: str, t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The (p, q), each of t's shape, with target = p x_0 + q eps.

    x0 (1, 0) · eps (0, 1) · score (0, -1/sigma), Vincent 2011 · v (-sigma, alpha), Salimans & Ho 2022, Sec. 4 ·
    velocity (alpha', sigma'), the time derivative of x_t; Lipman et al. 2023, eq. 13. ValueError for another name.
    """
    check_choice("target", target, TARGETS)
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    if target == "x0":
        return one, zero
    if target == "eps":
        return zero, one
    if target == "score":
        return zero, -1 / schedule.sigma(t)
    if target == "v":
        return -schedule.sigma(t), schedule.alpha(t)
    return schedule.alpha_dot(t), schedule.sigma_dot(t)


def training_target(x0: Tensor, eps: Tensor, t: Tensor | float, schedule: Schedule, target: str) -> Tensor:
    """What the network is asked to predict, p x_0 + q eps, for x0 and eps (B, ...) and t (B,) in [0, 1]."""
    check_same_shape("x0", x0, "eps", eps)
    p, q = target_coefficients(target, check_batch_time(t, x0), schedule)
    return expand(p, x0) * x0 + expand(q, x0) * eps


def conversion_coefficients(t: Tensor, schedule: Schedule, source: str, to: str) -> tuple[Tensor, Tensor]:
    """The (a, b), each of t's shape, with ``to`` = a x_t + b ``source``.

    Two equations, x_t = alpha x_0 + sigma eps and source = p x_0 + q eps, are solved for (x_0, eps) by Cramer's rule with
    determinant alpha q - sigma p, and put into the target's own p and q. ValueError (on the CPU) where the two equations are
    one and the same, as for eps -> x0 where alpha = 0.
    """
    p, q = target_coefficients(source, t, schedule)
    if source == to:
        return torch.zeros_like(t), torch.ones_like(t)
    p_to, q_to = target_coefficients(to, t, schedule)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if source == "score":  # q = -1/sigma: multiply numerator and denominator by sigma, so that t = 0 stays finite
        a, b = p_to / alpha, (q_to * alpha - p_to * sigma) * -sigma / alpha
    else:
        determinant = alpha * q - sigma * p
        a, b = (p_to * q - q_to * p) / determinant, (q_to * alpha - p_to * sigma) / determinant
    if t.device.type == "cpu" and not bool((torch.isfinite(a) & torch.isfinite(b)).all()):
        bad = t[~(torch.isfinite(a) & torch.isfinite(b))]
        raise ValueError(
            f"{source!r} cannot be turned into {to!r} at t={float(bad.reshape(-1)[0]):.4g}, where one of the coefficients is infinite; "
            "expected a time strictly inside (0, 1): start at schedule.t_max, stop above 0, or predict 'v'."
        )
    return a, b


def convert(
    prediction: Tensor, x: Tensor, t: Tensor | float, schedule: Schedule, source: str = "eps", to: str = "x0"
) -> Tensor:
    """Turn a prediction of ``source`` into one of ``to``, given x_t = ``x`` (both (B, ...)) and t (B,) or a float.

    Book (2.19) for "v". Linear in (x, prediction), so exact for conditional means as well as for the true x_0 and eps.
    ValueError for unequal shapes, unknown targets, or a time where the conversion does not exist.
    """
    check_same_shape("prediction", prediction, "x", x)
    a, b = conversion_coefficients(check_batch_time(t, x), schedule, source, to)
    return expand(a, x) * x + expand(b, x) * prediction
