"""The Fréchet distance on named features, and the floor that perfect samples would get."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.data.digits import digits
from diffusion_lib.features import digit_features
from diffusion_lib.metrics.estimates import Estimate, points, same_width
from diffusion_lib.validate import check_count


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
    a, b = points("features_a", features_a), points("features_b", features_b)
    same_width(a, b, ("features_a", "features_b"))
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
    x = points("features", features)
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
