"""The kernelised Stein discrepancy: how far samples are from a density of which only the score is known, and a test
of fit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.metrics.estimates import Estimate, points, same_width
from diffusion_lib.validate import check_choice, check_count, check_positive

KERNELS = ("imq", "rbf")
STATISTICS = ("u", "v")


class SteinTest(NamedTuple):
    """statistic: the U-statistic, an estimate of KSD^2; p_value: of "the samples are from the density", by wild
    bootstrap."""

    statistic: float
    p_value: float


def median_distance(x: Tensor) -> float:
    """The median distance between two of the samples ``x`` (N, ...), N >= 2: the usual bandwidth."""
    return float(torch.pdist(points("x", x)).median().clamp_min(1e-12))


def stein_kernel(x: Tensor, score_x: Tensor, *, kernel: str = "imq", bandwidth: float | None = None) -> Tensor:
    """u(x_i, x_j) = s_i.s_j k + s_i.grad_j k + s_j.grad_i k + tr(grad_i grad_j k) for all pairs, (N, N) float64,
    symmetric.

    x: (N, ...); score_x: grad log p at x, like x. kernel: with r = |x_i - x_j| / bandwidth, "imq" is (1 +
    r^2)^(-1/2), whose tails are heavy enough to see samples that escape (Gorham & Mackey 2017, Theorem 8), and "rbf"
    is exp(-r^2 / 2). bandwidth: > 0, by default the median distance. E u(x, .) = 0 for x from p. Liu, Lee & Jordan
    2016, Theorem 3.6; Chwialkowski, Strathmann & Gretton 2016, Sec. 2. ValueError for another shape, a NaN, fewer
    than 2 samples, an unknown kernel or a bandwidth that is not positive. Book (4.31).
    """
    check_choice("kernel", kernel, KERNELS)
    x, s = points("x", x), points("score_x", score_x)
    same_width(x, s, ("x", "score_x"))
    if len(x) != len(s):
        raise ValueError(f"x holds {len(x)} samples and score_x holds {len(s)}; expected one score for each sample.")
    width = median_distance(x) if bandwidth is None else check_positive("bandwidth", bandwidth)
    centred = x - x.mean(0)
    norm = centred.square().sum(1)
    squared = (norm[:, None] + norm - 2 * centred @ centred.T).clamp_min(0).fill_diagonal_(0)  # |x_i - x_j|^2
    q = squared / width**2
    if kernel == "rbf":
        k = torch.exp(-q / 2)
        slope, curve = -k / (2 * width**2), k / (4 * width**4)  # dk and d2k / d(|x_i - x_j|^2)
    else:
        k = (1 + q) ** -0.5
        slope, curve = -0.5 * k / (1 + q) / width**2, 0.75 * k / (1 + q) ** 2 / width**4
    along = s @ centred.T  # s_i . x_j
    own = along.diagonal()
    pull = own[:, None] + own - along - along.T  # (s_i - s_j) . (x_i - x_j)
    return s @ s.T * k - 2 * slope * pull - 2 * x.shape[1] * slope - 4 * squared * curve


def stein_discrepancy(
    x: Tensor, score_x: Tensor, *, kernel: str = "imq", bandwidth: float | None = None, statistic: str = "u"
) -> Estimate:
    """KSD^2 of samples from q to a density p of which only the score is known, with its standard error. 0 only for q
    = p.

    x: (N, ...) independent samples of q; score_x: grad log p at x; kernel, bandwidth: see `stein_kernel` (fix the
    bandwidth to compare numbers: it sets their unit). statistic: "u", the mean over pairs i != j, is unbiased and may
    be negative; "v", the mean over all pairs, is never negative and too high by (E u(x, x) - KSD^2) / N. Liu, Lee &
    Jordan 2016, Sec. 4; Chwialkowski et al. 2016, Sec. 2. The standard error is that of the U-statistic, both orders
    of its variance included; where q = p it is too long, by about 30 % (an estimate of a first order of 0 is not
    negative). Errors: those of `stein_kernel`, ValueError for an unknown statistic or fewer than 4 samples.
    Book (4.30), (4.32), (4.34).
    """
    check_choice("statistic", statistic, STATISTICS)
    points("x", x, 4)
    u = stein_kernel(x, score_x, kernel=kernel, bandwidth=bandwidth)
    n, diagonal = len(u), u.diagonal().sum()
    value = (u.sum() - diagonal) / (n * (n - 1)) if statistic == "u" else u.mean()
    off = u[~torch.eye(n, dtype=torch.bool, device=u.device)]
    rows = (u.sum(1) - u.diagonal()) / (n - 1)
    row_variance = (rows.var() - off.var() / (n - 1)).clamp_min(0)
    return Estimate(float(value), float((4 * row_variance / n + 2 * off.var() / (n * (n - 1))).sqrt()))


def stein_test(
    x: Tensor,
    score_x: Tensor,
    *,
    kernel: str = "imq",
    bandwidth: float | None = None,
    bootstraps: int = 500,
    flip: float = 0.5,
    generator: torch.Generator | None = None,
) -> SteinTest:
    """A test of "x (N, ...) was drawn from the density with this score": reject at level 0.05 where p_value <= 0.05.

    Wild bootstrap: sum_ij w_i w_j u(x_i, x_j) with random signs w has, for samples from p, nearly the law of sum_ij
    u(x_i, x_j). The p-value is (1 + how many of the ``bootstraps`` reach the statistic) / (1 + bootstraps). The
    diagonal cancels: U- and V-statistic give the same p-value. flip: 0.5 makes the signs independent, for independent
    samples. For a Markov chain in its order, take flip well below 1 over the number of steps that it remembers:
    neighbours then share signs, and the level is nearly right if the chain is much longer than 1 / flip (for shorter
    ones the test hardly rejects at all). Chwialkowski et al. 2016. Errors: those of `stein_kernel`; ValueError for
    bootstraps < 1 or a flip outside (0, 0.5]. Book (4.34).
    """
    check_count("bootstraps", bootstraps)
    if not 0 < flip <= 0.5:
        raise ValueError(
            f"flip={flip!r} was given; expected a probability in (0, 0.5]: "
            "0.5 for independent samples, less for a chain."
        )
    u = stein_kernel(x, score_x, kernel=kernel, bandwidth=bandwidth).fill_diagonal_(0)
    n = len(u)
    turns = 1 - 2 * (noise.rand((bootstraps, n), generator, u.device, u.dtype) < flip).to(u.dtype)
    signs = turns.cumprod(1)  # (bootstraps, N)
    drawn = ((signs @ u) * signs).sum(1)
    value = u.sum()
    return SteinTest(float(value) / (n * (n - 1)), (1 + int((drawn >= value).sum())) / (1 + bootstraps))
