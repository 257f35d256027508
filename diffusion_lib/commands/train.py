"""Train a denoising U-Net on a data set or on a folder of your own pictures.

python -m diffusion_lib train --data digits --steps 2000 --out runs/digits
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
from diffusion_lib.commands.common import SCHEDULES, Data, draw, noise_levels, open_data
from diffusion_lib.commands.evaluate import measure
from diffusion_lib.commands.sample import labels_for
from diffusion_lib.data.digits import LEVELS as DIGIT_LEVELS
from diffusion_lib.losses import DenoisingLoss, HybridLoss
from diffusion_lib.losses.times import LevelTimes, UniformTimes
from diffusion_lib.losses.weights import WEIGHTS
from diffusion_lib.nets import UNet, parameter_count
from diffusion_lib.profile import profile
from diffusion_lib.schedules import DiscreteSchedule, VESchedule, largest_distance
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
    parser.add_argument("--schedule", default="cosine", help=", ".join(SCHEDULES))
    parser.add_argument("--levels", type=int,
                        help="train on this many geometric noise levels (NCSN); needs --schedule ve, which then starts at the largest "
                             "distance between two training pictures")
    parser.add_argument("--sigma-min", type=float, default=0.01, help="with --levels: the lowest level (default 0.01)")
    parser.add_argument("--target", default="eps", help=", ".join(TARGETS))
    parser.add_argument("--weight", default="simple", help=", ".join(WEIGHTS))
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
    check_choice("--schedule", options.schedule, SCHEDULES)
    data = open_data(options.data, options.size, options.channels)
    classes = None if options.no_labels or data.classes < 2 else data.classes
    shape = list(data.train.shape[1:])
    schedule = SCHEDULES[options.schedule]()
    times = None if isinstance(schedule, DiscreteSchedule) else UniformTimes(t_max=schedule.t_max, stratified=True)
    ladder = {}
    if options.levels is not None:
        schedule, ladder = exploding(options, data)
        times = LevelTimes(noise_levels(ladder, schedule)[0][:-1])
    dropout = options.label_dropout if classes else 0.0
    if options.learned_variance:
        levels = DIGIT_LEVELS if options.data == "digits" else 256
        loss = HybridLoss(schedule, options.target, decoder="discretized", bins=levels, label_dropout=dropout)
    else:
        loss = DenoisingLoss(schedule, options.target, options.weight, times, dropout)
    torch.manual_seed(options.seed)
    net = UNet(shape[0], options.width or settings.width, options.multipliers or settings.multipliers, options.blocks,
               classes=classes, learned_variance=options.learned_variance, dropout=options.dropout)
    batches = Batches(data.train, data.labels if classes else None, batch_size=options.batch_size or settings.batch_size, seed=options.seed)
    folder = Path(options.out)
    processes = Processes(options.device)
    first = processes.rank == 0
    steps = plan(options, net, loss, batches, settings.steps(1000), folder, processes)
    if first:
        print(f"{options.data}: {len(data.train)} pictures {tuple(shape)}, {len(data.held_out)} held out; "
              f"{parameter_count(net):,} parameters, {steps} steps on {processes.world} process(es), {processes.device}", file=sys.stderr)
    card = {"data": describe(options, data), "shape": shape, "schedule": schedule.config, "target": options.target,
            "clip": 1.0 if options.target in ("eps", "score") else None, **ladder}  # x0_hat from eps divides by alpha, which ends near 0

    def grid(average: torch.nn.Module) -> torch.Tensor:
        described = {**card, "architecture": "UNet", "config": average.config}
        return draw(average, described, 16, steps=25, sampler="ddim", seed=options.seed, label=labels_for(classes, 16, None))

    done = train(net, loss, batches, steps=steps, lr=options.lr, ema=options.ema, warmup=options.warmup, cooldown=options.cooldown,
                 seed=options.seed, device=options.device, precision=options.precision, checkpoint=folder, every=options.every,
                 resume=not options.fresh, sample=grid, sample_every=options.sample_every, log=folder / "log.jsonl",
                 progress="always" if options.progress else True)
    if not first:
        return
    last = done.losses[-max(1, steps // 10):]
    card |= {"steps": done.steps, "batch_size": batches.batch_size * done.world, "seconds": round(done.seconds, 1),
             "hardware": hardware(processes.device), "processes": done.world, "precision": done.precision, "seed": options.seed,
             "metrics": {"loss_last_tenth": round(float(last.mean()), 5), "images_per_second": round(done.images_per_second, 1)},
             "command": command_line()}
    if options.evaluate:
        described = {**card, "architecture": "UNet", "config": net.config}
        walk = {"sampler": "annealed_langevin", "steps": 5 * options.levels + 1} if ladder else {}  # it knows only its levels
        card["metrics"] |= measure(done.ema, described, data, options.data, **walk)
    path = save(folder, done.ema, card, dtype=torch.float16 if options.half else None)
    print(f"{path}: {done.steps} steps in {done.seconds:.0f} s, {done.images_per_second:.0f} images/s, loss {float(last.mean()):.4f}")
    print(f"Draw from it:  python -m diffusion_lib sample {options.out} --out {options.out}.png")


def exploding(options: argparse.Namespace, data: Data) -> tuple[VESchedule, dict]:
    """NCSN's schedule, fitted to the first 5000 training pictures, and what the card says of its levels."""
    if options.schedule != "ve":
        raise ValueError(f"--levels {options.levels} was given with --schedule {options.schedule}; expected --schedule ve: "
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
