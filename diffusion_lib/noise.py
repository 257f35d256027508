"""Random draws from an explicit generator, on whatever device the data lives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def randn(
    shape: Sequence[int], generator: torch.Generator | None = None, device=None, dtype: torch.dtype | None = None
) -> Tensor:
    """Standard normal draws of ``shape``, made on the generator's device and moved to ``device``.

    A CPU generator therefore gives the same numbers whether the data is on the CPU or on an accelerator.
    """
    source = generator.device if generator is not None else device
    return torch.randn(tuple(shape), generator=generator, device=source, dtype=dtype).to(device)


def rand(
    shape: Sequence[int], generator: torch.Generator | None = None, device=None, dtype: torch.dtype | None = None
) -> Tensor:
    """Uniform draws in [0, 1) of ``shape``; device and generator as in :func:`randn`."""
    source = generator.device if generator is not None else device
    return torch.rand(tuple(shape), generator=generator, device=source, dtype=dtype).to(device)


def randn_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal draws with the shape, dtype and device of ``x``."""
    return randn(x.shape, generator, x.device, x.dtype)
