"""UniPC: a multistep predictor and a corrector that reuses the next step's evaluation, so that the corrector is free."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from diffusion_lib.denoisers import Denoiser
from diffusion_lib.samplers._multistep import Row, check_order, walk
from diffusion_lib.samplers._walk import check_start
from diffusion_lib.schedules import Schedule


def unipc(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    order: int = 3,
    corrector: bool = True,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """UniPC from x_T = ``x`` (B, ...) over a decreasing grid ``times`` (N + 1,): yields N + 1 states, x_T first.

    Each step predicts x_s from the last ``order`` (1 to 3) values of x0_hat; the evaluation at x_s, which the next step needs
    anyway, then corrects x_s with one order more. A yielded state is the predicted one, except that its correction enters all
    that follow. The first steps use what history there is; the step to sigma = 0 is of order 1. corrector=False leaves UniP.
    N evaluations; it draws no noise. Book (7.22), (7.26). Zhao et al. 2023 (UniPC), Algorithms 1 and 2 with B(h) = e^h - 1, data prediction.
    ValueError for a bad grid, an unknown order, or a grid shorter than the order.
    """
    times = check_start(x, times, schedule)
    check_order(order, 3, len(times) - 1)
    rows = unipc_coefficients(schedule, times, order, corrector)
    return walk(denoiser, x, times.tolist(), rows, generator, condition)


def unipc_coefficients(schedule: Schedule, times: Tensor, order: int = 3, corrector: bool = True) -> list[Row]:
    """One row of plain floats for each step of a grid: the predictor's weights of x0_hat, and the corrector's."""
    alpha, sigma = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    lam = schedule.log_snr(times).tolist()
    rows = []
    for k in range(len(lam) - 1):
        if sigma[k + 1] == 0:
            rows.append(Row(0.0, (alpha[k + 1],)))
            continue
        h, p = lam[k + 1] - lam[k], min(order, k + 1)
        ratios = [(lam[k - j] - lam[k]) / h for j in range(1, p)]
        base = -alpha[k + 1] * math.expm1(-h)
        predict = np.array([0.5]) if p == 2 else _solve(ratios, h)
        correct = np.array([0.5]) if p == 1 else _solve([*ratios, 1.0], h)
        rows.append(
            Row(
                keep=sigma[k + 1] / sigma[k],
                weights=_spread(base, predict, ratios),
                correct=_spread(base, correct, [*ratios, 1.0], new=True) if corrector else (),
            )
        )
    return rows


def _solve(ratios: list[float], h: float) -> np.ndarray:
    """The rho of the differences (m_i - m_0) / r_i that make the step exact for polynomials: R rho = b."""
    if not ratios:
        return np.zeros(0)
    b, phi = [], -math.expm1(-h) / h  # phi_1 of -h
    for n in range(1, len(ratios) + 1):
        phi = (phi - 1 / math.factorial(n)) / -h  # phi_{n+1}(-h)
        b.append(phi * math.factorial(n) * h / -math.expm1(-h))
    return np.linalg.solve(np.vander(ratios, increasing=True).T, np.array(b))


def _spread(base: float, rho: np.ndarray, ratios: list[float], new: bool = False) -> tuple[float, ...]:
    """Weights of the x0_hat themselves, from those of their differences to the newest; with ``new``, the one at ratio 1 comes first."""
    differences = [base * float(r) / ratio for r, ratio in zip(rho, ratios, strict=True)]
    first = base - sum(differences)
    if new:
        return (differences[-1], first, *differences[:-1])
    return (first, *differences)
