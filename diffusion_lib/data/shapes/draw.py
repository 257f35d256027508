"""Drawing scenes: each shape is a signed distance, each pixel the share of it that the shape covers.

A shape is stated once, as its signed distance d (in units of its radius: negative inside). A pixel whose centre has distance d to the edge,
counted in pixels, is covered by clamp(1/2 - d, 0, 1): exact for an upright edge, and right on average for any straight edge. What is left is
the error at corners and bends: a drawn area nears the closed form as 1/size² for straight outlines and as 1/size^1.5 for round ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_lib.data.shapes.world import COLOURS, MOST, SHAPES, SIZES, Scene
from diffusion_lib.validate import check_count

ARM = 0.34                                  # half the width of a cross's arms, in units of its radius
HOLE = 0.55                                 # radius of a ring's hole
DENT = 0.45                                 # radius of a star's inner corners
BACKGROUND = 0.0                            # mid-grey in [-1, 1], each channel
LEAST_SIZE = 8                              # pixels a side: below this nothing can be told apart
AREA = {                                    # closed forms, in units of radius²
    "circle": math.pi,
    "square": 2.0,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 5 * DENT * math.sin(math.pi / 5),
    "cross": 8 * ARM * math.sqrt(1 - ARM**2) - 4 * ARM**2,
    "ring": math.pi * (1 - HOLE**2),
    "diamond": 2.0,                         # a square on its tip: no shape of this world, but the judge must know it from a circle
}


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt() - 1


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - math.sqrt(0.5)


def _triangle(x: Tensor, y: Tensor) -> Tensor:                          # y points down; one corner on top
    return torch.maximum(y, math.sqrt(0.75) * x.abs() - 0.5 * y) - 0.5


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Five tips, one on top: fold the plane into one tenth of a turn, in which the outline is one straight line."""
    tenth = math.pi / 5
    angle = torch.atan2(x, -y)                                          # 0 at the upper tip
    angle = (angle - 2 * tenth * (angle / (2 * tenth)).round()).abs()   # 0 at a tip, pi/5 at a dent
    r = (x * x + y * y).sqrt()
    along, across = DENT * math.cos(tenth) - 1, DENT * math.sin(tenth)  # from the tip (1, 0) to the dent
    return ((r * angle.cos() - 1) * across - r * angle.sin() * along) / math.hypot(along, across)


def _cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.maximum(torch.maximum(x, y) - math.sqrt(1 - ARM**2), torch.minimum(x, y) - ARM)


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return ((x * x + y * y).sqrt() - (1 + HOLE) / 2).abs() - (1 - HOLE) / 2


def _diamond(x: Tensor, y: Tensor) -> Tensor:
    return (x.abs() + y.abs() - 1) * math.sqrt(0.5)


DISTANCE = dict(circle=_circle, square=_square, triangle=_triangle, star=_star, cross=_cross, ring=_ring, diamond=_diamond)


def coverage(shape: str, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Share of each pixel that a shape covers, in [0, 1], like x.

    x, y: places of pixel centres relative to the shape's centre, in pixels, y downwards; radius: in pixels, broadcast against x
    """
    return (0.5 - radius * DISTANCE[shape](x / radius, y / radius)).clamp(0, 1)


def draw(scenes: Scene | Sequence[Scene], size: int = 32) -> Tensor:
    """Pictures (N, 3, size, size) float32 in [-1, 1] of N scenes, on plain mid-grey; one `Scene` gives N = 1. It draws no random number.

    size: pixels a side, >= 8; the judge reads pictures of 24 and more
    Errors: ValueError for no scene at all or a size below 8.
    """
    scenes = [scenes] if isinstance(scenes, Scene) else list(scenes)
    check_count("size", size, LEAST_SIZE)
    if not scenes:
        raise ValueError("No scene was given; expected at least one: draw some with sample_scenes(n).")
    pictures = torch.full((len(scenes), 3, size, size), BACKGROUND)
    ticks = torch.arange(size) + 0.5
    for layer in range(MOST):                                           # the first things of all scenes, then the second ones
        for shape in SHAPES:
            rows = [i for i, scene in enumerate(scenes) if len(scene.things) > layer and scene.things[layer].shape == shape]
            if not rows:
                continue
            things = [scenes[i].things[layer] for i in rows]
            x, y, radius = size * torch.tensor([(t.x, t.y, SIZES[t.size]) for t in things]).T[:, :, None, None]     # each (n, 1, 1)
            covered = coverage(shape, *torch.broadcast_tensors(ticks - x, ticks[:, None] - y), radius)[:, None]     # (n, 1, H, W)
            colour = torch.tensor([COLOURS[t.colour] for t in things])[:, :, None, None]                            # (n, 3, 1, 1)
            pictures[rows] = torch.lerp(pictures[rows], colour, covered)
    return pictures
