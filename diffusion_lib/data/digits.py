"""The handwritten digits bundled with scikit-learn: 1797 real 8 x 8 pictures in 10 classes, with no download."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from diffusion_lib.validate import check_choice

LEVELS = 17             # grey levels 0, 1, ..., 16: for bits/dim a pixel has 17 bins, each 2/16 wide in [-1, 1]
CLASSES = 10
SHAPE = (1, 8, 8)


@lru_cache(maxsize=1)
def _all() -> tuple[Tensor, Tensor, Tensor]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.float32)[:, None] / 8 - 1      # (1797, 1, 8, 8)
    labels = torch.from_numpy(bunch.target).to(torch.int64)                   # (1797,)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    shuffle = np.random.RandomState(0)                                  # numpy promises this stream for good
    for digit in range(CLASSES):
        members = (labels == digit).nonzero()[:, 0].numpy()
        held_out[torch.from_numpy(shuffle.permutation(members)[:len(members) // 5])] = True     # a fifth of each class
    return images, labels, held_out


def digits(split: str = "train") -> tuple[Tensor, Tensor]:
    """The digits as ``(images, labels)``: (N, 1, 8, 8) float32 in [-1, 1] and (N,) int64 in 0..9.

    A pixel is one of `LEVELS` = 17 grey levels, k/8 - 1 for k = 0..16. The split is fixed (seed 0) and stratified, four to one:
    a random fifth of each class is held out, so that both parts hold the classes in the same proportions.

    split: "train" (1442) | "test" (355, held out) | "all" (1797)
    Errors: ValueError for another split.
    """
    images, labels, held_out = _all()
    check_choice("split", split, ("train", "test", "all"))
    keep = {"train": ~held_out, "test": held_out, "all": torch.ones_like(held_out)}[split]
    return images[keep], labels[keep]


def to_levels(images: Tensor) -> Tensor:
    """Round pictures in [-1, 1] to the nearest grey level: (N, 1, 8, 8) float -> int64 in 0..16 (values outside are clipped)."""
    return ((images + 1) * 8).round().clamp(0, LEVELS - 1).to(torch.int64)
