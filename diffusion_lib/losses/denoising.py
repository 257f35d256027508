"""The loss that trains every network of the book: noise the data, predict a target, weigh the squared error."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_lib import noise
from diffusion_lib.denoisers import null_condition
from diffusion_lib.losses.times import DiscreteTimes, TimeSampler, UniformTimes
from diffusion_lib.losses.weights import WEIGHTS, Weight, loss_weight
from diffusion_lib.schedules import DiscreteSchedule, Schedule
from diffusion_lib.targets import TARGETS, diffuse, training_target
from diffusion_lib.validate import check_choice, check_finite, check_same_shape, check_tensor


class SampledLoss:
    """A loss that looks at one random time per sample: draws it, asks :meth:`per_sample`, weighs and averages.

    A subclass gives ``per_sample(net, x0, t, eps, **condition) -> (B,)``. schedule, times, label_dropout: see DenoisingLoss.
    """

    def __init__(self, schedule: Schedule, times: TimeSampler | None = None, label_dropout: float = 0.0):
        if times is None:
            discrete = isinstance(schedule, DiscreteSchedule)
            times = DiscreteTimes(schedule.steps) if discrete else UniformTimes(t_max=schedule.t_max)
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout={label_dropout} was given; expected a share in [0, 1].")
        self.schedule, self.times, self.label_dropout = schedule, times, label_dropout

    def draw(
        self, x0: Tensor, generator: torch.Generator | None = None, shard: tuple[int, int] = (0, 1)
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The randomness of one step for x0 (B, ...): (t, eps, importance weight, keep), keep (B,) a label's survival.

        shard = (rank, world): draw for ``world`` batches and take the ``rank``-th, so that several processes with the same
        generator see together exactly what one process with the whole batch sees.
        """
        rank, world = shard
        n = x0.shape[0]
        mine = slice(rank * n, (rank + 1) * n)
        t, importance = self.times.sample(n * world, generator, x0.device)
        eps = noise.randn((n * world, *x0.shape[1:]), generator, x0.device, x0.dtype)
        keep = t.new_ones(n * world, dtype=torch.bool)
        if self.label_dropout:
            keep = noise.rand((n * world,), generator, x0.device) >= self.label_dropout
        return t[mine].to(x0.dtype), eps[mine], importance[mine].to(x0.dtype), keep[mine]

    def per_sample(self, net: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, **condition: Tensor) -> Tensor:
        """The loss of each sample, (B,), for x0 and eps (B, ...) and t (B,)."""
        raise TypeError(f"{type(self).__name__} has no per_sample; a loss must define it.")

    def __call__(
        self,
        net: nn.Module,
        x0: Tensor,
        *,
        generator: torch.Generator | None = None,
        shard: tuple[int, int] = (0, 1),
        **condition: Tensor,
    ) -> Tensor:
        """The loss of a batch x0 (B, ...), a scalar. ValueError if x0 holds NaN, TypeError if it is not floating point."""
        check_finite("x0", check_tensor("x0", x0))
        t, eps, importance, keep = self.draw(x0, generator, shard)
        condition = drop_labels(net, condition, keep) if self.label_dropout else condition
        losses = self.per_sample(net, x0, t, eps, **condition)
        if hasattr(self.times, "update"):
            self.times.update(t, losses)
        return (importance * losses).mean()


class DenoisingLoss(SampledLoss):
    """E[ w(t) || target - net(x_t, t) ||^2 / D ], the mean over a batch, over times and over the D dimensions.

    schedule: the path. target: what the net predicts, one of TARGETS. weight: "simple", another name in ``losses.weights``,
    or a callable (schedule, t) -> (B,). times: a TimeSampler; by default DDPM's integers for a DiscreteSchedule, else uniform
    times. label_dropout: the share of samples whose label or caption is replaced by what the net's ``null_condition`` names (the null
    class, the empty caption), for classifier-free guidance. Book (2.21), and Ho et al. 2020, eq. 14, for target "eps" and weight "simple".
    """

    def __init__(
        self,
        schedule: Schedule,
        target: str = "eps",
        weight: str | Weight = "simple",
        times: TimeSampler | None = None,
        label_dropout: float = 0.0,
    ):
        super().__init__(schedule, times, label_dropout)
        self.target = check_choice("target", target, TARGETS)
        self.weight = weight if callable(weight) else check_choice("weight", weight, WEIGHTS)

    def per_sample(self, net: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, **condition: Tensor) -> Tensor:
        """w(t) || target - net(x_t, t) ||^2 / D for each sample: (B,), for x0 and eps (B, ...) and t (B,)."""
        target = training_target(x0, eps, t, self.schedule, self.target)
        prediction = net(diffuse(x0, eps, t, self.schedule), t, **condition).to(x0.dtype)
        check_same_shape("the net's output", prediction, "the target", target)
        error = (prediction - target).square().flatten(1).mean(1)
        return loss_weight(self.weight, t, self.schedule, self.target).to(error.dtype) * error


def drop_labels(net: nn.Module, condition: dict[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    """``condition`` with its label, caption, ... replaced by the net's ``null_condition`` where ``keep`` (B,) is False."""
    null = {name: value for name, value in null_condition(net).items() if name in condition}
    if not null:
        raise ValueError(
            "label_dropout was given, but there is no label or caption, or the net has nothing that stands for none; expected a net with a "
            "null class (classes=…) or one that reads captions, and batches with labels or tokens."
        )
    dropped = {}
    for name, value in null.items():
        given = condition[name]
        value = value.to(given)
        if value.shape != given.shape[1:]:
            raise ValueError(
                f"{name} has shape {tuple(given.shape)} and the net's null {name} has shape {tuple(value.shape)}; expected one such row a sample."
            )
        dropped[name] = torch.where(keep.reshape(-1, *(1,) * value.ndim), given, value)
    return {**condition, **dropped}
