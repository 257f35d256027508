"""Inpainting without training: put the known part back after each step, and (RePaint) let the rest come to terms with it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.denoisers import Denoiser
from diffusion_lib.samplers._walk import check_start, evaluate
from diffusion_lib.samplers.ddim import ddim_coefficients, ddim_step
from diffusion_lib.schedules import Schedule
from diffusion_lib.transitions import forward_kernel
from diffusion_lib.validate import check_count, check_finite, check_same_shape


def inpaint(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    known: Tensor,
    mask: Tensor,
    resample: int = 1,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """Ancestral sampling from x_T = ``x`` (B, ...) in which the known part is replaced, freshly noised, at every time: N + 1 states.

    known: data like x (B, ...), read where ``mask`` is True (bool, broadcasts to x). resample = 1 is the replacement trick (Song et
    al. 2021, SDE, Sec. 5): biased, since the unknown part hears of the known part only through the denoiser. resample > 1 is
    RePaint (Lugmayr et al. 2022, Algorithm 1 with jump length 1): each step but the last is taken ``resample`` times, with the
    forward step back up in between; the bias goes as ``resample`` grows. Book (5.35). (N - 1) * resample + 1 evaluations on a grid that ends at 0.
    ValueError for a bad grid, a mask that is not boolean, shapes that differ, or resample < 1.
    """
    times = check_start(x, times, schedule)
    check_same_shape("known", check_finite("known", known), "x", x)
    check_count("resample", resample)
    mask = _check_mask(mask, x)
    return _walk(denoiser, schedule, x, times, known.to(x), mask, resample, generator, condition)


def _check_mask(mask: Tensor, x: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        given = f"dtype {mask.dtype}" if isinstance(mask, Tensor) else f"type {type(mask).__name__}"
        raise ValueError(f"mask has {given}; expected a torch.bool tensor, True where x is known: use mask > 0.5.")
    if mask.ndim > x.ndim or any(m not in (1, n) for m, n in zip(mask.shape[::-1], x.shape[::-1], strict=False)):
        raise ValueError(
            f"mask has shape {tuple(mask.shape)} and x has shape {tuple(x.shape)}; expected one that broadcasts to x, "
            "such as (H, W) for pictures (B, C, H, W)."
        )
    return mask.to(x.device).expand_as(x)


@torch.no_grad()
def _walk(denoiser, schedule, x, times, known, mask, resample, generator, condition) -> Iterator[Tensor]:
    alpha, sigma = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    back, added = forward_kernel(schedule, times[1:], times[:-1])
    back, added, times_ = back.tolist(), added.sqrt().tolist(), times.tolist()

    def replace(x: Tensor, k: int) -> Tensor:
        noisy = alpha[k] * known
        if sigma[k] > 0:
            noisy = noisy + sigma[k] * noise.randn_like(x, generator)
        return torch.where(mask, noisy, x)

    x = replace(x, 0)
    yield x
    for k, (a, b, c) in enumerate(ddim_coefficients(schedule, times, eta=1.0)):
        repeats = resample if sigma[k + 1] > 0 else 1
        for repeat in range(repeats):
            x = replace(ddim_step(x, evaluate(denoiser, x, times_[k], condition), a, b, c, generator), k + 1)
            if repeat + 1 < repeats:
                x = back[k] * x + added[k] * noise.randn_like(x, generator)
        yield x
