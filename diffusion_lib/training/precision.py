"""Is bf16 autocast faster here? Measured on the network at hand, not assumed."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from time import perf_counter as clock
from typing import Any

import torch
from torch import Tensor, nn

PRECISIONS = ("auto", "fp32", "bf16")
GAIN = 1.1  # bf16 must be this much faster to be worth its coarser rounding
_measured: dict[tuple, str] = {}


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """The context for a forward pass: bf16 autocast, or nothing for "fp32"."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def faster_precision(net: nn.Module, loss: Callable[..., Tensor], x0: Tensor, condition: dict[str, Any] | None = None, *,
                     shard: tuple[int, int] = (0, 1)) -> str:
    """ "bf16" if a training step of a copy of ``net`` under autocast is at least 1.1 times as fast as in float32, else "fp32".

    Times a few forward and backward passes of each (the median of 3 after a warm-up; bf16 is given up at once where its first
    timed pass is no faster). The answer is kept for this process, by device, network size and batch shape. Draws from
    generators of its own; float64 networks stay as they are.

    net: on its device     loss: as for `train`     x0: one batch (B, ...)     condition: its conditions
    """
    device = x0.device
    size = sum(p.numel() for p in net.parameters())
    key = (device.type, type(net).__name__, size, tuple(x0.shape))
    if key in _measured:
        return _measured[key]
    if x0.dtype != torch.float32 or size == 0:
        return "fp32"
    trial = copy.deepcopy(net).train()
    state = copy.deepcopy(loss)  # a loss with a memory must not remember the trial
    generator = torch.Generator(device).manual_seed(0)
    extra = {} if shard[1] == 1 else {"shard": shard}

    def seconds(precision: str) -> float:
        _sync(device)
        start = clock()
        with autocast(device, precision):
            value = state(trial, x0, generator=generator, **extra, **(condition or {}))
        value.backward()
        _sync(device)
        return clock() - start

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seconds("fp32")
        fp32 = sorted(seconds("fp32") for _ in range(3))[1]
        try:
            seconds("bf16")
            first = seconds("bf16")
            bf16 = first if first > fp32 else sorted([first, seconds("bf16"), seconds("bf16")])[1]
        except (RuntimeError, NotImplementedError):  # an operation without a bf16 kernel on this device
            bf16 = float("inf")
    _measured[key] = "bf16" if fp32 > GAIN * bf16 else "fp32"
    return _measured[key]


def _sync(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
