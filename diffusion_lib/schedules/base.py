"""The noun everything else is built on: how much signal and how much noise there is at time t."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.validate import check_time


def expand(coefficient: Tensor, x: Tensor) -> Tensor:
    """Reshape one number per sample, (B,) or 0-d, so that it multiplies ``x`` (B, ...); takes the dtype and device of ``x``."""
    coefficient = coefficient.to(device=x.device, dtype=x.dtype)
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - 1)) if coefficient.ndim else coefficient


class Schedule:
    r"""A path from data to noise: x_t = alpha(t) x_0 + sigma(t) eps, for t in [0, 1], with x_0 = data at t = 0.

    Every method takes ``t`` as a float or as a tensor of any shape with values in [0, 1] and returns a tensor of that shape
    and dtype; a time outside [0, 1] is a ValueError. To add a schedule, write ``_alpha`` and ``_sigma``; the derivatives then
    come from autograd and the inverse from bisection. The schedules of this package give both in closed form.

    Book (2.3). Kingma et al. 2021 (VDM), eq. 1.
    """

    t_max: float = 1.0
    """The time at which sampling starts. It is below 1 only where alpha(1) = 0, so that log-SNR is finite on every grid."""

    def alpha(self, t: Tensor | float) -> Tensor:
        """Signal scale alpha(t), in [0, 1]. DDPM's square root of alpha-bar."""
        return self._alpha(check_time(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        """Noise scale sigma(t) >= 0, with sigma(0) = 0. DDPM's square root of (1 - alpha-bar)."""
        return self._sigma(check_time(t))

    def noise_level(self, t: Tensor | float) -> Tensor:
        """sigma(t) / alpha(t): what EDM and k-diffusion call sigma. Infinite where alpha(t) = 0."""
        t = check_time(t)
        return self._sigma(t) / self._alpha(t)

    def log_snr(self, t: Tensor | float) -> Tensor:
        """Half log-SNR, lambda(t) = log(alpha(t) / sigma(t)); +inf at t = 0. (Some papers use twice this.)"""
        t = check_time(t)
        return self._alpha(t).log() - self._sigma(t).log()

    def alpha_dot(self, t: Tensor | float) -> Tensor:
        """Time derivative of alpha."""
        return self._alpha_dot(check_time(t))

    def sigma_dot(self, t: Tensor | float) -> Tensor:
        """Time derivative of sigma; infinite at t = 0 for variance-preserving schedules."""
        return self._sigma_dot(check_time(t))

    def drift(self, t: Tensor | float) -> Tensor:
        """f(t) = alpha'(t) / alpha(t) of the forward SDE dx = f x dt + g dw. Book (5.11). Song et al. 2021, eq. 5."""
        return self._drift(check_time(t))

    def diffusion_sq(self, t: Tensor | float) -> Tensor:
        """g(t)^2 = 2 sigma sigma' - 2 f sigma^2 of the forward SDE. Book (5.11). Kingma et al. 2021, eq. 34 in this notation."""
        return self._diffusion_sq(check_time(t))

    def time_of_log_snr(self, log_snr: Tensor | float) -> Tensor:
        """The inverse of :meth:`log_snr`: the time in [0, 1] at which half log-SNR equals ``log_snr`` (any shape)."""
        log_snr = torch.as_tensor(log_snr)
        return self._time_of_log_snr(log_snr).clamp(0.0, 1.0)

    @property
    def prior_std(self) -> float:
        """Standard deviation of the Gaussian from which sampling starts, at t_max."""
        return float(self.sigma(torch.tensor(self.t_max, dtype=torch.float64)))

    def noise(self, shape: Sequence[int], generator: torch.Generator | None = None, device=None, dtype=None) -> Tensor:
        """A starting point x_T ~ N(0, prior_std^2 I) of ``shape``, from ``generator``."""
        return self.prior_std * noise.randn(shape, generator, device, dtype)

    @property
    def config(self) -> dict:
        """What a model card stores: the class name and the numbers that rebuild this schedule (see ``schedule_from_config``)."""
        fields = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        return {"name": type(self).__name__, **{f.name: getattr(self, f.name) for f in fields}}

    # What a subclass writes. -------------------------------------------------------------------------------------------------

    def _alpha(self, t: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no _alpha(t); a schedule must define _alpha and _sigma.")

    def _sigma(self, t: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no _sigma(t); a schedule must define _alpha and _sigma.")

    # What it may write in closed form. ---------------------------------------------------------------------------------------

    def _alpha_dot(self, t: Tensor) -> Tensor:
        return derivative(self._alpha, t)

    def _sigma_dot(self, t: Tensor) -> Tensor:
        return derivative(self._sigma, t)

    def _drift(self, t: Tensor) -> Tensor:
        return self._alpha_dot(t) / self._alpha(t)

    def _diffusion_sq(self, t: Tensor) -> Tensor:
        sigma = self._sigma(t)
        return 2 * sigma * self._sigma_dot(t) - 2 * self._drift(t) * sigma**2

    def _time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        low, high = torch.zeros_like(log_snr), torch.full_like(log_snr, self.t_max)
        for _ in range(math.ceil(-math.log2(torch.finfo(log_snr.dtype).eps)) + 2):
            middle = (low + high) / 2
            too_clean = self._alpha(middle).log() - self._sigma(middle).log() > log_snr
            low, high = torch.where(too_clean, middle, low), torch.where(too_clean, high, middle)
        return (low + high) / 2


def derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """d function / dt, elementwise, by autograd (exact to rounding)."""
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        value = function(t).sum()
        return torch.autograd.grad(value, t)[0] if value.requires_grad else torch.zeros_like(t)
