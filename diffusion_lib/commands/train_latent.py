"""Train text to picture on the captioned shapes: an autoencoder, then a captioned U-Net on its latents. One command, two models.

python -m diffusion_lib train-latent --out runs/shapes

Writes OUT-autoencoder.safetensors and OUT.safetensors with their cards, and in the folder OUT the states to resume from. Given again, the same
command goes on where it stopped. Draw with: python -m diffusion_lib sample OUT --prompt "a red circle"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion_lib.checkpoints import command_line, hardware, load, paths, save, write_atomically
from diffusion_lib.commands.latent import LatentModel, entry, measure, training_set
from diffusion_lib.data.shapes import MAX_WORDS, VOCABULARY, shapes
from diffusion_lib.data.shapes import draw as draw_scenes
from diffusion_lib.latents import LatentSpace
from diffusion_lib.losses import DenoisingLoss, KLLoss, LogNormalLevels
from diffusion_lib.nets import CaptionedUNet, KLAutoencoder, parameter_count, psnr
from diffusion_lib.nets.captioned import READS
from diffusion_lib.schedules import CosineSchedule
from diffusion_lib.training import Batches, Trained, train
from diffusion_lib.training.precision import PRECISIONS
from diffusion_lib.validate import check_count

CHUNK = 2048  # scenes drawn at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``train-latent``."""
    parser.add_argument("--out", default="runs/shapes", help="where the models go (default runs/shapes)")
    parser.add_argument("--size", type=int, default=32, help="side of the pictures in pixels, a multiple of 8 (default 32)")
    parser.add_argument("--pictures", type=int, default=120_000, help="captioned pictures to train on (default 120000)")
    parser.add_argument("--counts", type=int, nargs="+", default=(1, 2, 3), help="how many things a picture may hold (default 1 2 3)")
    parser.add_argument("--autoencoder", help="use this trained autoencoder instead of training one")
    parser.add_argument("--autoencoder-steps", type=int, default=6000, help="of 32 pictures each (default 6000)")
    parser.add_argument("--autoencoder-width", type=int, default=24, help="channels at full resolution (default 24)")
    parser.add_argument("--latent", type=int, default=4, help="channels of the latents (default 4)")
    parser.add_argument("--beta", type=float, default=5e-3, help="weight of the autoencoder's KL (default 5e-3)")
    parser.add_argument("--steps", type=int, default=12_000, help="optimizer steps of the latent model (default 12000)")
    parser.add_argument("--width", type=int, default=64, help="channels of the U-Net at full resolution (default 64)")
    parser.add_argument("--blocks", type=int, nargs="+", default=(1, 1), help="residual blocks of its two levels (default 1 1)")
    parser.add_argument("--text-width", type=int, default=128)
    parser.add_argument("--reads", choices=READS, default="both", help="what of the caption reaches the U-Net (default both)")
    parser.add_argument("--position-scale", type=float, default=1.0, help="of the text encoder's position embedding; 0.02 breaks binding")
    parser.add_argument("--no-scale", action="store_true", help="leave the latents as they come: a failure to look at")
    parser.add_argument("--levels", type=float, nargs=2, default=(1.1, 1.0), metavar=("MEAN", "STD"),
                        help="train at noise levels whose logarithm is normal with these (default 1.1 1): where captions decide most")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--label-dropout", type=float, default=0.1, help="share of captions dropped, for guidance (default 0.1)")
    parser.add_argument("--guidance", type=float, default=2.0, help="guidance scale that the card recommends (default 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=PRECISIONS, default="auto",
                        help="default auto: float32 for the autoencoder, and for the latent model whatever is faster here")
    parser.add_argument("--device", help="cpu, cuda, ... (default: what accelerate finds)")
    parser.add_argument("--every", type=int, default=1000, help="steps between checkpoints (default 1000)")
    parser.add_argument("--fresh", action="store_true", help="start anew even if OUT can be resumed")
    parser.add_argument("--evaluate", action="store_true", help="measure the result and write the metrics into its card")
    parser.add_argument("--progress", action="store_true", help="show the bar even where stderr is no terminal")


def run(options: argparse.Namespace) -> None:
    """Train both, save, and say where."""
    check_count("--pictures", options.pictures, least=2)
    LogNormalLevels(CosineSchedule(), *options.levels)                         # levels that make no sense are refused before anything is drawn
    given = load(options.autoencoder)[0] if options.autoencoder else None     # a wrong path is refused before anything is drawn
    scenes, texts = training_set(options.seed, options.pictures, tuple(options.counts))
    path = Path(options.autoencoder) if options.autoencoder else Path(f"{options.out}-autoencoder")
    autoencoder = train_autoencoder(options, scenes, path) if given is None else given
    whole = LatentSpace.measured(autoencoder, pictures(scenes[:4 * CHUNK], options.size))
    space = LatentSpace(autoencoder, 1.0) if options.no_scale else whole
    train_prior(options, space, scenes, texts, path)


def pictures(scenes: list, size: int) -> Iterator[Tensor]:
    """The scenes drawn, a chunk at a time, so that they need not fit into memory together."""
    for i in range(0, len(scenes), CHUNK):
        yield draw_scenes(scenes[i:i + CHUNK], size=size)


def train_autoencoder(options: argparse.Namespace, scenes: list, path: Path) -> nn.Module:
    """Train the autoencoder on the first 20,000 scenes, save it at ``path``, return its average. One that is there already is taken."""
    if paths(path)[0].exists() and not options.fresh:
        print(f"{path}: taken as it is; --fresh trains it again", file=sys.stderr)
        return load(path)[0]
    torch.manual_seed(options.seed)
    net = KLAutoencoder(3, options.latent, options.autoencoder_width)
    batches = Batches(torch.cat(list(pictures(scenes[:20_000], options.size))), batch_size=32, seed=options.seed)
    precision = "fp32" if options.precision == "auto" else options.precision    # bf16 would round away its last decibels
    done = fit(options, net, KLLoss(options.beta), batches, options.autoencoder_steps, "autoencoder", lr=2e-3, precision=precision)
    held_out = shapes("test", options.size)[0][:1000]
    with torch.no_grad():
        quality = float(psnr(held_out, done.ema.cpu().decode(done.ema.latents(held_out))).mean())
    save(path, done.ema, {
        "data": {"name": "shapes", "pictures": len(batches.x), "size": options.size}, "shape": [3, options.size, options.size],
        **facts(options, done, batches), "metrics": {"psnr": round(quality, 2), "loss_last_tenth": tail(done)},
    }, dtype=torch.float16)
    print(f"{path}: {done.steps} steps in {done.seconds:.0f} s, PSNR {quality:.1f} dB on 1000 test pictures", file=sys.stderr)
    return load(path)[0]                                                       # as stored, in 16 bits: what the latents will come from


def train_prior(options: argparse.Namespace, space: LatentSpace, scenes: list, texts: list[str], autoencoder: Path) -> None:
    """Train the captioned U-Net on the latents of all scenes and save it at OUT."""
    out = Path(options.out)
    autoencoder = beside(autoencoder, out)
    torch.manual_seed(options.seed)
    net = CaptionedUNet(VOCABULARY, MAX_WORDS + 1, space.autoencoder.latent, options.width,
                        blocks=list(options.blocks), text_width=options.text_width, reads=options.reads, position_scale=options.position_scale)
    with torch.no_grad():
        latents = torch.cat([space.encode(x) for x in pictures(scenes, options.size)])          # (N, c, h, w)
    schedule = CosineSchedule()
    loss = DenoisingLoss(schedule, "v", times=LogNormalLevels(schedule, *options.levels, stratified=True), label_dropout=options.label_dropout)
    batches = Batches(latents, batch_size=options.batch_size, seed=options.seed, tokens=net.tokenizer(texts))
    print(f"{len(latents)} latents {tuple(latents.shape[1:])}, standard deviation {float(latents.std()):.3f}; {parameter_count(net):,} parameters, "
          f"{options.steps} steps", file=sys.stderr)
    done = fit(options, net, loss, batches, options.steps, "latent", lr=options.lr, precision=options.precision)
    card = {
        "data": {"name": "shapes", "pictures": len(latents), "size": options.size, "counts": list(options.counts)},
        "shape": list(latents.shape[1:]), "schedule": schedule.config, "target": "v", "levels": list(options.levels),
        "clip": None, "guidance": options.guidance,
        "latents": entry(space, autoencoder),
        **facts(options, done, batches), "metrics": {"loss_last_tenth": tail(done)},
    }
    if options.evaluate:
        described = {**card, "architecture": "CaptionedUNet", "config": net.config}
        card["metrics"] |= measure(LatentModel(done.ema.cpu(), described, space))
    path = save(out, done.ema, card, dtype=torch.float16)
    print(f"{path}: {done.steps} steps in {done.seconds:.0f} s, {done.images_per_second:.0f} latents/s, loss {tail(done):.4f}")
    print(f"Draw from it:  python -m diffusion_lib sample {out} --prompt \"a small red circle left of a large blue square\" --out {out}.png")


def beside(autoencoder: Path, out: Path) -> Path:
    """The autoencoder's path in the folder of ``out``, copied there if it lies elsewhere: the two travel together."""
    own = out.parent / autoencoder.name
    if own.resolve() != autoencoder.resolve():
        for source, target in zip(paths(autoencoder), paths(own), strict=True):
            write_atomically(target, source.read_bytes())
    return own


def fit(options: argparse.Namespace, net: nn.Module, loss, batches: Batches, steps: int, name: str, *, lr: float, precision: str) -> Trained:
    """`train` with what both models share: resumable in OUT/name, warm-up, a cool-down over the last half."""
    folder = Path(options.out) / name
    return train(net, loss, batches, steps=steps, lr=lr, ema=options.ema, warmup=100, cooldown=0.5, seed=options.seed, device=options.device,
                 precision=precision, checkpoint=folder, every=options.every, resume=not options.fresh, log=folder / "log.jsonl",
                 progress="always" if options.progress else True)


def facts(options: argparse.Namespace, done: Trained, batches: Batches) -> dict:
    """What both cards say of a training."""
    return {"steps": done.steps, "batch_size": batches.batch_size * done.world, "seconds": round(done.seconds, 1),
            "hardware": hardware(next(done.net.parameters()).device), "precision": done.precision, "seed": options.seed, "command": command_line()}


def tail(done: Trained) -> float:
    """The mean loss of the last tenth."""
    return round(float(done.losses[-max(1, done.steps // 10):].mean()), 5)
