"""The training loop: every book trains through this one function."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lib.training.batches import Stream
from diffusion_lib.training.ema import EMA
from diffusion_lib.training.precision import PRECISIONS, autocast, faster_precision
from diffusion_lib.training.processes import Processes
from diffusion_lib.training.progress import bar
from diffusion_lib.training.state import (
    pack_optimizer,
    prefixed,
    read_state,
    restore,
    section,
    unpack_optimizer,
    write_state,
)
from diffusion_lib.validate import check_choice, check_count, check_finite, check_non_negative, check_positive

LOOK = 20  # steps between looks at the loss (each look waits for the device)


@dataclass
class Trained:
    """What `train` returns.

    net: the trained network (the one that was given)       ema: its moving average, in eval mode (``net`` itself if ema=None)
    losses: the loss of every step, (steps,), float32, averaged over the processes
    images_per_second: over this call, all processes together        seconds: training time, earlier parts of a resumed run included
    steps: steps done      precision: "fp32" or "bf16"      world: the number of processes
    """

    net: nn.Module
    ema: nn.Module
    losses: Tensor
    images_per_second: float
    seconds: float
    steps: int
    precision: str
    world: int


def train(net: nn.Module, loss: Callable[..., Tensor], batches: Iterable, *, steps: int, lr: float = 1e-3, ema: float | None = 0.999,
          clip: float | None = 1.0, weight_decay: float = 0.0, warmup: int = 0, cooldown: float = 0.0, seed: int = 0,
          generator: torch.Generator | None = None, device: torch.device | str | None = None, precision: str = "auto",
          checkpoint: str | Path | None = None, every: int = 500, resume: bool = True,
          sample: Callable[[nn.Module], Tensor] | None = None, sample_every: int = 0, log: str | Path | None = None,
          progress: bool | str = True, on_step: Callable[[int, Tensor], None] | None = None) -> Trained:
    """Minimise ``loss`` by AdamW (Loshchilov & Hutter 2019, algorithm 2), keeping a moving average of the weights.

    net: trained in place                    steps: optimizer steps in all, >= 1 (a resumed run does what is left)
    loss: ``loss(net, x0, *, generator, **condition) -> scalar``, e.g. ``DenoisingLoss(schedule)``; all its randomness comes from
        ``generator``. Under several processes it is also given ``shard=(rank, world)``: it draws for all ``world * B`` samples
        and keeps rows ``rank * B`` to ``(rank + 1) * B``, so that every process keeps the same generator state.
    batches: an iterable of x0 (B, ...), of pairs (x0, {"label": ...}) or of pairs (x0, label); begun again when it ends.
        `Batches` is endless, shuffled and resumable. Of every ``world`` consecutive batches each process trains on one.
    lr: step size, > 0, reached linearly over the first ``warmup`` steps and, over the last ``cooldown`` share (in [0, 1]) of the
        steps, brought linearly to 0                     weight_decay: AdamW's, >= 0
    ema: decay in [0, 1), with warm-up (see `EMA`), or None             clip: largest gradient norm, > 0, or None
    seed: seeds the noise of ``loss`` and the dropout masks; ``generator``, where given, draws the noise.
        torch's own global generator is left as it was.
    device: None takes what `accelerate` finds          precision: "fp32", "bf16" (autocast) or "auto", the faster one as measured
    checkpoint: a folder; its ``state.safetensors`` is written every ``every`` steps and at the end, atomically. If it is there
        and ``resume`` is True, the run goes on from it, and ends, on the same machine, with bit for bit the same weights.
    sample: called every ``sample_every`` steps with the averaged network; its pictures (B, C, H, W) in [-1, 1] are written to
        ``samples-<step>.png`` in the folder ``checkpoint``        log: a file of JSON lines (step, loss, images_per_second)
    progress: a bar with loss and images per second where somebody can see it move; "always", or False
    on_step: called after every step (from 1) with the step and its loss, a 0-d tensor on the device

    Under ``accelerate launch`` the same call runs on every process: gradients are averaged, and only the first one writes.
    Errors: ValueError for an argument out of range, a NaN in the first batch or a checkpoint that does not fit;
        FloatingPointError if the loss is NaN or infinite (seen every 20 steps, never saved); OSError for a full disk.
    """
    check_count("steps", steps)
    check_positive("lr", lr)
    check_non_negative("weight_decay", weight_decay)
    check_count("warmup", warmup, least=0)
    check_count("every", every)
    check_count("seed", seed, least=0)
    check_count("sample_every", sample_every, least=0)
    check_choice("precision", precision, PRECISIONS)
    if clip is not None:
        check_positive("clip", clip)
    if not 0 <= cooldown <= 1:
        raise ValueError(f"cooldown={cooldown!r} was given; expected a share of the steps in [0, 1], such as 0.2.")
    if sample_every and (sample is None or checkpoint is None):
        raise ValueError("sample_every was given without sample= and checkpoint=; expected a function that draws pictures and a folder for them.")

    processes = Processes(device)
    device, rank, world = processes.device, processes.rank, processes.world
    net.to(device).train()
    processes.copy_from_first(net)
    parameters = [p for p in net.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("net has no parameter that requires a gradient; expected something to train: call net.requires_grad_(True).")
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=device.type in ("cpu", "cuda"))
    average = None if ema is None else EMA(net, ema)
    noise = generator if generator is not None else torch.Generator(device).manual_seed(seed)
    memory = remembers(loss)
    if memory is not None and world > 1:
        raise ValueError(f"The loss keeps a history ({type(memory).__name__}) that {world} processes would not share; "
                         "expected times drawn without one: use UniformTimes or DiscreteTimes, or one process.")
    stream = Stream(batches, rank, world)
    folder = None if checkpoint is None else Path(checkpoint)
    shard = {} if world == 1 else {"shard": (rank, world)}
    cuda = [device] if device.type == "cuda" else []
    done, curve, seconds = 0, [], 0.0

    with torch.random.fork_rng(devices=cuda):  # dropout draws from torch's generator: seeded at each step, given back after
        saved = read_state(folder) if folder is not None and resume else None
        if saved is not None:
            tensors, numbers = saved
            source = f"the checkpoint in {folder}"
            restore(net, section(tensors, "net"), source)
            if average is not None:
                restore(average.net, section(tensors, "ema"), source)
            unpack_optimizer(optimizer, tensors)
            noise.set_state(tensors["random.noise"])
            if memory is not None:
                memory.load_state_dict(numbers["loss"] | section(tensors, "loss"))
            stream.load_state_dict(numbers["stream"])
            done, seconds, precision = numbers["step"], numbers["seconds"], numbers["precision"]
            curve = [tensors["losses"]]

        def write() -> None:
            if folder is None or rank != 0:
                return
            history = {} if memory is None else memory.state_dict()
            tensors = {**prefixed("net", net.state_dict()), **pack_optimizer(optimizer), "random.noise": noise.get_state(),
                       "losses": torch.cat(curve) if curve else torch.empty(0),
                       **prefixed("loss", {k: v for k, v in history.items() if isinstance(v, Tensor)})}
            if average is not None:
                tensors |= prefixed("ema", average.net.state_dict())
            numbers = {"step": step, "seconds": seconds + time.perf_counter() - start, "precision": precision, "stream": stream.state_dict()}
            numbers["loss"] = {k: v for k, v in history.items() if not isinstance(v, Tensor)}
            write_state(folder, tensors, numbers)

        step, images, pending = done, 0, []
        start = time.perf_counter()
        meter = bar(steps, min(done, steps), progress if rank == 0 else False)
        for step in range(done + 1, steps + 1):
            x0, condition = stream.next()
            x0 = x0.to(device, non_blocking=True)
            condition = {name: value.to(device, non_blocking=True) for name, value in condition.items()}
            if step == done + 1:
                check_finite("the first batch", x0)
                if precision == "auto":
                    precision = processes.agree(faster_precision(net, loss, x0, condition, shard=(rank, world)))
                    start = time.perf_counter()
            torch.manual_seed(((seed * 1_000_003 + step) * 1_009 + rank) % 2**63)
            for group in optimizer.param_groups:
                group["lr"] = lr * rate(step, steps, warmup, cooldown)
            with autocast(device, precision):
                value = loss(net, x0, generator=noise, **shard, **condition)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            processes.average_gradients(parameters)
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            if average is not None:
                average.update(net, step)
            images += len(x0) * world
            pending.append(value.detach())

            writing = folder is not None and (step % every == 0 or step == steps)
            sampling = bool(sample_every) and step % sample_every == 0
            if step % LOOK == 0 or step == steps or writing or sampling:
                recent = processes.mean(torch.stack(pending)).float().cpu()
                if not bool(torch.isfinite(recent).all()):
                    bad = step - len(recent) + 1 + int((~torch.isfinite(recent)).nonzero()[0])
                    raise FloatingPointError(f"The loss became {float(recent[bad - 1 - step])} at step {bad}; expected finite numbers: "
                                             f"lower lr={lr:g}, or clip the gradient with clip=1.0.")
                curve.append(recent)
                pending.clear()
                speed = images / (time.perf_counter() - start)
                meter.update(step - meter.n)
                meter.set_postfix_str(f"loss {float(recent[-1]):.4f}, {speed:.0f} images/s")
                if log is not None and rank == 0:
                    append(Path(log), {"step": step, "loss": float(recent.mean()), "images_per_second": round(speed, 1)}, fresh=len(curve) == 1)
            if on_step is not None:
                on_step(step, value.detach())
            if sampling and rank == 0:
                draw(sample, net if average is None else average.net, folder / f"samples-{step:06d}.png")
            if writing:
                write()
        meter.close()

    spent = time.perf_counter() - start
    net.eval()
    return Trained(net, net if average is None else average.net, torch.cat(curve) if curve else torch.empty(0),
                   images / spent if images else 0.0, seconds + spent, step, "fp32" if precision == "auto" else precision, world)


def remembers(loss: Callable[..., Tensor]) -> Any:
    """What of ``loss`` learns as it is called, and so belongs in the checkpoint: itself, its ``times``, or None."""
    return next((part for part in (loss, getattr(loss, "times", None)) if hasattr(part, "state_dict")), None)


def rate(step: int, steps: int, warmup: int, cooldown: float) -> float:
    """The share of lr used at ``step`` (1 .. steps): linear warm-up, constant, linear cool-down to 0 just after the last step."""
    up = min(1.0, step / warmup) if warmup else 1.0
    down = min(1.0, (steps + 1 - step) / (cooldown * steps)) if cooldown else 1.0
    return min(up, down)


def append(path: Path, entry: dict[str, Any], *, fresh: bool) -> None:
    """Add one JSON line to ``path``; lines of steps that a resumed run does again are dropped first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.write_text("")
        elif path.exists():
            lines = path.read_text().splitlines()
            kept = list(itertools.takewhile(lambda line: json.loads(line)["step"] < entry["step"], lines))
            if len(kept) < len(lines):
                path.write_text("".join(line + "\n" for line in kept))
        with open(path, "a") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise OSError(error.errno, f"the log {path} could not be written ({error.strerror}): free some space or choose another folder") from None


def draw(sample: Callable[[nn.Module], Tensor], net: nn.Module, path: Path) -> None:
    """Write the pictures that ``sample(net)`` returns as one PNG."""
    from diffusion_lib.training.pictures import write_grid

    with torch.no_grad():
        write_grid(path, sample(net))
