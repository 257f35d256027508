"""The second noun: a denoiser, (x_t, t) -> estimate of E[x_0 | x_t]. Models are adapted here, so that samplers never see eps or v."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from diffusion_lib.exact import GaussianMixture
from diffusion_lib.schedules import EDMSchedule, Schedule, expand
from diffusion_lib.targets import TARGETS, convert
from diffusion_lib.transitions import VARIANCES
from diffusion_lib.validate import check_batch_time, check_choice, check_positive, check_same_shape


class Denoiser(Protocol):
    """Anything that maps a noisy batch x (B, ...), its times t (B,) in [0, 1] and conditions by name to x0_hat (B, ...)."""

    def __call__(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor: ...


def null_condition(model: object) -> dict[str, Tensor]:
    """What stands for "nothing asked" of a net or a denoiser, by the condition's name, for one sample: {"label": K}, {"tokens": empty caption}.

    Its ``null_condition``, or {"label": null_label} where it only has that; empty where it knows neither. Ho & Salimans 2022, Sec. 3.
    """
    found = getattr(model, "null_condition", None)
    if found is None:
        label = getattr(model, "null_label", None)
        return {} if label is None else {"label": torch.tensor(label)}
    return dict(found)


class NetDenoiser:
    """A network as a denoiser: ``net(x, t, **condition)`` predicts ``target`` under ``schedule``.

    net: module mapping (B, C, ...) and t (B,) to (B, C, ...), or to (B, 2C, ...) with ``learned_variance``, whose second half is
    the position u in [-1, 1] between the log of the smallest and the largest reverse variance (Book (2.27); Nichol & Dhariwal
    2021, eq. 15, with v = (u + 1) / 2). clip: if given, x0_hat is clamped to [-clip, clip], as DDPM's code does with clip = 1.
    ValueError for an unknown target or an output of another shape; TypeError (from the net) for a condition it does not know.
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule,
        target: str = "eps",
        learned_variance: bool = False,
        clip: float | None = None,
    ):
        if _time_range(net) not in (None, (0.0, 1.0)):
            raise ValueError(
                f"the net was built with time_range={_time_range(net)}, and NetDenoiser tells it t in [0, 1]; expected one built without: "
                "put it into EDMDenoiser, which tells it c_noise."
            )
        self.net, self.schedule, self.learned_variance = net, schedule, learned_variance
        self.target = check_choice("target", target, TARGETS)
        self.clip = clip if clip is None else check_positive("clip", clip)

    @property
    def null_label(self) -> int | None:
        """The class that means "no class", if the net has one."""
        return getattr(self.net, "null_label", None)

    @property
    def null_condition(self) -> dict[str, Tensor]:
        """What stands for "nothing asked", by name; see :func:`null_condition`."""
        return null_condition(self.net)

    def __call__(self, x: Tensor, t: Tensor | float, **condition: Tensor) -> Tensor:
        """x0_hat (B, ...) for x (B, ...) and t (B,) or a float. One evaluation of the net."""
        return self.predict(x, t, **condition)[0]

    def predict(self, x: Tensor, t: Tensor | float, **condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """(x0_hat, fraction): fraction in [0, 1], same shape as x, with learned variance; else None. One evaluation."""
        t = check_batch_time(t, x)
        output = self.net(x, t, **condition).to(x.dtype)
        fraction = None
        if self.learned_variance:
            if output.shape[1] != 2 * x.shape[1]:
                raise ValueError(
                    f"the net returned {output.shape[1]} channels; expected {2 * x.shape[1]}, prediction and variance, as learned_variance=True."
                )
            output, position = output.chunk(2, dim=1)
            fraction = ((position + 1) / 2).clamp(0.0, 1.0)
        check_same_shape("the net's output", output, "x", x)
        x0_hat = convert(output, x, t, self.schedule, source=self.target, to="x0")
        return (x0_hat if self.clip is None else x0_hat.clamp(-self.clip, self.clip)), fraction


class EDMDenoiser:
    """EDM's preconditioned denoiser D = c_skip x + c_out F(c_in x, c_noise), for any schedule. Karras et al. 2022, eq. 7, Table 1.

    net: F, called with x (B, ...) scaled to unit variance and c_noise = log(noise level) / 4, (B,); the book's networks take such a
    number if they are built with time_range=nets.C_NOISE_RANGE. sigma_data: standard deviation
    of the data, > 0; this is its one owner. schedule: EDMSchedule() unless given; x is first divided by alpha(t), so that
    a variance-preserving path is the same problem at the same noise level sigma/alpha. Book (7.3), (7.5), (7.7).
    """

    def __init__(self, net: nn.Module, sigma_data: float = 0.5, schedule: Schedule | None = None):
        if _time_range(net) == (0.0, 1.0):
            raise ValueError(
                "the net was built for t in [0, 1], and EDMDenoiser tells it c_noise = log(noise level) / 4; expected one built with "
                "time_range=nets.C_NOISE_RANGE."
            )
        self.net, self.sigma_data = net, check_positive("sigma_data", sigma_data)
        self.schedule = EDMSchedule() if schedule is None else schedule

    @property
    def null_label(self) -> int | None:
        """The class that means "no class", if the net has one."""
        return getattr(self.net, "null_label", None)

    @property
    def null_condition(self) -> dict[str, Tensor]:
        """What stands for "nothing asked", by name; see :func:`null_condition`."""
        return null_condition(self.net)

    def with_net(self, net: nn.Module) -> EDMDenoiser:
        """The same preconditioning around another net: what a loss needs, which is handed the net in training."""
        return EDMDenoiser(net, self.sigma_data, self.schedule)

    def coefficients(self, level: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(c_skip, c_out, c_in, c_noise), each of the shape of ``level`` = sigma/alpha. Karras et al. 2022, Table 1, last column."""
        total = level**2 + self.sigma_data**2
        return self.sigma_data**2 / total, level * self.sigma_data / total.sqrt(), 1 / total.sqrt(), level.log() / 4

    def __call__(self, x: Tensor, t: Tensor | float, **condition: Tensor) -> Tensor:
        """x0_hat (B, ...) for x (B, ...) and t (B,) in (0, 1] or a float. One evaluation of the net."""
        t = check_batch_time(t, x)
        c_skip, c_out, c_in, c_noise = self.coefficients(self.schedule.noise_level(t).to(x.dtype))
        x = x / expand(self.schedule.alpha(t), x)
        output = self.net(expand(c_in, x) * x, c_noise, **condition).to(x.dtype)
        check_same_shape("the net's output", output, "x", x)
        return expand(c_skip, x) * x + expand(c_out, x) * output


def _time_range(net: nn.Module) -> tuple[float, float] | None:
    """The numbers that one of the book's networks may be told for t; None for another's."""
    return getattr(getattr(net, "conditioning", None), "time_range", None)


class ExactDenoiser:
    """The exact E[x_0 | x_t] of a Gaussian mixture under a schedule: the oracle on which every sampler is first proved.

    With ``label`` (B,), component indices 0..K-1 (K means "any"), it is the exact conditional denoiser of that component.
    """

    def __init__(self, mixture: GaussianMixture, schedule: Schedule):
        self.mixture, self.schedule = mixture, schedule
        self.null_label = len(mixture.weights)

    def __call__(self, x: Tensor, t: Tensor | float, label: Tensor | None = None) -> Tensor:
        """E[x_0 | x_t = x (, component = label)], (B, D), for x (B, D) and t (B,) or a float."""
        posterior = self.mixture.posterior(x, t, self.schedule)
        if label is None:
            return posterior.mean
        row = torch.arange(len(x), device=x.device)
        known = label < posterior.means.shape[1]
        return torch.where(
            known[:, None], posterior.means[row, label.clamp(max=posterior.means.shape[1] - 1)], posterior.mean
        )

    def variance(self, x: Tensor, t: Tensor | float, label: Tensor | None = None) -> Tensor:
        """Var[x_0 | x_t = x (, component = label)] of each coordinate, (B, D): what the optimal reverse variance needs. Bao et al. 2022, Sec. 3."""
        posterior = self.mixture.posterior(x, t, self.schedule)
        if label is None:
            return posterior.variance
        row, k = torch.arange(len(x), device=x.device), label.clamp(max=posterior.means.shape[1] - 1)
        known = label < posterior.means.shape[1]
        return torch.where(known[:, None], posterior.within[row, k], posterior.variance)


class MixedDenoiser:
    """A share ``mix`` of a denoiser and 1 - mix of the one that is exact for N(0, I): (1 - mix) alpha x / (alpha^2 + sigma^2) + mix x0_hat.

    mix: in [0, 1], a number or one for each dimension of a sample. At 0 it is exact for N(0, I), so that a network need only learn how its data
    differ from it. Scores, eps and x0_hat mix alike, since each is affine in the other. Book (8.17). Vahdat et al. 2021, section 3.2.
    """

    def __init__(self, denoiser: NetDenoiser, mix: Tensor | float):
        self.denoiser, self.schedule, self.mix = denoiser, denoiser.schedule, mix

    @property
    def null_condition(self) -> dict[str, Tensor]:
        """What stands for "nothing asked", by name; see :func:`null_condition`."""
        return null_condition(self.denoiser)

    def __call__(self, x: Tensor, t: Tensor | float, **condition: Tensor) -> Tensor:
        """x0_hat (B, ...) for x (B, ...) and t (B,) or a float. One evaluation of the denoiser."""
        t = check_batch_time(t, x)
        alpha, sigma = self.schedule.alpha(t.double()), self.schedule.sigma(t.double())
        normal = expand(alpha / (alpha**2 + sigma**2), x) * x
        return normal + self.mix * (self.denoiser(x, t, **condition) - normal)


def on_schedule(denoiser: Denoiser, own: Schedule, schedule: Schedule) -> Denoiser:
    """``denoiser``, made for the path ``own``, as a denoiser for the path ``schedule``: any network on any schedule.

    x_t / alpha is the data plus noise of level sigma/alpha, on every path. So x is scaled to the point of ``own`` that has the same level,
    x_own = alpha_own(t_own) x / alpha(t) with log_snr_own(t_own) = log_snr(t), and x0_hat needs no change. Book (7.2). Karras et al.
    2022, eq. 4; Kingma et al. 2021, Sec. 5.1. ValueError (on the CPU) where the level is above the highest that ``own`` reaches at its t_max,
    by more than a thousandth: a float32 time near t_max may miss its level by that much.
    """
    lowest = float(own.log_snr(torch.tensor(own.t_max, dtype=torch.float64)))

    def moved(x: Tensor, t: Tensor | float, **condition: Tensor) -> Tensor:
        t = check_batch_time(t, x)
        log_snr = schedule.log_snr(t.double())
        if t.device.type == "cpu" and len(t) and float(log_snr.min()) < lowest - 1e-3:
            raise ValueError(
                f"the noise level {math.exp(-float(log_snr.min())):.4g} was asked for, and the denoiser's own schedule, {type(own).__name__}, "
                f"reaches {math.exp(-lowest):.4g}; expected a lower level: start the grid there with time_grid(…, noise_max={math.exp(-lowest):.4g})."
            )
        t_own = own.time_of_log_snr(log_snr).clamp(max=own.t_max)
        ratio = own.alpha(t_own) / schedule.alpha(t.double())
        return denoiser(expand(ratio, x) * x, t_own.to(x.dtype), **condition)

    moved.schedule, moved.null_condition = schedule, null_condition(denoiser)  # what guidance asks of a denoiser
    return moved


def check_variance(denoiser: Denoiser, variance: str) -> str:
    """Return ``variance`` if this denoiser can give it; else ValueError. See ``transitions.reverse_kernel`` for the kinds."""
    check_choice("variance", variance, VARIANCES)
    if variance == "learned" and not getattr(denoiser, "learned_variance", False):
        raise ValueError(
            "variance='learned' was given with a denoiser that has none; expected NetDenoiser(..., learned_variance=True) itself: guidance and "
            "other wrappers give x0_hat alone, so choose another variance for them."
        )
    if variance == "optimal" and not hasattr(denoiser, "variance"):
        raise ValueError(
            "variance='optimal' was given with a denoiser without variance(x, t); expected one that knows Var[x_0 | x_t], "
            "as ExactDenoiser does."
        )
    return variance


def reverse_prediction(
    denoiser: Denoiser, x: Tensor, t: Tensor, variance: str, condition: dict[str, Tensor]
) -> tuple[Tensor, dict]:
    """(x0_hat, options): one evaluation at x (B, ...) and t (B,), and what ``transitions.reverse_kernel`` needs besides it."""
    fraction = data_variance = None
    if variance == "learned":
        x0_hat, fraction = denoiser.predict(x, t, **condition)
    else:
        x0_hat = denoiser(x, t, **condition)
    if variance == "optimal":
        data_variance = denoiser.variance(x, t, **condition)
    return x0_hat, {"variance": variance, "fraction": fraction, "data_variance": data_variance}
