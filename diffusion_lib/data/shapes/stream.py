"""Fresh pictures with captions without end, in the form that `training.train` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.data.shapes.captions import captions
from diffusion_lib.data.shapes.draw import draw
from diffusion_lib.data.shapes.world import SPLITS, sample_scenes
from diffusion_lib.validate import check_choice, check_count


class CaptionedBatches:
    """Endless batches ``(x0, condition)`` of scenes that never come back: pictures (B, 3, size, size) in [-1, 1] and their captions.

    Batch i depends on ``(seed, i)`` alone (and on the other arguments), so resuming is exact and R processes share one stream.

    batch_size: pictures in a batch, on each process, >= 1
    encode: captions (list of B strings) -> tensor (B, L); the condition is then {"tokens": that}; None: {"caption": the list of strings}
    split, counts: as in `sample_scenes`: which combinations, how many things
    complete: as in `captions`: the share of captions that name every attribute
    pictures_only: no condition at all, as an autoencoder's training wants it
    """

    def __init__(self, batch_size: int = 128, *, seed: int = 0, size: int = 32, encode: Callable[[list[str]], Tensor] | None = None,
                 split: str = "seen", counts: Sequence[int] = (1, 2, 3), complete: float = 0.85, pictures_only: bool = False) -> None:
        self.batch_size = check_count("batch_size", batch_size)
        self.seed = check_count("seed", seed, least=0)
        self.size, self.encode, self.split, self.counts = size, encode, check_choice("split", split, SPLITS), tuple(counts)
        self.complete, self.pictures_only = complete, pictures_only
        self.position = 0                                               # batches dealt so far

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        return self

    def __next__(self) -> tuple[Tensor, dict[str, Any]]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.position) % 2**63)
        self.position += 1
        scenes = sample_scenes(self.batch_size, split=self.split, counts=self.counts, generator=generator)
        if self.pictures_only:
            return draw(scenes, self.size), {}
        texts = captions(scenes, generator, complete=self.complete)
        return draw(scenes, self.size), {"caption": texts} if self.encode is None else {"tokens": self.encode(texts)}

    def skip(self, count: int) -> None:
        """Pass over ``count`` batches without drawing them."""
        self.position += count

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, and what must agree on resume."""
        return {"seed": self.seed, "position": self.position, "batch_size": self.batch_size, "size": self.size, "split": self.split}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where ``state`` stood. Errors: ValueError if another stream wrote it."""
        for name in ("seed", "batch_size", "size", "split"):
            if state[name] != getattr(self, name):
                raise ValueError(f"The checkpoint was written with {name}={state[name]!r} and now {name}={getattr(self, name)!r}; expected the "
                                 "same data stream to resume exactly: restore it, or start anew with resume=False.")
        self.position = state["position"]
