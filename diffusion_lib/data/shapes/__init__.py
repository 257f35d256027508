"""The world S: pictures of coloured shapes with captions, drawn without end, and a judge that reads a picture back by measurement.

``world``: things and scenes, drawn at random; combinations that are held out of training. ``draw``: pictures of them. ``captions`` and
``claims``: what can be said of a scene, and what a caption asserts. ``judge`` and ``verdicts``: what a picture shows, and whether its caption
holds; ``study``: how often the judge errs. ``stream``: endless batches to train on. ``clips``: things that move.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lib.data.shapes.captions import MAX_WORDS, VOCABULARY, caption, captions, parse, words
from diffusion_lib.data.shapes.claims import POSITIONS, RELATIONS, Claim, Group
from diffusion_lib.data.shapes.clips import Clip, draw_clips, sample_clips
from diffusion_lib.data.shapes.draw import AREA, draw
from diffusion_lib.data.shapes.judge import Reading, read
from diffusion_lib.data.shapes.stream import CaptionedBatches
from diffusion_lib.data.shapes.verdicts import Verdict, verdicts
from diffusion_lib.data.shapes.world import (
    COLOURS,
    COMBINATIONS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    held_out,
    is_seen,
    sample_scenes,
)
from diffusion_lib.validate import check_choice

__all__ = [
    "AREA", "COLOURS", "COMBINATIONS", "CaptionedBatches", "Claim", "Clip", "Group", "MAX_WORDS", "POSITIONS", "RELATIONS", "Reading",
    "SHAPES", "SIZES", "Scene", "Thing", "VOCABULARY", "Verdict", "caption", "captions", "draw", "draw_clips", "held_out", "is_seen", "parse",
    "read", "sample_clips", "sample_scenes", "shapes", "verdicts", "words",
]

# Fixed splits: (seed, combinations, pictures). The generator's own stream makes them; no scene is shared, since places are real numbers.
FIXED = {"train": (2_000_000_001, "seen", 10_000), "test": (2_000_000_002, "seen", 2_000), "unseen": (2_000_000_003, "unseen", 2_000)}


def shapes(split: str = "train", size: int = 32) -> tuple[Tensor, list[str]]:
    """A fixed sample of the world as ``(pictures, captions)``: (N, 3, size, size) float32 in [-1, 1], and N captions that name everything.

    To train on more than these, take `CaptionedBatches`, which never repeats a scene.
    split: "train" (10,000) | "test" (2,000, the same law, held out) | "unseen" (2,000, each with a thing whose combination of colour, shape and
        size is never trained on) | "all" (train, then test)
    Errors: ValueError for another split, or a size below 8.
    """
    check_choice("split", split, (*FIXED, "all"))
    if split == "all":
        (x, texts), (held, more) = shapes("train", size), shapes("test", size)
        return torch.cat([x, held]), texts + more
    seed, combinations, n = FIXED[split]
    generator = torch.Generator().manual_seed(seed)
    scenes = sample_scenes(n, split=combinations, generator=generator)
    return draw(scenes, size), captions(scenes, generator, complete=1.0)
