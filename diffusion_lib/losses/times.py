"""Which times a training step looks at: uniform, stratified, DDPM's integers, NCSN's levels, EDM's, or where loss is large."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.schedules import Schedule
from diffusion_lib.validate import check_count, check_number, check_positive, check_tensor, check_time

SMALLEST_TIME = 1e-9  # above 0, where there is no noise


class TimeSampler(Protocol):
    """Draws n times with importance weights; may learn from the losses it is told of."""

    def sample(self, n: int, generator: torch.Generator | None = None, device=None) -> tuple[Tensor, Tensor]:
        """(t, weight), each (n,) float32, with E[weight f(t)] = the mean of f over the sampler's range."""
        ...


class UniformTimes:
    """t uniform on [t_min, t_max], 0 <= t_min < t_max <= 1; all weights 1.

    stratified: one draw in each of n equal cells, in random order, which lowers the variance of the mean at no cost
    (the low-discrepancy sampler of Kingma et al. 2021, Appendix I.1, with independent offsets).
    """

    def __init__(self, t_min: float = 1e-4, t_max: float = 1.0, stratified: bool = False):
        if not 0 <= t_min < t_max <= 1:
            raise ValueError(f"t_min={t_min}, t_max={t_max} was given; expected 0 <= t_min < t_max <= 1.")
        self.t_min, self.t_max, self.stratified = t_min, t_max, stratified

    def sample(self, n: int, generator: torch.Generator | None = None, device=None) -> tuple[Tensor, Tensor]:
        unit = noise.rand((n,), generator)
        if self.stratified:
            unit = (torch.randperm(n, generator=generator, device=unit.device) + unit) / n
        t = self.t_min + (self.t_max - self.t_min) * unit
        return t.to(device), torch.ones_like(t).to(device)


class DiscreteTimes:
    """t = k / steps with k uniform on 1..steps: the times of DDPM; all weights 1."""

    def __init__(self, steps: int):
        self.steps = check_count("steps", steps)

    def sample(self, n: int, generator: torch.Generator | None = None, device=None) -> tuple[Tensor, Tensor]:
        source = generator.device if generator is not None else device
        k = torch.randint(1, self.steps + 1, (n,), generator=generator, device=source)
        return (k.double() / self.steps).float().to(device), torch.ones(n, device=device)


class LevelTimes:
    """t uniform over a given list of ``times`` (L,), each in (0, 1]: the noise levels of NCSN; all weights 1.

    For NCSN's levels: LevelTimes(level_times(schedule, levels)[:-1]), which leaves out the 0 at the end of the grid.
    With an eps target and the weight "simple" DenoisingLoss is then NCSN's loss, each level's score matching times its
    sigma^2. Song & Ermon 2019, eq. 6. Book (4.21).
    """

    def __init__(self, times: Tensor):
        self.times = check_time(check_tensor("times", times, ndim=1), "times").detach().float().cpu()
        if len(self.times) == 0 or float(self.times.min()) <= 0:
            raise ValueError(
                "times holds no entry, or one at t = 0, where there is no noise; "
                "expected times in (0, 1]: drop the last of a grid with [:-1]."
            )

    def sample(self, n: int, generator: torch.Generator | None = None, device=None) -> tuple[Tensor, Tensor]:
        source = generator.device if generator is not None else device
        index = torch.randint(len(self.times), (n,), generator=generator, device=source).cpu()
        return self.times[index].to(device), torch.ones(n, device=device)


class LogNormalLevels:
    """Times whose noise level is log-normal, log(sigma/alpha) ~ N(mean, std^2): where EDM trains; all weights 1.

    mean, std: of the logarithm of the level, std > 0; EDM's for pictures are -1.2 and 1.2. A level above the schedule's highest becomes that.
    stratified: one draw in each of n intervals of equal probability, as :class:`UniformTimes` does.
    Book (7.11). Karras et al. 2022, Table 1 and Sec. 5. ValueError for a bad std.
    """

    def __init__(self, schedule: Schedule, mean: float = -1.2, std: float = 1.2, stratified: bool = False):
        self.schedule, self.mean, self.std, self.stratified = schedule, check_number("mean", mean), check_positive("std", std), stratified
        self.t_max = torch.tensor(schedule.t_max, dtype=torch.float64)

    def sample(self, n: int, generator: torch.Generator | None = None, device=None) -> tuple[Tensor, Tensor]:
        if self.stratified:
            unit = noise.rand((n,), generator, dtype=torch.float64)
            cell = torch.randperm(n, generator=generator, device=unit.device)
            normal = torch.special.ndtri(((cell + unit) / n).clamp(1e-9, 1 - 1e-9)).cpu()
        else:
            normal = noise.randn((n,), generator, dtype=torch.float64).cpu()
        log_level = self.mean + self.std * normal
        log_level = log_level.clamp(max=-float(self.schedule.log_snr(self.t_max)))
        t = self.schedule.time_of_log_snr(-log_level).clamp(SMALLEST_TIME, self.schedule.t_max).float()
        return t.to(device), torch.ones_like(t).to(device)


class ImportanceTimes:
    """t = k / steps with k drawn in proportion to the root mean square of its last ``history`` losses.

    The weight 1 / (steps p_k) keeps the mean unbiased, and this p has the least variance of all. Until every k has been seen
    ``history`` times, k is uniform. Call :meth:`update` after each step. Book (2.30). Nichol & Dhariwal 2021, Sec. 3.3, eq. 18; as in their
    code, a thousandth of the probability stays uniform, so that no time is ever forgotten.
    """

    uniform_share = 1e-3

    def __init__(self, steps: int, history: int = 10):
        self.steps, self.history = check_count("steps", steps), check_count("history", history)
        self.losses = torch.zeros(steps, history, dtype=torch.float64)  # entry k - 1 holds the last losses at step k
        self.counts = torch.zeros(steps, dtype=torch.long)

    def probabilities(self) -> Tensor:
        """p_k for k = 1..steps, (steps,) float64, summing to 1."""
        uniform = torch.full((self.steps,), 1 / self.steps, dtype=torch.float64)
        if int(self.counts.min()) < self.history:
            return uniform
        root_mean_square = self.losses.square().mean(1).sqrt()
        return (1 - self.uniform_share) * root_mean_square / root_mean_square.sum() + self.uniform_share * uniform

    def sample(self, n: int, generator: torch.Generator | None = None, device=None) -> tuple[Tensor, Tensor]:
        p = self.probabilities()
        source = generator.device if generator is not None else p.device
        index = torch.multinomial(p.to(source), n, replacement=True, generator=generator).cpu()
        t, weight = (index + 1).double() / self.steps, 1 / (self.steps * p[index])
        return t.float().to(device), weight.float().to(device)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Remember the unweighted losses (n,) seen at times t (n,). Reads them back from an accelerator, once a step."""
        index = (t.double() * self.steps).round().long().cpu() - 1
        for k, loss in zip(index.tolist(), losses.detach().double().cpu().tolist(), strict=True):
            self.losses[k, int(self.counts[k]) % self.history] = loss
            self.counts[k] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """What an exact resume needs: {"losses", "counts"}."""
        return {"losses": self.losses.clone(), "counts": self.counts.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.losses.copy_(state["losses"])
        self.counts.copy_(state["counts"])
