"""Weights of the denoising loss: how much an error at time t counts, whatever the network predicts."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from diffusion_lib.schedules import Schedule
from diffusion_lib.targets import conversion_coefficients
from diffusion_lib.validate import check_choice

Weight = Callable[[Schedule, Tensor], Tensor]
MIN_SNR_GAMMA = 5.0


def _snr(schedule: Schedule, t: Tensor) -> Tensor:
    return (schedule.alpha(t) / schedule.sigma(t)) ** 2


def _elbo(schedule: Schedule, t: Tensor) -> Tensor:
    return 0.5 * schedule.diffusion_sq(t) * schedule.alpha(t) ** 2 / schedule.sigma(t) ** 4


def _min_snr(schedule: Schedule, t: Tensor) -> Tensor:
    return _snr(schedule, t).clamp(max=MIN_SNR_GAMMA)


def _truncated_snr(schedule: Schedule, t: Tensor) -> Tensor:
    return _snr(schedule, t).clamp(min=1.0)


ON_X0: dict[str, Weight] = {"elbo": _elbo, "min_snr": _min_snr, "truncated_snr": _truncated_snr, "eps": _snr}
"""Weights of the squared error of x0_hat; "x0" is 1.

elbo: -SNR'(t) / 2 = g^2 alpha^2 / (2 sigma^4), the continuous-time bound, Kingma et al. 2021, eq. 17; needs uniform t.
min_snr: min(SNR, 5), Hang et al. 2023, Sec. 3.4. truncated_snr: max(SNR, 1), Salimans & Ho 2022, Sec. 4. eps: SNR, DDPM's L_simple.
"""
WEIGHTS = ("simple", "x0", *ON_X0)


def loss_weight(weight: str | Weight, t: Tensor, schedule: Schedule, target: str) -> Tensor:
    """The factor (B,) of the squared error of ``target`` at times t (B,).

    "simple" is 1 in whatever the network predicts; every other name (see ON_X0) is stated as a weight of the error of x0_hat, and
    is converted, so that two networks with different targets but one weight minimise the same loss. A callable
    (schedule, t) -> (B,) is taken as it is, in target space. ValueError for an unknown name.
    """
    if callable(weight):
        return weight(schedule, t)
    check_choice("weight", weight, WEIGHTS)
    if weight == "simple":
        return t.new_ones(t.shape)
    per_target_error = conversion_coefficients(t, schedule, target, "x0")[1] ** 2  # d x0_hat / d prediction, squared
    return per_target_error if weight == "x0" else ON_X0[weight](schedule, t) * per_target_error
