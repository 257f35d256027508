"""The judges of chapter 1's coursework: they compare with laws and with sums over a fine grid, not with closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.distributions import Poisson

from diffusion_lib.checks.compare import call, close_to_reference, mean_close, seeded, true_for_all, variance_close
from diffusion_lib.checks.core import WrongAnswer, coursework
from diffusion_lib.checks.laws_01 import (
    EXACT,
    GRID,
    camera_of,
    cases_of,
    chi_sq,
    chi_sq_reverse,
    climb,
    damped_of,
    density,
    explain_total,
    likelihood,
    log_density,
    newton,
    number,
    plain_of,
    precision,
    price,
    rebuild_of,
    same,
    second_moment,
    tensor,
    variance_with,
)


@coursework("cw1.1", "log-weights of the counting VAE", read="section 1.1, (1.1) and (1.2), and section 1.6, before (1.19)")
def log_weight(answer: Callable, *, seed: int) -> str:
    """Importance weights average to p(x), and weighted draws have the posterior's moments."""
    cases = cases_of(seed, 6)
    x, rate = (torch.tensor([case[i] for case in cases], dtype=torch.float64) for i in (0, 2))
    for gain in (cases[0][1], cases[1][1], 1.0):
        found = tensor(call(answer, x.clone(), GRID.expand(len(x), -1).clone(), gain, rate.clone()), "log_weight")
        if found.shape != (len(x), len(GRID)):
            raise WrongAnswer(f"log_weight has shape {tuple(found.shape)} for x (6,), z (6, {len(GRID)}), rate (6,); expected (6, {len(GRID)}): "
                              "x and rate need a second axis, and nothing is averaged yet.")
        weighted = found.double().nan_to_num(0.0, 0.0, 0.0) * torch.stack([density(float(r)) for r in rate])
        evidence = (gain / (1 + gain)) ** x / (1 + gain)
        true_for_all(bool((found < 0).any()) or not torch.allclose(weighted.sum(1), evidence, rtol=1e-4, atol=0),
                     "These are the weights w; log w is asked: add the logarithms, since the weights themselves overflow.")
        true_for_all(torch.isfinite(found), "log_weight holds NaN or infinity for small or large z: do not take the logarithm of a power or an exponential.")
        mass = (found.double() + torch.stack([log_density(float(r)) for r in rate])).exp()
        total = mass.sum(1)
        ratio = total / evidence
        if not torch.allclose(ratio, torch.ones_like(ratio), rtol=precision(found), atol=0):
            raise WrongAnswer(explain_total(ratio, x, gain, rate))
        mean = (mass * GRID).sum(1) / total
        joint = torch.stack([Poisson(gain * GRID).log_prob(k).exp() * density(1.0) for k in x])
        expected = (joint * GRID).sum(1) / joint.sum(1)
        true_for_all((mean - expected).abs() <= 10 * precision(found) * expected,
                     f"The weights have the right mean p(x), but weighted draws of z have the mean {float(mean[0]):.5g} at x = {x[0]:.0f}, gain "
                     f"{gain:.3g}, where "
                     f"the posterior has {float(expected[0]):.5g}: look at the terms in z.")
    return "With these weights any encoder, good or bad, measures p(x)."


@coursework("cw1.2a", "the bound in closed form", read="section 1.1, (1.4), and section 1.5, (1.16); (1.5) is for Gaussians only")
def bound(answer: Callable, *, seed: int) -> str:
    """The two terms, each by a sum over the grid."""
    def rebuild(x, gain, rate, beta):
        return rebuild_of(x, gain, rate)
    def right(x, gain, rate, beta):
        return rebuild_of(x, gain, rate) - beta * price(rate)
    close_to_reference(answer, right, cases_of(seed, 6), rtol=EXACT, atol=1e-7, name="bound", mistakes={
        "beta is not used": lambda x, gain, rate, beta: rebuild_of(x, gain, rate) - price(rate),
        "the sign of the price is wrong": lambda x, gain, rate, beta: rebuild_of(x, gain, rate) + beta * price(rate),
        "the price is missing": rebuild,
        "log x! is missing": lambda x, gain, rate, beta: right(x, gain, rate, beta) + math.lgamma(x + 1),
        "rate is taken for the mean of z: it is one over the mean": lambda x, gain, rate, beta: right(x, gain, 1 / rate, beta),
        "log z was averaged as if E log z = log E z: that leaves out Euler's constant for each count":
            lambda x, gain, rate, beta: right(x, gain, rate, beta) + 0.5772156649015329 * x,
        "E log z is -gamma for q as well: z = u / rate": lambda x, gain, rate, beta: right(x, gain, rate, beta) + x * math.log(rate),
        "the KL is taken the other way round, from the prior to q":
            lambda x, gain, rate, beta: rebuild_of(x, gain, rate) - beta * (rate - 1 - math.log(rate)),
    })
    return "No draws are needed: the second of the two terms is the price, (1.4)."


@coursework("cw1.2b", "the best encoder", read="section 1.5, (1.16): the slope of the bound in rate is zero")
def best_rate(answer: Callable, *, seed: int) -> str:
    """The bound's slope must vanish at the answer, and change sign there."""
    for x, gain, _, beta in [*cases_of(seed, 6), (0, 2.0, 1.0, 1.0)]:
        found = number(answer, "best_rate", x, gain, beta)
        true_for_all(found > 0 and math.isfinite(found), f"best_rate({x:.0f}, {gain:.3g}, {beta:.3g}) is {found:.4g}; a rate is positive and finite.")
        def value(rate, x=x, gain=gain, beta=beta):
            return rebuild_of(x, gain, rate) - beta * price(rate)
        slope, off = newton(value, found)
        if off > 1e-5:
            hint = " (Its reciprocal does better: is this the mean of z and not its rate?)" if newton(value, 1 / found)[1] < 1e-6 else ""
            raise WrongAnswer(f"At x = {x:.0f}, gain {gain:.4g}, beta {beta:.4g} your rate {found:.5g} is not the top: the bound still "
                              f"{'rises' if slope > 0 else 'falls'} with the rate there.{hint}")
    return "Where is it the posterior itself?"


@coursework("cw1.3a", "slopes through the draw", read="section 1.3, (1.8) and (1.9): first make z from noise that knows nothing of rate")
def pathwise(answer: Callable, *, seed: int) -> str:
    """Mean and variance of the draws for four f whose averages are known."""
    n = 40_000
    for i, (_, _, rate, _) in enumerate(cases_of(seed, 2)):
        def draw(f, n=n, i=i, rate=rate):
            return tensor(call(answer, f, rate, n, seeded(7 * seed + i)), "pathwise").double()
        logs = draw(lambda z: z.log(), 50)
        true_for_all(logs.shape == (50,), f"pathwise returned the shape {tuple(logs.shape)} for n = 50; expected (50,): one slope for each draw.")
        if bool((logs * rate + 1).abs().max() < 1e-3) and abs(rate - 1) > 1e-2:
            raise WrongAnswer("This is the slope in rate; the slope in log(rate) is asked: multiply by rate.")
        true_for_all((logs - 1).abs().max() > 1e-3, "The sign is wrong: a larger rate makes z smaller.")
        true_for_all((logs + 1).abs() < 1e-3, "For f = log, log z is a constant minus log(rate), so every single slope in log(rate) must be -1 "
                                              "through the draw; "
                     f"yours spread from {float(logs.min()):.3g} to {float(logs.max()):.3g}. Is z rewritten as a function of rate and noise, "
                     "or did the slope come through the density?")
        name = f"pathwise's mean for f(z) = {{}} at rate {rate:.3g}"
        damped = draw(damped_of)
        true_for_all(torch.isfinite(damped), "f was asked at z < 0: a brightness is positive; which noise gives an exponential z?")
        first, second = draw(lambda z: z), draw(lambda z: z**2)
        true_for_all(first.max() > first.min(), "All slopes for f(z) = z are the same number, so all draws z are: where is the noise?")
        mean_close(first, -1 / rate, name=name.format("z"))
        variance_close(first, 1 / rate**2, name=name.format("z").replace("mean", "variance"))
        mean_close(second, -4 / rate**2, name=name.format("z^2"))
        mean_close(damped, rate / (1 + rate) ** 2, name=name.format("exp(-z)"))
        again = draw(lambda z: z)
        true_for_all(torch.equal(first, again), "Two calls with equal generators differ: draw from the generator that is given.")
    return "With f = log the variance is zero: the estimate through the density, with a constant baseline, cannot do that."


@coursework("cw1.3b", "the best constant baseline", read="section 1.3, (1.7) and the lines before (1.10)")
def baseline(answer: Callable, *, seed: int) -> str:
    """The variances by a sum over the grid; and no other constant may give a smaller one."""
    for rate in (1.0, *(case[2] for case in cases_of(seed, 3))):
        found = call(answer, rate)
        try:
            without, best, with_best = (float(v) for v in found)
        except (TypeError, ValueError, RuntimeError):
            raise WrongAnswer("baseline(rate) returns three numbers: without, best, with_best.") from None
        here = f"at rate {rate:.4g}"
        same(without, variance_with(rate, 0.0), f"The variance without a baseline {here}", {
            "the square of the mean slope is not subtracted": second_moment(rate, 0.0),
            "it is the slope in rate, not in log(rate)": variance_with(rate, 0.0) / rate**2,
            "it is the variance of the pathwise slope of 3a": 1 / rate**2,
        })
        at, below, above = (variance_with(rate, best + h / rate) for h in (0.0, -0.01, 0.01))
        if abs(above - below) > 1e-3 * (above + below - 2 * at):
            mean = float((density(rate) * GRID).sum())
            hint = (" It is the mean of f: f goes together with the square of the score, so the mean is not the "
                    "best." if abs(best - mean) < 1e-6 * mean else "")
            raise WrongAnswer(f"{here.capitalize()} a {'larger' if above < below else 'smaller'} baseline than your {best:.5g} has a smaller variance.{hint}")
        same(with_best, at, f"The variance with your (right) baseline {here}", {
            "the square of the mean slope is not subtracted": second_moment(rate, best),
            "the baseline is added, not subtracted": variance_with(rate, -best),
        })
    return "Compare what it saves with what the mean of f saves, and with the variance of 3a, 1 / rate^2."


@coursework("cw1.4a", "chi squared of the counting VAE", read="section 1.6, the line before (1.21); (1.21) itself is for Gaussians")
def chi_squared(answer: Callable, *, seed: int) -> str:
    """Against a sum over the grid where it is finite; and infinite where the sum has no limit."""
    cases = [(x, gain, (0.1 + 1.7 * rate / 2.3) * (1 + gain)) for x, gain, rate, _ in cases_of(seed, 6)]
    for case in cases:
        true_for_all(number(answer, "chi_sq", *case) != math.inf,
                     f"chi_sq({case[0]}, {case[1]:.4g}, {case[2]:.4g}) is infinite; expected {chi_sq(*case):.6g}: for which rates does "
                     "posterior^2 / q fall for large z?")
    close_to_reference(answer, chi_sq, [*cases, (0, 1.0, 1.0)], rtol=1e-6, name="chi_sq", mistakes={
        "the 1 is not subtracted": lambda *c: chi_sq(*c) + 1,
        "it is chi^2 the other way round, with posterior and q exchanged": chi_sq_reverse,
    })
    true_for_all(abs(number(answer, "chi_sq", 0, 1.5, 2.5)) < 1e-9, "At x = 0, gain 1.5 and rate 2.5, q is the posterior: chi^2 is 0 there.")
    for x, gain, _, extra in cases_of(seed, 4):
        for rate in (2.2 * (1 + gain), 3 * (1 + gain) + extra):
            try:
                found = number(answer, "chi_sq", x, gain, rate)
            except (ZeroDivisionError, OverflowError, ValueError):
                found = math.nan
            true_for_all(found == math.inf, f"At x = {x:.0f}, gain {gain:.4g}, rate {rate:.4g} you give {found:.4g}; expected math.inf: "
                         "compare the tails of posterior^2 and q for large z.")
    return "Have you thought of the rate exactly on the border?"


@coursework("cw1.4b", "the best encoder for many draws", read="task 4: minimise your chi squared over the rate")
def many_draws(answer: Callable, *, seed: int) -> str:
    """No other rate has a smaller chi squared."""
    for x, gain, _, _ in [*cases_of(seed, 5), (3, 2.0, 1.0, 1.0)]:
        found = number(answer, "best_rate_many", x, gain)
        true_for_all(0 < found < math.inf, f"best_rate_many({x:.0f}, {gain:.3g}) is {found:.4g}; a rate is positive and finite.")
        low, here, high = (chi_sq(x, gain, found * math.exp(h)) for h in (-1e-3, 0.0, 1e-3))
        curvature = low - 2 * here + high
        true_for_all(curvature > 0 and abs(high - low) / 2 * 1e-3 / curvature < 1e-5,
                     f"At x = {x:.0f}, gain {gain:.4g} a {'larger' if high < low else 'smaller'} rate than your {found:.5g} has a smaller chi^2.")
    return "Compare with best_rate(x, gain, 1.0) of task 2. Would section 1.6 make you expect what you see?"


@coursework("cw1.5a", "the best decoder of a camera", read="section 1.4, (1.13) and (1.14): first make all pixels equally noisy")
def best_decoder(answer: Callable, *, seed: int) -> str:
    """As likely as the best W that gradient ascent finds."""
    for i, (latents, beta) in enumerate(((2, 1.0), (3, 2.0), (4, 6.0))):
        S, noise = camera_of(10 * seed + i)
        W = tensor(call(answer, S.clone(), noise.clone(), beta, latents), "best_decoder").to(S.dtype)
        short = W.ndim == 2 and len(W) == len(S) and W.shape[1] < latents
        true_for_all(W.shape == (len(S), latents), f"best_decoder returned the shape {tuple(W.shape)} for 6 pixels and {latents} latents; expected "
                                                   f"(6, {latents}){': a latent that does not pay keeps a column of zeros' if short else ''}.")
        true_for_all(torch.isfinite(W), "best_decoder holds NaN or infinity: a latent that does not pay has the column 0, not the root of a negative number.")
        mine, best = (float(likelihood(w, S, noise, beta)) for w in (W, climb(S, noise, beta, latents, seed)))
        if best - mine > 1e-7:
            plain = float(likelihood(climb(S, torch.full_like(noise, float(noise.mean())), beta, latents, seed), S, noise, beta))
            scaled = float(likelihood(noise.sqrt()[:, None] * W, S, noise, beta))
            hint = (" In rescaled pixels you are right: scale W back." if best - scaled < 1e-7 else
                    " It is what one flat noise, the mean of all pixels, would ask for: the pixels do not share it." if abs(plain - mine) < 1e-6 else
                    " For beta = 1 you are right: is the noise beta * noise, (1.17)?" if i > 0 else "")
            raise WrongAnswer(f"With {latents} latents and beta = {beta:g} your W falls short of the best by {best - mine:.3g} nats.{hint}")
    return "Ascent from random starts finds nothing better."


@coursework("cw1.5b", "survivors on the digits", read="section 1.5, (1.17) and (1.18), in pixels that are equally noisy")
def survivors(camera: float, flat: float, told: float, *, seed: int) -> str:
    """Only the form of the numbers; their values are judged after you hand in."""
    for name, value in (("alive_camera", camera), ("alive_flat", flat)):
        true_for_all(plain_of(value) in range(9), f"{name} is {value!r}; expected how many of 8 latents survive, a whole number from 0 to 8.")
    true_for_all(0 <= plain_of(told) < math.inf, f"told_camera is {told!r}; expected nats, a number that is not negative.")
    return "The form is right; the values are judged after you hand in."
