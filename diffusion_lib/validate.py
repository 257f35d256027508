"""Refuse bad input at the door, in one sentence: what was given, what is expected, how to mend it.

Checks that must read a tensor's values run only on the CPU: on an accelerator each would stall the queue.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

import torch
from torch import Tensor


def check_choice(name: str, value: str, options: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``options``; else ValueError that names the nearest one."""
    options = tuple(options)
    if value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "choose one of these."
    raise ValueError(f"{name}={value!r} is unknown; expected one of {', '.join(map(repr, options))}: {hint}")


def check_number(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} was given; expected a finite number.")
    return value


def check_positive(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number > 0."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name}={value!r} was given; expected a finite number > 0.")
    return value


def check_non_negative(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number >= 0."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}={value!r} was given; expected a finite number >= 0.")
    return value


def check_interval(name: str, interval: tuple[float, float]) -> tuple[float, float]:
    """Return (low, high) if it is an interval of noise levels, 0 <= low < high <= inf."""
    try:
        low, high = (float(value) for value in interval)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={interval!r} was given; expected two noise levels, (low, high), such as (0.2, 1.5).") from None
    if not 0 <= low < high:
        raise ValueError(
            f"{name}=({low:g}, {high:g}) holds no noise level; expected 0 <= low < high, in units of sigma/alpha: give the lower one first."
        )
    return low, high


def check_count(name: str, value: int, least: int = 1) -> int:
    """Return ``value`` if it is an integer >= ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r} was given; expected an integer >= {least}.")
    return value


def check_tensor(name: str, value: Tensor, ndim: int | None = None) -> Tensor:
    """Return ``value`` if it is a floating-point tensor (with ``ndim`` dimensions, where given)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a torch.Tensor: wrap it in torch.as_tensor(...).")
    if not value.is_floating_point():
        raise TypeError(f"{name} has dtype {value.dtype}; expected floating point: call .float() (pictures: scaled to [-1, 1]).")
    if ndim is not None and value.ndim != ndim:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; expected {ndim} dimensions: reshape it first.")
    return value


def check_same_shape(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    """Refuse two tensors of different shapes (broadcasting them would be silent and wrong)."""
    if a.shape != b.shape:
        raise ValueError(
            f"{name_a} has shape {tuple(a.shape)} and {name_b} has shape {tuple(b.shape)}; expected equal shapes: "
            "check the network's output channels and the batch size."
        )


def check_finite(name: str, value: Tensor) -> Tensor:
    """Return ``value`` if it holds no NaN and no infinity (looked at on the CPU only)."""
    if value.device.type == "cpu" and not bool(torch.isfinite(value).all()):
        bad = int((~torch.isfinite(value)).sum())
        raise ValueError(f"{name} holds {bad} values that are NaN or infinite; expected finite numbers: clean the data or lower the step.")
    return value


def check_time(t: Tensor | float, name: str = "t") -> Tensor:
    """Return ``t`` as a floating-point tensor if all of it lies in [0, 1] (values looked at on the CPU only).

    A Python number becomes a 0-d float64 tensor: exact, and it never changes the dtype of what it multiplies.
    """
    t = torch.as_tensor(t) if isinstance(t, Tensor) else torch.as_tensor(t, dtype=torch.float64)
    if not t.is_floating_point():
        t = t.double()
    if t.device.type == "cpu" and t.numel() and not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(
            f"{name} spans [{float(t.min()):.4g}, {float(t.max()):.4g}]; expected times in [0, 1] with 0 = data: "
            "divide a step index k by the number of steps T."
        )
    return t


def check_batch_time(t: Tensor, x: Tensor) -> Tensor:
    """Return ``t`` as shape (B,) for a batch ``x`` (B, ...): a float or a 0-d tensor is spread over the batch."""
    t = check_time(t)
    if t.ndim == 0:
        return t.to(device=x.device, dtype=x.dtype).expand(x.shape[0])
    t = t.to(x.device)
    if t.shape != x.shape[:1]:
        raise ValueError(f"t has shape {tuple(t.shape)} and x has shape {tuple(x.shape)}; expected one time per sample: t of shape ({x.shape[0]},).")
    return t


def check_grid(times: Tensor) -> Tensor:
    """Return a time grid if it is one: at least two entries, all in [0, 1], strictly decreasing."""
    times = check_time(times, "times")
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times has shape {tuple(times.shape)}; expected a 1-D grid of at least 2 times: use time_grid(schedule, steps).")
    if not bool((times[1:] < times[:-1]).all()):
        raise ValueError("times is not strictly decreasing; expected a grid from noise (large t) to data (t = 0): sort it with .flip(0) and drop repeats.")
    return times
