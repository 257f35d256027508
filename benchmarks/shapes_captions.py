"""What each part of text to picture is worth on the captioned shapes, and guidance. Writes the studies shapes-ablations and shapes-guidance.

    OMP_NUM_THREADS=1 python benchmarks/shapes_captions.py --parts ablations
    OMP_NUM_THREADS=1 python benchmarks/shapes_captions.py --parts guidance

Ablations: train-latent's recipe with one thing changed a row, all on the latents of the shipped autoencoder, with the same pictures in the same
order: 128,000 of 60,000 different ones in batches of 32, a sixth of what the shipped model saw. Guidance: the shipped model at several scales.
Captions are those of held-out scenes.
"""

from __future__ import annotations

import torch
from shape_runs import ASKED, BATCH, LEVELS, LR, PICTURES, Recipe, judged, learned
from study_runs import Store, options, rounded

from diffusion_lib.checkpoints import pretrained
from diffusion_lib.commands.latent import measure, open_latent
from diffusion_lib.studies import write_study

STEPS = 4000
ROWS = {
    "the recipe": Recipe(),
    "words only": Recipe({"reads": "words"}),
    "pooled only": Recipe({"reads": "pooled"}),
    "nothing": Recipe({"reads": "nothing"}),
    "no scale": Recipe(scaled=False),
    "scale without shift": Recipe(shifted=False),
    "t uniform": Recipe(levels=None),
    "EDM's levels for pixels": Recipe(levels=(-1.2, 1.2)),
    "no coordinates": Recipe({"coordinates": False}),
    "faint positions": Recipe({"position_scale": 0.02}),
}
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)


def ablations(choice) -> None:
    """Train and measure every row."""
    store = Store(choice.cache, "shapes-ablations")
    autoencoder = pretrained("shapes-autoencoder")[0]

    def row_of(name: str) -> dict:
        file = "shapes-" + "".join(c if c.isalnum() else "_" for c in name)
        model, seconds, loss = learned(choice.cache, file, autoencoder, ROWS[name], STEPS)
        return {"training_seconds": seconds, "loss": loss, "scale": model.space.scale, **judged(model, steps=25, sampler="dpmpp")}

    rows = [{"method": name, "seed": 0} | store.row(name, lambda n=name: row_of(n)) for name in ROWS]
    write_study(
        "shapes-ablations", question="What is each part of text to picture worth, at equal steps?",
        command="OMP_NUM_THREADS=1 python benchmarks/shapes_captions.py --parts ablations", seconds=store.seconds,
        seeds={"training": [0], "sampling": [0], "error_bars": "*_se: binomial, over captions; one training each"},
        settings={"training": f"{STEPS} steps of {BATCH}, {PICTURES} pictures, lr {LR:g}, cool-down over the second half, average 0.999",
                  "levels": f"log(sigma/alpha) ~ N({LEVELS[0]}, {LEVELS[1]}^2) unless the row says otherwise", "guidance": 2,
                  "sampler": "dpmpp, order 2, 25 steps, uniform grid", "captions": f"{ASKED} of the test split, {ASKED // 2} with unseen combinations",
                  "one, two, three, unseen": "share of pictures as asked, by number of things or by split",
                  "other columns": "attribute accuracies: see metrics.attribute_accuracies"},
        rows=[rounded(row) for row in rows])


def guidance(choice) -> None:
    """The shipped model against the guidance scale: accuracy, Fréchet distance, nearest neighbours."""
    store = Store(choice.cache, "shapes-guidance")
    model = open_latent("shapes-latent")

    def row_of(scale: float) -> dict:
        found = measure(model, guidance=scale, steps=25, sampler="dpmpp")
        return {key: value for key, value in found.items() if key not in ("sampler", "guidance", "seed", "features")}

    rows = [{"guidance": scale, "seed": 0} | store.row(f"w {scale:g}", lambda w=scale: row_of(w)) for scale in SCALES]
    write_study(
        "shapes-guidance", question="What does guidance buy and cost on captions?",
        command="OMP_NUM_THREADS=1 python benchmarks/shapes_captions.py --parts guidance", seconds=store.seconds,
        seeds={"sampling": [0], "error_bars": "*_se: over captions; Fréchet: over groups of 500 samples"},
        settings={"model": "shapes-latent", "sampler": "dpmpp, order 2, 25 steps, uniform grid",
                  "captions": "2000 of the test split, 1000 with unseen combinations",
                  "frechet": "32 principal components of the training pictures at 16x16 pixels, 500 samples to 10,000 training pictures"},
        rows=[rounded(row) for row in rows])


PARTS = {"ablations": ablations, "guidance": guidance}


def main() -> None:
    """The parts that were asked for, or both."""
    torch.set_num_threads(1)
    choice = options(__doc__)
    for name in choice.parts or PARTS:
        PARTS[name](choice)


if __name__ == "__main__":
    main()
