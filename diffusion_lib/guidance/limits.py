"""What a strong guidance does to x0_hat, and two cures: keep its spread, or keep its range."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lib.denoisers import Denoiser
from diffusion_lib.validate import check_positive


def rescaled(guided: Tensor, conditional: Tensor, share: float = 1.0) -> Tensor:
    """``guided`` (B, ...) shrunk, sample by sample, towards the standard deviation that ``conditional`` (B, ...) has over its pixels.

    x (share std(conditional) / std(guided) + 1 - share): share in [0, 1], 0 for none, 1 for the whole. A sample that is constant stays
    as it is. Book (6.22). Lin et al. 2024, Sec. 3.4, here applied to x0_hat. ValueError for a share outside [0, 1].
    """
    check_share("rescale", share)
    if share == 0:
        return guided
    spread, wanted = (_spread(x) for x in (guided, conditional))
    return guided * (share * torch.where(spread > 0, wanted / spread, 1.0) + 1 - share)


def _spread(x: Tensor) -> Tensor:
    return x.flatten(1).std(1, unbiased=False).reshape(-1, *(1,) * (x.ndim - 1))


def thresholded(denoiser: Denoiser, share: float = 0.995, limit: float = 1.0) -> Denoiser:
    """Dynamic thresholding: a denoiser whose x0_hat stays in [-limit, limit] without piling up at the ends.

    For each sample, s is the ``share``-quantile of |x0_hat| over its pixels, and at least ``limit``; x0_hat is clamped to [-s, s] and
    multiplied by limit / s. So a sample that is in range is left alone, except for its share of outliers. share in (0, 1];
    limit > 0, the largest value that data take. Costs no evaluation. Book (6.23). Saharia et al. 2022 (Imagen).
    """
    check_positive("limit", limit)
    if check_share("share", share) == 0:
        raise ValueError("share=0 was given; expected a share in (0, 1], such as 0.995: how much of |x0_hat| may stay in range.")

    def limited(x: Tensor, t: Tensor | float, **condition: Tensor) -> Tensor:
        x0_hat = denoiser(x, t, **condition)
        size = x0_hat.abs().flatten(1).to(torch.promote_types(x0_hat.dtype, torch.float32))  # quantile knows no half precision
        s = torch.quantile(size, share, dim=1).clamp(min=limit).to(x0_hat.dtype).reshape(-1, *(1,) * (x0_hat.ndim - 1))
        return x0_hat.clamp(-s, s) * (limit / s)

    return limited


def check_share(name: str, share: float) -> float:
    """Return ``share`` if it is a number in [0, 1]; else ValueError."""
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise ValueError(f"{name}={share!r} was given; expected a share in [0, 1].")
    return share
