"""The judges of chapter 6's coursework: null labels, nested guidance, scales by level, doses. They judge by laws, and hold no solution."""

from __future__ import annotations

import math

import torch

from diffusion_lib.checks.compare import call, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer, coursework
from diffusion_lib.checks.laws_06 import (
    LAWS,
    GridDenoiser,
    Once,
    apart,
    classes_under_null,
    dose_is_right,
    factor_is_right,
    gradient,
    list_of,
    near,
    shares,
    six_clouds,
    which_pictures,
)
from diffusion_lib.schedules import EDMSchedule, LinearSchedule, VPSchedule


@coursework("cw6.1a", "What the null label stands for", read="section 6.7, (6.9)")
def null_weights(answer, *, seed):
    """Training is simulated, and the pictures that came with the null label are counted; five standard errors."""
    for case, (classes, share, drop) in enumerate(((3, 0.3, 0.2), (2, 0.1, 0.1), (5, 0.6, 0.5), (3, 0.0, 0.1))):
        labelled, unlabelled = shares(seed + 17 * case, classes)
        mine = torch.as_tensor(call(answer, labelled, unlabelled, share, drop), dtype=torch.float64)
        true_for_all(mine.shape == (classes,), f"null_weights has shape {tuple(mine.shape)}; expected one weight for each of the {classes} classes.")
        true_for_all(abs(mine.sum() - 1) < 1e-5, f"The weights add up to {float(mine.sum()):.4g}; expected 1: divide by the share of all "
                                                 f"pictures that get the null label.")
        seen = classes_under_null(labelled, unlabelled, share, drop, seed + case)
        found = torch.bincount(seen, minlength=classes) / len(seen)
        off = ((mine - found).abs() / (found * (1 - found) / len(seen)).sqrt()).max()
        if off > 5:
            raise WrongAnswer(f"With a share of {share} of unlabelled pictures and a dropout of {drop} the pictures that came with the null "
                              f"label have the "
                              f"classes {list_of(found)}, counted in a simulated training; you say "
                              f"{list_of(mine)}." + which_pictures(mine, labelled, unlabelled, share))
    return "So a perfect network's null branch may depend on the dropout."


@coursework("cw6.1b", "The dropout for a wanted share", read="section 6.7, (6.9)")
def dropout_for(answer, *, seed):
    """Training is simulated with the dropout that was given, and the share of the class is counted; five standard errors."""
    for case, (share, k) in enumerate(((0.3, 0), (0.2, 2), (0.45, 0))):
        labelled, unlabelled = shares(seed + 31 * case, 3)
        low, high = unlabelled[k], share * unlabelled[k] + (1 - share) * labelled[k]      # no label dropped, every label dropped
        part = 0.3 + 0.4 * float(torch.rand((), generator=seeded(seed + case)))
        wanted = float(low + part * (high - low))
        drop = float(call(answer, labelled, unlabelled, share, k, wanted))
        true_for_all(0 < drop < 1, f"The dropout is {drop:.4g}; expected a number between 0 and 1: the share wanted here lies between that "
                                   f"without dropout, {float(low):.3f}, and that of all pictures, {float(high):.3f}.")
        seen = classes_under_null(labelled, unlabelled, share, drop, seed + case) == k
        found = float(seen.double().mean())
        error = (found * (1 - found) / len(seen)) ** 0.5
        true_for_all(abs(found - wanted) < 5 * error, f"With your dropout of {drop:.4f} class {k} has a share of {found:.4f} ± {error:.4f} of "
                                                      f"the pictures with the "
                                                      f"null label, in a simulated training; expected {wanted:.4f}: put your answer into null_weights.")


@coursework("cw6.2", "Two wishes, one inside the other", read="section 6.3, (6.1) and (6.3), and section 6.7, (6.10)")
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
        of_row, of_column, inside = (gradient(mixture, x, t, schedule, row, column, kind) for kind in ("row", "column", "column of row"))
        row_inside = of_row + inside - of_column                                             # of log p_t(row | x, column), by the chain rule
        factor = (schedule.sigma(t) ** 2 / schedule.alpha(t))[:, None]
        plain = mixture.denoise(x, t, schedule)
        for a, b in ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (2.5, 1.0), (1.0, 3.0), (2.0, 4.0)):
            mine = call(answer, Once(denoiser, 3 * n), x, t, row, column, a, b)
            true_for_all(tuple(mine.shape) == (n, 2), f"two_wishes has shape {tuple(mine.shape)}; expected that of x, {(n, 2)}.")
            away = (mine.double() - plain) / factor                                      # from the score, in its units
            if apart(away, a * of_row + b * inside) < 1e-4 * (1 + a + b):
                continue
            where = f"For w_row = {a:g} and w_column = {b:g} "
            if apart(away, a * of_row + b * of_column) < 1e-4 * (1 + a + b):
                raise WrongAnswer(where + "the second gradient is that of log p_t(column | x); expected that of log p_t(column | x, row): the "
                                          "row is known by then.")
            if apart(away, a * row_inside + b * of_column) < 1e-4 * (1 + a + b):
                raise WrongAnswer(where + "yours asks the column first, and the row given the column; expected the row first, and then the column given "
                                          "the row.")
            if a == b == 0:
                raise WrongAnswer(where + "the result is not the denoiser that knows nothing. (A scale of 0 does not ask, a scale of 1 asks as "
                                          "Bayes' rule says.)")
            if a == b == 1:
                raise WrongAnswer(where + "the result is not the denoiser that knows row and column, as Bayes' rule, used twice, says.")
            if apart(away, b * of_row + a * inside) < 1e-4 * (1 + a + b):
                raise WrongAnswer(where + "the two scales are taken for each other.")
            raise WrongAnswer(where + f"the score is off by up to {apart(away, a * of_row + b * inside):.3g}. Write each gradient as a difference of two "
                                      "denoisers, by (6.3), and add up.")
    return "The weights of the three denoisers add up to 1."


@coursework("cw6.3a", "Bayes' rule for a velocity", read="section 6.3, (6.2) and (6.3)")
def velocity_factor(answer, *, seed):
    """Five paths; two of them preserve variance."""
    factor_is_right(answer, seed, "velocity", dots=True)
    return "Compare it with the factor of the score in the flow (5.22)."


@coursework("cw6.3b", "Bayes' rule for v", read="section 6.3, (6.2) and (6.3)")
def v_factor(answer, *, seed):
    """Five paths; two of them preserve variance."""
    factor_is_right(answer, seed, "v", dots=False)


@coursework("cw6.4a", "The scale that each level needs", read="section 6.8, (6.13) and (6.15), and \"No law has these scores\"")
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
        as_level = 1 / ((1 - mine) / (v0 + u**2) + mine / (v1 + u**2)) - u**2               # if the argument were taken for rho
        true_for_all((as_level - as_level[0]).abs().max() > 1e-4 * as_level[0],
                     where + "the scale looks like s(rho), with the argument squared inside: the argument is u = rho^2 already.")
        worst = int((implied - implied[0]).abs().argmax())
        true_for_all((implied - implied[0]).abs().max() < 1e-4 * implied[0],
                     where + f"the guided score at u = {float(u[worst]):.3g} is that of data of variance {float(implied[worst]):.4f} with noise "
                             f"of variance u; "
                             f"expected the variance {float(implied[0]):.4f} of the tilted law, as at u = 0: set the precision of (6.13) to that "
                             f"of the tilted law, noised.")
    return "So there is a scale with which all levels belong to one process."


@coursework("cw6.4b", "A denoiser whose scale depends on the level", read="section 6.7, (6.10), and section 6.1 for u")
def level_guided(answer, *, seed):
    """(D - D_null) / (D_y - D_null) is the scale at the square of the noise level: on three paths, for points and for pictures."""
    generator, scale = seeded(seed), lambda u: 1.5 + 2.0 / (0.3 + u)
    for schedule in (EDMSchedule(), VPSchedule(), LinearSchedule()):
        level = torch.tensor([0.1, 0.5, 1.5, 4.0], dtype=torch.float64) * (1 + 0.3 * torch.rand(4, generator=generator, dtype=torch.float64))
        t = schedule.time_of_log_snr(-level.log())
        for shape in ((4, 2), (4, 1, 3, 3)):
            x, shift = torch.randn(shape, generator=generator, dtype=torch.float64), 1 + float(torch.rand((), generator=generator))
            by_y, by_null = (lambda x, t, s=shift: 0.3 * x.sin() + 0.5 * x + s), (lambda x, t: 0.5 * x)   # sample by sample, for any batch
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
                raise WrongAnswer(f"On {type(schedule).__name__}, at the noise levels {list_of(level)}, the scales are {list_of(found)}; expected "
                                  f"{list_of(right)}, scale(u) at u = rho^2.")


@coursework("cw6.5a", "The dose for DDPM", read="section 6.10, (6.20), and section 6.8, (6.16)")
def dose_ddpm(answer, *, seed):
    """The variance that (6.16) gives at the scale that was given."""
    dose_is_right(answer, seed, "DDPM")


@coursework("cw6.5b", "The dose for much noise", read="section 6.10, (6.20), and section 6.8, (6.15)")
def dose_langevin(answer, *, seed):
    """The variance that (6.15) gives at the scale that was given."""
    dose_is_right(answer, seed, "much noise (the tilted law)")
    return "ODE, DDPM, much noise: three doses for one cure."


@coursework("cw6.6a", "The width of the parts, measured", read="section 6.9 for the arc, section 6.10, and section 7.11 for dpmpp's eta")
def part_variance(answer, *, seed):
    """Measured against (6.14) and (6.16): five standard errors of 4000 coordinates, and 9 % for steps and stray samples (measured: up to 9 %, ODE, w = 3)."""
    tolerance = 5 * (2 / 4000) ** 0.5 + 0.09
    for case, (kind, w) in enumerate((("ODE", 1.0), ("ODE", 3.0), ("DDPM", 3.0))):
        found = float(torch.as_tensor(call(answer, kind, w, seeded(seed + case))))
        ode, noisy = (4.0 * LAWS[name](0.5, w) for name in ("the ODE", "DDPM"))
        right, other = (ode, noisy) if kind == "ODE" else (noisy, ode)
        if abs(found / right - 1) < tolerance:
            continue
        where = f"For {kind} at w = {w:g} you measure {found:.3f}; expected {right:.3f} ± {100 * tolerance:.0f} % "
        if w != 1 and near(found, other, 0.2):
            raise WrongAnswer(where + "times part^2. " + ("That is DDPM's variance: for the ODE, eta = 0." if kind == "ODE" else
                                                          "That is the ODE's variance: for DDPM, eta = 1."))
        if near(found, (2 - math.pi / 2) * right, 0.2):
            raise WrongAnswer(where + "times part^2. It looks like the variance of the distance: take the variance of the coordinates of x - centre, not of "
                                      "the distance.")
        if near(found, 2 * right):
            raise WrongAnswer(where + "times part^2. Yours is twice that: take the mean over the coordinates and not the squared length, and see that "
                                      "at w = 1 it is the strong model that samples, not the weak one.")
        if near(found, right**0.5):
            raise WrongAnswer(where + "times part^2. Yours is its root, a width: a variance is asked.")
        raise WrongAnswer(where + "times part^2: the parts are blurred twice in the strong model, four times in the weak one.")


@coursework("cw6.6b", "The price of the wrong dose", read="section 6.8, (6.14) and (6.16)")
def wrong_doses(first, second, *, seed):
    """Two percentages of a width (one case: the seed changes nothing). The messages name the equation, never the number."""
    asked = (("ddpm_at_two", "(6.16)", "2", 4 * LAWS["DDPM"](0.5, 2.0)),
             ("ode_at_ddpm_dose", "(6.14)", "the dose of 5a", 4 * LAWS["the ODE"](0.5, 2.3450465)))
    given, wanted = [float(torch.as_tensor(value)) for value in (first, second)], [100 * (variance**0.5 - 1) for *_, variance in asked]

    def same(a: float, b: float) -> bool:
        return abs(a - b) < 0.4

    true_for_all(not (same(given[0], wanted[1]) and same(given[1], wanted[0])), "The two are exchanged: DDPM at w = 2 comes first.")
    for (name, equation, w, variance), mine, right in zip(asked, given, wanted, strict=True):
        if same(mine, right):
            continue
        if same(mine, 100 * (variance - 1)):
            raise WrongAnswer(f"{name}: it looks as if the percentage is that of the variance: the width is its root.")
        if same(mine, -right):
            raise WrongAnswer(f"{name}: it looks as if too wide and too narrow are taken for each other: too wide is positive.")
        if abs(mine) > 0.01 and abs(100 * mine - right) < 0.6:
            raise WrongAnswer(f"{name}: it looks as if it is a share and no percentage: times 100.")
        raise WrongAnswer(f"{name} is not what {equation} gives for w = {w}, v_plus = 2, v_minus = 4: 100 (sqrt(variance) - 1), the true variance being 1.")
