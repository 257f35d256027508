"""Several values of known shapes: what judges ask of an answer before they look at its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, true_for_all
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
