"""The judges of chapter 5's coded exercises."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lib.checks.compare import close_to_reference, seeded
from diffusion_lib.checks.core import exercise
from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.schedules import CosineSchedule, VESchedule, VPSchedule


def _reverse(schedule, x: Tensor, t: float, score: Tensor, eta: float, *, factor: float | None = None, sign: float = -1.0,
             root: bool = True, squared: bool = True) -> tuple[Tensor, Tensor]:
    f, g_sq = schedule.drift(t), schedule.diffusion_sq(t)
    pull = (0.5 * (1 + eta**2) if factor is None else factor) * (g_sq if squared else g_sq**0.5)
    return f * x + sign * pull * score, eta * (g_sq**0.5 if root else g_sq)


def _reverse_answer(schedule, x, t, score, eta):
    return _reverse(schedule, x, t, score, eta)


def _always_anderson(schedule, x, t, score, eta):
    return _reverse(schedule, x, t, score, eta, factor=1.0)


def _no_half(schedule, x, t, score, eta):
    return _reverse(schedule, x, t, score, eta, factor=1 + eta**2)


def _wrong_sign(schedule, x, t, score, eta):
    return _reverse(schedule, x, t, score, eta, sign=1.0)


def _noise_squared(schedule, x, t, score, eta):
    return _reverse(schedule, x, t, score, eta, root=False)


def _g_for_g_squared(schedule, x, t, score, eta):
    return _reverse(schedule, x, t, score, eta, squared=False)


@exercise("5.16e", "the reverse process with any stochasticity", read="section 5.6, (5.16)", solution=_reverse_answer,
          wrong=((_always_anderson, "(1 + eta^2) / 2"), (_no_half, "one half"), (_wrong_sign, "towards the data"),
                 (_noise_squared, "its root"), (_g_for_g_squared, "g^2")))
def reverse_sde(answer):
    """Three schedules, four values of eta, the exact score of the mixture."""
    mixture, x = three_modes(), torch.randn(6, 2, generator=seeded(0), dtype=torch.float64)
    inputs = [(schedule, x, t, mixture.score(x, t, schedule), eta)
              for schedule in (VPSchedule(), VESchedule(), CosineSchedule()) for t in (0.2, 0.7) for eta in (0.0, 0.5, 1.0, 2.0)]
    close_to_reference(answer, _reverse_answer, inputs, name="reverse_sde", mistakes={
        "the drift does not depend on eta: the score has the factor (1 + eta^2) / 2 g^2, which is g^2 only at eta = 1": _always_anderson,
        "the factor of the score lacks one half: (1 + eta^2) / 2 g^2": _no_half,
        "the score is added: dt is negative on the way back, so that a minus leads towards the data": _wrong_sign,
        "the noise is eta g^2: diffusion_sq is g^2, and the noise needs its root": _noise_squared,
        "the score is multiplied by g where g^2 belongs": _g_for_g_squared,
    })
    return "At eta = 0 it is the probability-flow ODE, at eta = 1 Anderson's reversal."


def _heun(x: Tensor, t: float, s: float, denoiser, schedule, *, stale: bool = False, half: bool = False, level: bool = True) -> Tensor:
    a_t, s_t, a_s, s_s = (f(r) for r in (t, s) for f in (schedule.alpha, schedule.sigma))
    step = s_s / a_s - s_t / a_t if level else s - t
    eps = (x - a_t * denoiser(x, t)) / s_t
    guess = a_s * (x / a_t + step * eps)
    eps_end = (guess - a_t * denoiser(guess, t)) / s_t if stale else (guess - a_s * denoiser(guess, s)) / s_s
    return a_s * (x / a_t + step * (eps + eps_end) * (1.0 if half else 0.5))


def _heun_answer(x, t, s, denoiser, schedule):
    return _heun(x, t, s, denoiser, schedule)


def _stale(x, t, s, denoiser, schedule):
    return _heun(x, t, s, denoiser, schedule, stale=True)


def _summed(x, t, s, denoiser, schedule):
    return _heun(x, t, s, denoiser, schedule, half=True)


def _step_of_time(x, t, s, denoiser, schedule):
    return _heun(x, t, s, denoiser, schedule, level=False)


def _euler(x, t, s, denoiser, schedule):
    a_t, s_t, a_s, s_s = (f(r) for r in (t, s) for f in (schedule.alpha, schedule.sigma))
    return a_s * (x / a_t + (s_s / a_s - s_t / a_t) * (x - a_t * denoiser(x, t)) / s_t)


@exercise("5.16f", "one step of Heun's method", read="section 5.8, (5.24)", solution=_heun_answer,
          wrong=((_stale, "time t"), (_summed, "mean"), (_step_of_time, "noise level"), (_euler, "second look")))
def heun_step(answer):
    """Long and short steps on two schedules, with the exact denoiser."""
    mixture, x = three_modes(), torch.randn(6, 2, generator=seeded(0), dtype=torch.float64)
    inputs = [(x, t, s, ExactDenoiser(mixture, schedule), schedule)
              for schedule in (VPSchedule(), CosineSchedule()) for t, s in ((0.9, 0.5), (0.4, 0.35), (0.2, 0.05))]
    close_to_reference(answer, _heun_answer, inputs, name="heun_step", mistakes={
        "the second slope is taken with the scales of time t: at the end of the step they are those of s": _stale,
        "the two slopes are added: take their mean": _summed,
        "the step is s - t: the clock of (5.22) is the noise level sigma / alpha": _step_of_time,
        "it is the Euler step: the second look, at its end, is missing": _euler,
    })
    return "Order 2 for two looks a step."


def _divergence(field, x: Tensor, v: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    value = field(x)
    products = [torch.autograd.grad(value, x, probe, retain_graph=True)[0] for probe in v]
    return torch.stack([(product * probe).sum(1) for product, probe in zip(products, v, strict=True)]).mean(0)


def _summed_probes(field, x, v):
    return _divergence(field, x, v) * len(v)


def _no_contraction(field, x, v):
    x = x.detach().requires_grad_()
    value = field(x)
    return torch.stack([torch.autograd.grad(value, x, probe, retain_graph=True)[0].sum(1) for probe in v]).mean(0)


def _field_itself(field, x, v):
    return (field(x) * v).sum(2).mean(0)


def _over_the_batch(field, x, v):
    return _divergence(field, x, v).mean().expand(len(x))


@exercise("5.16g", "Hutchinson's estimate of a divergence", read="section 5.11, (5.28)", solution=_divergence,
          wrong=((_summed_probes, "mean over the probes"), (_no_contraction, "probe again"), (_field_itself, "derivative"),
                 (_over_the_batch, "each sample")))
def divergence(answer):
    """A field whose Jacobian is neither symmetric nor diagonal, on given probes: every answer is exact."""
    generator = seeded(0)
    matrix, x = torch.randn(4, 4, generator=generator, dtype=torch.float64), torch.randn(5, 4, generator=generator, dtype=torch.float64)

    def field(x: Tensor) -> Tensor:
        return torch.tanh(x @ matrix) * x

    probes = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    close_to_reference(answer, _divergence, [(field, x, probes), (field, x, probes[:1].sign())], name="divergence", mistakes={
        "the probes were summed: take the mean over the probes": _summed_probes,
        "the product v^T J is summed as it is: multiply it by the probe again before the sum": _no_contraction,
        "v is multiplied with the field itself: it takes the field's derivative, one gradient a probe": _field_itself,
        "the result is averaged over the batch: each sample has a divergence of its own": _over_the_batch,
    })
    return "One gradient a probe, whatever the dimension."
