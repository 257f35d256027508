"""What the judges of coursework 1 compare with: laws of the counting VAE, by sums over a fine grid."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Exponential, Poisson

from diffusion_lib.checks.compare import call, seeded
from diffusion_lib.checks.core import WrongAnswer

U = torch.linspace(-46.0, 7.0, 6001, dtype=torch.float64)
GRID = U.exp()                                       # places z > 0, even in log z
CELL = GRID * (U[1] - U[0])                          # sum(f(GRID) * CELL) is the integral of f over z > 0, to 12 digits
EXACT = 1e-7                                         # relative: formulas against the grid, which is good to 1e-11


def log_density(rate: float) -> Tensor:
    """log of q(z) dz of the encoder on the grid."""
    return Exponential(torch.tensor(rate, dtype=torch.float64)).log_prob(GRID) + CELL.log()


def density(rate: float) -> Tensor:
    """q(z) dz of the encoder on the grid, (6001,)."""
    return log_density(rate).exp()


def cases_of(seed: int, n: int) -> list[tuple[int, float, float, float]]:
    """n random (x, gain, rate, beta)."""
    generator = seeded(1000 + seed)
    x = torch.randint(0, 8, (n,), generator=generator)
    rest = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    return [(int(k), float(0.3 + 3 * a), float(0.3 + 2 * b), float(0.2 + 4 * c)) for k, (a, b, c) in zip(x, rest, strict=True)]


def precision(value: Tensor) -> float:
    """The relative tolerance that a dtype allows."""
    return 1e-6 if value.dtype == torch.float64 else 1e-3


def explain_total(ratio: Tensor, x: Tensor, gain: float, rate: Tensor) -> str:
    """The usual mistake that explains by which factor the weights are off, as a sentence."""
    log_ratio = ratio.log()
    for what, guess in {
        "log x! is missing from log p(x | z), or has the wrong sign": torch.lgamma(x + 1),
        "the x log(gain) of the Poisson's mean gain * z is missing": -x * math.log(gain),
        "the log(rate) of log q is missing": rate.log(),
    }.items():
        for factor in (1.0, 2.0):
            if torch.allclose(log_ratio, factor * guess, atol=1e-4):
                return f"E_q of the weights must be p(x), but it is off by a factor, as if {what}."
    at = int(log_ratio.abs().nan_to_num(1e9).argmax())
    return (f"E_q of the weights must be p(x), but at x = {x[at]:.0f}, gain {gain:.3g}, rate {float(rate[at]):.3g} it is {float(ratio[at]):.4g} times that: "
            "is every one of log p(z), log p(x | z) and log q(z | x) there, with its sign, and is rate one over the mean?")


def tensor(value: object, name: str) -> Tensor:
    """A student's tensor, without its graph. Errors: WrongAnswer for anything else."""
    if not isinstance(value, Tensor):
        raise WrongAnswer(f"{name} returned a {type(value).__name__}; expected a tensor.")
    return value.detach()


def number(answer: Callable, name: str, *args: float) -> float:
    """A student's function at ``args``, as a float. Errors: WrongAnswer for anything else."""
    value = call(answer, *args)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise WrongAnswer(f"{name} returned a {type(value).__name__}; expected one number.") from None


def rebuild_of(x: float, gain: float, rate: float) -> float:
    """E_q log p(x | z), the first term of the bound, in nats."""
    return float((density(rate) * Poisson(gain * GRID).log_prob(torch.tensor(x, dtype=torch.float64))).sum())


def price(rate: float) -> float:
    """KL(q || prior), the second term of the bound, in nats."""
    prior, q = Exponential(torch.ones((), dtype=torch.float64)), Exponential(torch.tensor(rate, dtype=torch.float64))
    return float((density(rate) * (q.log_prob(GRID) - prior.log_prob(GRID))).sum())


def newton(value: Callable, rate: float) -> tuple[float, float]:
    """The slope of ``value`` in log(rate), and how far off its maximum is by one step of Newton's (1 where it does not curve down)."""
    low, here, high = (value(rate * math.exp(h)) for h in (-1e-3, 0.0, 1e-3))
    slope, curvature = (high - low) / 2e-3, (low - 2 * here + high) / 1e-6
    return slope, abs(slope / curvature) if curvature < 0 else 1.0


def damped_of(z: Tensor) -> Tensor:
    """exp(-z), and NaN (with a slope of NaN) where z is negative by more than the step of a finite difference."""
    return torch.exp(-z) * torch.where(z > -1e-3, 1.0, math.nan)


def score(rate: float) -> Tensor:
    """The slope of log q in log(rate), by a central difference."""
    q = [Exponential(torch.tensor(rate * math.exp(h), dtype=torch.float64)).log_prob(GRID) for h in (1e-5, -1e-5)]
    return (q[0] - q[1]) / 2e-5


def variance_with(rate: float, baseline: float) -> float:
    """Variance of one draw of the score-function slope of E_q z with a constant baseline."""
    slope = (GRID - baseline) * score(rate)
    q = density(rate)
    return float((q * slope**2).sum() - (q * slope).sum() ** 2)


def second_moment(rate: float, baseline: float) -> float:
    """Mean square of one such draw: what the best baseline makes least."""
    return float((density(rate) * ((GRID - baseline) * score(rate)) ** 2).sum())


def same(found: float, expected: float, what: str, mistakes: dict[str, float]) -> None:
    """Compare a number with the expected one to 1e-5. Errors: WrongAnswer, with the usual mistake where one explains it."""
    if abs(found - expected) <= 1e-5 * abs(expected):
        return
    for explanation, value in mistakes.items():
        if abs(found - value) <= 1e-5 * abs(value):
            raise WrongAnswer(f"{what} is {found:.6g}: it looks as if {explanation}.")
    raise WrongAnswer(f"{what} is {found:.6g}; expected {expected:.6g}.")


def chi_sq(x: float, gain: float, rate: float) -> float:
    """By a sum over the grid; 0 / 0 is avoided by working with logarithms."""
    log_joint = Poisson(gain * GRID).log_prob(torch.tensor(x, dtype=torch.float64)) - GRID
    log_post = log_joint - (log_joint + CELL.log()).logsumexp(0)
    log_q = Exponential(torch.tensor(rate, dtype=torch.float64)).log_prob(GRID)
    return float((2 * log_post - log_q + CELL.log()).logsumexp(0).exp()) - 1


def chi_sq_reverse(x: float, gain: float, rate: float) -> float:
    """Chi squared with posterior and encoder exchanged: a usual mistake."""
    log_joint = Poisson(gain * GRID).log_prob(torch.tensor(x, dtype=torch.float64)) - GRID
    log_post = log_joint - (log_joint + CELL.log()).logsumexp(0)
    log_q = Exponential(torch.tensor(rate, dtype=torch.float64)).log_prob(GRID)
    return float((2 * log_q - log_post + CELL.log()).logsumexp(0).exp()) - 1


def likelihood(W: Tensor, S: Tensor, noise: Tensor, beta: float) -> Tensor:
    """Average log-likelihood of N(0, W W^T + beta diag(noise)) for data of covariance S, without its constant."""
    C = W @ W.T + beta * torch.diag(noise)
    return -0.5 * (torch.logdet(C) + torch.linalg.solve(C, S).trace())


def climb(S: Tensor, noise: Tensor, beta: float, latents: int, seed: int) -> Tensor:
    """The best W that gradient ascent finds from three random starts."""
    found = []
    for start in range(3):
        W = (0.5 * torch.randn(len(S), latents, generator=seeded(start + 10 * seed), dtype=S.dtype)).requires_grad_()
        optimizer = torch.optim.LBFGS([W], max_iter=600, tolerance_grad=1e-11, tolerance_change=1e-14, line_search_fn="strong_wolfe")

        def closure(W: Tensor = W, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = -likelihood(W, S, noise, beta)
            loss.backward()
            return loss

        optimizer.step(closure)
        found.append(W.detach())
    return max(found, key=lambda W: float(likelihood(W, S, noise, beta)))


def camera_of(seed: int, size: int = 6) -> tuple[Tensor, Tensor]:
    """A random covariance and the noise variances of a camera's pixels."""
    generator = seeded(500 + seed)
    root = torch.randn(size, size + 2, generator=generator, dtype=torch.float64)
    scale = (1.5 * torch.rand(size, generator=generator, dtype=torch.float64) - 1).exp()
    noise = (3 * torch.rand(size, generator=generator, dtype=torch.float64) - 3).exp()
    return scale[:, None] * (root @ root.T / size) * scale, noise


def plain_of(value: object) -> float:
    """A number, or a tensor or array of one entry, as a float; NaN for anything else."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        return math.nan
