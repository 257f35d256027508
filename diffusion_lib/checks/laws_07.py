"""What the judges of coursework 7 compare with: two-look preconditioning, widths and orders from reference walks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, seeded
from diffusion_lib.checks.core import WrongAnswer
from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture
from diffusion_lib.samplers import ddim, final
from diffusion_lib.schedules import EDMSchedule


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One draw in (low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def left_over(a: Tensor, b: Tensor, data: float, first: Tensor, second: float) -> Tensor:
    """E (x_0 - a xbar - b y)^2 from the variances of x_0 and of the two independent noises."""
    return (1 - a - b) ** 2 * data + a**2 * first + b**2 * second


def steady(ratio: Tensor, within: float = 0.25) -> bool:
    """The same at all levels, nearly: a bump is not a point."""
    return bool((ratio / ratio.mean() - 1).abs().max() < within)


class Gaussian:
    """Data N(mean, spread^2 I) with everything known: its denoiser, and the flow, in x/alpha at a level."""

    def __init__(self, mean: Tensor, spread: float):
        self.mean, self.spread = mean, spread

    def denoise(self, x: Tensor, level: float) -> Tensor:
        return self.mean + self.spread**2 / (self.spread**2 + level**2) * (x - self.mean)

    def flow(self, x: Tensor, level: float, end: float) -> Tensor:
        return self.mean + (x - self.mean) * ((self.spread**2 + end**2) / (self.spread**2 + level**2)) ** 0.5


class Straight:
    """F(u, psi) = a + slope psi."""

    def __init__(self, a: Tensor, slope: Tensor):
        self.a, self.slope = a, slope

    def __call__(self, u: Tensor, psi: float) -> Tensor:
        return self.a + self.slope * psi


class RawGaussian:
    """The raw network of (7.3) that is exact for Gaussian data."""

    def __init__(self, data: Gaussian, size: float):
        self.data, self.size = data, size

    def __call__(self, u: Tensor, psi: float) -> Tensor:
        xbar, level = u * self.size / math.cos(psi), self.size * math.tan(psi)
        c_skip, c_out = (1 / (1 + (level / self.size) ** 2), level * self.size / (level**2 + self.size**2) ** 0.5)
        return (self.data.denoise(xbar, level) - c_skip * xbar) / c_out


TOO_OFTEN = "F was asked"


class Counted:
    """F with a limit on its calls."""

    def __init__(self, F: Callable[[Tensor, float], Tensor], most: int):
        self.F, self.left, self.most = F, most, most

    def __call__(self, u: Tensor, psi: float) -> Tensor:
        if self.left == 0:
            raise RuntimeError(f"{TOO_OFTEN} {self.most + 1} times in a walk of {self.most} steps; expected one call a step.")
        self.left -= 1
        return self.F(u, psi)


def walked(answer, F: Callable[[Tensor, float], Tensor], steps: int, *rest) -> Tensor:
    """The answer's end, with one call of F a step allowed. (Between the two processes the name of the exception survives, not its class.)"""
    try:
        return call(answer, Counted(F, steps), *rest)
    except RuntimeError as problem:
        if str(problem).startswith(TOO_OFTEN):
            raise WrongAnswer(str(problem)) from None
        raise


def ddim_width_of(levels: Tensor, ell: float) -> float:
    """The width that the library's DDIM gives to Gaussian data, over the right one."""
    edm = EDMSchedule(sigma_max=max(80.0, float(levels[0])))
    data = GaussianMixture(torch.ones(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64), torch.tensor([ell**2], dtype=torch.float64))
    x = torch.ones(1, 1, dtype=torch.float64)
    end = float(final(ddim(ExactDenoiser(data, edm), edm, x, edm.time_of_log_snr(-levels.log()) if levels[-1] > 0 else torch.cat(
        [edm.time_of_log_snr(-levels[:-1].log()), torch.zeros(1, dtype=torch.float64)]))))
    return end / float((ell**2 + levels[-1] ** 2) / (ell**2 + levels[0] ** 2)) ** 0.5


class Walk:
    """walk(N): ends (B, ...) with an error of order p that is known, and a few paths on which any N gives something else."""

    def __init__(self, order: int, seed: int, shape: tuple[int, ...]):
        generator = seeded(seed)
        self.order, self.seed = order, seed
        self.truth, self.error = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        self.lost = torch.rand(shape[0], generator=generator) < 0.06

    def __call__(self, N: int) -> Tensor:
        near = self.truth + self.error * (N**-self.order) * (1 + 0.2 / N)
        far = torch.randn(self.truth.shape, generator=seeded(self.seed * 1000 + int(N)), dtype=torch.float64)
        return torch.where(self.lost.reshape(-1, *[1] * (near.ndim - 1)), near + 3 * far, near)


def by_means(walk: Walk, N: int) -> list[float]:
    """What one finds with a mean over the paths in the median's place: of sizes, of their squares, of ratios, of logs."""
    ends = [walk(n).flatten(1) for n in (N, 2 * N, 4 * N)]
    first, second = ((a - b).norm(dim=1) for a, b in zip(ends[:-1], ends[1:], strict=True))
    return [float(found) for found in ((first.mean() / second.mean()).log2(), (first.norm() / second.norm()).log2(),
                                       (first / second).mean().log2(), (first / second).log2().mean())]
