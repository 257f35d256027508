"""The judges of chapter 3's coded exercises."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks.compare import close_to_reference, seeded
from diffusion_lib.checks.core import exercise


def _levels(alpha_t: float, alpha_s: float) -> tuple[float, float, float, float]:
    """(alpha_t, sigma_t, alpha_s, sigma_s) on the circle alpha^2 + sigma^2 = 1: an answer may use 1 - alpha^2."""
    return alpha_t, (1 - alpha_t**2) ** 0.5, alpha_s, (1 - alpha_s**2) ** 0.5


LEVELS = (_levels(0.6, 0.8), _levels(0.1, 0.5), _levels(0.99, 0.999))
"""(alpha_t, sigma_t, alpha_s, sigma_s) of three steps, from high to low noise."""
TO_DATA = _levels(0.99, 1.0)


def _fresh(alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float) -> float:
    """The standard deviation of DDPM's fresh noise: Book (3.6) at eta = 1."""
    return sigma_s * (1 - ((sigma_s / alpha_s) / (sigma_t / alpha_t)) ** 2) ** 0.5


def _step(x_t: Tensor, eps_hat: Tensor, alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float, eta: float,
          z: Tensor, *, mistake: str = "") -> Tensor:
    c = eta * _fresh(alpha_t, sigma_t, alpha_s, sigma_s)
    added = c
    if mistake == "variance":
        c = added = c**2
    if mistake == "beta":
        added = eta * (sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2) ** 0.5
    kept = sigma_s if mistake == "all kept" else (sigma_s**2 - c**2) ** 0.5
    scale_s, scale_t = (alpha_s**0.5, alpha_t**0.5) if mistake == "root" else (alpha_s, alpha_t)
    return scale_s * (x_t - sigma_t * eps_hat) / scale_t + kept * eps_hat + added * z


def _step_answer(x_t: Tensor, eps_hat: Tensor, alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float,
                 eta: float, z: Tensor) -> Tensor:
    return _step(x_t, eps_hat, alpha_t, sigma_t, alpha_s, sigma_s, eta, z)


def _too_much_noise(*given: Any) -> Tensor:
    return _step(*given, mistake="all kept")


def _variance_as_std(*given: Any) -> Tensor:
    return _step(*given, mistake="variance")


def _papers_alpha(*given: Any) -> Tensor:
    return _step(*given, mistake="root")


def _larger_variance(*given: Any) -> Tensor:
    return _step(*given, mistake="beta")


def _always_ddpm(*given: Any) -> Tensor:
    return _step(*given[:6], 1.0, given[7])


@exercise("3.14e", "one DDIM step", read="section 3.5, (3.8)", solution=_step_answer,
          wrong=((_too_much_noise, "on top of"), (_variance_as_std, "variance"), (_papers_alpha, "paper's"),
                 (_larger_variance, "beta itself"), (_always_ddpm, "eta is not used")))
def ddim_step(answer):
    """Three steps at eta = 0, a half and 1, and one to the data, on given noise."""
    x_t, eps_hat, z = torch.randn(3, 4, 2, generator=seeded(0), dtype=torch.float64)
    inputs = [(x_t, eps_hat, *levels, eta, z) for levels in LEVELS for eta in (0.0, 0.5, 1.0)]
    inputs.append((x_t, eps_hat, *TO_DATA, 1.0, z))
    close_to_reference(answer, _step_answer, inputs, name="ddim_step", mistakes={
        "c z is added on top of all of eps_hat: keep sqrt(sigma_s^2 - c^2) of it, so that variances sum to sigma_s^2":
            _too_much_noise,
        "c is the variance eta beta-tilde: it is the standard deviation, eta times the square root of beta-tilde":
            _variance_as_std,
        "the square root of alpha is taken: that is the paper's letter, here alpha itself is the signal scale":
            _papers_alpha,
        "the fresh noise has the variance beta itself: eta counts in units of beta-tilde = beta sigma_s^2 / sigma_t^2":
            _larger_variance,
        "eta is not used: every step is DDPM's": _always_ddpm,
    })
    return "At eta = 0 it is Euler's method, at eta = 1 DDPM."


def _invert(x_s: Tensor, eps_hat: Tensor, alpha_s: float, sigma_s: float, alpha_t: float, sigma_t: float) -> Tensor:
    return alpha_t * (x_s / alpha_s + (sigma_t / alpha_t - sigma_s / alpha_s) * eps_hat)


def _downwards(x_s: Tensor, eps_hat: Tensor, *levels: float) -> Tensor:
    return _invert(x_s, -eps_hat, *levels)


def _unscaled(x_s: Tensor, eps_hat: Tensor, *levels: float) -> Tensor:
    return _invert(x_s, eps_hat, *levels) / levels[2]


def _noise_it(x_s: Tensor, eps_hat: Tensor, *levels: float) -> Tensor:
    return levels[2] * x_s + levels[3] * eps_hat


def _difference_of_sigmas(x_s: Tensor, eps_hat: Tensor, *levels: float) -> Tensor:
    return levels[2] / levels[0] * x_s + (levels[3] - levels[1]) * eps_hat


@exercise("3.14f", "one step of the inversion", read="section 3.10, (3.15)", solution=_invert,
          wrong=((_downwards, "sign"), (_unscaled, "alpha_t"), (_noise_it, "clean picture"),
                 (_difference_of_sigmas, "sigma / alpha")))
def invert_step(answer):
    """Three steps up, and one from the data."""
    x_s, eps_hat = torch.randn(2, 4, 2, generator=seeded(1), dtype=torch.float64)
    inputs = [(x_s, eps_hat, *levels[2:], *levels[:2]) for levels in (*LEVELS, TO_DATA)]
    close_to_reference(answer, _invert, inputs, name="invert_step", mistakes={
        "the sign of the step is that of the way down: going up, the noise level grows": _downwards,
        "the result is x_t / alpha_t: multiply by alpha_t in the end": _unscaled,
        "x_s is treated as a clean picture: it holds noise already, so only the difference of noise levels is added":
            _noise_it,
        "the step is sigma_t - sigma_s: Euler's variable is the noise level sigma / alpha": _difference_of_sigmas,
    })
    return "With s and t exchanged it is the sampler."


def _slerp(x: Tensor, y: Tensor, u: float, *, whole_batch: bool = False, divide: bool = True) -> Tensor:
    first, second = (x[None], y[None]) if whole_batch else (x, y)
    size = first.flatten(1).norm(dim=1) * second.flatten(1).norm(dim=1)
    theta = torch.acos((first * second).flatten(1).sum(1) / size).reshape(-1, *[1] * (x.ndim - 1))
    arc = torch.sin((1 - u) * theta) * x + torch.sin(u * theta) * y
    return arc / torch.sin(theta) if divide else arc


def _slerp_answer(x: Tensor, y: Tensor, u: float) -> Tensor:
    return _slerp(x, y, u)


def _straight(x: Tensor, y: Tensor, u: float) -> Tensor:
    return (1 - u) * x + u * y


def _one_angle(x: Tensor, y: Tensor, u: float) -> Tensor:
    return _slerp(x, y, u, whole_batch=True)


def _right_angle(x: Tensor, y: Tensor, u: float) -> Tensor:
    turn = torch.tensor(u * torch.pi / 2, dtype=x.dtype)
    return torch.cos(turn) * x + torch.sin(turn) * y


def _swapped(x: Tensor, y: Tensor, u: float) -> Tensor:
    return _slerp(y, x, u)


def _forgot_sine(x: Tensor, y: Tensor, u: float) -> Tensor:
    return _slerp(x, y, u, divide=False)


@exercise("3.14g", "spherical interpolation", read="section 3.11, (3.17)", solution=_slerp_answer,
          wrong=((_straight, "straight line"), (_one_angle, "whole batch"), (_right_angle, "right angle"),
                 (_swapped, "exchanged"), (_forgot_sine, "sin(theta)")))
def interpolate(answer):
    """Batches of vectors and of pictures, at five places of the arc."""
    vectors = torch.randn(2, 5, 6, generator=seeded(2), dtype=torch.float64)
    pictures = torch.randn(2, 3, 1, 4, 4, generator=seeded(3), dtype=torch.float64)
    inputs = [(*pair, u) for pair in (vectors, pictures) for u in (0.0, 0.2, 0.5, 0.9, 1.0)]
    close_to_reference(answer, _slerp_answer, inputs, name="interpolate", mistakes={
        "it is the straight line, whose middle is too short": _straight,
        "one angle is taken for the whole batch: sum over all axes but the first": _one_angle,
        "the angle is taken as a right angle: in many dimensions it nearly is, but each pair has its own": _right_angle,
        "the ends are exchanged: u = 0 is x": _swapped,
        "the division by sin(theta) is missing": _forgot_sine,
    })
    return "In many dimensions the angle is nearly a right one, and the weights are nearly a cosine and a sine."


def _noise_used(x_s: Tensor, x_t: Tensor, x0_hat: Tensor, alpha_t: float, sigma_t: float, alpha_s: float,
                sigma_s: float) -> Tensor:
    c = _fresh(alpha_t, sigma_t, alpha_s, sigma_s)
    a = (sigma_s**2 - c**2) ** 0.5 / sigma_t
    return (x_s - a * x_t - (alpha_s - a * alpha_t) * x0_hat) / c


def _not_divided(x_s: Tensor, x_t: Tensor, x0_hat: Tensor, *levels: float) -> Tensor:
    return _fresh(*levels) * _noise_used(x_s, x_t, x0_hat, *levels)


def _all_noise(x_s: Tensor, x_t: Tensor, x0_hat: Tensor, *levels: float) -> Tensor:
    return (x_s - levels[2] * x0_hat) / levels[3]


def _none_kept(x_s: Tensor, x_t: Tensor, x0_hat: Tensor, *levels: float) -> Tensor:
    return (x_s - levels[2] * x0_hat) / _fresh(*levels)


def _all_kept(x_s: Tensor, x_t: Tensor, x0_hat: Tensor, *levels: float) -> Tensor:
    eps_hat = (x_t - levels[0] * x0_hat) / levels[1]
    return (x_s - levels[2] * x0_hat - levels[3] * eps_hat) / _fresh(*levels)


@exercise("3.14h", "the noise that a step used", read="section 3.5, (3.8)", solution=_noise_used,
          wrong=((_not_divided, "c z"), (_all_noise, "all the noise in x_s"), (_none_kept, "not subtracted"),
                 (_all_kept, "eta = 0")))
def noise_used(answer):
    """Three steps whose ends and guess are given."""
    x_s, x_t, x0_hat = torch.randn(3, 4, 2, generator=seeded(4), dtype=torch.float64)
    inputs = [(x_s, x_t, x0_hat, *levels) for levels in LEVELS]
    close_to_reference(answer, _noise_used, inputs, name="noise_used", mistakes={
        "the result is c z: divide by c": _not_divided,
        "it is all the noise in x_s: a part of it is eps_hat, which the step kept": _all_noise,
        "the part of eps_hat that the step keeps, sqrt(sigma_s^2 - c^2) eps_hat, is not subtracted": _none_kept,
        "the mean is that of the step with eta = 0: at eta = 1 eps_hat has the factor sqrt(sigma_s^2 - c^2)": _all_kept,
    })
    return "Feed these z to the sampler and it walks the same path again."
