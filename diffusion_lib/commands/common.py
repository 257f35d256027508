"""What the commands share: data by name, schedules by name, a model by name or path, and drawing from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lib.checkpoints import available, denoiser_of, load, paths, pretrained
from diffusion_lib.data import load as load_data
from diffusion_lib.samplers import annealed_langevin, ddim, ddpm, final
from diffusion_lib.schedules import (
    CosineSchedule,
    DiscreteSchedule,
    EDMSchedule,
    LinearSchedule,
    Schedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    annealed_step_size,
    geometric_levels,
    level_times,
    time_grid,
)
from diffusion_lib.validate import check_count

SCHEDULES = {
    "cosine": CosineSchedule, "vp": VPSchedule, "subvp": SubVPSchedule, "ve": VESchedule, "edm": EDMSchedule, "linear": LinearSchedule,
    "ddpm-linear": lambda: DiscreteSchedule.from_name("linear"), "ddpm-cosine": lambda: DiscreteSchedule.from_name("cosine"),
}
SAMPLERS = ("ddim", "ddpm", "annealed_langevin")
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


def draw(net: nn.Module, card: dict[str, Any], count: int, *, steps: int, sampler: str, seed: int, label: Tensor | None = None,
         eta: float = 0.0, batch: int = 512) -> Tensor:
    """``count`` pictures (count, C, H, W) in [-1, 1], drawn in batches; the noise of picture i depends on seed and i alone for DDIM."""
    check_count("n", count)
    check_count("steps", steps)
    if "shape" not in card or "schedule" not in card:
        raise ValueError(f"The card of {card.get('architecture')} names no schedule or no shape (C, H, W); "
                         "expected a model that generates pictures, such as digits-ddpm.")
    denoiser = denoiser_of(net, card)
    schedule: Schedule = denoiser.schedule
    device = next(net.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    noise = schedule.noise((count, *card["shape"]), generator, device, torch.float32)       # (n, C, H, W)
    times, levels = (time_grid(schedule, steps), None) if sampler != "annealed_langevin" else noise_levels(card, schedule)
    drawn = []
    for i in range(0, count, batch):
        condition = {} if label is None else {"label": label[i:i + batch].to(device)}
        x = noise[i:i + batch]
        if sampler == "annealed_langevin":
            each = (check_count("steps", steps, len(levels) + 1) - 1) // len(levels)  # Langevin steps a level; one evaluation denoises
            states = annealed_langevin(denoiser, schedule, x, times, steps_per_level=each, step_size=annealed_step_size(levels, each),
                                       generator=generator, condition=condition)
        elif sampler == "ddim":
            states = ddim(denoiser, schedule, x, times, eta=eta, generator=generator, condition=condition)
        else:
            states = ddpm(denoiser, schedule, x, times, generator=generator, condition=condition)
        drawn.append(final(states).clamp(-1, 1).cpu())
    return torch.cat(drawn)


def noise_levels(card: dict[str, Any], schedule: Schedule) -> tuple[Tensor, Tensor]:
    """(times (L + 1,), levels (L,)) on which a model was trained, from its card. ValueError if it was trained without levels."""
    if "levels" not in card:
        raise ValueError("The model was trained without noise levels, which annealed_langevin walks down; expected one trained with "
                         "--schedule ve --levels N, such as digits-ncsn: choose another sampler.")
    levels = geometric_levels(**card["levels"])
    return level_times(schedule, levels), levels
