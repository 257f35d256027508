"""The U-Net's parts on digits, one change a row, at equal training steps. Writes diffusion_lib/studies/digits-networks.json.

    OMP_NUM_THREADS=1 python benchmarks/digits_networks.py

What ADM changed in DDPM's network (Dhariwal & Nichol 2021, Sec. 3: adaptive group norm, attention at more levels, depth and width), on 8 x 8
digits. All rows see the same pictures, times and noise in the same order. Parameters and processor seconds stand beside the loss, since equal steps
are not equal work.
"""

from __future__ import annotations

import time

import torch
from digit_runs import SIZE, asked, held_out_noise, kept, measured, real_pictures, start
from study_runs import Store, mean_se, options, rounded
from torch import nn

from diffusion_lib.data.digits import digits
from diffusion_lib.denoisers import NetDenoiser
from diffusion_lib.losses import DenoisingLoss
from diffusion_lib.losses.times import UniformTimes
from diffusion_lib.nets import UNet
from diffusion_lib.samplers import dpmpp, final
from diffusion_lib.schedules import CosineSchedule, time_grid
from diffusion_lib.studies import write_study

CACHED = "networks"
TRAINING_SEEDS, SAMPLING_SEEDS = (0, 1, 2), (0, 1, 2)
TRAINING_STEPS, EVALUATIONS = 400, 16
PATH = CosineSchedule()
BASE = {"width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (-1,), "adaptive_norm": True}
NETWORKS = {
    "base": {},
    "added embedding": {"adaptive_norm": False},
    "no attention": {"attention": ()},
    "attention at both levels": {"attention": (0, 1)},
    "2 blocks": {"blocks": 2},
    "width 24": {"width": 24},
    "width 48": {"width": 48},
    "DDPM's: added embedding, no attention": {"adaptive_norm": False, "attention": ()},
}


def make(name: str) -> UNet:
    """The network of a row, not trained."""
    return UNet(1, classes=10, **{**BASE, **NETWORKS[name]})


@torch.no_grad()
def held_out_loss(net: nn.Module) -> float:
    """The training loss (v, uniform t) on held-out digits, with times and noise that are the same for every network."""
    x, label = digits("test")
    loss = DenoisingLoss(PATH, "v")
    values = [loss.per_sample(net, x, 1e-4 + (PATH.t_max - 1e-4) * unit, eps, label=label).mean() for unit, eps in held_out_noise(8)]
    return float(torch.stack(values).mean())


def milliseconds(net: nn.Module, repeats: int = 7) -> float:
    """Processor milliseconds of one forward pass over 64 pictures, the median of several."""
    x, t, label = start(0)[:64], torch.full((64,), 0.5), asked()[:64]
    spent = []
    with torch.no_grad():
        for _ in range(repeats):
            begun = time.process_time()
            net(x, t, label=label)
            spent.append(1000 * (time.process_time() - begun))
    return sorted(spent)[repeats // 2]


def row_of(cache, name: str, seed: int) -> dict:
    """Train and measure one network."""
    loss = DenoisingLoss(PATH, "v", "simple", UniformTimes(t_max=PATH.t_max, stratified=True), label_dropout=0.1)
    net, seconds = kept(cache, f"{CACHED}-{''.join(c if c.isalnum() else '_' for c in name)}-{seed}", lambda: make(name), loss,
                        steps=TRAINING_STEPS, seed=seed)
    denoiser, times = NetDenoiser(net, PATH, "v"), time_grid(PATH, EVALUATIONS)
    groups = [final(dpmpp(denoiser, PATH, PATH.prior_std * start(s), times, order=2, condition={"label": asked()})) for s in SAMPLING_SEEDS]
    count = sum(p.numel() for p in net.parameters())
    return {"parameters": count, "training_seconds": seconds, "forward_ms": milliseconds(net), "held_out_loss": held_out_loss(net), **measured(groups)}


def main() -> None:
    """Train, sample, write, print."""
    torch.set_num_threads(1)
    choice = options(__doc__)
    store = Store(choice.cache, CACHED)
    found = {(name, seed): store.row(f"{name} {seed}", lambda n=name, s=seed: row_of(choice.cache, n, s))
             for seed in TRAINING_SEEDS for name in NETWORKS}
    rows = []
    for name, change in NETWORKS.items():
        built = {**BASE, **change}
        about = {"adaptive_norm": built["adaptive_norm"], "attention": {(): "none", (-1,): "lowest"}.get(built["attention"], "all"),
                 "blocks": built["blocks"], "width": built["width"]}
        rows += [{"method": name, **about, "seed": seed} | found[name, seed] for seed in TRAINING_SEEDS]
    settings = {
        "data": "digits, 1442 for training, 355 held out", "base": "UNet, width 32, multipliers (1, 2), 1 block, attention at 4 x 4, adaptive group norm",
        "training": f"{TRAINING_STEPS} steps of 64 pictures; target v, cosine schedule, uniform t, label dropout 0.1, AdamW, lr 4e-3, average 0.999",
        "sampler": f"dpmpp, order 2, {EVALUATIONS} evaluations, uniform grid, the same noise for all",
        "samples": f"{SIZE} with the held-out labels for each sampling seed; *_se over them",
        "held_out_loss": "the training loss on held-out digits, 8 draws of times and noise, the same for all; its floor is not 0",
        "training_seconds": "of the processor, one thread", "real": real_pictures(),
    }
    write_study(
        "digits-networks", question="Which of ADM's changes to the network pays on 8 x 8 digits, at equal steps, and at what cost?",
        command="OMP_NUM_THREADS=1 python benchmarks/digits_networks.py", seconds=store.seconds,
        seeds={"training": list(TRAINING_SEEDS), "sampling": list(SAMPLING_SEEDS),
               "error_bars": "between rows of different seed: over training; *_se inside a row: over sampling"},
        settings=settings, rows=[rounded(row) for row in rows])
    table(rows)


def table(rows: list[dict]) -> None:
    """Means over training seeds with their standard errors, and the paired difference of the loss to the base."""
    print("| network | parameters | training, s | held-out loss | loss − base's, paired | Fréchet | accuracy | recall |\n|---|---|---|---|---|---|---|---|")
    of = {(row["method"], row["seed"]): row for row in rows}
    for name in NETWORKS:
        mine = [of[name, seed] for seed in TRAINING_SEEDS]
        cells = ["{:.4f} ± {:.4f}".format(*mean_se([row["held_out_loss"] for row in mine]))]
        cells.append("{:+.4f} ± {:.4f}".format(*mean_se([of[name, s]["held_out_loss"] - of["base", s]["held_out_loss"] for s in TRAINING_SEEDS])))
        cells += ["{:.3f} ± {:.3f}".format(*mean_se([row[column] for row in mine])) for column in ("frechet", "accuracy", "recall")]
        seconds = mean_se([row["training_seconds"] for row in mine])[0]
        print(f"| {name} | {mine[0]['parameters']:,} | {seconds:.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
