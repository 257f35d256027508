"""Annealed importance sampling: weighted samples and the normalising constant of a density that is known up to a
factor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.samplers.langevin import adjusted_step
from diffusion_lib.validate import check_count, check_finite, check_positive, check_tensor

LogProb = Callable[[Tensor], Tensor]
Path = Callable[[Tensor, float], Tensor]


class AISResult(NamedTuple):
    """What annealed importance sampling returns; N chains.

    x (N, ...) with log_weights (N,) stands for the end density: E[f] = sum softmax(log_weights) f(x). log_z: the log
    of the ratio of the end's normalising constant to the start's, with its standard_error. ess: effective sample
    size, in [1, N]. acceptance: share of Metropolis proposals taken at each temperature, (K,).
    """

    x: Tensor
    log_weights: Tensor
    log_z: float
    standard_error: float
    ess: float
    acceptance: Tensor


def effective_sample_size(log_weights: Tensor) -> float:
    """(sum w)^2 / sum w^2, from log w (N,): N for equal weights, 1 if one weight is all. Kong 1992; Neal 2001, for
    AIS. Book (4.29)."""
    log_weights = check_tensor("log_weights", log_weights, ndim=1).double()
    return float((2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp())


def log_mean_weight(log_weights: Tensor) -> tuple[float, float]:
    """(log of the mean weight, its standard error) of N >= 2 independent log w (N,), by the delta method.

    se = (standard deviation of w) / (sqrt(N) mean of w) = sqrt((N / ess - 1) / (N - 1)). The mean of w is unbiased;
    its log is not: it is too low by about se^2 / 2. Both hold where se is well below 1. The error bar is itself made
    from the weights that were seen: where a few of them carry the sum (ess of a few), or where a mode was never
    visited, the true error is larger than it says. Book (4.29).
    """
    n = len(log_weights)
    if n < 2:
        raise ValueError(f"log_weights has {n} entries; expected at least 2 independent weights for a standard error.")
    mean = float(log_weights.double().logsumexp(0)) - math.log(n)
    return mean, math.sqrt(max(n / effective_sample_size(log_weights) - 1, 0.0) / (n - 1))


def geometric_path(log_prob_start: LogProb, log_prob_end: LogProb) -> Path:
    """path(x, beta) = (1 - beta) log p_start + beta log p_end, (B,): from the start at beta = 0 to the end at 1. Neal
    2001, Sec. 2. Book (4.27)."""
    return lambda x, beta: (1 - beta) * log_prob_start(x) + beta * log_prob_end(x)


def annealed_importance_sampling(
    path: Path,
    x: Tensor,
    betas: Sequence[float] | Tensor,
    *,
    step_size: float | Sequence[float],
    steps_per_level: int = 1,
    generator: torch.Generator | None = None,
) -> AISResult:
    """Annealed importance sampling along a path of densities, with Metropolis-adjusted Langevin moves.

    path: (x (N, ...), beta) -> log p_beta(x) (N,), each up to a constant and differentiable in x;
    ``geometric_path(start, end)``. x: N >= 2 *independent, exact* draws from p_0. betas: (K + 1,), strictly
    increasing, from 0 to 1. For each beta_k: first log w += path(x, beta_k) - path(x, beta_{k-1}), then
    ``steps_per_level`` MALA steps that leave p_{beta_k} in place, with step h = ``step_size``, one number or one for
    each of the K levels. The mean weight is an unbiased estimate of Z_1 / Z_0 for every K and h; its variance falls
    as K grows. See :func:`log_mean_weight` for the standard error and when not to believe it. K (steps_per_level + 2)
    evaluations of path, of which K (steps_per_level + 1) with its gradient. Neal 2001, Sec. 2. ValueError for betas
    that do not go from 0 to 1, a step that is not positive, or a weight that is NaN. Book (4.28).
    """
    check_finite("x", check_tensor("x", x))
    check_count("steps_per_level", steps_per_level)
    if x.ndim < 2 or len(x) < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; expected at least 2 independent chains (N, ...), drawn from the start."
        )
    betas = [float(b) for b in betas]
    if len(betas) < 2 or betas[0] != 0 or betas[-1] != 1 or any(b <= a for a, b in zip(betas, betas[1:], strict=False)):
        raise ValueError(
            f"betas has {len(betas)} entries; expected strictly increasing numbers from 0 to 1: "
            "use torch.linspace(0, 1, K + 1)."
        )
    one = isinstance(step_size, (int, float))
    steps = [check_positive("step_size", float(h)) for h in ([step_size] * (len(betas) - 1) if one else step_size)]
    if len(steps) != len(betas) - 1:
        raise ValueError(
            f"step_size has {len(steps)} entries; expected one number, "
            f"or one for each of the {len(betas) - 1} levels after the first."
        )
    return _walk(path, x.detach(), betas, steps, steps_per_level, generator)


@torch.no_grad()
def _walk(path, x, betas, steps, steps_per_level, generator) -> AISResult:
    log_weights, acceptance = x.new_zeros(len(x)), []
    for low, high, h in zip(betas, betas[1:], steps, strict=False):
        before, here = path(x, low), score_and_value(path, x, high)
        log_weights = log_weights + here[1] - before
        taken = []
        for _ in range(steps_per_level):
            x, here, moved = adjusted_step(x, here, lambda y, beta=high: score_and_value(path, y, beta), h, generator)
            taken.append(moved.double().mean())
        acceptance.append(torch.stack(taken).mean())
    check_finite("log_weights", log_weights)
    log_z, se = log_mean_weight(log_weights)
    return AISResult(x, log_weights, log_z, se, effective_sample_size(log_weights), torch.stack(acceptance))


def score_and_value(path: Path, x: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(grad_x log p_beta, log p_beta) at x (N, ...): like x, and (N,)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = path(x, beta)
        return torch.autograd.grad(value.sum(), x)[0], value.detach()
