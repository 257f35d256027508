"""Draw pictures from a model into one PNG.

python -m diffusion_lib sample digits-ddpm --n 16 --steps 50 --out grid.png
python -m diffusion_lib sample digits-ddpm --sampler dpmpp --grid log_snr --steps 16 --guidance 2 --out guided.png
python -m diffusion_lib sample shapes-latent --prompt "a small red circle left of a large blue square" --out out.png
"""

from __future__ import annotations

import argparse

import torch

from diffusion_lib.commands import drawing, latent
from diffusion_lib.commands.common import open_model
from diffusion_lib.training.pictures import write_grid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sample``."""
    parser.add_argument("model", help="a shipped model (see info) or the path of your own")
    parser.add_argument("--n", type=int, default=16, help="pictures (default 16)")
    drawing.add_arguments(parser)
    parser.add_argument("--label", type=int, help="the class to draw; left out, the classes take turns")
    parser.add_argument("--prompt", help="what a model that reads captions is to draw")
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
    walk = drawing.walk_of(options)
    pictures = drawing.draw(net, card, options.n, seed=options.seed, label=labels, **walk._asdict())
    write_grid(options.out, pictures)
    print(f"{options.out}: {options.n} pictures, {drawing.said(walk, card)}, seed {options.seed}")
