"""DPM-Solver++ in its multistep form: the linear part of the ODE solved exactly, x0_hat extrapolated in log-SNR."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion_lib.denoisers import Denoiser
from diffusion_lib.samplers._multistep import Row, check_order, walk
from diffusion_lib.samplers._walk import check_start
from diffusion_lib.schedules import Schedule
from diffusion_lib.validate import check_non_negative


def dpmpp(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    order: int = 2,
    eta: float = 0.0,
    corrected_start: bool = True,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """DPM-Solver++ from x_T = ``x`` (B, ...) over a decreasing grid ``times`` (N + 1,): yields N + 1 states, x_T first.

    order: 1 (which is DDIM), 2 ("2M", the midpoint form of the paper's code) or 3 ("3M"). The first steps have no history and
    are of order 1, then 2, and a first step of order 1 caps the whole at order 2. corrected_start (order 3, eta = 0): the second
    evaluation, needed anyway, corrects that first step by the trapezoidal rule, and 3M converges at order 3. The step to
    sigma = 0 is of order 1.
    eta >= 0: 0 solves the ODE; 1 the reverse SDE ("2M SDE", "3M SDE"). On Gaussian data its output's variance is of order 1 and 2 for order 1 and 2.
    N evaluations. Book (7.21), (7.23), (7.24), (7.28). Lu et al. 2022 (DPM-Solver++), Algorithm 2 and Sec. 5. ValueError for a bad grid,
    an unknown order, a grid shorter than the order, a negative eta.
    """
    times = check_start(x, times, schedule)
    check_order(order, 3, len(times) - 1)
    check_non_negative("eta", eta)
    rows = dpmpp_coefficients(schedule, times, order, eta, corrected_start)
    return walk(denoiser, x, times.tolist(), rows, generator, condition)


def dpmpp_coefficients(
    schedule: Schedule, times: Tensor, order: int = 2, eta: float = 0.0, corrected_start: bool = True
) -> list[Row]:
    """One row of plain floats for each step t -> s of a grid.

    With h = (1 + eta) (lambda_s - lambda_t): x_s = (sigma_s / sigma_t) e^(-eta h / (1 + eta)) x_t + alpha_s (1 - e^-h) x0_hat + ...
    where the dots are the divided differences of x0_hat, integrated against e^lambda. Book (7.19), (7.20), (7.25).
    """
    alpha, sigma = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    lam = schedule.log_snr(times).tolist()
    rows = []
    for k in range(len(lam) - 1):
        if sigma[k + 1] == 0:
            rows.append(Row(0.0, (alpha[k + 1],)))
            continue
        step = lam[k + 1] - lam[k]
        h = (1 + eta) * step
        keep = sigma[k + 1] / sigma[k] * math.exp(-eta * step)
        phi_1 = -math.expm1(-h)  # integral of e^-(h - s) ds over the step
        weights = _weights(lam, k, h, (1 + eta), phi_1, min(order, k + 1))
        added = sigma[k + 1] * math.sqrt(-math.expm1(-2 * eta * step)) if eta else 0.0
        correct = ()
        if k == 0 and order == 3 and eta == 0 and corrected_start:
            phi_2 = 1 - phi_1 / h  # x0_hat on the straight line between both ends, integrated exactly
            correct = (alpha[1] * phi_2, alpha[1] * (phi_1 - phi_2))
        rows.append(Row(keep, tuple(alpha[k + 1] * w for w in weights), added, correct=correct))
    return rows


def _weights(lam: list[float], k: int, h: float, stretch: float, phi_1: float, order: int) -> tuple[float, ...]:
    """Weights of x0_hat at steps k, k-1, k-2 for a step of (stretched) length h."""
    if order == 1:
        return (phi_1,)
    r_1 = stretch * (lam[k] - lam[k - 1]) / h
    if order == 2:
        share = phi_1 / (2 * r_1)
        return phi_1 + share, -share
    r_2 = stretch * (lam[k - 1] - lam[k - 2]) / h
    phi_2 = 1 - phi_1 / h  # first and second moments of the kernel
    phi_3 = 0.5 - phi_2 / h
    # D1 and D2, the first and second derivatives at lambda_k (in units of h), from Newton's divided differences.
    first_0, first_1 = 1 / r_1, 1 / r_2  # (m_k - m_{k-1}) / r_1, (m_{k-1} - m_{k-2}) / r_2
    mix, second = r_1 / (r_1 + r_2), 1 / (r_1 + r_2)
    d_1 = (first_0 * (1 + mix), -first_0 * (1 + mix) - first_1 * mix, first_1 * mix)
    d_2 = (first_0 * second, -first_0 * second - first_1 * second, first_1 * second)
    base = (phi_1, 0.0, 0.0)
    return tuple(b + phi_2 * one + 2 * phi_3 * two for b, one, two in zip(base, d_1, d_2, strict=True))
