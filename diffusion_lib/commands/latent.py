"""Latent models on the command line: open autoencoder and network together, draw from prompts, and measure what was drawn."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from diffusion_lib import metrics
from diffusion_lib.checkpoints import WEIGHTS, denoiser_of, load, paths
from diffusion_lib.commands import drawing
from diffusion_lib.commands.common import open_model
from diffusion_lib.data.shapes import Scene, captions, parse, sample_scenes, shapes
from diffusion_lib.data.shapes import draw as draw_scenes
from diffusion_lib.latents import LatentSpace, card_entry
from diffusion_lib.training.pictures import write_grid
from diffusion_lib.validate import check_count

REFERENCE = 10_000  # training pictures that samples are compared with
COMPONENTS = 32  # features of a picture
GROUP = 500  # samples in a group, for the Fréchet distance and its standard error


class LatentModel(NamedTuple):
    """A captioned network on latents, its card, and the space of those latents."""

    net: nn.Module
    card: dict[str, Any]
    space: LatentSpace


def is_latent(card: dict[str, Any]) -> bool:
    """Whether a card is that of a network on latents."""
    return "latents" in card


def open_latent(name: str, device: str | None = None) -> LatentModel:
    """A shipped latent model by its name, or one's own by its path, with the autoencoder that its card names and that lies beside it.

    Errors: those of `open_model`; ValueError for a card without a scale, and for an autoencoder other than the one it was trained with.
    """
    net, card = open_model(name, device)
    if "autoencoder" not in card_entry(card):
        raise ValueError(f"The card of {name} names no autoencoder; expected \"latents\": {{\"autoencoder\": file name}}: train it with train-latent.")
    folder = paths(name)[0].parent if paths(name)[0].exists() else WEIGHTS
    own = folder / card["latents"]["autoencoder"]
    autoencoder, its = load(own, device)
    if its["sha256"] != card["latents"].get("autoencoder_sha256", its["sha256"]):
        raise ValueError(f"{own.name} is not the autoencoder that {name} was trained with (their SHA-256 differ); expected the one saved beside it: "
                         "copy both from the same place, or train again.")
    return LatentModel(net, card, LatentSpace.from_card(autoencoder, card))


def training_set(seed: int, count: int, counts: tuple[int, ...]) -> tuple[list[Scene], list[str]]:
    """The scenes and captions that `train-latent` trains on, from the numbers that the card keeps. Held-out combinations are not among them."""
    generator = torch.Generator().manual_seed(seed)
    scenes = sample_scenes(count, split="seen", counts=counts, generator=generator)
    return scenes, captions(scenes, generator)


def entry(space: LatentSpace, path: Path) -> dict[str, Any]:
    """The card's "latents": scale, shift, and which autoencoder, by the name and checksum of its file at ``path``."""
    file = paths(path)[0]
    return {**space.entry, "autoencoder": file.stem, "autoencoder_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


@torch.no_grad()
def draw(model: LatentModel, prompts: list[str], *, seed: int = 0, batch: int = 250, decode: bool = True, **options: Any) -> Tensor:
    """One picture for each prompt, (n, C, H, W) in [-1, 1], or its latent; the noise of picture i depends on seed and i alone where none is added.

    options: those of ``drawing.Walk``; guidance=None takes the card's scale.
    """
    condition = {"tokens": model.net.tokenizer(prompts)}
    walks = drawing.ends(drawing.Walk(**options), denoiser_of(model.net, model.card), model.card, len(prompts), condition, seed, batch)
    return torch.cat([(model.space.decode(z).clamp(-1, 1) if decode else z).cpu() for z in walks])


def run_sample(options: argparse.Namespace) -> None:
    """``sample`` for a latent model: draw, write, and say how many pictures show what was asked."""
    model = open_latent(options.model, options.device)
    if options.prompt is None:
        raise ValueError(f"{options.model} draws what a prompt asks for; expected one: pass --prompt \"a small red circle left of a large blue square\".")
    if options.label is not None:
        raise ValueError(f"--label {options.label} was given to {options.model}, which reads captions; expected --prompt alone: leave --label out.")
    walk = drawing.walk_of(options)
    pictures = draw(model, [options.prompt] * check_count("n", options.n), seed=options.seed, **walk._asdict())
    write_grid(options.out, pictures)
    print(f"{options.out}: {options.n} pictures, {drawing.said(walk, model.card)}, seed {options.seed}")
    if model.card.get("data", {}).get("name") != "shapes":
        return
    try:
        parse(options.prompt)
    except ValueError:
        return print("The words are known and their order makes no sense to the judge, which therefore says nothing.")
    right = metrics.caption_accuracy(pictures, [options.prompt] * options.n)
    print(f"The judge, which measures colours, shapes and places, finds {round(right.value * options.n)} of them as asked.")


def measure(model: LatentModel, *, most: int = 2000, seed: int = 0, **options: Any) -> dict[str, Any]:
    """Caption accuracy and Fréchet distance as JSON values; each "*_se" is one standard error. options: those of ``drawing.Walk``.

    ``most`` captions of the test split, combinations seen in training, and half as many of combinations that never were; ``caption_accuracy`` and
    ``caption_accuracy_unseen`` are those of one and two things, three stand apart. The Fréchet distance is that of groups of 500 samples to
    10,000 training pictures; its floor that of equal groups of the test pictures, which have the same captions.
    """
    data = model.card["data"]
    trained_on = draw_scenes(training_set(model.card["seed"], data["pictures"], tuple(data["counts"]))[0][:REFERENCE], size=data["size"])
    test, unseen = shapes("test", data["size"]), shapes("unseen", data["size"])
    asked, never = test[1][:most], unseen[1][:max(2, most // 2)]
    walk = drawing.Walk(**options)
    drawn, strange = draw(model, asked, seed=seed, **options), draw(model, never, seed=seed + 1, **options)
    result: dict[str, Any] = {"samples": len(drawn), "samples_unseen": len(strange), "sampler": walk.sampler,
                              "network_evaluations": drawing.evaluations(walk, model.card), "guidance": drawing.guidance_of(walk, model.card), "seed": seed}
    for kind, x, texts in (("", drawn, asked), ("_unseen", strange, never)):
        things = torch.tensor([sum(group.number for group in parse(text).groups) for text in texts])
        for name, rows in (("", things <= 2), ("_one", things == 1), ("_two", things == 2), ("_three", things == 3)):
            at = rows.nonzero()[:, 0].tolist()
            if not at:
                continue
            right = metrics.caption_accuracy(x[at], [texts[i] for i in at])
            result |= {f"caption_accuracy{kind}{name}": right.value, f"caption_accuracy{kind}{name}_se": right.se, f"captions{kind}{name}": len(at)}
    on_real = metrics.caption_accuracy(test[0][:most], asked)
    group = min(GROUP, len(drawn) // 2)
    features = principal_components(trained_on, min(COMPONENTS, group // 2))
    real = features(trained_on)
    distance, floor = (torch.tensor([metrics.frechet_distance(part, real) for part in features(x).split(group) if len(part) == group],
                                    dtype=torch.float64) for x in (drawn, test[0][:len(drawn)]))
    copies = metrics.memorisation_ratio(features(drawn), real, features(test[0]), generator=torch.Generator().manual_seed(seed))
    result |= {
        "caption_accuracy_on_real": on_real.value, "groups": len(distance), "group_size": group, "real_train": len(real),
        "features": f"the first {real.shape[1]} principal components of the training pictures at 16x16 pixels",
        "frechet": float(distance.mean()), "frechet_se": float(distance.std() / len(distance) ** 0.5),
        "frechet_floor": float(floor.mean()), "frechet_floor_se": float(floor.std() / len(floor) ** 0.5),
        "nearest_neighbour_ratio": copies.value, "nearest_neighbour_ratio_se": copies.se,
    }
    return {key: round(value, 5) if isinstance(value, float) else value for key, value in result.items()}


def principal_components(pictures: Tensor, count: int) -> Callable[[Tensor], Tensor]:
    """A function (N, C, H, W) -> (N, count) float64: the coordinates along the directions in which ``pictures``, at 16x16 pixels, vary most."""
    def small(x: Tensor) -> Tensor:
        return adaptive_avg_pool2d(x, 16).flatten(1).double()

    flat = small(pictures)
    mean, axes = flat.mean(0), torch.linalg.eigh(torch.cov(flat.T)).eigenvectors[:, -count:]         # (C 16 16, count)
    return lambda x: (small(x) - mean) @ axes
