"""What the judges of coursework 6 compare with: guided Gaussians in closed form, and stub denoisers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer
from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture, three_modes
from diffusion_lib.schedules import CosineSchedule, EDMSchedule, LinearSchedule, Schedule, SubVPSchedule, VPSchedule
from diffusion_lib.targets import convert

NULL_PICTURES = 400_000


def shares(seed: int, classes: int) -> tuple[Tensor, Tensor]:
    """Class shares among labelled and among unlabelled pictures, each (K,), far from each other."""
    draws = 0.1 + torch.rand(2, classes, generator=seeded(seed), dtype=torch.float64)
    draws[0, 0] += 1.5
    draws[1, -1] += 1.5
    return tuple(draws / draws.sum(1, keepdim=True))


def classes_under_null(labelled: Tensor, unlabelled: Tensor, share: float, drop: float, seed: int) -> Tensor:
    """The true classes of the pictures that were shown to the network with the null label, in a simulated training: (M,)."""
    generator, n = seeded(seed + 1), NULL_PICTURES
    has_none = torch.rand(n, generator=generator) < share
    kind = torch.where(has_none, torch.multinomial(unlabelled, n, True, generator=generator), torch.multinomial(labelled, n, True, generator=generator))
    dropped = torch.rand(n, generator=generator) < drop
    return kind[has_none | dropped]


def which_pictures(mine: Tensor, labelled: Tensor, unlabelled: Tensor, share: float) -> str:
    """Which pictures the student's shares are those of, as a hint."""
    if apart(mine, labelled) < 1e-3:
        return " Yours are the shares of the labelled pictures: the unlabelled ones come with the null label as well."
    if apart(mine, share * unlabelled + (1 - share) * labelled) < 1e-3:
        return " Yours are the shares of all pictures: of the labelled ones only those count whose label was dropped."
    return " Which pictures come with the null label, and how many are there of each kind?"


def list_of(values: Tensor) -> str:
    """(K,) as text, three decimals."""
    return "(" + ", ".join(f"{v:.3f}" for v in values.tolist()) + ")"


class GridDenoiser:
    """The exact denoiser of a mixture whose components stand in a table of rows and columns; component = row * columns + column.

    denoiser(x, t, row=…, column=…) with x (B, D), t (B,) or a float, row and column (B,) of ints gives E[x_0 | x_t, row, column], (B, D);
    row = rows means any row, column = columns any column (the null labels, also ``null_row`` and ``null_column``).
    """

    def __init__(self, mixture: GaussianMixture, rows: int, schedule: Schedule):
        self.mixture, self.schedule, self.rows, self.columns = mixture, schedule, rows, len(mixture.weights) // rows
        self.null_row, self.null_column = self.rows, self.columns

    def __call__(self, x: Tensor, t: Tensor | float, *, row: Tensor, column: Tensor) -> Tensor:
        posterior = self.mixture.posterior(x, t, self.schedule)
        k = torch.arange(self.rows * self.columns)
        fits = (row[:, None] == k // self.columns) | (row[:, None] == self.rows)
        fits &= (column[:, None] == k % self.columns) | (column[:, None] == self.columns)
        weights = torch.where(fits, posterior.weights, 0.0)
        return ((weights / weights.sum(1, keepdim=True))[..., None] * posterior.means).sum(1)


def six_clouds() -> GaussianMixture:
    """Two rows of three clouds in the plane; rows and columns are not independent, and no two clouds are alike."""
    means = [[-1.5, 0.7], [0.1, 1.0], [1.4, 0.5], [-1.1, -0.8], [0.4, -0.6], [1.8, -1.1]]
    spread = torch.tensor([0.2, 0.35, 0.25, 0.3, 0.2, 0.4], dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.3, 0.1, 0.05, 0.05, 0.2, 0.3], dtype=torch.float64), torch.tensor(means, dtype=torch.float64), spread**2)


class Once:
    """A denoiser that may be asked once, for at most ``most`` rows."""

    def __init__(self, denoiser: GridDenoiser, most: int):
        self.denoiser, self.most, self.asked = denoiser, most, False
        self.rows, self.columns, self.null_row, self.null_column = denoiser.rows, denoiser.columns, denoiser.null_row, denoiser.null_column

    def __call__(self, x: Tensor, t: Tensor, *, row: Tensor, column: Tensor) -> Tensor:
        if self.asked:
            raise RuntimeError("the denoiser was asked a second time; expected one evaluation of a joined batch")
        if len(x) > self.most:
            raise RuntimeError(f"the denoiser was asked for {len(x)} rows; expected at most {self.most}, three for each sample")
        self.asked = True
        return self.denoiser(x, t, row=row, column=column)


def apart(a: Tensor, b: Tensor) -> float:
    """Largest difference of two tensors; infinite where one is not finite."""
    gap = float((a - b).abs().max())
    return gap if math.isfinite(gap) else math.inf


def gradient(mixture: GaussianMixture, x: Tensor, t: Tensor, schedule: Schedule, row: Tensor, column: Tensor, kind: str) -> Tensor:
    """grad_x of log p_t(row | x), log p_t(column | x) or log p_t(column | x, row): (B, 2)."""
    leaf, here = x.detach().requires_grad_(), torch.arange(len(x))
    table = mixture.class_posterior(leaf, t, schedule).reshape(len(x), 2, 3)
    if kind == "row":
        chance = table.sum(2)[here, row]
    elif kind == "column":
        chance = table.sum(1)[here, column]
    else:
        chance = table[here, row, column] / table.sum(2)[here, row]
    return torch.autograd.grad(chance.log().sum(), leaf)[0]


def factor_is_right(answer, seed: int, target: str, dots: bool) -> None:
    """c in prediction(x | y) = prediction(x) + c grad log p_t(y | x), against the exact mixture on paths that do not preserve variance."""
    generator, clouds, n, what = seeded(seed), three_modes(), 12, "v" if target == "v" else "the velocity"
    for schedule in (VPSchedule(), LinearSchedule(), SubVPSchedule(), EDMSchedule(), CosineSchedule()):
        level = torch.tensor(0.6 + 1.5 * float(torch.rand((), generator=generator)), dtype=torch.float64)
        t = schedule.time_of_log_snr(-level.log())
        alpha = schedule.alpha(t)
        x = alpha * (clouds.sample(n, generator) + level * torch.randn(n, 2, generator=generator, dtype=torch.float64))
        y = torch.randint(3, (n,), generator=generator)
        leaf, oracle = x.detach().requires_grad_(), ExactDenoiser(clouds, schedule)
        g = torch.autograd.grad(clouds.class_posterior(leaf, t, schedule)[torch.arange(n), y].log().sum(), leaf)[0]
        times = t.expand(n)
        given, plain = (convert(D, x, times, schedule, "x0", target) for D in (oracle(x, times, label=y), oracle(x, times)))
        numbers = [float(f(t)) for f in (schedule.alpha, schedule.sigma, schedule.alpha_dot, schedule.sigma_dot)[: 4 if dots else 2]]
        c = float(torch.as_tensor(call(answer, *numbers)))
        right, shift = float(((given - plain) * g).sum() / g.square().sum()), f"on {type(schedule).__name__}, at noise level {float(level):.2f},"
        if math.isclose(c, right, rel_tol=1e-4, abs_tol=1e-9):
            continue
        if math.isclose(c, -right, rel_tol=1e-4):
            raise WrongAnswer(f"The factor has the wrong sign {shift} that is: the prediction with y is the one without it plus c g.")
        if math.isclose(c, -numbers[1], rel_tol=1e-4) or math.isclose(c, numbers[1] ** 2 / numbers[0], rel_tol=1e-4):
            raise WrongAnswer(f"Yours is the factor of the prediction of eps or of x_0, (6.2) or (6.3): {shift} the difference of the two "
                              f"predictions is {right / c:.4g} times that. Put both into the definition of {what}.")
        keeps = abs(numbers[0] ** 2 + numbers[1] ** 2 - 1) < 1e-3
        hint = f"Put (6.2) and (6.3) into the definition of {what}." if keeps else "Does yours hold where alpha^2 + sigma^2 is not 1, as here?"
        raise WrongAnswer(f"The difference of the two predictions is c g, {shift} with c = {right:.6g}; yours is {c:.6g}. {hint}")


# (6.16), (6.14), (6.15): the variance of the samples over v_0
LAWS = {
    "DDPM": lambda r, w: r / (1 - r) * (1 - r ** (2 * w - 1)) / (2 * w - 1),
    "the ODE": lambda r, w: r**w,
    "much noise (the tilted law)": lambda r, w: r / (w - (w - 1) * r),
}


def dose_is_right(answer, seed: int, kind: str) -> None:
    """In four random settings the scale must give the variance that the law asks for. Errors: WrongAnswer."""
    generator = seeded(seed)
    for case in range(4):
        a, b = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        v, v_plus = 0.2 + a, (0.2 + a) * (1.3 + b)
        v_minus = v_plus * (1.5 + case)
        w = float(torch.as_tensor(call(answer, v, v_plus, v_minus)))
        given = f"For v = {v:.3f}, v_plus = {v_plus:.3f}, v_minus = {v_minus:.3f} your scale is {w:.4f}"
        true_for_all(math.isfinite(w) and w > 1, given + "; expected a number above 1: at 1 the variance is still v_plus.")
        found = v_minus * LAWS[kind](v_plus / v_minus, w)
        if abs(found / v - 1) < 1e-3:
            continue
        for other, law in LAWS.items():
            if other != kind and abs(v_minus * law(v_plus / v_minus, w) / v - 1) < 1e-3:
                raise WrongAnswer(given + f", which is right for {other}: {kind} then samples the variance {found:.4f}; expected {v:.4f}.")
        raise WrongAnswer(given + f", and {kind} then samples the variance {found:.4f}; expected {v:.4f}.")


def near(found: float, value: float, within: float = 0.12) -> bool:
    """Whether a measured variance is the value, to a relative tolerance."""
    return abs(found / value - 1) < within
