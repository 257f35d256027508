"""The problems of ``solvers.py``: mixtures whose probability-flow ODE can be solved far more exactly than any solver under test."""

from __future__ import annotations

import math

import torch
from scipy.integrate import solve_ivp

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture
from diffusion_lib.schedules import EDMSchedule

HIGHEST = 80.0
SCHEDULE = EDMSchedule(HIGHEST)


def five_clouds() -> GaussianMixture:
    """Five round components on the unit circle."""
    angle = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5
    spread = torch.tensor([0.05, 0.1, 0.15, 0.2, 0.1], dtype=torch.float64)
    weights = torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1], dtype=torch.float64)
    return GaussianMixture(weights, torch.stack([angle.cos(), angle.sin()], 1), spread**2)


def gaussian(power: float = 1.5, mean: float = 0.3) -> GaussianMixture:
    """One Gaussian in 64 dimensions whose variances fall as k^-power and average 0.25."""
    variances = torch.arange(1, 65, dtype=torch.float64) ** -power
    return GaussianMixture(torch.ones(1, dtype=torch.float64), torch.full((1, 64), mean, dtype=torch.float64), (0.25 * variances / variances.mean())[None])


def random_clouds(seed: int) -> GaussianMixture:
    """Seven round components at random places (standard deviation 0.7), spreads log-uniform in [0.05, 0.2]: for tuning."""
    generator = torch.Generator().manual_seed(seed)
    means = 0.7 * torch.randn(7, 2, generator=generator, dtype=torch.float64)
    spread = 0.05 * 4 ** torch.rand(7, generator=generator, dtype=torch.float64)
    weights = 0.3 + torch.rand(7, generator=generator, dtype=torch.float64)
    return GaussianMixture(weights / weights.sum(), means, spread**2)


def random_ring(count: int, seed: int) -> GaussianMixture:
    """``count`` round components on the unit circle at a random angle, spreads as in ``random_clouds``: for tuning."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.rand(1, generator=generator, dtype=torch.float64)
    angle = 2 * math.pi * (torch.arange(count, dtype=torch.float64) / count + turn)
    spread = 0.05 * 4 ** torch.rand(count, generator=generator, dtype=torch.float64)
    weights = 0.3 + torch.rand(count, generator=generator, dtype=torch.float64)
    return GaussianMixture(weights / weights.sum(), torch.stack([angle.cos(), angle.sin()], 1), spread**2)


class Problem:
    """A mixture, starts 80 z, and where the exact ODE carries them (``exact``)."""

    def __init__(self, name: str, mixture: GaussianMixture, seed: int, starts: int = 512):
        self.name, self.mixture = name, mixture
        self.denoiser = ExactDenoiser(mixture, SCHEDULE)
        self.start = HIGHEST * torch.randn(starts, mixture.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.size = math.sqrt(float(mixture.covariance().diagonal().sum() + mixture.mean().square().sum()))
        if len(mixture.weights) == 1:
            variance = mixture.variances[0]
            self.exact = mixture.means[0] + (self.start - mixture.means[0]) * (variance / (variance + HIGHEST**2)).sqrt()
        else:
            self.exact = self.adaptive()

    def denoise(self, x: torch.Tensor, level: float) -> torch.Tensor:
        return self.denoiser(x, x.new_full((len(x),), min(level / HIGHEST, 1.0)))

    def adaptive(self, lowest: float = 1e-7) -> torch.Tensor:
        """Dormand and Prince's pair of order 8 with step control, in log level, down to 1e-7; then x0_hat, which is exact to 1e-14 there."""

        def speed(u, flat):
            x = torch.from_numpy(flat).view_as(self.start)
            return (x - self.denoise(x, math.exp(u))).flatten().numpy()

        ends = math.log(HIGHEST), math.log(lowest)
        found = solve_ivp(speed, ends, self.start.flatten().numpy(), method="DOP853", rtol=1e-13, atol=1e-14)
        return self.denoise(torch.from_numpy(found.y[:, -1].copy()).view_as(self.start), lowest)

    def fixed(self, steps: int, lowest: float = 1e-7, detail: float = 0.05) -> torch.Tensor:
        """Classical Runge-Kutta of order 4 with equal steps in asinh(level / detail): another method in another variable, as a check."""

        def speed(u, x):
            level = detail * math.sinh(u)
            return detail * math.cosh(u) * (x - self.denoise(x, level)) / level

        u, x = math.asinh(HIGHEST / detail), self.start
        h = (math.asinh(lowest / detail) - u) / steps
        for _ in range(steps):
            a = speed(u, x)
            b = speed(u + h / 2, x + h / 2 * a)
            c = speed(u + h / 2, x + h / 2 * b)
            x = x + h / 6 * (a + 2 * b + 2 * c + speed(u + h, x + h * c))
            u += h
        return self.denoise(x, lowest)

    def distances(self, x: torch.Tensor) -> torch.Tensor:
        """Each path's distance to the exact end, in units of the data's size: (starts,)."""
        return (x - self.exact).norm(dim=1) / self.size
