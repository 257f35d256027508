"""What samples cover, and whether they are copies: precision and recall, nearest neighbours."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.metrics.estimates import Estimate, bootstrap, points, same_width
from diffusion_lib.validate import check_count


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
    real, samples = points("real", real, k + 1), points("samples", samples, k + 1)
    same_width(real, samples, ("real", "samples"))

    def radii(x: Tensor) -> Tensor:
        return torch.cdist(x, x).kthvalue(k + 1, dim=1).values                          # the nearest of all is the point itself

    between = torch.cdist(real, samples)                                                # (N, M)
    precision = (between <= radii(real)[:, None]).any(0).double().mean()
    recall = (between <= radii(samples)[None, :]).any(1).double().mean()
    return PrecisionRecall(float(precision), float(recall))


def nearest_neighbours(samples: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """For each sample (N, ...) the distance (N,) float64 to, and the index (N,) of, the nearest training picture (M, ...)."""
    x, y = points("samples", samples, 1), points("train", train, 1)
    same_width(x, y, ("samples", "train"))
    nearest = [torch.cdist(part, y, compute_mode="donot_use_mm_for_euclid_dist").min(1) for part in x.split(1024)]
    return torch.cat([part.values for part in nearest]), torch.cat([part.indices for part in nearest])


def memorisation_ratio(samples: Tensor, train: Tensor, held_out: Tensor, *, generator: torch.Generator | None = None) -> Estimate:
    """Median distance of samples to their nearest training picture over that of held-out real ones.

    1: samples are as far from the training set as fresh data is; well below 1: they are copies; 0: exact copies. The standard
    error is by bootstrap over samples and held-out pictures. Arguments (N, ...), (M, ...), (L, ...): pixels or features.
    """
    near, usual = nearest_neighbours(samples, train)[0], nearest_neighbours(held_out, train)[0]
    return bootstrap(lambda a, b: float(a.median() / b.median()), near, usual, generator=generator)
