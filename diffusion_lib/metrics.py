"""How good samples are, by numbers: Fréchet distance on named features, precision and recall, MMD, Wasserstein distances,
class accuracy, and whether samples are copies of the training set. Every estimate that has one comes with its standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.features import digit_accuracy, digit_classifier, digit_features, digit_scores
from diffusion_lib.validate import check_count, check_finite, check_tensor


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    se: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.se:.2g}"


def _points(name: str, x: Tensor, least: int = 2) -> Tensor:
    """(N, ...) as (N, F) float64, finite, at least ``least`` rows."""
    check_tensor(name, x)
    if x.ndim == 0 or len(x) < least:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected at least {least} samples along the first axis: draw more.")
    return check_finite(name, x.detach().to(torch.float64).reshape(len(x), -1))


def _same_width(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{names[0]} has {a.shape[1]} numbers a sample and {names[1]} has {b.shape[1]}; expected as many: "
                         "take both from one feature extractor.")


def _root(matrix: Tensor) -> Tensor:
    """Square root of a symmetric positive semi-definite matrix, by its eigenvalues (negative rounding is clamped)."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def gaussian_frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Squared Fréchet (Wasserstein-2) distance of two Gaussians: |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Dowson & Landau 1982).

    The trace of the root is taken of the symmetric C_a^(1/2) C_b C_a^(1/2), which has the same eigenvalues. Means (F,), covariances (F, F).
    """
    root = _root(cov_a)
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    return max(float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross), 0.0)


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Fréchet distance of two sets of features, (N, F) and (M, F): that of the Gaussians with their means and covariances.

    Heusel et al. 2017, eq. 6 (FID, there on Inception features; here on any features: for digits, `digit_features`). It is a squared
    distance. It sees means and covariances only, and it is biased: two finite sets of one distribution are at a distance > 0 that
    falls like 1/N + 1/M. So compare only numbers from equal sizes, and against `frechet_floor`.

    Errors: ValueError for fewer than F + 1 samples (the covariance would be singular), a NaN, or features of different lengths.
    """
    a, b = _points("features_a", features_a), _points("features_b", features_b)
    _same_width(a, b, ("features_a", "features_b"))
    for name, x in (("features_a", a), ("features_b", b)):
        if len(x) <= x.shape[1]:
            raise ValueError(f"{name} holds {len(x)} samples of {x.shape[1]} features; expected at least {x.shape[1] + 1}, "
                             "or the covariance is singular: draw more samples or use fewer features.")
    cov_a, cov_b = (torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    return gaussian_frechet(a.mean(0), cov_a, b.mean(0), cov_b)


def frechet_floor(features: Tensor, n: int, m: int, *, repeats: int = 20, generator: torch.Generator | None = None) -> Estimate:
    """The Fréchet distance that perfect samples would get: between disjoint random sets of ``n`` and ``m`` *real* pictures.

    It is not zero: means and covariances of finite sets differ by chance. To leading order it is a constant times (1/n + 1/m), so it
    must be taken at the sizes used for the samples. Below it lies only what is nearer to the reference than fresh data is: copies.

    features: (N, F) of real pictures, N >= n + m, seen by no training of the extractor where possible
    repeats: random splits to average over; the standard error is that over splits (they overlap, so it is a little too small)
    """
    x = _points("features", features)
    if check_count("n", n) + check_count("m", m) > len(x):
        raise ValueError(f"features holds {len(x)} samples; expected at least n + m = {n + m} for two disjoint sets: take smaller sets.")
    drawn = []
    for _ in range(check_count("repeats", repeats, 2)):
        order = torch.randperm(len(x), generator=generator).to(x.device)
        drawn.append(frechet_distance(x[order[:n]], x[order[n:n + m]]))
    values = torch.tensor(drawn, dtype=torch.float64)
    return Estimate(float(values.mean()), float(values.std() / repeats**0.5))


class DigitFrechet(NamedTuple):
    """What `digit_frechet` measures: distance ± se of samples to the train split, and the same for unseen real digits (the floor)."""

    distance: float
    se: float
    floor: float

    @property
    def ratio(self) -> float:
        """distance / floor: 1 is as good as unseen real digits."""
        return self.distance / self.floor


def digit_frechet(images: Tensor, *, stratified: bool = True) -> DigitFrechet:
    """Fréchet distance of generated digits to the train split, beside the floor: what unseen real digits get at the same size.

    images: (N, 1, 8, 8) in [-1, 1], N >= 355. They are cut into groups of 355, as many as there are held-out digits, so that both
        numbers have the same sample-size bias; the mean over groups is returned (se: over groups; NaN for one group).
    stratified: True if each group was drawn with the labels of the held-out digits, ``digits("test")[1].repeat(groups)``; the floor is
        then the held-out split's distance. False if the classes came as they liked (a network without labels): chance in the class
        proportions alone then costs several times that floor, and the floor is the mean over random disjoint sets of 355 and 1442 digits.
    """
    from diffusion_lib.data.digits import digits

    held_out, train = (digit_features(digits(split)[0].to(images.device)) for split in ("test", "train"))
    size = len(held_out)
    features = digit_features(images)
    if len(features) < size:
        raise ValueError(f"images holds {len(features)} digits; expected at least {size}, the number of held-out digits: draw more.")
    groups = features[:len(features) // size * size].split(size)
    values = torch.tensor([frechet_distance(group, train) for group in groups], dtype=torch.float64)
    se = float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")
    if stratified:
        return DigitFrechet(float(values.mean()), se, frechet_distance(held_out, train))
    mixed = frechet_floor(torch.cat([held_out, train]), size, len(train), generator=torch.Generator().manual_seed(0))
    return DigitFrechet(float(values.mean()), se, mixed.value)


class PrecisionRecall(NamedTuple):
    """precision: share of samples that look real; recall: share of real pictures that the samples cover."""

    precision: float
    recall: float


def precision_recall(real: Tensor, samples: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1, 2): (N, F) real features, (M, F) sampled ones.

    A set's manifold is the union of balls around its points that reach to their k-th nearest neighbour in the set. Precision is the
    share of samples inside the real manifold, recall the share of real points inside the samples' manifold. Use N = M.
    Errors: ValueError for k < 1 or sets of at most k points.
    """
    check_count("k", k)
    real, samples = _points("real", real, k + 1), _points("samples", samples, k + 1)
    _same_width(real, samples, ("real", "samples"))

    def radii(x: Tensor) -> Tensor:
        return torch.cdist(x, x).kthvalue(k + 1, dim=1).values                          # the nearest of all is the point itself

    between = torch.cdist(real, samples)                                                # (N, M)
    precision = (between <= radii(real)[:, None]).any(0).double().mean()
    recall = (between <= radii(samples)[None, :]).any(1).double().mean()
    return PrecisionRecall(float(precision), float(recall))


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
    x, y = _points("x", x, 4), _points("y", y, 4)
    _same_width(x, y, ("x", "y"))
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
    x, y = _points("x", x, 1), _points("y", y, 1)
    if x.shape[1] != 1 or y.shape[1] != 1:
        raise ValueError(f"x and y hold {x.shape[1]} and {y.shape[1]} numbers a sample; expected one: use sliced_wasserstein for vectors.")
    return float(_quantile_cost(x, y, p)[0] ** (1 / p))


def sliced_wasserstein(x: Tensor, y: Tensor, *, projections: int = 256, p: float = 2.0, generator: torch.Generator | None = None) -> float:
    """Sliced Wasserstein-p distance of (N, ...) and (M, ...): (mean over random directions of W_p^p along them)^(1/p) (Bonneel et al. 2015)."""
    x, y = _points("x", x, 1), _points("y", y, 1)
    _same_width(x, y, ("x", "y"))
    directions = torch.randn(x.shape[1], check_count("projections", projections), generator=generator, dtype=torch.float64).to(x.device)
    directions = directions / directions.norm(dim=0)                                    # (F, P)
    return float(_quantile_cost(x @ directions, y @ directions, p).mean() ** (1 / p))


def accuracy(scores: Tensor, labels: Tensor) -> Estimate:
    """Share of rows of ``scores`` (N, classes) whose largest entry is at ``labels`` (N,), with its binomial standard error."""
    check_tensor("scores", scores, 2)
    if labels.shape != scores.shape[:1]:
        raise ValueError(f"labels has shape {tuple(labels.shape)}; expected ({len(scores)},): one label a row of scores.")
    share = float((scores.argmax(1) == labels).double().mean())
    return Estimate(share, (share * (1 - share) / len(scores)) ** 0.5)


def nearest_neighbours(samples: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """For each sample (N, ...) the distance (N,) float64 to, and the index (N,) of, the nearest training picture (M, ...)."""
    x, y = _points("samples", samples, 1), _points("train", train, 1)
    _same_width(x, y, ("samples", "train"))
    nearest = [torch.cdist(part, y, compute_mode="donot_use_mm_for_euclid_dist").min(1) for part in x.split(1024)]
    return torch.cat([part.values for part in nearest]), torch.cat([part.indices for part in nearest])


def memorisation_ratio(samples: Tensor, train: Tensor, held_out: Tensor, *, generator: torch.Generator | None = None) -> Estimate:
    """Median distance of samples to their nearest training picture over that of held-out real ones.

    1: samples are as far from the training set as fresh data is; well below 1: they are copies; 0: exact copies. The standard
    error is by bootstrap over samples and held-out pictures. Arguments (N, ...), (M, ...), (L, ...): pixels or features.
    """
    near, usual = nearest_neighbours(samples, train)[0], nearest_neighbours(held_out, train)[0]
    return bootstrap(lambda a, b: float(a.median() / b.median()), near, usual, generator=generator)


def bootstrap(statistic: Callable[..., float], *data: Tensor, repeats: int = 200, generator: torch.Generator | None = None) -> Estimate:
    """``statistic(*data)`` and its standard error: the spread over data sets drawn from each of ``data`` (N, ...) with replacement.

    Not for statistics that see ties, as nearest-neighbour distances within a set do (Efron 1979; Bickel et al. 1997).
    """
    drawn = []
    for _ in range(check_count("repeats", repeats, 2)):
        picks = (torch.randint(len(x), (len(x),), generator=generator).to(x.device) for x in data)
        drawn.append(float(statistic(*(x[pick] for x, pick in zip(data, picks, strict=True)))))
    return Estimate(float(statistic(*data)), float(torch.tensor(drawn, dtype=torch.float64).std()))


__all__ = [
    "MMD", "DigitFrechet", "Estimate", "PrecisionRecall", "accuracy", "bootstrap", "digit_accuracy", "digit_classifier", "digit_features",
    "digit_frechet", "digit_scores", "frechet_distance", "frechet_floor", "gaussian_frechet", "memorisation_ratio", "mmd",
    "nearest_neighbours", "precision_recall", "sliced_wasserstein", "wasserstein_1d",
]
