"""Numbers with their standard errors, and what the metrics demand of their input."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.validate import check_count, check_finite, check_tensor


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    se: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.se:.2g}"


def points(name: str, x: Tensor, least: int = 2) -> Tensor:
    """(N, ...) as (N, F) float64, finite, at least ``least`` rows."""
    check_tensor(name, x)
    if x.ndim == 0 or len(x) < least:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected at least {least} samples along the first axis: draw more.")
    return check_finite(name, x.detach().to(torch.float64).reshape(len(x), -1))


def same_width(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{names[0]} has {a.shape[1]} numbers a sample and {names[1]} has {b.shape[1]}; expected as many: "
                         "take both from one feature extractor.")


def accuracy(scores: Tensor, labels: Tensor) -> Estimate:
    """Share of rows of ``scores`` (N, classes) whose largest entry is at ``labels`` (N,), with its binomial standard error."""
    check_tensor("scores", scores, 2)
    if labels.shape != scores.shape[:1]:
        raise ValueError(f"labels has shape {tuple(labels.shape)}; expected ({len(scores)},): one label a row of scores.")
    share = float((scores.argmax(1) == labels).double().mean())
    return Estimate(share, (share * (1 - share) / len(scores)) ** 0.5)


def bootstrap(statistic: Callable[..., float], *data: Tensor, repeats: int = 200, generator: torch.Generator | None = None) -> Estimate:
    """``statistic(*data)`` and its standard error: the spread over data sets drawn from each of ``data`` (N, ...) with replacement.

    Not for statistics that see ties, as nearest-neighbour distances within a set do (Efron 1979; Bickel et al. 1997).
    """
    drawn = []
    for _ in range(check_count("repeats", repeats, 2)):
        picks = (torch.randint(len(x), (len(x),), generator=generator).to(x.device) for x in data)
        drawn.append(float(statistic(*(x[pick] for x, pick in zip(data, picks, strict=True)))))
    return Estimate(float(statistic(*data)), float(torch.tensor(drawn, dtype=torch.float64).std()))
