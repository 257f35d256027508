"""2-D point sets to see a method work on: (n, 2) float32, mean 0 and standard deviation 1 along each axis.

Each set is a curve or a patch, drawn by two uniform numbers, plus round Gaussian noise. The population's mean and standard
deviation (not the sample's) are taken out, so that a set is the same distribution for every n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from diffusion_lib.validate import check_choice, check_count


def _two_moons(u: Tensor) -> Tensor:
    upper, angle = u[:, 0] < 0.5, math.pi * u[:, 1]
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack([x, y], 1)


def _swiss_roll(u: Tensor) -> Tensor:
    angle = 1.5 * math.pi * (1 + 2 * u[:, 0].sqrt())                    # the root spreads points evenly along the roll
    return torch.stack([angle * angle.cos(), angle * angle.sin()], 1)


def _rings(u: Tensor) -> Tensor:
    radius, angle = (3 * u[:, 0]).floor() + 1, 2 * math.pi * u[:, 1]    # 1, 2 or 3, equally often
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def _checkerboard(u: Tensor) -> Tensor:
    x, y = 4 * u[:, 0], 2 * u[:, 1]                                     # 4 columns, 2 dark squares in each
    return torch.stack([x, y + y.floor() + x.floor() % 2], 1)


def _spirals(u: Tensor) -> Tensor:
    sign, angle = torch.where(u[:, 0] < 0.5, 1.0, -1.0), 3 * math.pi * u[:, 1].sqrt()
    return torch.stack([sign * angle * angle.cos(), sign * angle * angle.sin()], 1)


def _eight_gaussians(u: Tensor) -> Tensor:
    angle = (8 * u[:, 0]).floor() * (math.pi / 4)
    return torch.stack([4 * angle.cos(), 4 * angle.sin()], 1)


SETS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {           # name: (curve, standard deviation of its noise)
    "two_moons": (_two_moons, 0.08),
    "swiss_roll": (_swiss_roll, 0.45),
    "rings": (_rings, 0.08),
    "checkerboard": (_checkerboard, 0.0),
    "spirals": (_spirals, 0.25),
    "eight_gaussians": (_eight_gaussians, 0.4),
}


@cache
def _moments(name: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (2,) of a set's population, by the midpoint rule on a 960 x 960 grid of its two uniforms."""
    curve, noise = SETS[name]
    ticks = (torch.arange(960, dtype=torch.float64) + 0.5) / 960
    points = curve(torch.cartesian_prod(ticks, ticks))
    return points.mean(0), (points.var(0, unbiased=False) + noise**2).sqrt()


def toy(name: str, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw ``n`` points of the 2-D set ``name``: (n, 2), mean 0 and standard deviation 1 along each axis.

    name: "two_moons" | "swiss_roll" | "rings" | "checkerboard" | "spirals" | "eight_gaussians"
    n: how many, >= 1
    generator: a CPU generator; None is torch's default one
    Errors: ValueError for an unknown name or n < 1.
    """
    curve, noise = SETS[check_choice("name", name, SETS)]
    check_count("n", n)
    mean, std = _moments(name)
    u = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    points = curve(u) + noise * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return ((points - mean) / std).to(dtype)                            # (n, 2)


def two_moons(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Two interleaved half circles, (n, 2): see `toy`."""
    return toy("two_moons", n, generator)


def swiss_roll(n: int, generator: torch.Generator | None = None) -> Tensor:
    """A strip rolled up one and a half times, (n, 2): see `toy`."""
    return toy("swiss_roll", n, generator)


def rings(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Three rings of radius 1 : 2 : 3 with equal weights, (n, 2): see `toy`."""
    return toy("rings", n, generator)


def checkerboard(n: int, generator: torch.Generator | None = None) -> Tensor:
    """The eight dark squares of a 4 x 4 board, uniform and with sharp edges, (n, 2): see `toy`."""
    return toy("checkerboard", n, generator)


def spirals(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Two arms of a spiral, each the other turned by half a circle, (n, 2): see `toy`."""
    return toy("spirals", n, generator)


def eight_gaussians(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Eight round Gaussians on a circle (radius : standard deviation = 10 : 1), equal weights, (n, 2): see `toy`."""
    return toy("eight_gaussians", n, generator)
