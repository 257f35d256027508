"""The judges of chapter 5's coursework: noise in proportion to x, a bridge between two points, probes on a sphere.

They judge by laws (quantiles that a flow carries, moments that a density has, invariance, one-dimensional integrals) or by numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer, coursework
from diffusion_lib.checks.laws_05 import (
    ENDS,
    HINTS,
    LEFT,
    SHIFTS,
    bridge,
    f64,
    growth,
    law_of,
    way_back,
)
from diffusion_lib.checks.typed import hermite, numbers, uniform


@coursework("cw5.1a", "what stands still", read="section 5.3, Itô's formula (5.8)")
def rates(answer, *, seed):
    """A tiny step with each of the three rates."""
    (b,) = uniform(seed, (0.5, 1.2))
    try:
        given = [float(value) for value in call(answer, b)]       # a tuple, a list, a tensor, an array
    except (TypeError, ValueError, RuntimeError):
        given = []
    true_for_all(len(given) == 3, "rates(b) returned something else than three numbers (in the order mean, median, 1/x).")
    for value, what, function in zip(given, ("mean of x", "median of x (exp of the mean of log x)", "mean of 1/x"),
                                     (lambda x: x, math.log, lambda x: 1 / x), strict=True):
        moved = growth(function, value, b)
        if abs(moved) > 1e-4:
            hint = "" if what == "mean of x" else ", and the second-order term of Itô's formula holds g^2, where here g = b x"
            raise WrongAnswer(f"With b = {b:.3f} and your a = {value:.4g} the {what} does not stand still: "
                              f"{'E[log x]' if 'median' in what else 'it'} moves by {moved:.4f} per unit of time at x = 1. The three are expected "
                              f"in the order mean, median, 1/x{hint}.")
    return "Three answers to 'no drift': with noise in proportion to x it matters what is asked."


@coursework("cw5.1b", "the velocity of the flow", read="section 5.5, the step from (5.13) to (5.14), with g^2 under the derivatives")
def velocity(answer, *, seed):
    """A flow in one dimension carries quantiles to quantiles; those of a log-normal law are known."""
    z = torch.linspace(-2, 2, 9, dtype=f64)
    for index in range(4):
        a, b, m, v, drift, widening = law_of(seed, index)
        x = (m + v**0.5 * z).exp()
        s = -(1 + z / v**0.5) / x
        wanted = x * (drift + z * widening / (2 * v**0.5))
        found = numbers(call(answer, x, s, a, b), x, "velocity(x, s, a, b)")
        off = (found - wanted) / x
        if float(off.abs().max()) > 1e-4:
            hint = "the term with the score looks wrong: the gap changes with the score at fixed x"
            if float(off.max() - off.min()) < 1e-4:
                hint = "the term with the score is right, but the noise depends on x, so its square has a derivative, too"
            raise WrongAnswer(f"At the median of x_t your velocity is {found[4]:.4f}, and the median moves by {wanted[4]:.4f}; {hint}.")
    return "Where noise grows with x, diffusion pushes towards smaller x even if the density is flat."


@coursework("cw5.1c", "the way back, with any amount of noise", read="section 5.6, the argument for (5.16)")
def reverse_drift(answer, *, seed):
    """Moments E[x^k] of the process, run backwards with your drift, must move as those of the film in reverse."""
    z, parts = hermite(48)
    for index in range(3):
        a, b, m, v, drift, widening = law_of(seed + 3, index)
        x = (m + v**0.5 * z).exp()
        s = -(1 + z / v**0.5) / x
        for eta in (0.0, 1.0, 0.6, 2.0):
            back = numbers(call(answer, x, s, a, b, eta), x, "reverse_drift(x, s, a, b, eta)")
            for k in (1.0, -1.0, 0.5):
                moment = float((parts * x**k).sum())
                wanted = k * (drift + k * widening / 2) * moment
                found = float((parts * k * x ** (k - 1) * back).sum()) - 0.5 * eta**2 * b**2 * k * (k - 1) * moment
                if abs(found - wanted) > 1e-3 * max(1.0, abs(moment)):
                    name = {1.0: "E[x]", -1.0: "E[1/x]", 0.5: "E[sqrt x]"}[k]
                    hint = "at eta = 0 it must be the velocity of the flow" if eta == 0 else \
                        "at eta = 0 it is right; what is added for eta must cancel the diffusion that eta adds, derivative of g^2 included"
                    raise WrongAnswer(f"At eta = {eta:g} your process gives {name} the rate {found:.4f} in t; that of the forward process is {wanted:.4f}: "
                                      f"{hint}.")
    return "The same trade as (5.16), with one term more."


@coursework("cw5.2", "a step back that stays positive", read="section 5.3, (5.8) with log x for phi, in the clock that runs backwards")
def step_back(answer, *, seed):
    """Positive for every noise; and on a log-normal law, with the right drift as an argument, the mean and variance of log x are right to second order in h."""
    z, parts = hermite(24)
    extreme = torch.tensor([-6.0, -3.0, 3.0, 6.0], dtype=f64)
    one = torch.ones(4, dtype=f64)
    value = torch.as_tensor(call(answer, one, 0.3 * one, 0.5, 0.9, 1.0, extreme)).detach()
    true_for_all(value > 0, f"With h = 0.5 and z = -6 a step from x = 1 ends at {float(value.min()):.3g}; expected a positive number: step in log x.")
    kicked = torch.as_tensor(call(answer, one, 0.3 * one, 0.1, 0.9, 1.0, torch.tensor([-2.0, 0.0, 2.0, 1.0], dtype=f64))).detach().log()
    true_for_all((kicked[0] + kicked[2] - 2 * kicked[1]).abs() < 1e-9, "log x_(t - h) is not linear in z; expected a step of Euler-Maruyama in log x, "
                 "where the noise does not depend on x, and then exp.")
    for index in range(3):
        law = law_of(seed + 5, index)
        _, b, m, v, drift, widening = law
        x, noise = (m + v**0.5 * z).exp().repeat_interleave(24), z.repeat(24)
        weight = (parts[:, None] * parts).reshape(-1)
        for eta in (1.0, 0.0, 0.5, 1.8):
            gaps, back = [], way_back(x, law, eta)
            for h in (0.04, 0.01):
                moved = numbers(call(answer, x, back, h, b, eta, noise), x, "step_back(x, drift, h, b, eta, z)").log()
                mean = (weight * moved).sum()
                gaps.append((float(mean - (m - h * drift)), float((weight * (moved - mean) ** 2).sum() - (v - h * widening))))
            for i, name in enumerate(("mean", "variance")):
                large, small = abs(gaps[0][i]), abs(gaps[1][i])
                if small > 2e-5 and small > large / 8:
                    raise WrongAnswer(f"At eta = {eta:g} one step makes an error of {gaps[0][i]:+.5f} in the {name} of log x with h = 0.04 and of "
                                      f"{gaps[1][i]:+.5f} with h = 0.01. A quarter of the step should leave about a sixteenth of it; yours is an error "
                                      f"of first order. {HINTS[i]}")
    return "Every member of the family, and no walker below zero."


@coursework("cw5.3a", "the SDE of a bridge", read="section 5.4, (5.10): mean and variance obey two equations")
def bridge_sde(answer, *, seed):
    """Mean and variance of the path must move as the drift and the noise say."""
    for index in range(4):
        _, t, kappa, x0, y = bridge(seed + index)
        h = 1e-5
        mean = lambda r: (1 - r) * x0 + r * y  # noqa: E731, B023
        var = lambda r: kappa**2 * r * (1 - r)  # noqa: E731, B023
        points = torch.tensor([[mean(t)], [mean(t) + 1], [mean(t) - 2]], dtype=f64)
        pair = call(answer, points, t, y, kappa)
        true_for_all(isinstance(pair, (tuple, list)) and len(pair) == 2, "bridge_sde returned something else than a pair; expected (drift, g_sq).")
        b = numbers(pair[0], points, "the drift").reshape(-1)
        slope = float(b[1] - b[0])
        if abs(float(b[2] - b[0]) + 2 * slope) > 1e-8 * max(1.0, abs(slope)):
            raise WrongAnswer("The drift is not linear in x; expected f(t) x plus a term without x.")
        moved = (mean(t + h) - mean(t - h)) / (2 * h)
        if abs(float(b[0]) - moved) > 1e-6 * max(1.0, abs(moved)):
            free = float(b[0]) - slope * mean(t)
            hint = "There is no term without x in it; but the end y pulls, too" if abs(free) < 1e-8 else \
                "The sign is wrong" if abs(float(b[0]) + moved) < 1e-6 * max(1.0, abs(moved)) else \
                "Both the factor of x and the term without x must fit, for every x_0"
            raise WrongAnswer(f"At t = {t:.3f}, on the mean of the path from x_0 = {x0:.2f} to y = {y:.2f}, the drift is {float(b[0]):.4f}; the mean moves "
                              f"by {moved:.4f}. {hint}.")
        found, wanted = 2 * slope * var(t) + float(pair[1]), (var(t + h) - var(t - h)) / (2 * h)
        if abs(found - wanted) > 1e-6 * max(1.0, abs(wanted)):
            raise WrongAnswer(f"At t = {t:.3f} with kappa = {kappa:.2f} your drift and noise change the variance at the rate {found:.4f}; the path's changes "
                              f"at {wanted:.4f}. In (5.10) V' has the slope of the drift in it, and g_sq is g squared.")
        other = call(answer, points, t, y, 2 * kappa)
        true_for_all((torch.as_tensor(other[0]) - torch.as_tensor(pair[0])).abs() < 1e-9, "The drift depends on kappa; the mean of the path does not.")
    return "It is Brownian motion, told where to be at t = 1."


@coursework("cw5.3b", "one step back along a bridge", read="section 5.4, the kernel between two times, and section 2.2, Bayes' rule")
def bridge_step(answer, *, seed):
    """Joint law of x_s and x_t given the ends: both means, both variances, and their covariance."""
    for index in range(4):
        s, t, kappa, x0, y = bridge(seed + index)
        mean = lambda r: (1 - r) * x0 + r * y  # noqa: E731, B023
        points = torch.tensor([[mean(t)], [mean(t) + 1], [mean(t) - 2]], dtype=f64)
        pair = call(answer, points, torch.full_like(points, x0), s, t, y, kappa)
        true_for_all(isinstance(pair, (tuple, list)) and len(pair) == 2, "bridge_step returned something else than a pair; expected (mean, variance).")
        centre = numbers(pair[0], points, "the mean").reshape(-1)
        left = float(pair[1])
        if abs(float(centre[0]) - mean(s)) > 1e-8:
            raise WrongAnswer(f"From a point on the mean path (t = {t:.3f}, x_0 = {x0:.2f}, y = {y:.2f}) a step to s = {s:.3f} ends at {float(centre[0]):.4f} "
                              f"on average; expected the mean path again, {mean(s):.4f}. The chain of chapter 2 heads for 0 at the far end, this one for y.")
        slope = float(centre[1] - centre[0])
        total, wanted = slope**2 * kappa**2 * t * (1 - t) + left, kappa**2 * s * (1 - s)
        if abs(total - wanted) > 1e-8:
            raise WrongAnswer(f"After a step from t = {t:.3f} to s = {s:.3f} with kappa = {kappa:.2f} the variance is {total:.4f}; the path's at s is "
                              f"{wanted:.4f}. Your step keeps {slope:.4f} of a deviation and adds the variance {left:.4f}.")
        joint = slope * kappa**2 * t * (1 - t)
        if abs(joint - kappa**2 * s * (1 - t)) > 1e-8:
            raise WrongAnswer(f"x_s and x_t have the covariance {joint:.4f} by your step; along the bridge's SDE it is {kappa**2 * s * (1 - t):.4f}. "
                              "The marginals are right: this is another member of the family, not the bridge's own way back.")
    zero = call(answer, points, torch.full_like(points, x0), 0.0, t, y, kappa)
    true_for_all((torch.as_tensor(zero[0]).detach() - x0).abs() < 1e-9, "A step to s = 0 must end at x_0.")
    try:
        start = call(answer, torch.full_like(points, y), torch.full_like(points, x0), s, 1.0, y, kappa)
    except ArithmeticError as problem:
        raise WrongAnswer("At t = 1, where x = y, your formula divides by zero: take that case on its own, or simplify the formula until "
                          "nothing vanishes below a fraction line.") from problem
    true_for_all((torch.as_tensor(start[0]).detach() - mean(s)).abs() < 1e-9, "The first step, from t = 1 and x = y, must end on the mean path.")
    true_for_all(abs(float(start[1]) - kappa**2 * s * (1 - s)) < 1e-9, "The first step, from t = 1 and x = y, must have the variance of the path.")
    return "Look at what is not in it."


@coursework("cw5.3c", "the denoiser of a bridge", read="section 4.4, (4.12): where the Gaussian of x_t given x_0 has its centre")
def bridge_denoise(answer, *, seed):
    """Two Gaussians for x_0, whose posterior is known."""
    for index in range(3):
        _, t, kappa, centre, y = bridge(seed + index)
        weight, means, width = torch.tensor([0.3, 0.7], dtype=f64), torch.tensor([centre, centre + 2], dtype=f64), 0.3
        x = torch.linspace(-2, 2, 7, dtype=f64)
        noise = kappa**2 * t * (1 - t)
        total = (1 - t) ** 2 * width**2 + noise
        offset = x[:, None] - (1 - t) * means - t * y
        r = (weight.log() - offset**2 / (2 * total)).softmax(1)
        s = -(r * offset).sum(1) / total
        wanted = (r * (means + (1 - t) * width**2 / total * offset)).sum(1)
        found = numbers(call(answer, x, s, t, y, kappa), x, "bridge_denoise(x, score, t, y, kappa)")
        gap = (found - wanted).abs()
        if float(gap.max()) > 1e-7:
            hint = "the part of x that comes from y must be taken out first" if bool((found - wanted - t * y / (1 - t)).abs().max() < 1e-7) else \
                "Tweedie's formula moves by the VARIANCE of the noise along the score, and divides by what multiplies x_0"
            raise WrongAnswer(f"At t = {t:.3f}, y = {y:.2f}, kappa = {kappa:.2f} you say {float(found[0]):.4f}; E[x_0 | x_t] is {float(wanted[0]):.4f}: "
                              f"{hint}.")
    return "A network with y among its inputs can learn it, and nothing else is needed."


@coursework("cw5.4a", "from noise levels to times", read="section 5.4, (5.12)")
def bridge_times(answer, *, seed):
    """Put back into the path, the times must have the noise levels that were asked for."""
    levels = torch.cat([torch.tensor([math.inf], dtype=f64), 10 ** torch.linspace(2, -2, 9, dtype=f64), torch.zeros(1, dtype=f64)])
    for kappa in uniform(seed, (0.1, 0.5), (0.8, 3.0)):
        t = torch.as_tensor(call(answer, levels, kappa)).detach().to(f64)
        true_for_all(t.shape == levels.shape, f"bridge_times returned the shape {tuple(t.shape)}; expected that of levels, {tuple(levels.shape)}.")
        true_for_all(t[1:-1].isfinite() & (t[1:-1] >= 0) & (t[1:-1] <= 1), "Some times are not in [0, 1].")
        found = kappa * (t[1:-1] * (1 - t[1:-1])).sqrt() / (1 - t[1:-1])
        if not bool(((found / levels[1:-1] - 1).abs() < 1e-6).all()):
            at = int((found / levels[1:-1] - 1).abs().argmax())
            raise WrongAnswer(f"With kappa = {kappa:.3f} the level {float(levels[at + 1]):.3g} becomes the time {float(t[at + 1]):.4g}, where the noise level "
                              f"(standard deviation of the noise over the factor of x_0) is {float(found[at]):.3g}.")
        true_for_all((t[0] == 1) & (t[-1] == 0), f"The levels infinity and 0 became {float(t[0]):.3g} and {float(t[-1]):.3g}; expected exactly 1 and 0.")
    return ""


@coursework("cw5.4b", "the variance that the sampler ends with", read="section 5.8, the recursion before 'Weak order 1'")
def end_variance(answer, *, seed):
    """One step, where nothing is left; stored numbers."""
    one = float(call(answer, 0.7, torch.tensor([1.0, 0.0], dtype=f64), 1.0))
    true_for_all(abs(one) < 1e-9, f"With the single step from t = 1 to 0 you say {one:.4g}; expected 0: x = y tells nothing of x_0, so all end at its mean.")
    for kappa, N, v, wanted in ENDS:
        found = float(call(answer, kappa, torch.linspace(1, 0, N + 1, dtype=f64), v))
        if not abs(found - wanted) < 1e-6:
            hint = "it is a standard deviation" if abs(found**2 - wanted) < 1e-5 else \
                "a deviation from the mean is multiplied by a number, and the step adds variance; the denoiser of N(m, v) data is linear"
            raise WrongAnswer(f"With kappa = {kappa} and {N} equal steps on data of variance {v} you say {found:.6f}; expected {wanted:.6f}: {hint}.")
    return "Never above v: each step puts the mean of x_0 where a draw belongs."


@coursework("cw5.4c", "the best kappa for equal steps", read="task 4; if you searched with end_variance, see first that 4b is correct")
def best_kappa(answer, *, seed):
    """By stored numbers, not by the student's end_variance: less variance is left 12 % below and 13 % above. (This accepts 6 % either way.)"""
    first = int(torch.randint(3, (1,), generator=seeded(seed)))
    for v, unit in ((1.0, 1.0), SHIFTS[first], SHIFTS[(first + 1) % 3]):
        found = float(call(answer, v))
        true_for_all(0 < found < math.inf, f"best_kappa({v:.3g}) is {found:.3g}; expected a positive number.")
        say = f"For data of variance {v:.3g} kappa = {found:.4g} does not leave the largest variance on 20 equal steps"
        if not 0.3 < found / unit < 1.75:
            raise WrongAnswer(f"{say}: it is far too {'small' if found < unit else 'large'}.")
        here, below, above = (v * sum(c * math.log(change * found / unit) ** k for k, c in enumerate(LEFT)) for change in (1.0, 0.88, 1.13))
        for change, there in ((0.88, below), (1.13, above)):
            if not here >= there:
                raise WrongAnswer(f"{say}: it leaves {here:.5f}, and kappa = {change * found:.4g} leaves {there:.5f}, which is larger.")
    return "How does it scale with v, and why? That is the conclusion to write."


@coursework("cw5.5", "the variance of probes on a sphere", read="section 5.11, between (5.28) and (5.29): which moments are used")
def sphere_variance(answer, *, seed):
    """In the plane by an integral over the angle; what turning the axes may not change; probes in 5 and 9 dimensions, k = 5."""
    def value(J: Tensor) -> float:
        return float(torch.as_tensor(call(answer, J)))

    skew = torch.tensor([[2.0, 1.0], [-1.0, 2.0]], dtype=f64)
    if abs(value(skew)) > 1e-9:
        raise WrongAnswer(f"J = [[2, 1], [-1, 2]] gets {value(skew):.4g}; expected 0: v^T J v = 2 |v|^2, and |v|^2 = D on the sphere, always.")
    angle = torch.arange(64, dtype=f64) * math.pi / 32
    probes = 2**0.5 * torch.stack([angle.cos(), angle.sin()], 1)
    J = torch.randn(2, 2, generator=seeded(seed), dtype=f64)
    wanted = float(torch.einsum("ni,ij,nj->n", probes, J, probes).var(correction=0))
    plane = value(J)
    generator = seeded(seed + 1)
    for D in (5, 9):
        J = torch.randn(D, D, generator=generator, dtype=f64)
        turn = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=f64))[0]
        here, there = value(J), value(turn @ J @ turn.T)
        if abs(here - there) > 1e-8 * max(abs(here), 1e-8):
            raise WrongAnswer(f"For a J in {D} dimensions you say {here:.4f}, and {there:.4f} after turning the axes. A sphere looks the same from all sides. "
                              "The entries of v are uncorrelated but not independent: which step to (5.29) needs that? Or did you sample? "
                             "An exact formula is asked for.")
        v = torch.randn(100_000, D, generator=generator, dtype=f64)
        v = D**0.5 * v / v.norm(dim=1, keepdim=True)
        draws = torch.einsum("ni,ij,nj->n", v, J, v)
        centred = (draws - draws.mean()).square()
        se = float(centred.std()) / len(v) ** 0.5
        if abs(here - float(centred.mean())) > 5 * se:
            raise WrongAnswer(f"For a J in {D} dimensions you say {here:.4f}; 100,000 probes have the variance {float(centred.mean()):.4f} ± {se:.4f} "
                              "(standard error). What are E[v_i^4] and E[v_i^2 v_j^2] on a sphere of radius sqrt(D)?")
    if abs(plane - wanted) > 1e-9:
        raise WrongAnswer(f"In the plane, where v = sqrt(2) (cos, sin), a J gets {plane:.5f}; the integral over the angle is {wanted:.5f}.")
    return ""
