"""The judges of chapter 6's coursework: null labels, nested guidance, scales by level, doses. They judge by laws, and hold no solution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, close_number, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer, coursework
from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture, three_modes
from diffusion_lib.schedules import CosineSchedule, EDMSchedule, LinearSchedule, Schedule, SubVPSchedule, VPSchedule
from diffusion_lib.targets import convert

NULL_PICTURES = 400_000


def _shares(seed: int, classes: int) -> tuple[Tensor, Tensor]:
    """Class shares among labelled and among unlabelled pictures, each (K,), far from each other."""
    draws = 0.1 + torch.rand(2, classes, generator=seeded(seed), dtype=torch.float64)
    draws[0, 0] += 1.5
    draws[1, -1] += 1.5
    return tuple(draws / draws.sum(1, keepdim=True))


def _classes_under_null(labelled: Tensor, unlabelled: Tensor, share: float, drop: float, seed: int) -> Tensor:
    """The true classes of the pictures that were shown to the network with the null label, in a simulated training: (M,)."""
    generator, n = seeded(seed + 1), NULL_PICTURES
    has_none = torch.rand(n, generator=generator) < share
    kind = torch.where(has_none, torch.multinomial(unlabelled, n, True, generator=generator), torch.multinomial(labelled, n, True, generator=generator))
    dropped = torch.rand(n, generator=generator) < drop
    return kind[has_none | dropped]


@coursework("cw6.1a", "what the null label stands for", read="section 6.7, (6.9)")
def null_weights(answer, *, seed):
    """Training is simulated, and the pictures that came with the null label are counted; five standard errors."""
    for case, (classes, share, drop) in enumerate(((3, 0.3, 0.2), (2, 0.1, 0.1), (5, 0.6, 0.5), (3, 0.0, 0.1))):
        labelled, unlabelled = _shares(seed + 17 * case, classes)
        mine = torch.as_tensor(call(answer, labelled, unlabelled, share, drop), dtype=torch.float64)
        true_for_all(mine.shape == (classes,), f"null_weights has shape {tuple(mine.shape)}; expected one weight for each of the {classes} classes.")
        true_for_all(abs(mine.sum() - 1) < 1e-5, f"The weights add up to {float(mine.sum()):.4g}; expected 1: divide by the share of all "
                                                 f"pictures that get the null label.")
        seen = _classes_under_null(labelled, unlabelled, share, drop, seed + case)
        found = torch.bincount(seen, minlength=classes) / len(seen)
        off = ((mine - found).abs() / (found * (1 - found) / len(seen)).sqrt()).max()
        if off > 5:
            raise WrongAnswer(f"With a share of {share} of unlabelled pictures and a dropout of {drop} the pictures that came with the null "
                              f"label have the "
                              f"classes {_list(found)}, counted in a simulated training; you say "
                              f"{_list(mine)}." + _which_pictures(mine, labelled, unlabelled, share))
    return "So a perfect network's null branch may depend on the dropout."


def _which_pictures(mine: Tensor, labelled: Tensor, unlabelled: Tensor, share: float) -> str:
    if _apart(mine, labelled) < 1e-3:
        return " Yours are the shares of the labelled pictures: the unlabelled ones come with the null label as well."
    if _apart(mine, share * unlabelled + (1 - share) * labelled) < 1e-3:
        return " Yours are the shares of all pictures: of the labelled ones only those count whose label was dropped."
    return " Which pictures come with the null label, and how many are there of each kind?"


def _list(values: Tensor) -> str:
    return "(" + ", ".join(f"{v:.3f}" for v in values.tolist()) + ")"


@coursework("cw6.1b", "the dropout for a wanted share", read="section 6.7, (6.9)")
def dropout_for(answer, *, seed):
    """Training is simulated with the dropout that was given, and the share of the class is counted; five standard errors."""
    for case, (share, k) in enumerate(((0.3, 0), (0.2, 2), (0.45, 0))):
        labelled, unlabelled = _shares(seed + 31 * case, 3)
        low, high = unlabelled[k], share * unlabelled[k] + (1 - share) * labelled[k]      # no label dropped, every label dropped
        part = 0.3 + 0.4 * float(torch.rand((), generator=seeded(seed + case)))
        wanted = float(low + part * (high - low))
        drop = float(call(answer, labelled, unlabelled, share, k, wanted))
        true_for_all(0 < drop < 1, f"The dropout is {drop:.4g}; expected a number between 0 and 1: the share wanted here lies between that "
                                   f"without dropout, {float(low):.3f}, and that of all pictures, {float(high):.3f}.")
        seen = _classes_under_null(labelled, unlabelled, share, drop, seed + case) == k
        found = float(seen.double().mean())
        error = (found * (1 - found) / len(seen)) ** 0.5
        true_for_all(abs(found - wanted) < 5 * error, f"With your dropout of {drop:.4f} class {k} has a share of {found:.4f} ± {error:.4f} of "
                                                      f"the pictures with the "
                                                      f"null label, in a simulated training; expected {wanted:.4f}: put your answer into null_weights.")


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


class _Once:
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


@coursework("cw6.2", "two wishes, one inside the other", read="section 6.3, (6.1) and (6.3), and section 6.7, (6.10)")
def two_wishes(answer, *, seed):
    """The score of the answer against the score plus two gradients of exact log-probabilities, by autograd, on two paths."""
    generator, mixture, n = seeded(seed), six_clouds(), 24
    for schedule in (VPSchedule(), EDMSchedule()):
        denoiser = GridDenoiser(mixture, 2, schedule)
        x0, x = mixture.sample(n, generator), torch.randn(n, 2, generator=generator, dtype=torch.float64)
        level = 0.4 + 2 * torch.rand(n, generator=generator, dtype=torch.float64)
        t = schedule.time_of_log_snr(-level.log())
        x = schedule.alpha(t)[:, None] * (x0 + level[:, None] * x)
        row, column = torch.randint(2, (n,), generator=generator), torch.randint(3, (n,), generator=generator)
        of_row, of_column, inside = (_gradient(mixture, x, t, schedule, row, column, kind) for kind in ("row", "column", "column of row"))
        factor = (schedule.sigma(t) ** 2 / schedule.alpha(t))[:, None]
        plain = mixture.denoise(x, t, schedule)
        for a, b in ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (2.5, 1.0), (1.0, 3.0), (2.0, 4.0)):
            mine = call(answer, _Once(denoiser, 3 * n), x, t, row, column, a, b)
            true_for_all(tuple(mine.shape) == (n, 2), f"two_wishes has shape {tuple(mine.shape)}; expected that of x, {(n, 2)}.")
            away = (mine.double() - plain) / factor                                      # from the score, in its units
            if _apart(away, a * of_row + b * inside) < 1e-4 * (1 + a + b):
                continue
            where = f"For w_row = {a:g} and w_column = {b:g} "
            if _apart(away, a * of_row + b * of_column) < 1e-4 * (1 + a + b):
                raise WrongAnswer(where + "the second gradient is that of log p_t(column | x); expected that of log p_t(column | x, row): the "
                                          "row is known by then.")
            if a == b == 0:
                raise WrongAnswer(where + "the result is not the denoiser that knows nothing. (A scale of 0 does not ask, a scale of 1 asks as "
                                          "Bayes' rule says.)")
            if a == b == 1:
                raise WrongAnswer(where + "the result is not the denoiser that knows row and column, as Bayes' rule, used twice, says.")
            if _apart(away, b * of_row + a * inside) < 1e-4 * (1 + a + b):
                raise WrongAnswer(where + "the two scales are taken for each other.")
            raise WrongAnswer(where + f"the score is off by up to {_apart(away, a * of_row + b * inside):.3g}. Write each gradient as a difference of two "
                                      "denoisers, by (6.3), and add up.")
    return "The weights of the three denoisers add up to 1."


def _apart(a: Tensor, b: Tensor) -> float:
    gap = float((a - b).abs().max())
    return gap if math.isfinite(gap) else math.inf


def _gradient(mixture: GaussianMixture, x: Tensor, t: Tensor, schedule: Schedule, row: Tensor, column: Tensor, kind: str) -> Tensor:
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


def _factor_is_right(answer, seed: int, target: str, dots: bool) -> None:
    """c in prediction(x | y) = prediction(x) + c grad log p_t(y | x), against the exact mixture on paths that do not preserve variance."""
    generator, clouds, n = seeded(seed), three_modes(), 12
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
                              f"predictions is {right / c:.4g} times that. Put both into the target.")
        keeps = abs(numbers[0] ** 2 + numbers[1] ** 2 - 1) < 1e-3
        hint = "Put (6.2) and (6.3) into the target." if keeps else "Does yours hold where alpha^2 + sigma^2 is not 1, as here?"
        raise WrongAnswer(f"The difference of the two predictions is c g, {shift} with c = {right:.6g}; yours is {c:.6g}. {hint}")


@coursework("cw6.3a", "Bayes' rule for a velocity", read="section 6.3, (6.2) and (6.3)")
def velocity_factor(answer, *, seed):
    """Five paths; two of them preserve variance."""
    _factor_is_right(answer, seed, "velocity", dots=True)
    return "Compare it with the factor of the score in the flow (5.22)."


@coursework("cw6.3b", "Bayes' rule for v", read="section 6.3, (6.2) and (6.3)")
def v_factor(answer, *, seed):
    """Five paths; two of them preserve variance."""
    _factor_is_right(answer, seed, "v", dots=False)


@coursework("cw6.4a", "the scale that each level needs", read="section 6.8, (6.13) and (6.15), and \"No law has these scores\"")
def scale_at(answer, *, seed):
    """The guided score at u must be that of one law with noise of variance u: the variance that it implies, less u, is the same everywhere."""
    generator = seeded(seed)
    for _ in range(4):
        a, b, c = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        v0, v1, w = 0.5 + a, (0.5 + a) * (0.15 + 0.6 * b), 1.3 + 4 * c
        u = torch.cat([torch.zeros(1), torch.logspace(-3, 2, 11)]).double()
        mine = torch.as_tensor(call(answer, u.clone(), v0, v1, w)).double()
        true_for_all(mine.shape == u.shape, f"scale_at has shape {tuple(mine.shape)}; expected {tuple(u.shape)}, that of u.")
        true_for_all(torch.isfinite(mine), "scale_at is infinite or no number somewhere: expected a finite scale at every u >= 0.")
        where = f"For v0 = {v0:.3f}, v1 = {v1:.3f}, w = {w:.3f} "
        true_for_all((mine - mine[0]).abs().max() > 1e-6, where + "the scale is the same at every level. Then no law has the guided scores.")
        true_for_all(abs(mine[0] / w - 1) < 1e-4, where + f"the scale at u = 0 is {float(mine[0]):.4f}; expected w itself: without noise the "
                                                          f"guided law is the tilted one.")
        implied = 1 / ((1 - mine) / (v0 + u) + mine / (v1 + u)) - u
        worst = int((implied - implied[0]).abs().argmax())
        true_for_all((implied - implied[0]).abs().max() < 1e-4 * implied[0],
                     where + f"the guided score at u = {float(u[worst]):.3g} is that of data of variance {float(implied[worst]):.4f} with noise "
                             f"of variance u; "
                             f"expected the variance {float(implied[0]):.4f} of the tilted law, as at u = 0: set the precision of (6.13) to that "
                             f"of the tilted law, noised.")
    return "At high noise much less than w is enough."


@coursework("cw6.4b", "a denoiser whose scale depends on the level", read="section 6.7, (6.10), and section 6.1 for u")
def level_guided(answer, *, seed):
    """(D - D_null) / (D_y - D_null) is the scale at the square of the noise level: on three paths, for points and for pictures."""
    generator, scale = seeded(seed), lambda u: 1.5 + 2.0 / (0.3 + u)
    for schedule in (EDMSchedule(), VPSchedule(), LinearSchedule()):
        level = torch.tensor([0.1, 0.5, 1.5, 4.0], dtype=torch.float64) * (1 + 0.3 * torch.rand(4, generator=generator, dtype=torch.float64))
        t = schedule.time_of_log_snr(-level.log())
        for shape in ((4, 2), (4, 1, 3, 3)):
            x, offset, slope = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
            by_y, by_null = (lambda x, t, o=offset, s=slope: s * x + o), (lambda x, t: 0.5 * x)
            guided = call(answer, by_y, by_null, schedule, scale)
            try:
                mine = guided(x, t)
            except RuntimeError as problem:
                raise WrongAnswer(f"For x of shape {shape} and t of shape (4,) your denoiser raised: {problem}. One scale for each sample has "
                                  f"the shape (B, 1, 1, …).") from None
            true_for_all(tuple(mine.shape) == shape, f"For x of shape {shape} and t of shape (4,) the denoiser returned the shape {tuple(mine.shape)}.")
            found = ((mine.double() - by_null(x, t)) / (by_y(x, t) - by_null(x, t))).flatten(1)
            true_for_all((found - found[:, :1]).abs().max() < 1e-4 * found.abs().max(), f"For x of shape {shape} the scale is not one number for "
                                                                                        f"each sample: the result is not on the line (6.10).")
            right, found = scale(level**2), found[:, 0]
            if not torch.allclose(found, right, rtol=1e-4):
                known = {"the noise level itself: u is its square": scale(level), "sigma^2: the noise level is sigma / "
                                                                                  "alpha": scale(schedule.sigma(t) ** 2),
                         "the time t": scale(t), "t^2: time is no noise level": scale(t**2)}
                for what, other in known.items():
                    if torch.allclose(found, other, rtol=1e-4):
                        raise WrongAnswer(f"On {type(schedule).__name__} the scale was asked at {what}.")
                raise WrongAnswer(f"On {type(schedule).__name__}, at the noise levels {_list(level)}, the scales are {_list(found)}; expected "
                                  f"{_list(right)}, scale(u) at u = rho^2.")


def _variance_ddpm(w: float, v_plus: float, v_minus: float) -> float:
    """(6.16), with the weak model in the place of the unconditional one."""
    r = v_plus / v_minus
    return v_minus * r / (1 - r) * (1 - r ** (2 * w - 1)) / (2 * w - 1)


def _variance_ode(w: float, v_plus: float, v_minus: float) -> float:
    """(6.14)."""
    return v_minus * (v_plus / v_minus) ** w


def _variance_langevin(w: float, v_plus: float, v_minus: float) -> float:
    """(6.15)."""
    precision = (1 - w) / v_minus + w / v_plus
    return 1 / precision if precision > 0 else math.inf


LAWS = {"DDPM": _variance_ddpm, "the ODE": _variance_ode, "much noise (the tilted law)": _variance_langevin}


def _dose_is_right(answer, seed: int, kind: str) -> None:
    generator = seeded(seed)
    for case in range(4):
        a, b = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        v, v_plus = 0.2 + a, (0.2 + a) * (1.3 + b)
        v_minus = v_plus * (1.5 + case)
        w = float(torch.as_tensor(call(answer, v, v_plus, v_minus)))
        given = f"For v = {v:.3f}, v_plus = {v_plus:.3f}, v_minus = {v_minus:.3f} your scale is {w:.4f}"
        true_for_all(math.isfinite(w) and w > 1, given + "; expected a number above 1: at 1 the variance is still v_plus.")
        found = LAWS[kind](w, v_plus, v_minus)
        if abs(found / v - 1) < 1e-3:
            continue
        for other, law in LAWS.items():
            if other != kind and abs(law(w, v_plus, v_minus) / v - 1) < 1e-3:
                raise WrongAnswer(given + f", which is right for {other}: {kind} then samples the variance {found:.4f}; expected {v:.4f}.")
        raise WrongAnswer(given + f", and {kind} then samples the variance {found:.4f}; expected {v:.4f}.")


@coursework("cw6.5a", "the dose for DDPM", read="section 6.10, (6.20), and section 6.8, (6.16)")
def dose_ddpm(answer, *, seed):
    """The variance that (6.16) gives at the scale that was given."""
    _dose_is_right(answer, seed, "DDPM")


@coursework("cw6.5b", "the dose for much noise", read="section 6.10, (6.20), and section 6.8, (6.15)")
def dose_langevin(answer, *, seed):
    """The variance that (6.15) gives at the scale that was given."""
    _dose_is_right(answer, seed, "much noise (the tilted law)")
    return "ODE, DDPM, much noise: three doses for one cure."


def _near(found: float, value: float) -> bool:
    return abs(found / value - 1) < 0.12


@coursework("cw6.6a", "the width of the parts, measured", read="section 6.9 for the arc, section 6.10, and section 7.11 for dpmpp's eta")
def part_variance(answer, *, seed):
    """Measured against (6.14) and (6.16): five standard errors of 4000 coordinates, and 9 % for steps and stray samples (measured: up to 9 %, ODE, w = 3)."""
    tolerance = 5 * (2 / 4000) ** 0.5 + 0.09
    for case, (kind, w) in enumerate((("ODE", 1.0), ("ODE", 3.0), ("DDPM", 3.0))):
        found = float(torch.as_tensor(call(answer, kind, w, seeded(seed + case))))
        right = (_variance_ode if kind == "ODE" else _variance_ddpm)(w, 2.0, 4.0)
        if abs(found / right - 1) < tolerance:
            continue
        where = f"For {kind} at w = {w:g} you measure {found:.3f}; expected {right:.3f} ± {100 * tolerance:.0f} % "
        if w != 1 and _near(found, (_variance_ddpm if kind == "ODE" else _variance_ode)(w, 2.0, 4.0)):
            raise WrongAnswer(where + "times part^2. Yours is what the other sampler gives: is eta right?")
        if _near(found, 2 * right):
            raise WrongAnswer(where + "times part^2. Yours is twice that: take the mean over the coordinates and not the squared length, and see that "
                                      "at w = 1 it is the strong model that samples, not the weak one.")
        if _near(found, right**0.5):
            raise WrongAnswer(where + "times part^2. Yours is its root, a width: a variance is asked.")
        raise WrongAnswer(where + "times part^2: the parts are blurred twice in the strong model, four times in the weak one.")


@coursework("cw6.6b", "the price of the wrong dose", read="section 6.8, (6.14) and (6.16)")
def wrong_doses(first, second, *, seed):
    """Two percentages of a width (one case: the seed changes nothing)."""
    w = 2.3450465
    for name, value, found in (("ddpm_at_two", first, _variance_ddpm(2.0, 2.0, 4.0)), ("ode_at_ddpm_dose", second, _variance_ode(w, 2.0, 4.0))):
        right = 100 * (found**0.5 - 1)
        variance = 100 * ((1 + right / 100) ** 2 - 1)
        close_number(value, right, rtol=0, atol=0.4, name=name, mistakes={
            "the percentage is that of the variance: the width is its root": variance,
            "too wide and too narrow are taken for each other: too wide is positive": -right,
            "it is a share and no percentage: times 100": right / 100,
        })
