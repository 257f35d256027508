"""DDPM's own schedule: T betas, and the continuous path that runs through them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lib.schedules.base import Schedule
from diffusion_lib.validate import check_choice, check_count, check_tensor

MAX_BETA = 0.999


class DiscreteSchedule(Schedule):
    """T noise rates ``betas`` (T,), each in (0, 1): step k has alpha-bar_k = (1 - beta_1) ... (1 - beta_k) and time t = k / T.

    Book (2.2). Ho et al. 2020, eq. 4. Attributes: ``steps`` = T; ``betas`` (T,), whose entry k - 1 is beta_k; ``alphas_bar`` (T + 1,), whose
    entry k is alpha-bar_k, with alpha-bar_0 = 1, so no index is ever shifted. Between the steps log alpha-bar is linear in t,
    which is the exact variance-preserving SDE with a piecewise constant rate.
    """

    def __init__(self, betas: Tensor):
        betas = check_tensor("betas", betas, ndim=1).double().cpu()
        if len(betas) == 0 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(
                f"betas has {len(betas)} entries spanning [{float(betas.min()) if len(betas) else math.nan:.4g}, "
                f"{float(betas.max()) if len(betas) else math.nan:.4g}]; expected at least one, each in (0, 1): use more steps or scale them down."
            )
        self.betas = betas
        self.steps = len(betas)
        self._log_alphas_bar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])  # (T + 1,)
        self.alphas_bar = self._log_alphas_bar.exp()
        self._config = {"name": type(self).__name__, "betas": betas.tolist()}

    @classmethod
    def from_name(cls, name: str, T: int = 1000) -> DiscreteSchedule:
        """The two schedules of the literature, for ``T`` steps.

        "linear": beta from 1e-4 to 0.02 for T = 1000 (Ho et al. 2020, Sec. 4), scaled by 1000 / T for other T as in Nichol &
        Dhariwal's code; needs T > 20. "cosine": Book (2.26), Nichol & Dhariwal 2021, eq. 17, with beta clipped at 0.999.
        """
        check_choice("name", name, ("linear", "cosine"))
        check_count("T", T)
        if name == "linear":
            betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64) * (1000 / T)
        else:
            angle = (torch.arange(T + 1, dtype=torch.float64) / T + 0.008) / 1.008 * (math.pi / 2)
            alphas_bar = angle.cos() ** 2
            betas = (1 - alphas_bar[1:] / alphas_bar[:-1]).clamp(max=MAX_BETA)
        schedule = cls(betas)
        schedule._config = {"name": cls.__name__, "from_name": name, "T": T}
        return schedule

    def __repr__(self) -> str:
        return f"DiscreteSchedule(steps={self.steps}, alphas_bar[-1]={float(self.alphas_bar[-1]):.3g})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DiscreteSchedule) and torch.equal(self.betas, other.betas)

    def __hash__(self) -> int:
        return hash((self.steps, float(self._log_alphas_bar[-1])))

    @property
    def config(self) -> dict:
        return dict(self._config)

    @property
    def prior_std(self) -> float:
        return 1.0

    def time(self, k: Tensor | int) -> Tensor:
        """The time t = k / T in [0, 1] of step ``k`` in 0..T (k = 0 is data); an int or an integer tensor of any shape."""
        k = torch.as_tensor(k)
        if k.is_floating_point() or (
            k.device.type == "cpu" and k.numel() and not bool(((k >= 0) & (k <= self.steps)).all())
        ):
            raise ValueError(
                f"k between {k.min().item()} and {k.max().item()} was given; expected integers in 0..{self.steps}: steps count from 1, and 0 is the data."
            )
        return k.double() / self.steps

    def _interval(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The table on t's device, the index k below T t (0..T-1) and the position within the interval."""
        table = self._log_alphas_bar.to(device=t.device, dtype=t.dtype)
        position = t * self.steps
        k = position.floor().clamp(max=self.steps - 1).long()
        return table, k, position - k

    def _log_alpha_bar(self, t: Tensor) -> Tensor:
        table, k, within = self._interval(t)
        return torch.lerp(table[k], table[k + 1], within)

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.exp(0.5 * self._log_alpha_bar(t))

    def _sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(self._log_alpha_bar(t))).sqrt()

    def _drift(self, t: Tensor) -> Tensor:
        table, k, _ = self._interval(t)
        return 0.5 * self.steps * (table[k + 1] - table[k])

    def _diffusion_sq(self, t: Tensor) -> Tensor:
        return -2 * self._drift(t)

    def _alpha_dot(self, t: Tensor) -> Tensor:
        return self._drift(t) * self._alpha(t)

    def _sigma_dot(self, t: Tensor) -> Tensor:
        return -self._drift(t) * self._alpha(t) ** 2 / self._sigma(t)

    def _time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        target = -F.logsigmoid(2 * log_snr)  # -log alpha-bar
        table = -self._log_alphas_bar.to(device=log_snr.device, dtype=log_snr.dtype)
        k = torch.searchsorted(table, target.contiguous()).clamp(1, self.steps) - 1
        return (k + (target - table[k]) / (table[k + 1] - table[k])) / self.steps
