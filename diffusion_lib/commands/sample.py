"""Draw pictures from a model into one PNG.

python -m diffusion_lib sample digits-ddpm --n 16 --steps 50 --out grid.png
python -m diffusion_lib sample shapes-latent --prompt "a small red circle left of a large blue square" --out out.png
"""

from __future__ import annotations

import argparse

import torch

from diffusion_lib.commands import latent
from diffusion_lib.commands.common import SAMPLERS, draw, open_model
from diffusion_lib.training.pictures import write_grid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sample``."""
    parser.add_argument("model", help="a shipped model (see info) or the path of your own")
    parser.add_argument("--n", type=int, default=16, help="pictures (default 16)")
    parser.add_argument("--steps", type=int, default=50, help="network evaluations for each picture (default 50); annealed_langevin: at most")
    parser.add_argument("--sampler", choices=SAMPLERS, default="ddim")
    parser.add_argument("--eta", type=float, default=0.0, help="ddim: share of ancestral noise, 0 is deterministic (default)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label", type=int, help="the class to draw; left out, the classes take turns")
    parser.add_argument("--prompt", help="what a model that reads captions is to draw")
    parser.add_argument("--guidance", type=float, help="models that read captions: guidance scale, 1 is none (default: the card's)")
    parser.add_argument("--device", help="cpu, cuda, ... (default cpu)")
    parser.add_argument("--out", default="grid.png", help="the picture to write (default grid.png)")


def labels_for(classes: int | None, count: int, label: int | None) -> torch.Tensor | None:
    """(count,) labels: the one asked for, or 0, 1, 2, ... in turn; None for a network without classes."""
    if classes is None:
        if label is not None:
            raise ValueError(f"--label {label} was given to a model without classes; expected a class-conditional model: leave --label out.")
        return None
    if label is not None and not 0 <= label < classes:
        raise ValueError(f"--label {label} was given; expected a class from 0 to {classes - 1}.")
    return torch.full((count,), label) if label is not None else torch.arange(count) % classes


def run(options: argparse.Namespace) -> None:
    """Draw and write."""
    net, card = open_model(options.model, options.device)
    if latent.is_latent(card):
        return latent.run_sample(options)
    if options.prompt is not None:
        raise ValueError(f"--prompt was given to {options.model}, which reads no captions; expected a model such as shapes-latent: leave --prompt out.")
    labels = labels_for(card["config"].get("classes"), options.n, options.label)
    pictures = draw(net, card, options.n, steps=options.steps, sampler=options.sampler, seed=options.seed, label=labels, eta=options.eta)
    write_grid(options.out, pictures)
    print(f"{options.out}: {options.n} pictures, {options.steps} network evaluations each, {options.sampler}, seed {options.seed}")
