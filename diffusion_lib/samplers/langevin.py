"""Langevin dynamics: walk uphill on log p and add noise. Unadjusted, Metropolis-adjusted, and with stochastic
gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.validate import check_count, check_finite, check_positive, check_same_shape, check_tensor

Score = Callable[[Tensor], Tensor]


def langevin_step(x: Tensor, s: Tensor, h: float, generator: torch.Generator | None = None) -> Tensor:
    """x + (h/2) s + sqrt(h) z with z ~ N(0, I), for x and its score s (B, ...). Book (4.14)."""
    return x + 0.5 * h * s + math.sqrt(h) * noise.randn_like(x, generator)


def log_acceptance(
    x: Tensor, s_x: Tensor, log_p_x: Tensor, y: Tensor, s_y: Tensor, log_p_y: Tensor, h: float
) -> Tensor:
    """log of Metropolis' ratio p(y) q(x | y) / (p(x) q(y | x)), (B,), for Langevin's proposal q(y | x) = N(x + (h/2)
    s(x), h).

    Roberts & Tweedie 1996. Book (4.18).
    """
    there, back = (y - x - 0.5 * h * s_x).flatten(1), (x - y - 0.5 * h * s_y).flatten(1)
    return log_p_y - log_p_x + (there.square().sum(1) - back.square().sum(1)) / (2 * h)


def langevin(
    score: Score,
    x: Tensor,
    step_sizes: Sequence[float],
    *,
    log_prob: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Langevin dynamics from ``x`` (B, ...): x + (h/2) score(x) + sqrt(h) z for each h of ``step_sizes``. Yields N +
    1 states, x first.

    score: x -> grad log p, like x; each row of x is its own chain. log_prob: None gives the unadjusted algorithm
    (ULA), whose stationary law differs from p by O(h): on N(0, 1) its variance is 1 / (1 - h/4), and it diverges for
    h >= 4. With x -> log p(x) (B,), known up to a constant, every step is a proposal that is taken or refused (MALA),
    and p itself is stationary. A score that is random but unbiased, such as :func:`minibatch_score`, with falling
    steps such as :func:`polynomial_steps` makes it SGLD. Weak order 1 in h. N evaluations of the score; N + 1 of
    score and log_prob with log_prob. Parisi 1981; MALA: Roberts & Tweedie 1996; SGLD: Welling & Teh 2011, eq. 4; in
    this notation Song & Ermon 2019, eq. 4. ValueError for a NaN in x, no steps, or a step that is not positive.
    Book (4.14), (4.17), (4.18).
    """
    check_finite("x", check_tensor("x", x))
    if x.ndim < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; expected a batch of chains (B, ...): add a dimension with x[:, None]."
        )
    steps = [check_positive("a step size", float(h)) for h in step_sizes]
    if not steps:
        raise ValueError("step_sizes is empty; expected at least one step, such as [0.01] * 1000.")
    return (
        _walk(score, x, steps, generator) if log_prob is None else _walk_adjusted(score, log_prob, x, steps, generator)
    )


@torch.no_grad()
def _walk(score, x, steps, generator) -> Iterator[Tensor]:
    yield x
    for h in steps:
        s = score(x)
        check_same_shape("the score", s, "x", x)
        x = langevin_step(x, s, h, generator)
        yield x


@torch.no_grad()
def _walk_adjusted(score, log_prob, x, steps, generator) -> Iterator[Tensor]:
    yield x
    here = (score(x), log_prob(x))
    check_same_shape("the score", here[0], "x", x)
    for h in steps:
        x, here, _ = adjusted_step(x, here, lambda y: (score(y), log_prob(y)), h, generator)
        yield x


def adjusted_step(
    x: Tensor,
    here: tuple[Tensor, Tensor],
    ask: Callable[[Tensor], tuple[Tensor, Tensor]],
    h: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """One MALA step from x (B, ...) with ``here`` = (score, log p) at x: the new (x, here) and which proposals were
    taken, (B,) bool.

    ask: y -> (score, log p); one call. A proposal where log p is NaN or -inf is refused.
    """
    y = langevin_step(x, here[0], h, generator)
    there = ask(y)
    ratio = log_acceptance(x, *here, y, *there, h)
    taken = noise.rand((len(x),), generator, x.device, x.dtype).log() < ratio  # False where the ratio is NaN
    rows = taken.reshape(-1, *(1,) * (x.ndim - 1))
    here = (torch.where(rows, there[0], here[0]), torch.where(taken, there[1], here[1]))
    return torch.where(rows, y, x), here, taken


def minibatch_score(
    prior_score: Score,
    likelihood_score: Callable[[Tensor, Tensor], Tensor],
    data: Tensor,
    batch_size: int,
    generator: torch.Generator | None = None,
) -> Score:
    """An unbiased random estimate of the posterior's score: prior_score(x) + (N / n) sum over a minibatch of n of the
    N data points.

    likelihood_score: (x (B, ...), batch (B, n, ...)) -> the sum over the n points of grad_x log p(point | x), like x.
    data: (N, ...). Every chain and every call draws its own n = batch_size points, with replacement, so that chains
    stay independent. Welling & Teh 2011, eq. 4. ValueError for an empty minibatch or a NaN in the data.
    Book (4.19).
    """
    check_finite("data", check_tensor("data", data))
    check_count("batch_size", batch_size)

    def score(x: Tensor) -> Tensor:
        source = generator.device if generator is not None else data.device
        rows = torch.randint(len(data), (len(x), batch_size), generator=generator, device=source).to(data.device)
        return prior_score(x) + len(data) / batch_size * likelihood_score(x, data[rows])

    return score


def polynomial_steps(a: float, b: float, gamma: float, steps: int) -> list[float]:
    """SGLD's falling step sizes h_k = a (b + k)^-gamma for k = 0 .. steps - 1. Welling & Teh 2011, Sec. 3.

    a, b > 0; gamma in (1/2, 1], so that the h_k add up to infinity (the walk gets anywhere) and their squares do not
    (their eq. 2). Book (4.19).
    """
    check_positive("a", a)
    check_positive("b", b)
    check_count("steps", steps)
    if not 0.5 < gamma <= 1:
        raise ValueError(
            f"gamma={gamma!r} was given; expected a number in (0.5, 1]: "
            "the steps must sum to infinity, their squares must not."
        )
    return [a * (b + k) ** -gamma for k in range(steps)]
