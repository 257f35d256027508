"""The judge: reads a picture of the world S back by measurement, or says why it cannot. No network is asked.

1. A pixel belongs to the colour whose direction from grey is nearest, and its coverage is its length along that direction. (A pixel on an
   edge is a mixture of grey and one colour, which keeps that colour's direction; so no edge looks like another colour.)
2. Core pixels, covered by half or more, are joined to connected components, colour by colour: each is the core of one thing.
3. The moments of a component's coverage give its centre and, for each shape, the radius that has this area. From there a few Gauss-Newton
   steps fit the likely shapes' anti-aliased templates to the coverage. The nearest template is the shape, its radius the size. (A template
   of free strength would also fit a bump without an edge, or a blurred star as a circle; so a pale shape is refused.)
4. "Not readable" is a picture with a misfit, a radius or colour between the named ones, a thing that reaches over the border, or one that is
   not given back when what was read is drawn again: so noise, blobs and half-drawn shapes. A square on its tip, which at this size is near a
   circle, is fitted too, so as to be refused; but it must fit far better than any shape of the world, or every small cross with soft edges
   would be taken for one.

    python -m diffusion_lib.data.shapes.study

measures how often it errs, and stores the table (`judge_table`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lib.data.shapes.draw import AREA, coverage
from diffusion_lib.data.shapes.world import COLOURS, MOST, SHAPES, SIZES, Scene, Thing
from diffusion_lib.validate import check_finite, check_tensor

LEAST_SIZE = 30             # pixels a side: below, two things at the least distance can touch
CORE = 0.5                  # least coverage of a core pixel
SPECK = 6 / 1024            # least core area of a thing, in picture areas (the smallest thing, a small triangle or star, has 26 / 1024)
OFF_COLOUR = 0.6            # most distance of a thing's colour from the named one, in [-1, 1] units (two colours are 1.3 apart or more)
OFF_SIZE = 1.2              # most factor between the fitted radius and the named size's (small : large = 1 : 1.5)
OVER = 1 / 32               # most by which a thing's circle may reach over the border (in a scene it keeps 1 / 32 inside)
MISFIT = 0.18               # most |coverage - template|, averaged over neighbours first, in units of the template's area
UNEXPLAINED = 0.4           # most |picture - drawn again|, averaged over neighbours first, anywhere
FITTED = (*SHAPES, "diamond")
TRIED = 3                   # shapes that are fitted: the nearest at the moments' place
DIAMOND = 3                 # how many times smaller a diamond's sum of squares must be than any other shape's (a true one's: 4.5 or more)
STEPS = 3                   # of Gauss-Newton
NUDGE = 0.2                 # of a pixel, for the slope of a template


@dataclass(frozen=True)
class Reading:
    """What the judge sees: a scene, or the reason why there is none (then ``scene`` is None); and each thing's misfit."""

    scene: Scene | None
    reason: str | None = None
    misfit: tuple[float, ...] = field(default=(), compare=False)

    @property
    def readable(self) -> bool:
        """Whether there is a scene."""
        return self.scene is not None


def read(pictures: Tensor, batch: int = 256) -> list[Reading]:
    """Read pictures (N, 3, H, H) in [-1, 1], H >= 30: one `Reading` each. Values outside [-1, 1] are clamped.

    The places (x, y) of the things are measured, not rounded; colours, shapes and sizes are the nearest named ones.
    batch: pictures read at a time
    Errors: TypeError for no float tensor; ValueError for another shape, NaN or infinity.
    """
    check_tensor("pictures", pictures, 4)
    if pictures.shape[1] != 3 or pictures.shape[2] != pictures.shape[3] or pictures.shape[2] < LEAST_SIZE:
        raise ValueError(f"pictures has shape {tuple(pictures.shape)}; expected (N, 3, H, H) with H >= {LEAST_SIZE}: "
                         "draw larger ones, and keep the three colour channels.")
    pictures = check_finite("pictures", pictures.detach().float().cpu()).clamp(-1, 1)
    return [reading for part in pictures.split(batch) for reading in _read(part)]


def by_colour(pictures: Tensor) -> Tensor:
    """Coverage of each pixel by each colour: (N, 3, H, W) -> (N, 8, H, W); a pixel has at most one colour, the nearest in direction."""
    palette = torch.tensor(list(COLOURS.values()))                      # (8, 3)
    length = palette.norm(dim=1, keepdim=True)
    along = torch.einsum("nchw,kc->nkhw", pictures, palette / length)
    own = F.one_hot(along.argmax(1), len(palette)).permute(0, 3, 1, 2)
    return own * along.clamp_min(0) / length[:, :, None]


class Patches(NamedTuple):
    """Connected cores of one colour: its number in `marks`, its picture, its colour's number, and its area in pixels; each (C,)."""

    mark: Tensor
    picture: Tensor
    colour: Tensor
    area: Tensor
    marks: Tensor           # (N, 8, H, W): 0 where there is no core


def patches(cover: Tensor) -> Patches:
    """The connected components of core pixels of each picture and colour, the eight neighbours of a pixel counted: cover (N, 8, H, W)."""
    from scipy import ndimage

    touching = torch.zeros(3, 3, 3, 3, dtype=torch.bool)
    touching[1, 1] = True                                               # within one picture and one colour
    marks, count = ndimage.label((cover > CORE).numpy(), structure=touching.numpy())
    marks = torch.from_numpy(marks).long()
    flat = marks.flatten()
    spots = flat.nonzero()[:, 0]
    one = torch.zeros(count + 1, dtype=torch.long).index_copy_(0, flat[spots], spots)[1:]                   # one pixel of each
    _, colours, height, width = cover.shape
    return Patches(torch.arange(1, count + 1), one // (colours * height * width), one // (height * width) % colours,
                   flat.bincount(minlength=count + 1)[1:], marks)


def _read(pictures: Tensor) -> list[Reading]:
    n, size = len(pictures), pictures.shape[-1]
    cover = by_colour(pictures)
    mark, picture, colour, area, marks = patches(cover)
    large = area >= SPECK * size * size
    number = picture[large].bincount(minlength=n)
    reasons = {i: "there is nothing in it" if k == 0 else f"it has {k} patches of colour, and a scene has at most {MOST} things"
               for i, k in enumerate(number.tolist()) if not 1 <= k <= MOST}
    keep = large & (number[picture] <= MOST)
    mark, picture, colour = mark[keep], picture[keep], colour[keep]
    things: list[list[Thing]] = [[] for _ in range(n)]
    misfits: list[list[float]] = [[] for _ in range(n)]
    again = torch.zeros_like(pictures)
    if len(mark):
        own = marks[picture, colour] == mark[:, None, None]             # (C, H, W)
        fit = fit_shapes(cover[picture, colour], own, (marks[picture, colour] > 0) & ~own)
        hue = _hue(pictures[picture], own)                              # (C, 3)
        again.index_add_(0, picture, fit.drawn[:, None] * hue[:, :, None, None])
        off = (hue - torch.tensor(list(COLOURS.values()))[colour]).norm(dim=1)
        for i, c, *row in zip(picture.tolist(), colour.tolist(), fit.shape.tolist(), (fit.place / size).tolist(), fit.misfit.tolist(),
                              off.tolist(), strict=True):
            found = _thing(list(COLOURS)[c], *row)
            if isinstance(found, str):
                reasons.setdefault(i, found)
            else:
                things[i].append(found)
                misfits[i].append(row[2])
    left = _smooth(pictures - again).norm(dim=1).amax((1, 2)).tolist()
    for i, worst in enumerate(left):
        if worst > UNEXPLAINED:
            reasons.setdefault(i, f"what was read, drawn again, differs from the picture (somewhere by {worst:.2f})")
    return [Reading(None, reasons[i]) if i in reasons else Reading(Scene(tuple(things[i])), None, tuple(misfits[i])) for i in range(n)]


def _thing(colour: str, shape: int, place: list[float], misfit: float, off_colour: float) -> Thing | str:
    """The thing that was measured, or why it is none; place: (x, y, radius) in picture widths."""
    x, y, radius = place
    patch = f"the {colour} patch at ({x:.2f}, {y:.2f})"
    size = min(SIZES, key=lambda name: abs(math.log(radius / SIZES[name])))
    if off_colour > OFF_COLOUR:
        return f"{patch} is {off_colour:.2f} away from that colour"
    if misfit > MISFIT:
        return f"{patch} is like no shape (the nearest is a {FITTED[shape]}, misfit {misfit:.2f})"
    if FITTED[shape] not in SHAPES:
        return f"{patch} is a {FITTED[shape]}, which is no shape of this world"
    if abs(math.log(radius / SIZES[size])) > math.log(OFF_SIZE):
        return f"{patch} is neither small nor large (radius {radius:.3f})"
    if min(x, y, 1 - x, 1 - y) < radius - OVER:
        return f"{patch} reaches over the border (if it is a {SHAPES[shape]})"
    return Thing(colour, SHAPES[shape], size, x, y)


def _reach(size: int) -> int:
    """Pixels across a pixel and its neighbours: 3 at 32 x 32, in step with the picture's size."""
    return 2 * max(1, round(size / 32)) + 1


def _smooth(x: Tensor) -> Tensor:
    """Average over the neighbours: noise and blur shrink, a missing piece stays. (N, C, H, W)."""
    reach = _reach(x.shape[-1])
    return F.avg_pool2d(x, reach, 1, reach // 2, count_include_pad=False)


def _near(mask: Tensor) -> Tensor:
    """Whether a pixel or a neighbour is in the mask: (C, H, W) bool."""
    reach = _reach(mask.shape[-1])
    return F.max_pool2d(mask.float()[:, None], reach, 1, reach // 2)[:, 0] > 0


def _hue(pictures: Tensor, own: Tensor) -> Tensor:
    """Mean colour of those pixels of a patch that are further from grey than its average one: (C, 3, H, W), (C, H, W) -> (C, 3)."""
    length = pictures.norm(dim=1) * own
    inner = own & (length >= 0.999 * (length.sum((1, 2)) / own.sum((1, 2)))[:, None, None])
    return (pictures * inner[:, None]).sum((2, 3)) / inner.sum((1, 2))[:, None]


class Fit(NamedTuple):
    """The nearest template of each patch."""

    shape: Tensor           # (C,) number in FITTED
    place: Tensor           # (C, 3) x, y, radius in pixels
    misfit: Tensor          # (C,)
    drawn: Tensor           # (C, H, W) its coverage


def fit_shapes(cover: Tensor, own: Tensor, others: Tensor) -> Fit:
    """Fit the shapes to patches: coverage by the patch's colour, its core, and other cores of that colour, each (C, H, W)."""
    size = cover.shape[-1]
    cover = (cover * (_near(own) & (own | ~_near(others)))).clamp(0, 1)             # the patch alone: its core and the edge around it
    ticks = torch.arange(size) + 0.5
    mass = cover.sum((1, 2))
    x0, y0 = (cover.sum(1) * ticks).sum(1) / mass, (cover.sum(2) * ticks).sum(1) / mass
    half = math.ceil(SIZES["large"] * size * OFF_SIZE) + 2                          # a window that holds the largest thing
    span = torch.arange(min(2 * half, size))
    rows, columns = ((c.floor().long() - half).clamp(0, size - len(span))[:, None] + span for c in (y0, x0))        # (C, W)
    window = cover[torch.arange(len(cover))[:, None, None], rows[:, :, None], columns[:, None, :]]                  # (C, W, W)
    x, y = columns[:, None, :] + 0.5, rows[:, :, None] + 0.5
    place = torch.stack([torch.stack([x0, y0, (mass / AREA[name]).sqrt()], 1) for name in FITTED], 1)               # (C, 7, 3)
    squares = torch.stack([(window - template(name, place[:, k], x, y)).square().sum((1, 2)) for k, name in enumerate(FITTED)], 1)
    likely = torch.zeros_like(squares, dtype=torch.bool).scatter_(1, squares.topk(TRIED, 1, largest=False).indices, True)
    squares.fill_(math.inf)
    for k, name in enumerate(FITTED):
        mine = likely[:, k].nonzero()[:, 0]
        if len(mine):
            place[mine, k], squares[mine, k] = _gauss_newton(name, window[mine], x[mine], y[mine], place[mine, k], size)
    squares[:, FITTED.index("diamond")] *= DIAMOND
    shape = squares.argmin(1)
    place = place[torch.arange(len(shape)), shape]
    drawn = torch.zeros_like(cover)
    for k, name in enumerate(FITTED):
        mine = (shape == k).nonzero()[:, 0]
        if len(mine):
            drawn[mine] = template(name, place[mine], ticks, ticks[:, None])
    misfit = _smooth((cover - drawn)[:, None]).abs().sum((1, 2, 3)) / drawn.sum((1, 2)).clamp_min(1)
    return Fit(shape, place, misfit, drawn)


def template(name: str, place: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Coverage by a shape at each place (C, 3), in pixels, at pixel centres x (..., W) and y (..., H, 1): (C, H, W)."""
    dx, dy = torch.broadcast_tensors(x - place[:, 0, None, None], y - place[:, 1, None, None])
    return coverage(name, dx, dy, place[:, 2, None, None])


def _gauss_newton(name: str, window: Tensor, x: Tensor, y: Tensor, place: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The place (C, 3) where the shape's template is nearest to the window (C, W, W) in squares, and that sum of squares (C,)."""
    now = template(name, place, x, y)
    best, least = place, (window - now).square().sum((1, 2))
    for _ in range(STEPS):
        slope = torch.stack([(template(name, place + NUDGE * e, x, y) - now).flatten(1) / NUDGE for e in torch.eye(3)], 2)  # (C, WW, 3)
        error = (window - now).flatten(1)[:, :, None]
        step = torch.linalg.solve(slope.mT @ slope + 1e-3 * torch.eye(3), slope.mT @ error)[..., 0]
        place = place + step.clamp(-1.5, 1.5)
        place = torch.cat([place[:, :2], place[:, 2:].clamp(0.03 * size, 0.5 * size)], 1)
        now = template(name, place, x, y)
        squares = (window - now).square().sum((1, 2))
        better = squares < least
        best, least = torch.where(better[:, None], place, best), torch.where(better, squares, least)
    return best, least
