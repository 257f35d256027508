"""What the commands share: data by name, schedules by name, a model by name or path."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lib.checkpoints import available, load, paths, pretrained
from diffusion_lib.data import load as load_data
from diffusion_lib.schedules import (
    CosineSchedule,
    DiscreteSchedule,
    EDMSchedule,
    LinearSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
)

SCHEDULES = {
    "cosine": CosineSchedule, "vp": VPSchedule, "subvp": SubVPSchedule, "ve": VESchedule, "edm": EDMSchedule, "linear": LinearSchedule,
    "ddpm-linear": lambda: DiscreteSchedule.from_name("linear"), "ddpm-cosine": lambda: DiscreteSchedule.from_name("cosine"),
}
LEAST = 10  # pictures in a folder from which on every fifth is held out


class Data(NamedTuple):
    """Pictures (N, C, H, W), labels (N,), and the same held out from training (empty for a very small folder)."""

    train: Tensor
    labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor
    classes: int


def open_data(name: str, size: int | None = None, channels: int | None = None) -> Data:
    """Both splits of a data set; of a folder with 10 pictures or more every fifth is held out."""
    if Path(name).is_dir():
        x, y = load_data(name, "all", size=32 if size is None else size, channels=channels)
        held = torch.arange(len(x)) % 5 == 4 if len(x) >= LEAST else torch.zeros(len(x), dtype=torch.bool)
        return Data(x[~held], y[~held], x[held], y[held], int(y.max()) + 1)
    x, y = load_data(name, "train", size=size, channels=channels)
    held_x, held_y = load_data(name, "test", size=size, channels=channels)
    if isinstance(y, list):  # captions, which `train` does not read: one class (train-latent reads them)
        y, held_y = (torch.zeros(len(texts), dtype=torch.long) for texts in (y, held_y))
    return Data(x, y, held_x, held_y, int(y.max()) + 1)


def open_model(name: str, device: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """A shipped model by its name, or one's own by its path. Errors: those of `load` and `pretrained`."""
    if name in available() and not paths(name)[0].exists():
        return pretrained(name, device)
    if paths(name)[0].exists() or "/" in name or "\\" in name or Path(name).suffix:
        return load(name, device)
    return pretrained(name, device)  # which names the nearest
