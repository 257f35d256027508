"""An endless stream of shuffled batches whose place can be written down in two integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.validate import check_count, check_finite, check_tensor


class Batches:
    """Endless batches ``(x0, condition)``: each epoch is a fresh permutation of the data, and batches run on across epochs.

    Epoch e's order depends on ``(seed, e)`` alone, so the whole state is ``(seed, position)``: two batches of B are the
    doubled batch 2B cut in half, which is what lets R processes share one stream, and what makes resuming exact.

    x: data (N, ...), floating point, finite; pictures (N, C, H, W) in [-1, 1]
    label: classes (N,), passed to the loss as the condition ``label``; None for an unconditional net
    batch_size: samples in a batch, on each process, >= 1 (it may exceed N)
    seed: an integer >= 0; the same seed gives the same order on every machine
    condition: further conditions, each a tensor (N, ...), passed on by their names
    Errors: TypeError or ValueError for data that is no float tensor, holds a NaN, or whose conditions have another length.
    """

    def __init__(self, x: Tensor, label: Tensor | None = None, *, batch_size: int = 128, seed: int = 0, **condition: Tensor) -> None:
        check_finite("x", check_tensor("x", x))
        if x.ndim < 2 or len(x) == 0:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (N, ...) with N >= 1: add the batch axis with x[None].")
        self.x = x
        self.condition = ({} if label is None else {"label": label}) | condition
        for name, value in self.condition.items():
            if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != len(x):
                given = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
                raise ValueError(f"The condition {name!r} has {given}; expected a tensor with one row for each of the {len(x)} samples: "
                                 "check the argument's name and length.")
        self.batch_size = check_count("batch_size", batch_size)
        self.seed = check_count("seed", seed, least=0)
        self.position = 0  # samples dealt so far
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        return self

    def __next__(self) -> tuple[Tensor, dict[str, Tensor]]:
        rows = self._take(self.batch_size).to(self.x.device)
        return self.x[rows], {name: value[rows.to(value.device)] for name, value in self.condition.items()}

    def skip(self, count: int) -> None:
        """Pass over ``count`` batches without building them."""
        self.position += count * self.batch_size

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: two integers, and the two sizes that must agree on resume."""
        return {"seed": self.seed, "position": self.position, "batch_size": self.batch_size, "samples": len(self.x)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where ``state`` stood. Errors: ValueError if the data or the batch size changed since."""
        for name, mine in (("samples", len(self.x)), ("batch_size", self.batch_size), ("seed", self.seed)):
            if state[name] != mine:
                raise ValueError(f"The checkpoint was written with {name}={state[name]} and now {name}={mine}; expected the same data stream "
                                 "to resume exactly: restore it, or start anew with resume=False.")
        self.position = state["position"]

    def _take(self, count: int) -> Tensor:
        """The next ``count`` row numbers, across as many epochs as it takes."""
        parts = []
        while count:
            epoch, start = divmod(self.position, len(self.x))
            if epoch != self._epoch:
                order = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
                self._epoch, self._order = epoch, torch.randperm(len(self.x), generator=order)
            part = self._order[start:start + count]
            parts.append(part)
            self.position += len(part)
            count -= len(part)
        return torch.cat(parts)


def unpack(batch: Any) -> tuple[Tensor, dict[str, Any]]:
    """A batch as ``(x0, condition)``: from a tensor x0, a pair (x0, dict of conditions) or a pair (x0, label)."""
    if isinstance(batch, Tensor):
        return batch, {}
    if isinstance(batch, (tuple, list)) and isinstance(batch[0], Tensor):
        if len(batch) == 1:
            return batch[0], {}
        if len(batch) == 2 and isinstance(batch[1], dict):
            return batch[0], batch[1]
        if len(batch) == 2 and isinstance(batch[1], Tensor):
            return batch[0], {"label": batch[1]}
    raise TypeError(f"batches yielded a {type(batch).__name__}; expected a tensor x0, a pair (x0, {{'label': ...}}) or a pair (x0, label): "
                    "use Batches(x, label, batch_size=...).")


class Stream:
    """One process's share of ``batches``: of every ``world`` consecutive batches, the one numbered ``rank``.

    So R processes with batch B train on the same stream as one process with batch R * B. A finite iterable is begun again
    when it ends. Resuming is exact where ``batches`` has state_dict (as `Batches` does) or yields the same order again.
    """

    def __init__(self, batches: Any, rank: int, world: int) -> None:
        if not hasattr(batches, "__iter__"):
            raise TypeError(f"batches is a {type(batches).__name__}; expected an iterable of batches: use Batches(x, batch_size=...).")
        self.batches, self.rank, self.world = batches, rank, world
        self.rounds = 0
        self._iterator = iter(batches)

    def next(self) -> tuple[Tensor, dict[str, Any]]:
        """This process's ``(x0, condition)`` of the next round."""
        self._pass_over(self.rank)
        batch = self._draw()
        self._pass_over(self.world - 1 - self.rank)
        self.rounds += 1
        return unpack(batch)

    def state_dict(self) -> dict[str, Any]:
        """As JSON: the rounds dealt, and the state of ``batches`` where it has one."""
        return {"rounds": self.rounds, "batches": self.batches.state_dict() if hasattr(self.batches, "state_dict") else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where ``state`` stood; a stream without a state of its own is drawn and dropped up to there."""
        if state["batches"] is not None and hasattr(self.batches, "load_state_dict"):
            self.batches.load_state_dict(state["batches"])
        else:
            self._pass_over(state["rounds"] * self.world)
        self.rounds = state["rounds"]

    def _draw(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            self._iterator = iter(self.batches)
            try:
                return next(self._iterator)
            except StopIteration:
                raise ValueError("batches ended and yielded nothing when begun again; expected an iterable that can be begun again "
                                 "(a list, a DataLoader) or is endless: use Batches(x, batch_size=...).") from None

    def _pass_over(self, count: int) -> None:
        if hasattr(self.batches, "skip"):
            self.batches.skip(count)
        else:
            for _ in range(count):
                self._draw()
