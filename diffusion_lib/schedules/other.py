"""Schedules whose variance is not preserved: exploding (NCSN), EDM, and the straight line of rectified flow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lib.schedules.base import Schedule
from diffusion_lib.schedules.variance_preserving import SMALLEST_ALPHA
from diffusion_lib.validate import check_positive


@dataclass(frozen=True)
class VESchedule(Schedule):
    """Variance exploding: alpha = 1, sigma(t)^2 = sigma_min^2 (r^(2t) - 1), r = sigma_max / sigma_min.

    This is the exact marginal of Song et al. 2021, eq. 30, whose SDE has g^2 = 2 sigma_min^2 r^(2t) log r. They drop the -1,
    so that their sigma(0) is sigma_min and jumps from 0; the two differ by sigma_min^2 in variance. 0 < sigma_min < sigma_max,
    in units of the data.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self):
        check_positive("sigma_min", self.sigma_min)
        check_positive("sigma_max", self.sigma_max)
        if self.sigma_max <= self.sigma_min:
            raise ValueError(
                f"sigma_max={self.sigma_max} is not above sigma_min={self.sigma_min}; expected noise to grow: swap them."
            )

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.expm1(2 * self._log_ratio * t).sqrt()

    def _alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def _sigma_dot(self, t: Tensor) -> Tensor:
        return 0.5 * self._diffusion_sq(t) / self._sigma(t)

    def _drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def _diffusion_sq(self, t: Tensor) -> Tensor:
        return 2 * self._log_ratio * self.sigma_min**2 * torch.exp(2 * self._log_ratio * t)

    def _time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.log1p(torch.exp(-2 * log_snr) / self.sigma_min**2) / (2 * self._log_ratio)


@dataclass(frozen=True)
class EDMSchedule(Schedule):
    """EDM's time, scaled to [0, 1]: alpha = 1, sigma(t) = sigma_max t. Karras et al. 2022, Table 1 (s = 1, sigma = t).

    ``sigma_max`` > 0, in units of the data.
    """

    sigma_max: float = 80.0

    def __post_init__(self):
        check_positive("sigma_max", self.sigma_max)

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * t

    def _alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def _sigma_dot(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.sigma_max)

    def _drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def _diffusion_sq(self, t: Tensor) -> Tensor:
        return 2 * self.sigma_max**2 * t

    def _time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-log_snr) / self.sigma_max


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """The straight line of rectified flow: alpha(t) = 1 - t, sigma(t) = t. Liu et al. 2023, eq. 1; Lipman et al. 2023, eq. 22.

    Their time runs the other way, t_FM = 1 - t. alpha(1) = 0, so sampling starts at ``t_max`` = 0.999, where alpha = 0.001.
    """

    @property
    def t_max(self) -> float:
        return 1.0 - SMALLEST_ALPHA

    def _alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def _sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    def _alpha_dot(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def _sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _diffusion_sq(self, t: Tensor) -> Tensor:
        return 2 * t / (1 - t)

    def _time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr)
