"""Latent against pixel diffusion on the captioned shapes: equal training time, and the cost of a picture. Writes the study shapes-pixels.

    OMP_NUM_THREADS=1 python benchmarks/shapes_pixels.py

Both learn the same captions by the same recipe for the same seconds on one core; accuracy is looked at on the way. The pixel network has one level
more, and half the width at the top. FLOPs are counted by torch (attention's two products are not seen on a CPU), memory is the resident peak of a
process of its own that draws 64 pictures.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from shape_runs import PICTURES, Recipe, card_of, learned
from study_runs import Store, options, rounded, say
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffusion_lib import metrics
from diffusion_lib.checkpoints import pretrained
from diffusion_lib.commands.latent import LatentModel, draw
from diffusion_lib.data.shapes import MAX_WORDS, VOCABULARY, shapes
from diffusion_lib.latents import LatentSpace
from diffusion_lib.nets import CaptionedUNet, parameter_count
from diffusion_lib.schedules import CosineSchedule
from diffusion_lib.studies import write_study

STEPS = {"latent": 12_000, "pixel": 1600}  # about equal seconds
LOOKS, ASKED = 8, 200
EVALUATIONS = 25
PIXELS = dict(channels=3, width=32, multipliers=(1, 2, 4), cross_attention=(1, 2), attention=(-1,))
PROMPT = "a small red circle left of a large blue square"


class Pixels(nn.Module):
    """The autoencoder that does nothing: pixel diffusion by the same code."""

    latent, factor = 3, 1

    def latents(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return z

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return 3, height, width


def parts_of(kind: str) -> tuple[nn.Module, Recipe]:
    """The autoencoder and the recipe of a kind."""
    return (pretrained("shapes-autoencoder")[0], Recipe()) if kind == "latent" else (Pixels(), Recipe(PIXELS))


def cost(kind: str) -> dict[str, float]:
    """FLOPs of one look and of a guided picture, and seconds and peak memory of drawing 64, in this process: untrained weights cost the same."""
    autoencoder, recipe = parts_of(kind)
    torch.manual_seed(0)
    net = CaptionedUNet(VOCABULARY, MAX_WORDS + 1, **({"channels": autoencoder.latent} | recipe.net)).eval()
    space = LatentSpace(autoencoder, 1.0)
    shape = space.shape(32)
    model = LatentModel(net, card_of(net, shape, CosineSchedule()), space)
    x, tokens = torch.randn(1, *shape), net.tokenizer(PROMPT)
    with torch.no_grad(), FlopCounterMode(display=False) as one:
        net(x, 0.5, tokens)
    with torch.no_grad(), FlopCounterMode(display=False) as decode:
        space.decode(x)
    begun = time.process_time()
    draw(model, [PROMPT] * 64, steps=EVALUATIONS, sampler="dpmpp")
    return {"parameters": parameter_count(net), "mflop_look": one.get_total_flops() / 1e6, "mflop_decode": decode.get_total_flops() / 1e6,
            "mflop_picture": (2 * EVALUATIONS * one.get_total_flops() + decode.get_total_flops()) / 1e6,
            "seconds_picture": (time.process_time() - begun) / 64,
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def costs(kind: str) -> dict[str, float]:
    """`cost` in a fresh process, whose peak memory is its own."""
    out = subprocess.run([sys.executable, __file__, "--cost", kind], check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def curve(cache: Path, kind: str) -> list[dict]:
    """Accuracy after each look, with the training seconds until then."""
    found: list[dict] = []
    asked = shapes("test")[1][:ASKED]

    def look(model: LatentModel, step: int, seconds: float) -> None:
        x = draw(model, asked, steps=EVALUATIONS, sampler="dpmpp")
        right, readable = metrics.caption_accuracy(x, asked), metrics.attribute_accuracies(x, asked)["readable"]
        found.append({"step": step, "training_seconds": round(seconds, 1), "caption_accuracy": right.value, "caption_accuracy_se": right.se,
                      "readable": readable.value})
        say(f"{kind}: step {step}, {seconds:.0f} s, accuracy {right.value:.3f}, readable {readable.value:.3f}")

    learned(cache, f"shapes-{kind}-long", *parts_of(kind), STEPS[kind], on_look=look, look_every=STEPS[kind] // LOOKS)
    return found


def main() -> None:
    """Train both, measure both, write."""
    torch.set_num_threads(1)
    if "--cost" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--cost", choices=tuple(STEPS))
        print(json.dumps(cost(parser.parse_args().cost)))
        return
    choice = options(__doc__)
    store = Store(choice.cache, "shapes-pixels")
    rows = []
    for kind in choice.parts or STEPS:
        each = store.row(f"{kind} cost", lambda k=kind: costs(k))
        looks = store.row(f"{kind} curve", lambda k=kind: {"looks": curve(choice.cache, k)})["looks"]
        rows += [{"method": kind, "seed": 0, **look, **each} for look in looks]
    write_study(
        "shapes-pixels", question="What does working on latents save, at equal training time?",
        command="OMP_NUM_THREADS=1 python benchmarks/shapes_pixels.py", seconds=store.seconds,
        seeds={"training": [0], "sampling": [0], "error_bars": "caption_accuracy_se: binomial, over captions; one training each"},
        settings={"captions": f"{ASKED} of the test split, one to three things", "pictures": PICTURES, "guidance": 2,
                  "sampler": f"dpmpp, order 2, {EVALUATIONS} steps, uniform grid, raw weights (the average is kept for the end)",
                  "pixel network": "32 channels, multipliers (1, 2, 4), self-attention at the lowest level, words at the lower two",
                  "seconds_picture": "of the processor, one thread, batch 64, guided"},
        rows=[rounded(row) for row in rows])


if __name__ == "__main__":
    main()
