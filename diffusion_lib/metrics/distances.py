"""Distances between two sets of samples: MMD, and Wasserstein on the line and along random directions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.metrics.estimates import points, same_width
from diffusion_lib.validate import check_count


class MMD(NamedTuple):
    """value: the unbiased estimate of MMD^2 (may be negative); se: its standard error; p_value: by permutation (NaN if none was asked)."""

    value: float
    se: float
    p_value: float


def mmd(x: Tensor, y: Tensor, *, bandwidth: float | None = None, permutations: int = 0, generator: torch.Generator | None = None) -> MMD:
    """Squared maximum mean discrepancy with the kernel exp(-|x - y|^2 / (2 bandwidth^2)), unbiased (Gretton et al. 2012, eq. 4).

    x, y: (N, ...) each, as many samples in both
    bandwidth: None takes the median distance between the pooled points
    permutations: 0, or how many shufflings of the pooled points the p-value of "same distribution" rests on
    The standard error is that of the U-statistic of h(z_i, z_j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i), both orders
    of its variance included, so that it also holds where the distributions are equal.
    Errors: ValueError for sets of different sizes or fewer than 4 samples.
    """
    x, y = points("x", x, 4), points("y", y, 4)
    same_width(x, y, ("x", "y"))
    if len(x) != len(y):
        raise ValueError(f"x holds {len(x)} samples and y holds {len(y)}; expected as many: cut both to {min(len(x), len(y))}.")
    n = len(x)
    squared = torch.cdist(torch.cat([x, y]), torch.cat([x, y])).square()
    if bandwidth is None:
        above = torch.ones_like(squared, dtype=torch.bool).triu(1)
        bandwidth = float(squared[above].median().sqrt().clamp_min(1e-12))
    kernel = torch.exp(-squared / (2 * bandwidth**2))                                   # (2N, 2N)

    def statistic(order: Tensor) -> Tensor:
        p = kernel[order][:, order]
        h = p[:n, :n] + p[n:, n:] - p[:n, n:] - p[n:, :n]
        return h.fill_diagonal_(0.0)

    h = statistic(torch.arange(2 * n, device=x.device))
    value = h.sum() / (n * (n - 1))
    rows = h.sum(1) / (n - 1)
    pair_variance = h[~torch.eye(n, dtype=torch.bool, device=h.device)].var()
    row_variance = (rows.var() - pair_variance / (n - 1)).clamp_min(0)
    se = (4 * row_variance / n + 2 * pair_variance / (n * (n - 1))).sqrt()
    p_value = float("nan")
    if permutations:
        shuffled = [statistic(torch.randperm(2 * n, generator=generator).to(x.device)).sum() / (n * (n - 1)) for _ in range(permutations)]
        p_value = (1 + sum(float(s >= value) for s in shuffled)) / (1 + permutations)
    return MMD(float(value), float(se), p_value)


def _quantile_cost(x: Tensor, y: Tensor, p: float) -> Tensor:
    """Mean of |Q_x - Q_y|^p over levels, column by column: (N, P), (M, P) -> (P,). Exact for any N and M."""
    x, y = x.sort(0).values, y.sort(0).values
    n, m = len(x), len(y)
    if n == m:
        return (x - y).abs().pow(p).mean(0)
    edges = torch.cat([torch.arange(n, dtype=torch.int64) * m, torch.arange(1, m + 1, dtype=torch.int64) * n]).unique()     # in 1/(n m)
    width = (edges.diff().double() / (n * m)).to(x.device)
    at_x, at_y = (edges[:-1] // m).to(x.device), (edges[:-1] // n).to(x.device)
    return (width[:, None] * (x[at_x] - y[at_y]).abs().pow(p)).sum(0)


def wasserstein_1d(x: Tensor, y: Tensor, p: float = 1.0) -> float:
    """Wasserstein-p distance of two sets of numbers (N,) and (M,): (mean over levels of |Q_x - Q_y|^p)^(1/p), exact. p >= 1."""
    x, y = points("x", x, 1), points("y", y, 1)
    if x.shape[1] != 1 or y.shape[1] != 1:
        raise ValueError(f"x and y hold {x.shape[1]} and {y.shape[1]} numbers a sample; expected one: use sliced_wasserstein for vectors.")
    return float(_quantile_cost(x, y, p)[0] ** (1 / p))


def sliced_wasserstein(x: Tensor, y: Tensor, *, projections: int = 256, p: float = 2.0, generator: torch.Generator | None = None) -> float:
    """Sliced Wasserstein-p distance of (N, ...) and (M, ...): (mean over random directions of W_p^p along them)^(1/p) (Bonneel et al. 2015)."""
    x, y = points("x", x, 1), points("y", y, 1)
    same_width(x, y, ("x", "y"))
    directions = torch.randn(x.shape[1], check_count("projections", projections), generator=generator, dtype=torch.float64).to(x.device)
    directions = directions / directions.norm(dim=0)                                    # (F, P)
    return float(_quantile_cost(x @ directions, y @ directions, p).mean() ** (1 / p))
