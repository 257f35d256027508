"""Linear multistep samplers: a step is a row of plain floats, made from the grid once, and the walk does only its arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.denoisers import Denoiser
from diffusion_lib.samplers._walk import evaluate
from diffusion_lib.validate import check_count


class Row(NamedTuple):
    """One step t -> s: x_s = keep x_t + sum_j weights[j] G_{k-j} + noise z, newest first, with G_k = from_x x_k + from_x0 x0_hat_k.

    correct: once G_{k+1} is known (the next step needs it anyway), x_s is replaced by keep x_t + correct[0] G_{k+1} +
    sum_j correct[1 + j] G_{k-j}; empty for no correction. It costs no evaluation.
    """

    keep: float
    weights: tuple[float, ...]
    noise: float = 0.0
    from_x: float = 0.0
    from_x0: float = 1.0
    correct: tuple[float, ...] = ()


def check_order(order: int, highest: int, steps: int) -> int:
    """Return ``order`` if it is one of 1..highest and the grid has that many steps; else ValueError."""
    check_count("order", order)
    if order > highest:
        raise ValueError(f"order={order} was given; expected 1 to {highest}: higher orders of this sampler are not defined.")
    if steps < order:
        raise ValueError(
            f"times has {steps} steps and order={order} was given; expected at least {order} steps: use a longer grid or a lower order."
        )
    return order


@torch.no_grad()
def walk(
    denoiser: Denoiser,
    x: Tensor,
    times: list[float],
    rows: list[Row],
    generator: torch.Generator | None,
    condition: dict[str, Tensor] | None,
) -> Iterator[Tensor]:
    """Yield the N + 1 states of a linear multistep method; one evaluation a step. A state is yielded before its correction."""
    yield x
    history: list[Tensor] = []
    longest = max(max(len(row.weights), len(row.correct) - 1) for row in rows)
    before, last = x, rows[0]._replace(correct=())
    for t, row in zip(times, rows, strict=False):
        newest = evaluate(denoiser, x, t, condition)
        if row.from_x:
            newest = row.from_x * x + row.from_x0 * newest
        if last.correct:
            x = _combine(last.keep, before, last.correct, [newest, *history])
        history.insert(0, newest)
        del history[longest:]
        before, last = x, row
        x = _combine(row.keep, x, row.weights, history)
        if row.noise > 0:
            x = x + row.noise * noise.randn_like(x, generator)
        yield x


def _combine(keep: float, x: Tensor, weights: tuple[float, ...], values: list[Tensor]) -> Tensor:
    out = keep * x
    for weight, value in zip(weights, values, strict=False):
        out = torch.add(out, value, alpha=weight)
    return out


def lagrange(nodes: list[float], at: np.ndarray) -> np.ndarray:
    """The Lagrange polynomials of ``nodes`` (q,) at the places ``at`` (n,): (q, n)."""
    place = np.array(nodes)
    top = at - place[:, None]  # (q, n)
    factors = top / np.where(np.eye(len(place), dtype=bool), 1.0, place[:, None] - place)[..., None]  # (q, q, n): [j, i]
    factors[np.diag_indices(len(place))] = 1.0
    return factors.prod(1)
