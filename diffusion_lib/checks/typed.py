"""What several judges of the coursework share: random settings, quadrature, and what they ask of an answer before they look at its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, seeded, true_for_all
from diffusion_lib.checks.core import OpenAnswer, WrongAnswer, is_open


def parts(answer: Callable[..., Any], number: int, what: str, *args: Any) -> tuple[Any, ...]:
    """The reader's function at ``args``, as a tuple of ``number`` values; ``what`` names them."""
    result = call(answer, *args)
    if not isinstance(result, (tuple, list)) or len(result) != number:
        given = f"{len(result)} values" if isinstance(result, (tuple, list)) else f"a {type(result).__name__}"
        raise WrongAnswer(f"Your function returned {given}; expected {number}: {what}.")
    if any(is_open(part) for part in result):
        raise OpenAnswer
    return tuple(result)


def tensor(value: Any, shape: Sequence[int], what: str) -> Tensor:
    """``value`` in float64. Errors: WrongAnswer for another shape, NaN or infinity."""
    try:
        found = torch.as_tensor(value).detach().to(torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise WrongAnswer(f"{what} is a {type(value).__name__}; expected a tensor of shape {tuple(shape)}.") from None
    if found.shape != tuple(shape):
        raise WrongAnswer(f"{what} has shape {tuple(found.shape)}; expected {tuple(shape)}.")
    true_for_all(found.isfinite(), f"{what} holds NaN or infinity.")
    return found


def uniform(seed: int, *bounds: tuple[float, float]) -> list[float]:
    """One draw in each of the (low, high)."""
    draws = torch.rand(len(bounds), generator=seeded(seed), dtype=torch.float64).tolist()
    return [low + (high - low) * u for (low, high), u in zip(bounds, draws, strict=True)]


def numbers(value: Any, like: Tensor, name: str) -> Tensor:
    """A student's tensor in float64, of the shape of ``like``. Errors: WrongAnswer for another shape, NaN or infinity."""
    value = torch.as_tensor(value).detach().to(torch.float64)
    true_for_all(value.shape == like.shape, f"{name} has shape {tuple(value.shape)}; expected {tuple(like.shape)}: one number for each entry of x.")
    true_for_all(value.isfinite(), f"{name} holds NaN or infinity: look for a division by zero or the logarithm of a negative number.")
    return value


def hermite(n: int) -> tuple[Tensor, Tensor]:
    """n nodes and weights, each (n,), for the mean over N(0, 1); exact for polynomials up to degree 2n - 1 (Golub & Welsch 1969)."""
    off = torch.arange(1, n, dtype=torch.float64).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return values, vectors[0] ** 2
