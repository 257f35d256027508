"""The judges of chapter 1's exercises."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, close_to_reference, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer, exercise

Answer = object


def _kl(mean: Tensor, log_var: Tensor) -> Tensor:
    return 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(-1)


@exercise(
    "1.13e", "KL of an encoder to the prior", read="section 1.2, (1.6)", solution=_kl,
    wrong=(
        (lambda m, v: (0.5 * (m**2 + v.exp() - 1 - v)).mean(-1), "averaged over the latent dimensions"),
        (lambda m, v: 0.5 * (m**2 + v**2 - 1 - (v**2).log()).sum(-1), "taken for a standard deviation"),
        (lambda m, v: 0.5 * (m**2 + v - 1 - v.log()).sum(-1), "taken for the variance"),
        (lambda m, v: _kl(m, v).mean(), "shape"),
        (lambda m, v: (m**2 + v.exp() - 1 - v).sum(-1), "twice"),
    ),
)
def kl_to_prior(answer: Answer) -> str:
    generator = seeded(0)
    pairs = [tuple(torch.rand(2, rows, size, generator=generator, dtype=torch.float64) + 0.3) for rows, size in ((5, 3), (1, 8))]
    close_to_reference(
        answer, _kl, pairs, name="your KL",
        mistakes={
            "you averaged over the latent dimensions: the KLs of independent dimensions add up": lambda m, v: _kl(m, v) / m.shape[-1],
            "log_var was taken for a standard deviation": lambda m, v: 0.5 * (m**2 + v**2 - 1 - (v**2).log()).sum(-1),
            "log_var was taken for the variance itself": lambda m, v: 0.5 * (m**2 + v - 1 - v.log()).sum(-1),
            "you took the KL the other way round, from the prior to q":
                lambda m, v: 0.5 * (v + (m**2 + 1) * (-v).exp() - 1).sum(-1),
            "the mean is not squared": lambda m, v: 0.5 * (m + v.exp() - 1 - v).sum(-1),
        },
    )
    extreme = torch.tensor([[0.0, 0.0]], dtype=torch.float64), torch.tensor([[-60.0, 5.0]], dtype=torch.float64)
    true_for_all(torch.isfinite(call(answer, *extreme)), "At log_var = -60 your KL is not finite: use log_var itself, not the logarithm of a variance.")
    return "Every VAE you will meet has this line."


def _iwae(log_w: Tensor) -> Tensor:
    return log_w.logsumexp(-1) - math.log(log_w.shape[-1])


@exercise(
    "1.13f", "the importance-weighted bound", read="section 1.6, (1.19)", solution=_iwae,
    wrong=(
        (lambda w: w.mean(-1), "mean of the logarithms"),
        (lambda w: w.logsumexp(-1), "sum of the weights"),
        (lambda w: w.exp().mean(-1).log(), "underflow"),
        (lambda w: _iwae(w).mean(), "shape"),
    ),
)
def importance_weighted(answer: Answer) -> str:
    generator = seeded(1)
    cases = [torch.randn(rows, k, generator=generator, dtype=torch.float64) for rows, k in ((4, 6), (3, 1), (2, 50))]
    close_to_reference(
        answer, _iwae, cases, name="your bound",
        mistakes={
            "you returned the mean of the logarithms, which is the ELBO: the mean goes inside the logarithm": lambda w: w.mean(-1),
            "you took the sum of the weights and not their mean: log K is missing": lambda w: w.logsumexp(-1),
            "the mean runs over the pictures; it must run over the K draws of each picture": lambda w: w.logsumexp(0) - math.log(w.shape[0]),
        },
    )
    low = torch.full((1, 3), -2000.0, dtype=torch.float64)
    result = call(answer, low)
    if not bool(torch.isfinite(result).all()):
        raise WrongAnswer("For log-weights of -2000 nats, usual for pictures, your exp makes an underflow to 0: take out the largest first, as logsumexp does.")
    true_for_all((result + 2000).abs() < 1e-6, f"For three equal log-weights of -2000 you give {float(result.flatten()[0]):.4f}; expected -2000.")
    return "It stays finite at -2000 nats too."


def _leave_one_out(values: Tensor, scores: Tensor) -> Tensor:
    n = len(values)
    others = (values.sum() - values) / (n - 1)
    return ((values - others)[:, None] * scores).mean(0)


def _plain(values: Tensor, scores: Tensor) -> Tensor:
    return (values[:, None] * scores).mean(0)


def _own_mean(values: Tensor, scores: Tensor) -> Tensor:
    return ((values - values.mean())[:, None] * scores).mean(0)


@exercise(
    "1.13g", "score-function gradient with a leave-one-out baseline", read="section 1.3, (1.7)", solution=_leave_one_out,
    wrong=(
        (_plain, "no baseline"),
        (_own_mean, "includes the draw itself"),
        (lambda f, s: len(f) * _leave_one_out(f, s), "sum over the draws"),
        (lambda f, s: -_leave_one_out(f, s), "sign"),
    ),
)
def leave_one_out(answer: Answer) -> str:
    generator = seeded(2)
    cases = [
        (torch.randn(n, generator=generator, dtype=torch.float64) + 3, torch.randn(n, size, generator=generator, dtype=torch.float64))
        for n, size in ((5, 2), (2, 3), (40, 1))
    ]
    close_to_reference(
        answer, _leave_one_out, cases, name="your gradient",
        mistakes={
            "there is no baseline: this is plain (1.7)": _plain,
            "the baseline includes the draw itself, which biases the estimate by the factor (n - 1)/n": _own_mean,
            "you took the sum over the draws and not their mean": lambda f, s: len(f) * _leave_one_out(f, s),
        },
    )
    return "With two draws it is half the difference of f times the difference of the scores: try it."
