"""The judges of chapter 6's coded exercises."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, close_to_reference, seeded, true_for_all
from diffusion_lib.checks.core import exercise
from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.schedules import CosineSchedule, VPSchedule


class _Counting:
    """A denoiser that counts how often it is asked."""

    def __init__(self, denoiser):
        self.denoiser, self.calls = denoiser, 0

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.calls += 1
        return self.denoiser(x, t, label=label)


def _guide(denoiser, x: Tensor, t: Tensor, label: Tensor, null: int, w: float) -> Tensor:
    labels = torch.cat([label, torch.full_like(label, null)])
    with_it, without = denoiser(torch.cat([x, x]), torch.cat([t, t]), label=labels).chunk(2)
    return without + w * (with_it - without)


def _counted_from_zero(denoiser, x, t, label, null, w):
    return _guide(denoiser, x, t, label, null, w + 1)


def _halves_swapped(denoiser, x, t, label, null, w):
    return _guide(denoiser, x, t, label, null, 1 - w)


def _from_the_condition(denoiser, x, t, label, null, w):
    with_it, without = _guide(denoiser, x, t, label, null, 1.0), _guide(denoiser, x, t, label, null, 0.0)
    return with_it + w * without


def _two_evaluations(denoiser, x, t, label, null, w):
    without = denoiser(x, t, label=torch.full_like(label, null))
    return without + w * (denoiser(x, t, label=label) - without)


@exercise("6.14e", "the guided denoiser in one evaluation", read="section 6.7, (6.10)", solution=_guide,
          wrong=((_counted_from_zero, "w = 1"), (_halves_swapped, "halves"), (_from_the_condition, "difference"),
                 (_two_evaluations, "one evaluation")))
def guide(answer):
    """Two schedules, five scales, the exact conditional denoiser; then the evaluations are counted."""
    mixture, generator = three_modes(), seeded(0)
    x, t, label = torch.randn(6, 2, generator=generator, dtype=torch.float64), torch.linspace(0.1, 0.9, 6, dtype=torch.float64), torch.arange(6) % 3
    inputs = [(ExactDenoiser(mixture, schedule), x, t, label, 3, w) for schedule in (VPSchedule(), CosineSchedule()) for w in (0.0, 0.5, 1.0, 2.0, 5.0)]
    close_to_reference(answer, _guide, inputs, name="guide", mistakes={
        "the scale is counted from 0, as Ho & Salimans do: here w = 1 is the conditional denoiser": _counted_from_zero,
        "the two halves of the batch are taken for each other: with and without the label": _halves_swapped,
        "the two denoisers are added: the line goes along their difference": _from_the_condition,
    })
    counted = _Counting(ExactDenoiser(mixture, VPSchedule()))
    call(answer, counted, x, t, label, 3, 2.0)
    true_for_all(counted.calls == 1, f"The denoiser was called {counted.calls} times; expected one evaluation of twice the batch: join x, t and the labels.")
    return "One evaluation of twice the batch."


def _law(v0: float, v1: float, m: float, w: float) -> tuple[float, float]:
    r = v1 / v0
    return m * (1 - r**w) / (1 - r), v0 * r / (1 - r) * (1 - r ** (2 * w - 1)) / (2 * w - 1)


def _tilted(v0, v1, m, w):
    precision = (1 - w) / v0 + w / v1
    return w * m / (v1 * precision), 1 / precision


def _of_the_ode(v0, v1, m, w):
    r, zeta = v1 / v0, torch.linspace(0, (1 - v1 / v0) ** 0.5, 8001, dtype=torch.float64)
    integral = float(torch.trapezoid((1 - zeta**2) ** (-1 - w / 2), zeta))
    return m * w * r ** (w / 2) / (1 - r) ** 0.5 * integral, v0 * r**w


def _deviation(v0, v1, m, w):
    mean, variance = _law(v0, v1, m, w)
    return mean, variance**0.5


def _in_units_of_v0(v0, v1, m, w):
    mean, variance = _law(v0, v1, m, w)
    return mean, variance / v0


def _unguided(v0, v1, m, w):
    return m, v1


@exercise("6.14f", "what DDPM samples with guidance, for Gaussians", read="section 6.8, (6.16)", solution=_law,
          wrong=((_tilted, "tilted law"), (_of_the_ode, "of the ODE"), (_deviation, "standard deviation"), (_in_units_of_v0, "in units of v0"),
                 (_unguided, "w = 1")))
def guided_law(answer):
    """Five scales and three pairs of variances."""
    inputs = [(v0, v1, m, w) for v0, v1, m in ((1.0, 0.25, 1.0), (2.0, 1.0, -0.5), (0.5, 0.02, 3.0)) for w in (1.0, 1.5, 2.0, 4.0, 7.0)]
    close_to_reference(answer, _law, inputs, name="guided_law", rtol=1e-6, mistakes={
        "this is the tilted law (6.15), which DDPM does not sample": _tilted,
        "this is the law of the ODE, (6.14): the question is about the stochastic sampler": _of_the_ode,
        "the second number is the standard deviation: the variance is asked for": _deviation,
        "the variance is in units of v0: multiply by v0": _in_units_of_v0,
        "the scale does not enter: this is the law at w = 1": _unguided,
    })
    return "At w = 1 it is N(m, v1), as it must be."


def _threshold(x0_hat: Tensor, share: float) -> Tensor:
    return _limit(x0_hat, x0_hat.abs().flatten(1).quantile(share, dim=1).clamp(min=1))


def _limit(x0_hat: Tensor, size: Tensor, *, divide: bool = True, clamp: bool = True) -> Tensor:
    size = size.reshape(-1, *(1,) * (x0_hat.ndim - 1))
    x0_hat = torch.minimum(torch.maximum(x0_hat, -size), size) if clamp else x0_hat
    return x0_hat / size if divide else x0_hat


def _static(x0_hat, share):
    return x0_hat.clamp(-1, 1)


def _always_divided(x0_hat, share):
    return _limit(x0_hat, x0_hat.abs().flatten(1).quantile(share, dim=1))


def _one_for_the_batch(x0_hat, share):
    return _limit(x0_hat, x0_hat.abs().flatten().quantile(share).clamp(min=1).expand(len(x0_hat)))


def _not_divided(x0_hat, share):
    return _limit(x0_hat, x0_hat.abs().flatten(1).quantile(share, dim=1).clamp(min=1), divide=False)


def _not_clamped(x0_hat, share):
    return _limit(x0_hat, x0_hat.abs().flatten(1).quantile(share, dim=1).clamp(min=1), clamp=False)


def _signed(x0_hat, share):
    return _limit(x0_hat, x0_hat.flatten(1).quantile(share, dim=1).clamp(min=1))


@exercise("6.14g", "dynamic thresholding", read="section 6.12, (6.23)", solution=_threshold,
          wrong=((_static, "static"), (_always_divided, "at least 1"), (_one_for_the_batch, "each sample"), (_not_divided, "divided"),
                 (_not_clamped, "clamped"), (_signed, "absolute")))
def threshold(answer):
    """Pictures and points, in range and out of it, at two shares."""
    generator = seeded(0)
    pictures = torch.randn(5, 1, 6, 6, generator=generator, dtype=torch.float64) * torch.tensor([0.2, 0.6, 1.0, 2.0, 4.0]).view(-1, 1, 1, 1) - 0.5
    inputs = [(pictures, 0.9), (pictures, 0.995), (pictures[:, 0, 0], 0.5)]
    close_to_reference(answer, _threshold, inputs, name="threshold", mistakes={
        "this is static clamping to [-1, 1], which leaves all clamped pixels at the ends": _static,
        "samples within [-1, 1] are blown up: the threshold is at least 1": _always_divided,
        "one threshold serves the whole batch: each sample has its own": _one_for_the_batch,
        "the clamped picture is not divided by its threshold": _not_divided,
        "the picture is divided but not clamped first": _not_clamped,
        "the quantile is that of the pixels: take their absolute values": _signed,
    })
    return "In range, and no pile at its ends."
