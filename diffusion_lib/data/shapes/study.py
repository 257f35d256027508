"""How often the judge errs, on pictures whose truth is known.

    python -m diffusion_lib.data.shapes.study [--pictures 2000]

A few minutes on one core. It prints the table and stores it as ``judge.json`` beside this file; `judge_table` reads it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lib.data.shapes.draw import draw
from diffusion_lib.data.shapes.judge import Reading, read
from diffusion_lib.data.shapes.world import COLOURS, SHAPES, SIZES, Scene, Thing, sample_scenes

STORED = Path(__file__).with_name("judge.json")
WITHIN = 1 / 32             # a place is right within this much, in picture widths: one pixel at 32 x 32
PADDING = 8                 # pixels of a 32 x 32 picture by which a crop may shift it


def same_scene(a: Scene, b: Scene, within: float = WITHIN) -> bool:
    """Whether two scenes hold the same things in the same places, in any order."""
    left = list(b.things)
    for thing in a.things:
        near = [t for t in left if t.combination == thing.combination and math.dist((t.x, t.y), (thing.x, thing.y)) <= within]
        if not near:
            return False
        left.remove(near[0])
    return not left


def blurred(pictures: Tensor, sd: float) -> Tensor:
    """Gaussian blur of standard deviation ``sd`` pixels, the border repeated."""
    reach = math.ceil(4 * sd)
    weight = torch.exp(-torch.arange(-reach, reach + 1.0).square() / (2 * sd**2))
    weight /= weight.sum()
    flat = F.pad(pictures.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(flat, weight.view(1, 1, 1, -1)), weight.view(1, 1, -1, 1)).view_as(pictures)


def cropped(scenes: Sequence[Scene], generator: torch.Generator) -> tuple[Tensor, list[list[float]], list[Scene | None]]:
    """32 x 32 windows of 48 x 48 pictures that hold the scene in their middle, each shifted by up to 8 pixels along each axis.

    Returns the pictures, the share of each thing that is inside, and the scene of the things of which at least two pixels are (None: of nothing).
    """
    shifts = torch.randint(-PADDING, PADDING + 1, (len(scenes), 2), generator=generator).tolist()
    windows, inside, truth = [], [], []
    for scene, (dx, dy) in zip(scenes, shifts, strict=True):
        def window(picture: Tensor, dx: int = dx, dy: int = dy) -> Tensor:
            return F.pad(picture, (PADDING,) * 4)[..., PADDING - dy:PADDING - dy + 32, PADDING - dx:PADDING - dx + 32]

        alone = draw([Scene((thing,)) for thing in scene.things]).norm(dim=1)                               # (K, 32, 32)
        pixels = window(alone).sum((1, 2)) / alone.amax((1, 2))
        moved = [(t, t.x + dx / 32, t.y + dy / 32) for t, seen in zip(scene.things, pixels.tolist(), strict=True) if seen >= 2]
        things = tuple(replace(t, x=min(max(x, 0), 1), y=min(max(y, 0), 1)) for t, x, y in moved)
        windows.append(window(draw(scene)[0]))
        inside.append((window(alone).sum((1, 2)) / alone.sum((1, 2))).tolist())
        truth.append(Scene(things) if things else None)
    return torch.stack(windows), inside, truth


def outcome(readings: Sequence[Reading], truth: Sequence[Scene | None]) -> dict[str, float]:
    """Shares of readings that are right, wrong (a scene that is not the true one), and refused ("not readable")."""
    n = len(readings)
    refused = sum(not r.readable for r in readings)
    right = sum(r.readable and t is not None and same_scene(r.scene, t) for r, t in zip(readings, truth, strict=True))
    return {"pictures": n, "right": right / n, "wrong": (n - right - refused) / n, "refused": refused / n}


# --- pictures that show no scene -------------------------------------------------------------------------------------


def _coloured(mask: Tensor, generator: torch.Generator) -> Tensor:
    palette = torch.tensor(list(COLOURS.values()))
    return mask[:, None] * palette[torch.randint(len(palette), (len(mask),), generator=generator)][:, :, None, None]


def _field(n: int, channels: int, sd: float, generator: torch.Generator) -> Tensor:
    """Smooth random fields of unit variance."""
    field = blurred(torch.randn(n, channels, 32, 32, generator=generator), sd)
    return field / field.std()


def noise(n: int, generator: torch.Generator) -> Tensor:
    """White noise of standard deviation 0.5."""
    return 0.5 * torch.randn(n, 3, 32, 32, generator=generator)


def clouds(n: int, generator: torch.Generator) -> Tensor:
    """Smooth colour noise."""
    return (0.7 * _field(n, 3, 3.0, generator)).clamp(-1, 1)


def blobs(n: int, generator: torch.Generator) -> Tensor:
    """Patches of one colour where a smooth random field is high."""
    return _coloured((4 * (_field(n, 1, 3.0, generator)[:, 0] - 1.6)).clamp(0, 1), generator)


def _around(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel places about random centres, and three random numbers each: (n, 1, 32), (n, 32, 1), (3, n, 1, 1)."""
    centre, ticks = 9 + 14 * torch.rand(2, n, 1, 1, generator=generator), torch.arange(32) + 0.5
    return ticks - centre[0], ticks[:, None] - centre[1], torch.rand(3, n, 1, 1, generator=generator)


def bumps(n: int, generator: torch.Generator) -> Tensor:
    """Round bumps without an edge, of standard deviation 3 to 6 pixels."""
    x, y, u = _around(n, generator)
    return _coloured(torch.exp(-(x**2 + y**2) / (2 * (3 + 3 * u[0]) ** 2)), generator)


def ellipses(n: int, generator: torch.Generator) -> Tensor:
    """Sharp ellipses 1.5 to 2.2 times as long as wide, in any direction."""
    x, y, u = _around(n, generator)
    radius, ratio, angle = 4 + 2.5 * u[0], 1.5 + 0.7 * u[1], math.pi * u[2]
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    distance = ((along / (radius * ratio**0.5)) ** 2 + (across / (radius / ratio**0.5)) ** 2).sqrt() - 1
    return _coloured((0.5 - radius * distance).clamp(0, 1), generator)


def halves(n: int, generator: torch.Generator) -> Tensor:
    """One thing, of which a straight line takes 40 to 60 % away; no triangles, since a cut one can leave a smaller triangle."""
    things = [Thing(*(list(o)[int(k)] for o, k in zip((COLOURS, [s for s in SHAPES if s != "triangle"], SIZES), row, strict=True)), 0.5, 0.5)
              for row in (torch.rand(n, 3, generator=generator) * torch.tensor([8, 5, 2])).long().tolist()]
    whole, ticks = draw([Scene((thing,)) for thing in things]), torch.arange(32) + 0.5
    angle = 2 * math.pi * torch.rand(n, 1, 1, generator=generator)
    along = (ticks - 16) * angle.cos() + (ticks[:, None] - 16) * angle.sin()                                # (n, 32, 32)
    mass = whole.norm(dim=1)
    target = (0.4 + 0.2 * torch.rand(n, generator=generator)) * mass.sum((1, 2))
    low, high = torch.full((n,), -16.0), torch.full((n,), 16.0)
    for _ in range(30):                                                 # bisection for the line's place
        middle = (low + high) / 2
        keep = (0.5 - along + middle[:, None, None]).clamp(0, 1)
        more = (keep * mass).sum((1, 2)) > target
        low, high = torch.where(more, low, middle), torch.where(more, middle, high)
    return whole * keep[:, None]


def piles(n: int, generator: torch.Generator) -> Tensor:
    """Two things of different colours on top of each other, a small one over the edge of a large one."""
    below, above = (sample_scenes(n, split="all", counts=(1,), generator=generator) for _ in range(2))
    angle = (2 * math.pi * torch.rand(n, generator=generator)).tolist()
    names, scenes = list(COLOURS), []
    for a, b, turn in zip(below, above, angle, strict=True):
        a, b = replace(a.things[0], size="large"), replace(b.things[0], size="small")
        if a.colour == b.colour:
            b = replace(b, colour=names[names.index(a.colour) - 1])
        scenes.append(Scene((a, replace(b, x=a.x + 0.12 * math.cos(turn), y=a.y + 0.12 * math.sin(turn)))))
    return draw(scenes)


def diamonds(n: int, generator: torch.Generator) -> Tensor:
    """Squares on their tip, 4 to 6 pixels from centre to tip: no shape of this world, but near a circle."""
    x, y, u = _around(n, generator)
    return _coloured((0.5 - (x.abs() + y.abs() - 4 - 2 * u[0]) / math.sqrt(2)).clamp(0, 1), generator)


NOT_SCENES = (noise, clouds, blobs, bumps, ellipses, halves, piles, diamonds)


# --- the study -------------------------------------------------------------------------------------------------------


def study(pictures: int = 2000, seed: int = 0) -> list[dict[str, float | str | None]]:
    """The judge's rates: a row a kind of picture, its level, its size and the number of things; each of so many ``pictures``."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[dict[str, float | str | None]] = []

    def add(kind: str, level: float | None, things: int | None, x: Tensor, truth: Sequence[Scene | None]) -> None:
        begun = time.process_time()
        readings = read(x)
        rows.append({"kind": kind, "level": level, "size": x.shape[-1], "things": things, **outcome(readings, truth),
                     "per_second": round(len(x) / (time.process_time() - begun))})

    for things in (1, 2, 3):
        scenes = sample_scenes(pictures, split="all", counts=(things,), generator=generator)
        clean = draw(scenes)
        add("clean", None, things, clean, scenes)
        for size in (30, 64):
            add("clean", None, things, draw(scenes[:pictures // 4], size), scenes[:pictures // 4])
        for sd in (0.5, 0.7, 1.0):
            add("blurred", sd, things, blurred(clean, sd), scenes)
        for sd in (0.1, 0.2, 0.3):
            add("noisy", sd, things, clean + sd * torch.randn(clean.shape, generator=generator), scenes)
        x, inside, truth = cropped(scenes, generator)
        for kind, low, high in (("cropped, all inside", 1.0, 2.0), ("cropped, a thing 10-90 % inside", 0.1, 0.9)):
            rows_in = [i for i, shown in enumerate(inside) if low - 1e-6 <= min(shown) < high]
            add(kind, None, things, x[rows_in], [truth[i] for i in rows_in])
    for kind in NOT_SCENES:
        add(f"no scene: {kind.__name__}", None, None, kind(pictures, generator), [None] * pictures)
    return rows


def judge_table() -> list[dict[str, float | str | None]]:
    """The stored rows of `study`: kind, level, size, things, pictures, right, wrong, refused, per_second (pictures a second of one core)."""
    return json.loads(STORED.read_text(encoding="utf-8"))


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000, help="of each kind (default 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(STORED))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = study(options.pictures, options.seed)
    for row in rows:
        name = row["kind"] + ("" if row["level"] is None else f" {row['level']}")
        print(f"{name:32} {row['size']:3} {row['things'] or '':1} {row['pictures']:6}  right {row['right']:.4f}  wrong {row['wrong']:.4f}  "
              f"refused {row['refused']:.4f}  {row['per_second']:5}/s")
    Path(options.out).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
