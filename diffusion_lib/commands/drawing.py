"""Drawing pictures from a model and its card: the options that `sample` and `evaluate` share, and the walk that they choose."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lib.checkpoints import denoiser_of
from diffusion_lib.denoisers import Denoiser
from diffusion_lib.guidance import classifier_free_guided
from diffusion_lib.samplers import annealed_langevin, ddim, ddpm, deis, dpmpp, final, heun, unipc
from diffusion_lib.schedules import GRIDS, Schedule, annealed_step_size, geometric_levels, level_times, time_grid
from diffusion_lib.validate import check_choice, check_count

MULTISTEP = {"dpmpp": (dpmpp, 2), "unipc": (unipc, 3), "deis": (deis, 5)}  # with the order that a long enough grid allows
SAMPLERS = ("ddim", "ddpm", "heun", *MULTISTEP, "annealed_langevin")
TAKE_ETA = ("ddim", "dpmpp")


class Walk(NamedTuple):
    """From noise to pictures: which sampler, on which grid, under which guidance.

    steps: network evaluations a picture, at most. grid: one of GRIDS; None lets the card decide (uniform; karras for EDM's).
    eta: noise of ddim and dpmpp. guidance: classifier-free, 1 is none; None lets the card decide (1 where it names none). interval, rescale: as in
    ``classifier_free_guided``.
    """

    sampler: str = "ddim"
    steps: int = 50
    grid: str | None = None
    eta: float = 0.0
    guidance: float | None = None
    interval: tuple[float, float] | None = None
    rescale: float = 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a walk."""
    parser.add_argument("--steps", type=int, default=50, help="network evaluations for each picture, at most (default 50)")
    parser.add_argument("--sampler", choices=SAMPLERS, default="ddim")
    parser.add_argument("--grid", choices=GRIDS, help="where the steps lie (default: uniform; for a model trained with --edm karras)")
    parser.add_argument("--eta", type=float, default=0.0, help="ddim, dpmpp: share of ancestral noise, 0 is deterministic (default)")
    parser.add_argument("--guidance", type=float, metavar="W",
                        help="classifier-free guidance scale; 1 is none, and any other doubles the batch (default: the card's, else 1)")
    parser.add_argument("--guidance-interval", type=float, nargs=2, metavar=("LOW", "HIGH"), help="guide only between these noise levels")
    parser.add_argument("--rescale", type=float, default=0.0, help="with --guidance: how far its spread is taken back, 0 to 1 (default 0)")
    parser.add_argument("--seed", type=int, default=0)


def walk_of(options: argparse.Namespace) -> Walk:
    """The walk that the options ask for."""
    interval = None if options.guidance_interval is None else tuple(options.guidance_interval)
    return Walk(options.sampler, options.steps, options.grid, options.eta, options.guidance, interval, options.rescale)


def draw(net: nn.Module, card: dict[str, Any], count: int, *, seed: int, label: Tensor | None = None, batch: int = 512,
         **options: Any) -> Tensor:
    """``count`` pictures (count, C, H, W) in [-1, 1], drawn in batches; the noise of picture i depends on seed and i alone where none is added.

    label: the classes (count,), or None. options: those of ``Walk``.
    """
    walk = Walk(**options)
    check_count("n", count)
    if "shape" not in card or "schedule" not in card:
        raise ValueError(f"The card of {card.get('architecture')} names no schedule or no shape (C, H, W); "
                         "expected a model that generates pictures, such as digits-ddpm.")
    denoiser = denoiser_of(net, card)
    condition = {} if label is None else {"label": label}
    return torch.cat([x.clamp(-1, 1).cpu() for x in ends(walk, denoiser, card, count, condition, seed, batch)])


def ends(walk: Walk, denoiser: Denoiser, card: dict[str, Any], count: int, condition: dict[str, Tensor], seed: int,
         batch: int) -> Iterator[Tensor]:
    """Where ``count`` walks end, (b, ...) at a time, whatever it is that they walk in: pixels or latents. condition: (count, ...) by name."""
    go = way(walk, card, denoiser.schedule)
    scale = check_guidance(walk, card, condition)
    device = next(denoiser.net.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    noise = denoiser.schedule.noise((count, *card["shape"]), generator, device, torch.float32)       # (n, C, H, W)
    for i in range(0, count, batch):
        asked = {name: value[i:i + batch].to(device) for name, value in condition.items()}
        guided = denoiser
        if scale != 1:
            guided, asked = classifier_free_guided(denoiser, asked, scale, interval=walk.interval, rescale=walk.rescale), {}
        yield final(go(guided, noise[i:i + batch], generator=generator, condition=asked))


def way(walk: Walk, card: dict[str, Any], schedule: Schedule) -> Callable[..., Iterator[Tensor]]:
    """The sampler of a walk on its grid: (denoiser, x, generator=, condition=) -> states. ValueError for a choice that does not fit."""
    check_choice("sampler", walk.sampler, SAMPLERS)
    check_count("steps", walk.steps)
    if walk.eta and walk.sampler not in TAKE_ETA:
        raise ValueError(f"eta={walk.eta:g} was given with the sampler {walk.sampler}; expected {' or '.join(TAKE_ETA)}: leave eta out.")
    if walk.sampler == "annealed_langevin":
        return _down_the_levels(walk, card, schedule)
    steps = (walk.steps + 1) // 2 if walk.sampler == "heun" else walk.steps      # heun looks twice a step, once in its last
    times = time_grid(schedule, steps, walk.grid or ("karras" if "sigma_data" in card else "uniform"))
    options: dict[str, Any] = {"eta": walk.eta} if walk.sampler in TAKE_ETA else {}
    if walk.sampler in MULTISTEP:
        sampler, order = MULTISTEP[walk.sampler]
        options["order"] = min(order, steps)
    else:
        sampler = {"ddim": ddim, "ddpm": ddpm, "heun": heun}[walk.sampler]
    return lambda denoiser, x, **each: sampler(denoiser, schedule, x, times, **options, **each)


def _down_the_levels(walk: Walk, card: dict[str, Any], schedule: Schedule) -> Callable[..., Iterator[Tensor]]:
    if walk.grid is not None:
        raise ValueError(f"grid={walk.grid!r} was given with annealed_langevin; expected none, as it walks down the levels of its training.")
    times, levels = noise_levels(card, schedule)
    each = (check_count("steps", walk.steps, len(levels) + 1) - 1) // len(levels)  # Langevin steps a level; one evaluation denoises
    size = annealed_step_size(levels, each)
    return lambda denoiser, x, **rest: annealed_langevin(denoiser, schedule, x, times, steps_per_level=each, step_size=size, **rest)


def evaluations(walk: Walk, card: dict[str, Any]) -> int:
    """How many network evaluations a picture costs, at most ``walk.steps``; a guided one is of twice the batch."""
    if walk.sampler == "heun":
        return 2 * ((walk.steps + 1) // 2) - 1
    if walk.sampler == "annealed_langevin" and "levels" in card:
        return (walk.steps - 1) // card["levels"]["count"] * card["levels"]["count"] + 1
    return walk.steps


def said(walk: Walk, card: dict[str, Any]) -> str:
    """What a walk costs and how it goes, for the line that a command prints."""
    scale = guidance_of(walk, card)
    return f"{evaluations(walk, card)} network evaluations each, {walk.sampler}" + ("" if scale == 1 else f", guidance {scale:g}")


def guidance_of(walk: Walk, card: dict[str, Any]) -> float:
    """The guidance scale that was asked for, or the card's."""
    return card.get("guidance", 1.0) if walk.guidance is None else walk.guidance


def check_guidance(walk: Walk, card: dict[str, Any], condition: dict[str, Tensor]) -> float:
    """The guidance scale. ValueError for guidance of a model without classes, or for options of a guidance that is not asked for."""
    scale = guidance_of(walk, card)
    if scale != 1 and not condition:
        raise ValueError(f"guidance={scale:g} was given to a model without classes; expected a class-conditional one, trained with "
                         "labels and --label-dropout: leave guidance out.")
    for name, value in (("interval", walk.interval), ("rescale", walk.rescale)):
        if value and scale == 1:
            raise ValueError(f"guidance {name}={value} was given and guidance=1, which is none; expected another scale: pass --guidance W.")
    return scale


def noise_levels(card: dict[str, Any], schedule: Schedule) -> tuple[Tensor, Tensor]:
    """(times (L + 1,), levels (L,)) on which a model was trained, from its card. ValueError if it was trained without levels."""
    if "levels" not in card:
        raise ValueError("The model was trained without noise levels, which annealed_langevin walks down; expected one trained with "
                         "--schedule ve --levels N, such as digits-ncsn: choose another sampler.")
    levels = geometric_levels(**card["levels"])
    return level_times(schedule, levels), levels
