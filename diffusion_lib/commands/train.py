"""Train a denoising U-Net on a data set or on a folder of your own pictures.

python -m diffusion_lib train --data digits --steps 2000 --out runs/digits
python -m diffusion_lib train --data digits --edm --steps 2000 --out runs/digits-edm
python -m diffusion_lib train --data ~/Pictures/cats --size 32 --minutes 20 --out runs/cats

Writes OUT.safetensors and its card OUT.json, and in the folder OUT: the state to resume from, a log, and sample grids. Given again,
the same command goes on where it stopped. Under `accelerate launch -m diffusion_lib train ...` it trains on several processes.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path

import torch

from diffusion_lib.checkpoints import command_line, hardware, save, write_atomically
from diffusion_lib.commands.common import SCHEDULES, Data, open_data
from diffusion_lib.commands.drawing import draw, noise_levels
from diffusion_lib.commands.evaluate import measure
from diffusion_lib.commands.sample import labels_for
from diffusion_lib.data.digits import LEVELS as DIGIT_LEVELS
from diffusion_lib.denoisers import EDMDenoiser
from diffusion_lib.losses import DenoisingLoss, EDMLoss, HybridLoss, SampledLoss
from diffusion_lib.losses.times import LevelTimes, UniformTimes
from diffusion_lib.losses.weights import WEIGHTS
from diffusion_lib.nets import C_NOISE_RANGE, UNet, parameter_count
from diffusion_lib.profile import profile
from diffusion_lib.schedules import DiscreteSchedule, Schedule, VESchedule, largest_distance
from diffusion_lib.targets import TARGETS
from diffusion_lib.training import Batches, train
from diffusion_lib.training.precision import PRECISIONS
from diffusion_lib.training.processes import Processes
from diffusion_lib.validate import check_choice, check_positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``train``."""
    parser.add_argument("--data", default="digits", help="digits, shapes (without their captions), mnist, fashion-mnist, cifar10, or a folder of pictures")
    parser.add_argument("--size", type=int, help="folder or shapes: side of the pictures in pixels (default 32)")
    parser.add_argument("--channels", type=int, choices=(1, 3), help="folder: 1 grey or 3 colour (default 3)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="optimizer steps (default 1000 on a CPU)")
    length.add_argument("--minutes", type=float, help="as many steps as fit in these minutes, by a short measurement")
    parser.add_argument("--schedule", help=f"{', '.join(SCHEDULES)} (default cosine; with --edm edm)")
    parser.add_argument("--edm", action="store_true",
                        help="EDM's recipe: its preconditioning, with sigma_data measured from the data, its weight and its noise levels")
    parser.add_argument("--levels", type=int,
                        help="train on this many geometric noise levels (NCSN); needs --schedule ve, which then starts at the largest "
                             "distance between two training pictures")
    parser.add_argument("--sigma-min", type=float, default=0.01, help="with --levels: the lowest level (default 0.01)")
    parser.add_argument("--target", help=f"{', '.join(TARGETS)} (default eps)")
    parser.add_argument("--weight", help=f"{', '.join(WEIGHTS)} (default simple)")
    parser.add_argument("--learned-variance", action="store_true",
                        help="learn the reverse variance too, by Improved DDPM's hybrid loss (needs a ddpm- schedule)")
    parser.add_argument("--no-labels", action="store_true", help="ignore the classes")
    parser.add_argument("--label-dropout", type=float, default=0.1, help="share of labels dropped, for guidance (default 0.1)")
    parser.add_argument("--width", type=int, help="channels of the U-Net's first level (default: the profile's)")
    parser.add_argument("--multipliers", type=int, nargs="+", help="channels of each level, in widths (default: the profile's)")
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--batch-size", type=int, help="pictures in a step, on each process (default: the profile's)")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=50, help="steps over which lr rises (default 50)")
    parser.add_argument("--cooldown", type=float, default=0.5, help="share of the steps over which lr falls to 0 (default 0.5)")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--device", help="cpu, cuda, ... (default: what accelerate finds)")
    parser.add_argument("--out", default="runs/model", help="where the model goes (default runs/model)")
    parser.add_argument("--every", type=int, default=500, help="steps between checkpoints (default 500)")
    parser.add_argument("--sample-every", type=int, default=0, help="steps between sample grids (default: none)")
    parser.add_argument("--fresh", action="store_true", help="start anew even if OUT can be resumed")
    parser.add_argument("--evaluate", action="store_true", help="measure the result and write the metrics into its card")
    parser.add_argument("--half", action="store_true", help="store the weights in 16 bits")
    parser.add_argument("--progress", action="store_true", help="show the bar even where stderr is no terminal")


def run(options: argparse.Namespace) -> None:
    """Train, save, and say where."""
    settings = profile()
    data = open_data(options.data, options.size, options.channels)
    classes = None if options.no_labels or data.classes < 2 else data.classes
    shape = list(data.train.shape[1:])
    loss, described, between = recipe(options, data, options.label_dropout if classes else 0.0)
    torch.manual_seed(options.seed)
    net = UNet(shape[0], options.width or settings.width, options.multipliers or settings.multipliers, options.blocks,
               classes=classes, learned_variance=options.learned_variance, dropout=options.dropout, time_range=between)
    batches = Batches(data.train, data.labels if classes else None, batch_size=options.batch_size or settings.batch_size, seed=options.seed)
    folder = Path(options.out)
    processes = Processes(options.device)
    first = processes.rank == 0
    steps = plan(options, net, loss, batches, settings.steps(1000), folder, processes)
    if first:
        print(f"{options.data}: {len(data.train)} pictures {tuple(shape)}, {len(data.held_out)} held out; "
              f"{parameter_count(net):,} parameters, {steps} steps on {processes.world} process(es), {processes.device}", file=sys.stderr)
    card = {"data": describe(options, data), "shape": shape, **described}

    def grid(average: torch.nn.Module) -> torch.Tensor:
        whole = {**card, "architecture": "UNet", "config": average.config}
        return draw(average, whole, 16, steps=25, sampler="ddim", seed=options.seed, label=labels_for(classes, 16, None))

    done = train(net, loss, batches, steps=steps, lr=options.lr, ema=options.ema, warmup=options.warmup, cooldown=options.cooldown,
                 seed=options.seed, device=options.device, precision=options.precision, checkpoint=folder, every=options.every,
                 resume=not options.fresh, sample=grid, sample_every=options.sample_every, log=folder / "log.jsonl",
                 progress="always" if options.progress else True)
    if not first:
        return
    last = done.losses[-max(1, steps // 10):]
    speed = done.steps * batches.batch_size * done.world / done.seconds  # of the whole run, resumed or not
    card |= {"steps": done.steps, "batch_size": batches.batch_size * done.world, "seconds": round(done.seconds, 1),
             "hardware": hardware(processes.device), "processes": done.world, "precision": done.precision, "seed": options.seed,
             "metrics": {"loss_last_tenth": round(float(last.mean()), 5), "images_per_second": round(speed, 1)},
             "command": command_line()}
    if options.evaluate:
        whole = {**card, "architecture": "UNet", "config": net.config}
        walk = {"sampler": "heun"} if options.edm else {}
        if options.levels is not None:  # it knows only its levels
            walk = {"sampler": "annealed_langevin", "steps": 5 * options.levels + 1}
        card["metrics"] |= measure(done.ema, whole, data, options.data, **walk)
    path = save(folder, done.ema, card, dtype=torch.float16 if options.half else None)
    print(f"{path}: {done.steps} steps in {done.seconds:.0f} s, {speed:.0f} images/s, loss {float(last.mean()):.4f}")
    print(f"Draw from it:  python -m diffusion_lib sample {options.out} --out {options.out}.png")


def recipe(options: argparse.Namespace, data: Data, dropout: float) -> tuple[SampledLoss, dict, tuple[float, float]]:
    """(loss, what the card says of it, the time_range of its network) that the options ask for."""
    schedule = SCHEDULES[check_choice("--schedule", options.schedule or ("edm" if options.edm else "cosine"), SCHEDULES)]()
    if options.edm:
        return edm(options, data, schedule, dropout)
    target, weight = options.target or "eps", options.weight or "simple"
    times = None if isinstance(schedule, DiscreteSchedule) else UniformTimes(t_max=schedule.t_max, stratified=True)
    ladder = {}
    if options.levels is not None:
        schedule, ladder = exploding(options, data)
        times = LevelTimes(noise_levels(ladder, schedule)[0][:-1])
    if options.learned_variance:
        if options.weight is not None:
            raise ValueError(f"--weight {weight} was given with --learned-variance, whose hybrid loss has its own; expected one of the two: "
                             "leave one out.")
        bins = DIGIT_LEVELS if options.data == "digits" else 256
        loss = HybridLoss(schedule, target, decoder="discretized", bins=bins, label_dropout=dropout)
    else:
        loss = DenoisingLoss(schedule, target, weight, times, dropout)
    clip = 1.0 if target in ("eps", "score") else None  # x0_hat from eps divides by alpha, which ends near 0
    return loss, {"schedule": schedule.config, "target": target, "clip": clip, **ladder}, (0.0, 1.0)


def edm(options: argparse.Namespace, data: Data, schedule: Schedule, dropout: float) -> tuple[EDMLoss, dict, tuple[float, float]]:
    """EDM's recipe, as ``recipe``: nothing of it is left to choose but the schedule."""
    for name in ("target", "weight", "learned_variance", "levels"):
        value = getattr(options, name)
        if value is not None and value is not False:
            raise ValueError(f"--{name.replace('_', '-')} was given with --edm, which has its own; expected one of the two: leave one out.")
    sigma_data = round(float(data.train.double().std()), 4)
    loss = EDMLoss(EDMDenoiser(None, sigma_data, schedule), label_dropout=dropout)
    return loss, {"schedule": schedule.config, "sigma_data": sigma_data}, C_NOISE_RANGE


def exploding(options: argparse.Namespace, data: Data) -> tuple[VESchedule, dict]:
    """NCSN's schedule, fitted to the first 5000 training pictures, and what the card says of its levels."""
    if options.schedule != "ve":
        raise ValueError(f"--levels {options.levels} was given with --schedule {options.schedule or 'cosine'}; expected --schedule ve: "
                         "the levels are those of exploding variance.")
    schedule = VESchedule(options.sigma_min, largest_distance(data.train[:5000]))
    return schedule, {"levels": {"sigma_max": schedule.prior_std, "sigma_min": options.sigma_min, "count": options.levels}}


def describe(options: argparse.Namespace, data: Data) -> dict:
    """The card's "data"; of a folder only its last name goes into it."""
    name = options.data if not Path(options.data).is_dir() else str(Path(options.data))
    return {"name": name, "pictures": len(data.train), "held_out": len(data.held_out)}


def plan(options: argparse.Namespace, net: torch.nn.Module, loss: DenoisingLoss, batches: Batches, usual: int, folder: Path,
         processes: Processes) -> int:
    """The number of steps: as asked for, or measured to fill the minutes (and remembered, so that resuming keeps to it)."""
    if options.minutes is None:
        return usual if options.steps is None else options.steps
    check_positive("--minutes", options.minutes)
    note = folder / "plan.json"
    if note.exists() and not options.fresh:
        return processes.agree(json.loads(note.read_text())["steps"])
    trial = Batches(batches.x, batches.condition.get("label"), batch_size=batches.batch_size)

    def seconds(count: int) -> float:
        start = time.perf_counter()
        train(copy.deepcopy(net), loss, trial, steps=count, device=options.device, precision=options.precision, progress=False)
        return time.perf_counter() - start

    seconds(2)  # what happens only once: imports, kernels, the choice of precision
    each = (seconds(22) - seconds(2)) / 20
    steps = processes.agree(max(1, int(60 * options.minutes / max(each, 1e-6))))
    if processes.rank == 0:
        write_atomically(note, json.dumps({"minutes": options.minutes, "steps": steps}).encode())
    return steps
