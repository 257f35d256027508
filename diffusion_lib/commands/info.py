"""What is installed, which device and profile a chapter would use, and the models that ship with the package.

python -m diffusion_lib info [MODEL] [--json]
"""

from __future__ import annotations

import argparse
import json
import platform

import torch

from diffusion_lib import __version__
from diffusion_lib.checkpoints import WEIGHTS, available, hardware
from diffusion_lib.commands.common import open_model
from diffusion_lib.profile import profile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``info``."""
    parser.add_argument("model", nargs="?", help="show this model's card in full")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Print."""
    if options.model:
        card = open_model(options.model)[1]
        card.pop("tensors")
        print(json.dumps(card, indent=2))
        return
    settings = profile()
    cards = {name: json.loads((WEIGHTS / f"{name}.json").read_text()) for name in available()}
    facts = {"diffusion_lib": __version__, "torch": torch.__version__, "python": platform.python_version(),
             "device": hardware(settings.device), "profile": settings.name, "dataset": settings.dataset}
    if options.json:
        for card in cards.values():
            card.pop("tensors", None)
        print(json.dumps({**facts, "models": cards}, indent=2))
        return
    for key, value in facts.items():
        print(f"{key:14} {value}")
    for name, card in cards.items():
        print(f"\n{name}: {card['architecture']}, {card['parameters']:,} parameters, {card['bytes'] / 1e6:.2f} MB")
        for key in ("data", "schedule", "target", "sigma_data", "steps", "seconds", "hardware", "metrics", "command"):
            if key in card:
                print(f"  {key:12} {card[key]}")
