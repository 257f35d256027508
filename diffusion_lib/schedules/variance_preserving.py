"""Schedules with alpha^2 + sigma^2 = 1 (and their cousin sub-VP): the DDPM family in continuous time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lib.schedules.base import Schedule
from diffusion_lib.validate import check_non_negative, check_positive

SMALLEST_ALPHA = 1e-3
"""Sampling starts where alpha falls to this, for schedules whose alpha reaches 0: the noise level is then 1000."""


class _LinearBeta(Schedule):
    """beta(t) = beta_min + t (beta_max - beta_min), and its integral B(t)."""

    beta_min: float
    beta_max: float

    def __post_init__(self):
        check_non_negative("beta_min", self.beta_min)
        check_positive("beta_max", self.beta_max)
        if self.beta_max < self.beta_min:
            raise ValueError(
                f"beta_max={self.beta_max} is below beta_min={self.beta_min}; expected noise to grow: swap them."
            )

    @property
    def prior_std(self) -> float:
        return 1.0

    def beta(self, t: Tensor) -> Tensor:
        """Noise rate beta(t) >= 0. Song et al. 2021, eq. 32."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def _time_of_integral(self, integral: Tensor) -> Tensor:
        # The stable root of B(t) = integral: no difference of near-equal numbers.
        return (
            2 * integral / (self.beta_min + (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral).sqrt())
        )

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self._integral(t))

    def _alpha_dot(self, t: Tensor) -> Tensor:
        return self._drift(t) * self._alpha(t)

    def _drift(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t)


@dataclass(frozen=True)
class VPSchedule(_LinearBeta):
    """Variance preserving, beta rising linearly from ``beta_min`` to ``beta_max``: DDPM's schedule as T -> infinity.

    alpha(t) = exp(-B(t)/2), sigma(t)^2 = 1 - alpha(t)^2 with B the integral of beta; f = -beta/2, g^2 = beta.
    ``beta_min`` >= 0 and ``beta_max`` > 0 are rates per unit time (T times DDPM's). Song et al. 2021, eqs. 32 and 33.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-self._integral(t))).sqrt()

    def _sigma_dot(self, t: Tensor) -> Tensor:
        return 0.5 * self.beta(t) * self._alpha(t) ** 2 / self._sigma(t)

    def _diffusion_sq(self, t: Tensor) -> Tensor:
        return self.beta(t)

    def _time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return self._time_of_integral(F.softplus(-2 * log_snr))


@dataclass(frozen=True)
class SubVPSchedule(_LinearBeta):
    """Sub-variance preserving: alpha as in VP, but sigma = 1 - alpha^2, the square of VP's. Song et al. 2021, eqs. 12 and 29.

    f = -beta/2, g^2 = beta (1 - exp(-2 B)). Arguments as for :class:`VPSchedule`.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self._integral(t))

    def _sigma_dot(self, t: Tensor) -> Tensor:
        return self.beta(t) * torch.exp(-self._integral(t))

    def _diffusion_sq(self, t: Tensor) -> Tensor:
        return self.beta(t) * -torch.expm1(-2 * self._integral(t))

    def _time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        # alpha / (1 - alpha^2) = e^lambda, so 1 - alpha^2 = alpha c with c = e^-lambda; B = -2 log alpha = 2 asinh(c / 2).
        return self._time_of_integral(2 * torch.asinh(torch.exp(-log_snr) / 2))


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """Improved DDPM's cosine schedule: alpha(t) = cos(theta(t)) / cos(theta(0)), theta(t) = (pi/2) (t + s) / (1 + s).

    ``s`` >= 0 keeps the first steps from being vanishingly small. alpha(1) = 0, so sampling starts at ``t_max``, a little
    before 1, where alpha = 0.001. Nichol & Dhariwal 2021, eq. 17 (their alpha-bar is this alpha squared).
    """

    s: float = 0.008

    def __post_init__(self):
        check_non_negative("s", self.s)

    @property
    def t_max(self) -> float:
        return math.acos(SMALLEST_ALPHA * math.cos(self._start)) / self._rate - self.s

    @property
    def prior_std(self) -> float:
        return 1.0

    @property
    def _rate(self) -> float:
        return 0.5 * math.pi / (1 + self.s)

    @property
    def _start(self) -> float:
        return self._rate * self.s

    def _theta(self, t: Tensor) -> Tensor:
        return self._rate * (t + self.s)

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.cos(self._theta(t)).clamp(min=0.0) / math.cos(self._start)

    def _sigma(self, t: Tensor) -> Tensor:
        # cos^2(theta_0) - cos^2(theta) as a product: no cancellation near t = 0.
        product = torch.sin(self._rate * t) * torch.sin(self._theta(t) + self._start)
        return product.clamp(min=0.0).sqrt() / math.cos(self._start)

    def _alpha_dot(self, t: Tensor) -> Tensor:
        return -self._rate * torch.sin(self._theta(t)) / math.cos(self._start)

    def _sigma_dot(self, t: Tensor) -> Tensor:
        return -self._alpha(t) * self._alpha_dot(t) / self._sigma(t)

    def _drift(self, t: Tensor) -> Tensor:
        return -self._rate * torch.tan(self._theta(t))

    def _diffusion_sq(self, t: Tensor) -> Tensor:
        return -2 * self._drift(t)

    def _time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        # sin^2(theta) = 1 - alpha^2 cos^2(theta_0); atan2 keeps its accuracy at both ends.
        log_alpha, log_sigma = 0.5 * F.logsigmoid(2 * log_snr), 0.5 * F.logsigmoid(-2 * log_snr)
        cosine = log_alpha.exp() * math.cos(self._start)
        sine = ((2 * log_sigma).exp() * math.cos(self._start) ** 2 + math.sin(self._start) ** 2).sqrt()
        return torch.atan2(sine, cosine) / self._rate - self.s
