"""Rate against distortion on the captioned shapes: KL and VQ autoencoders at three sizes of the latent. Writes the study shapes-autoencoders.

    OMP_NUM_THREADS=1 python benchmarks/shapes_autoencoders.py

All are trained on the same pictures in the same order, for two fifths of the shipped autoencoder's steps. Rate, error and the judge's accuracy are
those of held-out pictures; the KL autoencoders are measured at one draw of z, for which the rate is a rate.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from study_runs import Store, options, rounded, say
from torch import Tensor, nn

from diffusion_lib import metrics
from diffusion_lib.checkpoints import load, save
from diffusion_lib.commands.latent import training_set
from diffusion_lib.data.shapes import draw as draw_scenes
from diffusion_lib.data.shapes import shapes
from diffusion_lib.losses import KLLoss, VQLoss
from diffusion_lib.nets import KLAutoencoder, VQAutoencoder, codebook_use, parameter_count, psnr
from diffusion_lib.studies import write_study
from diffusion_lib.training import Batches, train
from diffusion_lib.transitions import gaussian_kl

STEPS, BATCH, PICTURES, HELD_OUT = 2400, 32, 20_000, 1000
SIDES = {16: (1, 2), 8: (1, 2, 4), 4: (1, 2, 4, 4)}  # side of the latent: multipliers
KL = [(16, 1, 5e-3), *((8, 4, beta) for beta in (1e-4, 1e-3, 5e-3, 2e-2, 1e-1)), (8, 8, 5e-3), (8, 16, 5e-3), (4, 16, 5e-3)]  # side, channels, beta
ROWS = {f"KL, {side} x {side} x {channels}, beta {beta:g}": ("KL", side, channels, beta) for side, channels, beta in KL}
ROWS |= {f"VQ, {side} x {side}": ("VQ", side, channels, 0.0) for side, channels in ((16, 4), (8, 4), (4, 4))}


def make(kind: str, side: int, channels: int) -> nn.Module:
    """The autoencoder of a row, not trained."""
    return (KLAutoencoder if kind == "KL" else VQAutoencoder)(width=24, multipliers=SIDES[side], latent=channels)


def kept(cache: Path, name: str, kind: str, side: int, channels: int, beta: float, x: Tensor) -> tuple[nn.Module, float]:
    """(the autoencoder, the seconds of its training): from ``cache``, or trained now."""
    file = cache / ("shapes-" + "".join(c if c.isalnum() else "_" for c in name))
    if file.with_suffix(".json").exists():
        net, card = load(file)
        if card["steps"] == STEPS:
            return net.eval(), card["seconds"]
    torch.manual_seed(0)
    begun = time.perf_counter()
    done = train(make(kind, side, channels), KLLoss(beta) if kind == "KL" else VQLoss(), Batches(x, batch_size=BATCH, seed=0), steps=STEPS, lr=2e-3, ema=0.999,
                 warmup=100, cooldown=0.5, device="cpu", precision="fp32", progress=False)
    seconds = round(time.perf_counter() - begun, 1)
    save(file, done.ema, {"steps": STEPS, "seconds": seconds})
    say(f"trained {name}: {STEPS} steps in {seconds:.0f} s")
    return done.ema.eval(), seconds


@torch.no_grad()
def measured(net: nn.Module, seed: int = 0) -> dict[str, float]:
    """Nats a picture, squared error, PSNR and the judge's accuracy on held-out pictures; for KL at one draw of z, for VQ at the codes."""
    x, texts = shapes("test")
    x, texts = x[:HELD_OUT], texts[:HELD_OUT]
    perplexity, used = 0.0, 1.0
    if isinstance(net, VQAutoencoder):
        index = net.index(x)
        use = codebook_use(index, len(net.codebook.table))
        rate, perplexity, used = index[0].numel() * math.log(use.perplexity), use.perplexity, use.share
        again = net.decode(net.latents(x))
    else:
        again, mean, log_var = net(x, torch.Generator().manual_seed(seed))
        rate = float(gaussian_kl(mean, log_var, torch.zeros_like(mean), torch.zeros_like(mean)).flatten(1).sum(1).mean())
    right = metrics.caption_accuracy(again.clamp(-1, 1), texts)
    return {"rate_nats": rate, "mse": float((again - x).square().mean()), "psnr": float(psnr(x, again).mean()),
            "accuracy": right.value, "accuracy_se": right.se, "perplexity": perplexity, "codes_used": used}


def main() -> None:
    """Train, measure, write."""
    torch.set_num_threads(1)
    choice = options(__doc__)
    store = Store(choice.cache, "shapes-autoencoders")
    x = draw_scenes(training_set(0, PICTURES, (1, 2, 3))[0])

    def row_of(name: str) -> dict:
        net, seconds = kept(choice.cache, name, *ROWS[name], x)
        return {"parameters": parameter_count(net), "training_seconds": seconds, **measured(net)}

    rows = [{"method": name, "kind": kind, "side": side, "channels": channels, "beta": beta, "seed": 0}
            | store.row(name, lambda n=name: row_of(n)) for name, (kind, side, channels, beta) in ROWS.items()]
    write_study(
        "shapes-autoencoders", question="What does a nat of latent buy, for KL and VQ at three sizes?",
        command="OMP_NUM_THREADS=1 python benchmarks/shapes_autoencoders.py", seconds=store.seconds,
        seeds={"training": [0], "error_bars": "accuracy_se: binomial, over pictures; one training each"},
        settings={"training": f"{STEPS} steps of {BATCH} of {PICTURES} pictures, lr 2e-3, cool-down over the second half, average 0.999; width 24",
                  "pictures": f"{HELD_OUT} of the test split, 32x32",
                  "rate_nats": "KL: mean KL to N(0, I); VQ: pixels of the latent times log of the perplexity of 512 codes",
                  "perplexity, codes_used": "VQ; 0 and 1 for KL"},
        rows=[rounded(row) for row in rows])


if __name__ == "__main__":
    main()
