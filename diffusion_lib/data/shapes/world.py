"""The world S: one to three coloured shapes on plain grey, drawn at random without end and without a licence.

A `Thing` is a colour, a shape, a size and a place; a `Scene` holds one to three of them. Places are (x, y) in [0, 1], x from the left
edge and y from the **top** edge, as pixels are counted. A size is the radius of the circle around the shape, so that all shapes of one
size are equally far across. Things keep `GAP` between those circles and `MARGIN` from the border, and are never turned.

Some combinations of colour, shape and size are never trained on (see `held_out`): they test whether a model composes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lib.validate import check_choice, check_count, check_number

# Values in [-1, 1]; the background is mid-grey, 0 in each channel. The colours lie near the corners of the RGB cube: seen from grey,
# any two are more than 55 degrees apart. A pixel on the edge of a shape lies between grey and the shape's colour, so in the same direction.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, -0.7, -0.7), "green": (-0.75, 0.6, -0.75), "blue": (-0.7, -0.55, 0.95), "yellow": (0.95, 0.8, -0.8),
    "purple": (0.65, -0.8, 0.75), "cyan": (-0.75, 0.75, 0.85), "white": (0.95, 0.95, 0.95), "black": (-0.95, -0.95, -0.95),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = {"small": 0.14, "large": 0.21}                                  # radius of the circle around the shape, in picture widths
MOST = 3                                                                # things in a scene
GAP = 0.04                                                              # least distance between two of those circles
MARGIN = 1 / 32                                                         # least distance of a circle from the border
SPLITS = ("seen", "unseen", "unseen_pair", "unseen_size", "all")
TWINS = 0.25                                                            # share of scenes of two or three with equal things: "three red circles"


@dataclass(frozen=True)
class Thing:
    """A coloured shape: names of its colour, shape and size, and its centre (x, y), x from the left, y from the top, in [0, 1]."""

    colour: str
    shape: str
    size: str
    x: float
    y: float

    def __post_init__(self) -> None:
        for name, value, options in (("colour", self.colour, COLOURS), ("shape", self.shape, SHAPES), ("size", self.size, SIZES)):
            if value not in options:
                check_choice(name, value, options)
        for name, place in (("x", self.x), ("y", self.y)):
            if not 0 <= check_number(name, place) <= 1:
                raise ValueError(f"{name}={place!r} was given; expected a place in [0, 1], from the left (x) or the top (y) of the picture.")

    @property
    def radius(self) -> float:
        """Radius of the circle around it, in picture widths."""
        return SIZES[self.size]

    @property
    def combination(self) -> tuple[str, str, str]:
        """(colour, shape, size)."""
        return self.colour, self.shape, self.size

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """One to three things; ValueError for another number. Their order means nothing, except that later ones are drawn over earlier ones."""

    things: tuple[Thing, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "things", tuple(self.things))
        if not 1 <= len(self.things) <= MOST:
            raise ValueError(f"The scene has {len(self.things)} things; expected one to three: leave some out, or make two scenes.")


def held_out(colour: str, shape: str, size: str) -> str | None:
    """Why the combination is never trained on: "unseen_pair", "unseen_size", or None if it is trained on.

    Let k = (number of the colour in `COLOURS` + number of the shape in `SHAPES`) modulo 8. k = 0: the colour never comes with this shape,
    in any size (6 pairs, 12 combinations). k = 4: it comes with this shape in one size only; large is held out for a colour of even number,
    small for one of odd number (6 combinations). So 18 of 96 are held out, and every colour, shape and size is seen on its own.
    """
    number = list(COLOURS).index(colour)
    k = (number + SHAPES.index(shape)) % 8
    if k == 0:
        return "unseen_pair"
    return "unseen_size" if k == 4 and size == ("large", "small")[number % 2] else None


COMBINATIONS: dict[str, list[tuple[str, str, str]]] = {"all": list(itertools.product(COLOURS, SHAPES, SIZES))}
COMBINATIONS |= {kind: [c for c in COMBINATIONS["all"] if held_out(*c) == kind] for kind in ("unseen_pair", "unseen_size")}
COMBINATIONS["unseen"] = COMBINATIONS["unseen_pair"] + COMBINATIONS["unseen_size"]
COMBINATIONS["seen"] = [c for c in COMBINATIONS["all"] if held_out(*c) is None]
_SEEN = frozenset(COMBINATIONS["seen"])


def is_seen(thing: Thing) -> bool:
    """Whether the thing's combination of colour, shape and size may be trained on (see `held_out`)."""
    return thing.combination in _SEEN


def keeps_distance(radius: Tensor, place: Tensor, there: Tensor) -> Tensor:
    """Whether things keep `GAP` from each other: (..., K) radii, (..., K, 2) places, (..., K) which exist -> (...) bool."""
    good = torch.ones(torch.broadcast_shapes(radius.shape, place.shape[:-1])[:-1], dtype=torch.bool)
    for i, j in itertools.combinations(range(radius.shape[-1]), 2):
        apart = (place[..., i, :] - place[..., j, :]).square().sum(-1) >= (radius[..., i] + radius[..., j] + GAP).square()
        good &= apart | ~(there[..., i] & there[..., j])
    return good


def _places(radius: Tensor, there: Tensor, generator: torch.Generator | None, tries: int = 32) -> Tensor:
    """Uniform over all places where the things keep their distance, by rejection: (N, K) radii -> (N, K, 2)."""
    place = torch.full((*radius.shape, 2), 0.5, dtype=torch.float64)
    left = torch.arange(len(radius))                                    # scenes still without places
    while len(left):
        edge = (radius[left] + MARGIN)[:, None, :, None]
        drawn = edge + (1 - 2 * edge) * torch.rand(len(left), tries, radius.shape[1], 2, generator=generator, dtype=torch.float64)
        good = keeps_distance(radius[left, None], drawn, there[left, None])         # (left, tries)
        found, first = good.any(1), good.to(torch.uint8).argmax(1)
        place[left[found]] = drawn[found, first[found]]
        left = left[~found]
    return place


def sample_scenes(n: int, *, split: str = "seen", counts: Sequence[int] = (1, 2, 3), generator: torch.Generator | None = None) -> list[Scene]:
    """Draw ``n`` scenes: how many things uniform over ``counts``, their combinations over the split's, their places over all that fit.

    split: "seen": every thing may be trained on | "unseen" | "unseen_pair" | "unseen_size": the first thing is one of those held out (its
        twins too), the others are seen | "all": no combination is left out
    counts: how many things a scene may hold, each 1 to 3. In `TWINS` of the scenes of two or more the second thing equals the first in all
        but its place, and in half of these the third does too.
    generator: a CPU generator; None is torch's default one
    Errors: ValueError for n < 1, an unknown split, an empty ``counts`` or one that holds other numbers.
    """
    check_count("n", n)
    check_choice("split", split, SPLITS)
    counts = tuple(counts)
    if not counts or not set(counts) <= {1, 2, 3}:
        raise ValueError(f"counts={counts} was given; expected some of 1, 2, 3, the numbers of things a scene can hold: pass counts=(1, 2).")
    number = torch.tensor(counts)[torch.randint(len(counts), (n,), generator=generator)]                    # (n,)
    there = torch.arange(MOST) < number[:, None]                                                            # (n, 3)
    others = COMBINATIONS["all" if split == "all" else "seen"]
    pool = others + COMBINATIONS.get(split, [])
    which = torch.randint(len(others), (n, MOST), generator=generator)
    if split.startswith("unseen"):
        which[:, 0] = len(others) + torch.randint(len(pool) - len(others), (n,), generator=generator)
    u = torch.rand(n, generator=generator)
    which[:, 1] = torch.where(u < TWINS, which[:, 0], which[:, 1])
    which[:, 2] = torch.where(u < TWINS / 2, which[:, 0], which[:, 2])
    radius = torch.tensor([SIZES[size] for _, _, size in pool], dtype=torch.float64)[which]                 # (n, 3)
    place = _places(radius, there, generator).tolist()
    return [Scene(tuple(Thing(*pool[k], *place[i][j]) for j, k in enumerate(row[:count])))
            for i, (row, count) in enumerate(zip(which.tolist(), number.tolist(), strict=True))]
