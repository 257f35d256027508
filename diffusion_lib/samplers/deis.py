"""DEIS: Adams-Bashforth on the probability-flow ODE, with eps_hat extrapolated as a polynomial and integrated exactly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from diffusion_lib.denoisers import Denoiser
from diffusion_lib.samplers._multistep import Row, check_order, lagrange, walk
from diffusion_lib.samplers._walk import check_start
from diffusion_lib.schedules import Schedule
from diffusion_lib.validate import check_positive

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


def deis(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    order: int = 5,
    detail: float = 0.15,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """DEIS from x_T = ``x`` (B, ...) over a decreasing grid ``times`` (N + 1,): yields N + 1 states, x_T first.

    d(x/alpha) = eps_hat d(sigma/alpha): the last ``order`` values of eps_hat are joined by a polynomial in u = asinh(level / detail), level =
    sigma/alpha, and the integral of that polynomial over the step is exact. u is logarithmic where noise dominates and linear
    below ``detail`` > 0 (in units of the data, about its finest structure), so that the last step, to level 0, is a step like any other.
    order: 1 (which is DDIM) to 5. The first steps use what history there is; the first order - 2 of them are corrected by the next
    evaluation, at no cost. N evaluations. It draws no noise.
    On a grid whose steps are very uneven in u (one uniform in t, from a high level) order 5 extrapolates badly: take order 3 there.
    The defaults, with ``time_grid(schedule, steps, "asinh")`` at its own, are the setting we recommend for few evaluations: benchmarks/solvers.py.
    Book (7.27). Zhang & Chen 2023 (DEIS), Sec. 3.2 (tAB-DEIS), there with polynomials in t. ValueError as for ``dpmpp``, or a detail <= 0.
    """
    times = check_start(x, times, schedule)
    check_order(order, 5, len(times) - 1)
    check_positive("detail", detail)
    return walk(denoiser, x, times.tolist(), deis_coefficients(schedule, times, order, detail), generator, condition)


def deis_coefficients(schedule: Schedule, times: Tensor, order: int = 5, detail: float = 0.15) -> list[Row]:
    """One row of plain floats for each step of a grid."""
    alpha, sigma = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    u = np.arcsinh(np.array(sigma) / np.array(alpha) / detail)
    rows = []
    for k in range(len(alpha) - 1):
        nodes = u[k :: -1][: min(order, k + 1)].tolist()
        correct = alpha[k + 1] * _integrals(u[k], u[k + 1], [u[k + 1], *nodes], detail) if k < order - 2 else ()
        rows.append(
            Row(
                keep=alpha[k + 1] / alpha[k],
                weights=tuple((alpha[k + 1] * _integrals(u[k], u[k + 1], nodes, detail)).tolist()),
                correct=tuple(map(float, correct)) if sigma[k + 1] > 0 else (),
                from_x=1 / sigma[k],
                from_x0=-alpha[k] / sigma[k],
            )
        )
    return rows


def _integrals(start: float, end: float, nodes: list[float], detail: float) -> np.ndarray:
    """The integral over the step of each node's Lagrange polynomial in u, against d(level) = detail cosh(u) du: (q,)."""
    middle, half = (end + start) / 2, (end - start) / 2
    at = middle + half * _NODES
    return lagrange(nodes, at) @ (half * _WEIGHTS * detail * np.cosh(at))
