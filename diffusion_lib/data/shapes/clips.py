"""Short clips of moving things, with captions: one or two things that go left, right, up or down, or stand still, at an even speed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.data.shapes.captions import VOCABULARY, caption
from diffusion_lib.data.shapes.draw import draw
from diffusion_lib.data.shapes.world import COMBINATIONS, MARGIN, SIZES, Scene, Thing, keeps_distance
from diffusion_lib.validate import check_count

MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "nowhere": (0, 0)}
CLIP_VOCABULARY = tuple(sorted({*VOCABULARY, "moving", "standing", "still", "up", "down"}))
WAY = 0.3                                                               # how far a thing moves in a clip, in picture widths


class Clip(NamedTuple):
    """The scenes of a clip, frame by frame, and how each thing moves: a name of `MOTIONS`."""

    scenes: tuple[Scene, ...]
    motions: tuple[str, ...]

    @property
    def caption(self) -> str:
        """What happens, such as "a small red circle moving left and a large blue square standing still"."""
        return " and ".join(caption(Scene((thing,)), plain=True) + (" standing still" if motion == "nowhere" else f" moving {motion}")
                            for thing, motion in zip(self.scenes[0].things, self.motions, strict=True))


def sample_clips(n: int, *, frames: int = 8, generator: torch.Generator | None = None) -> list[Clip]:
    """Draw ``n`` clips of one or two things (seen combinations), uniform over motions and all places that keep distance in every frame.

    frames: scenes in a clip, >= 2; the things cover `WAY` in all
    Errors: ValueError for n < 1 or fewer than 2 frames.
    """
    check_count("n", n)
    time = torch.linspace(-0.5, 0.5, check_count("frames", frames, 2), dtype=torch.float64)
    clips: list[Clip] = []
    pool, motions = COMBINATIONS["seen"], list(MOTIONS)
    while len(clips) < n:
        number = int(torch.randint(1, 3, (), generator=generator))
        which = torch.randint(len(pool), (number,), generator=generator).tolist()
        moves = [motions[k] for k in torch.randint(len(motions), (number,), generator=generator).tolist()]
        radius = torch.tensor([SIZES[pool[k][2]] for k in which], dtype=torch.float64)
        way = WAY * torch.tensor([MOTIONS[move] for move in moves], dtype=torch.float64)                    # (K, 2)
        centre = torch.rand(64, number, 2, generator=generator, dtype=torch.float64)                        # 64 tries
        place = centre[:, None] + time[:, None, None] * way                                                 # (64, T, K, 2)
        edge = (radius + MARGIN)[:, None]
        good = ((place >= edge) & (place <= 1 - edge)).all((2, 3)) & keeps_distance(radius, place, torch.ones(number, dtype=torch.bool))
        good = good.all(1).nonzero()
        if len(good):
            chosen = place[good[0, 0]].tolist()
            clips.append(Clip(tuple(Scene(tuple(Thing(*pool[k], *xy) for k, xy in zip(which, row, strict=True))) for row in chosen), tuple(moves)))
    return clips


def draw_clips(clips: list[Clip], size: int = 32) -> Tensor:
    """Pictures (N, T, 3, size, size) in [-1, 1] of N clips of T frames each. Errors: ValueError for clips of different lengths."""
    lengths = sorted({len(clip.scenes) for clip in clips})
    if len(lengths) != 1:
        raise ValueError(f"The clips have {lengths or 'no'} frames; expected at least one clip, and the same number in all: draw them with one call.")
    return draw([scene for clip in clips for scene in clip.scenes], size).unflatten(0, (len(clips), lengths[0]))
