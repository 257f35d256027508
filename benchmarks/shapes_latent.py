"""Latent diffusion on the captioned shapes: what the autoencoder keeps, what each part of the text path is worth, latent against pixel.

    python -m diffusion_lib train-latent --out runs/shapes-latent --evaluate           first: the model of the book
    OMP_NUM_THREADS=2 python benchmarks/shapes_latent.py autoencoders ablations guidance pixels cost --model runs/shapes-latent
    python benchmarks/shapes_latent.py speed                                           pictures a second here, and how long each study takes

Results go to benchmarks/shapes_latent.json, one entry a run, replaced when the run is made again; a run that is there is not repeated without --again.
Every accuracy is the judge's, over captions that training never saw, with its binomial standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffusion_lib import metrics
from diffusion_lib.commands.latent import LatentModel, draw, measure, open_latent, training_set
from diffusion_lib.data.shapes import MAX_WORDS, VOCABULARY, shapes
from diffusion_lib.data.shapes import draw as draw_scenes
from diffusion_lib.latents import LatentSpace
from diffusion_lib.losses import DenoisingLoss, KLLoss, UniformTimes, VQLoss
from diffusion_lib.nets import CaptionedUNet, KLAutoencoder, VQAutoencoder, codebook_use, parameter_count, psnr
from diffusion_lib.schedules import CosineSchedule
from diffusion_lib.training import Batches, train
from diffusion_lib.transitions import gaussian_kl

STORE = Path(__file__).with_suffix(".json")
LEVELS = {"16x16": (1, 2), "8x8": (1, 2, 4), "4x4": (1, 2, 4, 4)}                        # the latent's side, by the number of halvings
ABLATIONS = {
    "both": {}, "words": {"reads": "words"}, "pooled": {"reads": "pooled"}, "nothing": {"reads": "nothing"},
    "unscaled": {"scaled": False}, "scaled without shift": {"shift": False}, "faint positions": {"position_scale": 0.02},
}
PIXELS = dict(channels=3, width=32, multipliers=(1, 2, 4), cross_attention=(1, 2), attention=(-1,))
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)


class Pixels(nn.Module):
    """The autoencoder that does nothing: pixel diffusion by the same code."""

    latent, factor = 3, 1

    def latents(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return z

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return 3, height, width


def rate(net: nn.Module, x: Tensor) -> float:
    """Nats a picture that the latent costs: the KL to N(0, I), or the entropy of the codes in use."""
    if isinstance(net, VQAutoencoder):
        index = net.index(x)
        return index[0].numel() * math.log(codebook_use(index, len(net.codebook.table)).perplexity)
    mean, log_var = net.encode(x)
    return float(gaussian_kl(mean, log_var, torch.zeros_like(mean), torch.zeros_like(mean)).flatten(1).sum(1).mean())


def autoencoders(options: argparse.Namespace) -> None:
    """Rate against distortion, PSNR and the judge's accuracy on reconstructions: KL and VQ, three sizes; KL at three more weights."""
    x = draw_scenes(training_set(0, 20_000, (1, 2, 3))[0])
    held_out, texts = shapes("test")
    held_out, texts = held_out[:1000], texts[:1000]
    runs = {f"{kind} {size}": (kind, size, 1e-4) for kind in ("kl", "vq") for size in LEVELS}
    runs |= {f"kl 8x8 beta {beta:g}": ("kl", "8x8", beta) for beta in (1e-6, 1e-3, 1e-2, 1e-1)}
    for name, (kind, size, beta) in runs.items():
        if stored("autoencoders", name, options):
            continue
        torch.manual_seed(0)
        make, loss = (KLAutoencoder, KLLoss(beta)) if kind == "kl" else (VQAutoencoder, VQLoss())
        net = make(width=24, multipliers=LEVELS[size])
        done = train(net, loss, Batches(x, batch_size=64), steps=options.autoencoder_steps, lr=2e-3, warmup=100, cooldown=0.5, device="cpu",
                     progress="always")
        with torch.no_grad():
            again = done.ema.decode(done.ema.latents(held_out)).clamp(-1, 1)
            entry = {"parameters": parameter_count(net), "steps": done.steps, "seconds": done.seconds, "rate_nats": rate(done.ema, held_out),
                     "mse": float((again - held_out).square().mean()), "psnr": float(psnr(held_out, again).mean())}
            if kind == "vq":
                use = codebook_use(done.ema.index(held_out), len(net.codebook.table))
                entry |= {"perplexity": use.perplexity, "share": use.share}
        keep("autoencoders", name, entry | accuracies(again, texts))


def ablations(options: argparse.Namespace) -> None:
    """The same steps with one thing changed: what of the caption is read, the scale of the latents, the size of the position embedding."""
    model = open_latent(options.model)
    for name, change in ABLATIONS.items():
        if not stored("ablations", name, options):
            keep("ablations", name, learn(model.space.autoencoder, options, **change))


def pixels(options: argparse.Namespace) -> None:
    """Latent and pixel diffusion for the same minutes: accuracy against training seconds, up to 0.8 and beyond."""
    for name in ("latent", "pixel"):
        if not stored("pixels", name, options):
            autoencoder = open_latent(options.model).space.autoencoder if name == "latent" else Pixels()
            keep("pixels", name, learn(autoencoder, options, net=PIXELS if name == "pixel" else {}, pictures=20_000))


def learn(autoencoder: nn.Module, options: argparse.Namespace, *, scaled: bool = True, shift: bool = True, net: dict | None = None,
          pictures: int = 60_000, **text: object) -> dict:
    """Train a captioned network on the latents and return its accuracies, with those on the way by training second."""
    scenes, captions = training_set(0, pictures, (1, 2, 3))
    parts = [scenes[i:i + 2048] for i in range(0, len(scenes), 2048)]
    space = LatentSpace.measured(autoencoder, (draw_scenes(part) for part in parts[:4]), shift=shift) if scaled else LatentSpace(autoencoder, 1.0)
    with torch.no_grad():
        z = torch.cat([space.encode(draw_scenes(part)) for part in parts])
    torch.manual_seed(0)
    model = CaptionedUNet(VOCABULARY, MAX_WORDS + 1, **((net or {}) | text))
    schedule = CosineSchedule()
    card = {"architecture": "CaptionedUNet", "config": model.config, "shape": list(z.shape[1:]), "schedule": schedule.config, "target": "v",
            "clip": None, "guidance": 2.0, "data": {"size": 32, "pictures": pictures, "counts": [1, 2, 3]}, "seed": 0}
    asked = shapes("test")[1][:options.look]
    curve: list[tuple[float, float]] = []
    spent, begun = 0.0, time.perf_counter()

    def look(step: int, loss: Tensor) -> None:
        nonlocal spent, begun
        if step % options.look_every == 0:
            spent += time.perf_counter() - begun
            drawn = draw(LatentModel(model.eval(), card, space), asked, steps=25)               # the raw weights: the average is out of reach here
            curve.append((round(spent, 1), metrics.caption_accuracy(drawn, asked).value))
            print(f"  step {step}: {spent:.0f} s, accuracy {curve[-1][1]:.3f} of {len(asked)} captions", flush=True)
            model.train()
            begun = time.perf_counter()

    loss = DenoisingLoss(schedule, "v", times=UniformTimes(t_max=schedule.t_max, stratified=True), label_dropout=0.1)
    batches = Batches(z, batch_size=128, tokens=model.tokenizer(captions))
    done = train(model, loss, batches, steps=options.steps, lr=1e-3, warmup=100, cooldown=0.5, device="cpu", progress=False, on_step=look)
    spent += time.perf_counter() - begun
    result = measure(LatentModel(done.ema, card, space), most=options.most)
    reached = next((seconds for seconds, right in curve if right >= 0.8), None)
    return result | {"parameters": parameter_count(model), "steps": done.steps, "training_seconds": round(spent, 1), "latent_std": float(z.std()),
                     "scale": space.scale, "precision": done.precision, "curve": curve, "seconds_to_0.8": reached}


def guidance(options: argparse.Namespace) -> None:
    """Accuracy and Fréchet distance of one model against the guidance scale."""
    model = open_latent(options.model)
    for scale in SCALES:
        if not stored("guidance", f"{scale:g}", options):
            keep("guidance", f"{scale:g}", measure(model, most=options.most, guidance=scale))


def cost(options: argparse.Namespace) -> None:
    """FLOPs of one evaluation (counted by torch), seconds a picture at 50 guided steps, and what decoding adds; peak memory of this process."""
    model = open_latent(options.model)
    card = model.card
    torch.manual_seed(0)
    pixel = CaptionedUNet(VOCABULARY, MAX_WORDS + 1, **PIXELS).eval()
    pixel_model = LatentModel(pixel, {**card, "config": pixel.config, "shape": [3, 32, 32]}, LatentSpace(Pixels(), 1.0))
    for name, each in (("latent", model), ("pixel", pixel_model)):
        x, tokens = torch.randn(1, *each.card["shape"]), each.net.tokenizer("a small red circle left of a large blue square")
        with torch.no_grad(), FlopCounterMode(display=False) as one:
            each.net(x, 0.5, tokens)
        with torch.no_grad(), FlopCounterMode(display=False) as decode:
            each.space.decode(x)
        prompts = ["a small red circle left of a large blue square"] * 64
        begun = time.perf_counter()
        draw(each, prompts, steps=50)
        keep("cost", name, {"parameters": parameter_count(each.net), "flops_one_evaluation": one.get_total_flops(),
                            "flops_decode": decode.get_total_flops(), "flops_a_picture": 100 * one.get_total_flops() + decode.get_total_flops(),
                            "seconds_a_picture": (time.perf_counter() - begun) / 64, "threads": torch.get_num_threads(),
                            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


def speed(options: argparse.Namespace) -> None:
    """Training pictures a second of the autoencoder, the latent and the pixel network, by 12 steps each, and what the studies will take."""
    x, tokens = torch.rand(128, 3, 32, 32), torch.ones(128, MAX_WORDS + 1, dtype=torch.long)
    schedule = CosineSchedule()
    nets = {"autoencoder": (KLAutoencoder(), KLLoss(), Batches(x, batch_size=64)),
            "latent": (CaptionedUNet(VOCABULARY, MAX_WORDS + 1), DenoisingLoss(schedule, "v"), Batches(torch.randn(128, 4, 8, 8), tokens=tokens)),
            "pixel": (CaptionedUNet(VOCABULARY, MAX_WORDS + 1, **PIXELS), DenoisingLoss(schedule, "v"), Batches(x, tokens=tokens))}
    for name, (net, loss, batches) in nets.items():
        done = train(net, loss, batches, steps=12, device="cpu", progress=False)
        steps, size = (options.autoencoder_steps, 64) if name == "autoencoder" else (options.steps, 128)
        print(f"{name:12} {parameter_count(net):9,} parameters  {done.images_per_second:6.0f} a second ({done.precision}, {torch.get_num_threads()} "
              f"threads): one run of {steps} steps takes {steps * size / done.images_per_second / 60:.1f} minutes")


def accuracies(x: Tensor, texts: list[str]) -> dict:
    """The judge's accuracy on each attribute, with standard errors."""
    right = metrics.caption_accuracy(x, texts)
    each = metrics.attribute_accuracies(x, texts)
    return {"caption_accuracy": right.value, "caption_accuracy_se": right.se} | {name: [value.value, value.se] for name, value in each.items()}


def stored(study: str, run: str, options: argparse.Namespace) -> bool:
    """Is this run in the file already?"""
    found = STORE.exists() and run in json.loads(STORE.read_text()).get(study, {}) and not options.again
    print(f"{study}: {run}{' (there already)' if found else ''}", flush=True)
    return found


def keep(study: str, run: str, entry: dict) -> None:
    """Put one run's entry into the file."""
    whole = json.loads(STORE.read_text()) if STORE.exists() else {}
    whole.setdefault(study, {})[run] = entry
    STORE.write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps(entry), flush=True)


STUDIES = {f.__name__: f for f in (autoencoders, ablations, guidance, pixels, cost, speed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", choices=STUDIES)
    parser.add_argument("--model", default="runs/shapes-latent", help="the trained model, for its autoencoder, guidance and cost")
    parser.add_argument("--autoencoder-steps", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=2000, help="of each captioned network")
    parser.add_argument("--look-every", type=int, default=250, help="steps between looks at the accuracy")
    parser.add_argument("--look", type=int, default=200, help="captions a look")
    parser.add_argument("--most", type=int, default=1000, help="captions of the last measurement")
    parser.add_argument("--again", action="store_true", help="repeat runs that are stored")
    options = parser.parse_args()
    for study in options.studies:
        STUDIES[study](options)


if __name__ == "__main__":
    main()
