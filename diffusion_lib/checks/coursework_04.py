"""The judges of chapter 4's coursework: data with an edge, noise that multiplies, stale arrows, and what a noise level sees.

They judge by laws (a loss against the explicit one, posteriors of Gaussian mixtures in log x, the roots of a recursion) or by numbers.
"""

from __future__ import annotations

import math

import torch

from diffusion_lib.checks.compare import call, close_number, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer, coursework
from diffusion_lib.checks.laws_04 import (
    LEVELS,
    STALE,
    SUMS,
    agree,
    ask,
    f64,
    log_posterior,
    log_score,
    noisy_points,
    noisy_score,
    number,
    positive,
    speckled,
    spread_hint,
)
from diffusion_lib.checks.typed import hermite, numbers, uniform


@coursework("cw4.1", "a loss for data with an edge", read="section 4.3, (4.5) and (4.6), and exercise 4.15b")
def edge_loss(answer, *, seed):
    """Against the explicit loss: the two may differ by a constant alone, for every field and every density."""
    a, b, c, width = uniform(seed, (0.6, 1.6), (0.4, 1.2), (1.3, 2.5), (0.6, 1.0))
    weight = lambda x: (x / (1 + x)) ** 2  # noqa: E731
    densities = [("exponential", a), ("half a normal", b), ("gamma", c), ("log-normal", width)]
    for kind, parameter in densities:
        x, p, s = positive(kind, parameter)

        def mean(f, x=x, p=p):
            return float((p * numbers(ask(answer, f, x), x, "edge_loss(f, x)")).sum())

        explicit = lambda f, x=x, p=p, s=s: float((p * 0.5 * weight(x) * (f(x) - s).square()).sum())  # noqa: E731
        up, none, down = (mean(lambda x, q=q: q + 0 * x) for q in (1.0, 0.0, -1.0))
        square, linear = (up + down) / 2 - none, (up - down) / 2
        right = float((p * weight(x)).sum()) / 2, -float((p * weight(x) * s).sum())
        if abs(square - right[0]) > 1e-5:
            raise WrongAnswer(f"For a constant field f = c on {kind} data the term in c^2 has the factor {square:.5f}; expected half the mean "
                              f"weight, {right[0]:.5f}: the weight multiplies the square of the field.")
        if abs(linear - right[1]) > 1e-5:
            raise WrongAnswer(f"For a constant field f = c on {kind} data the term in c has the factor {linear:.5f}; expected {right[1]:.5f}: "
                              "by parts, the derivative falls on all that stands beside p, not on the field alone.")
        fields = [lambda x: torch.tanh(2 * x) - 1.5, lambda x: -0.7 * x / (1 + x), lambda x: 0.8 / x - 1.1]
        gaps = [mean(f) - explicit(f) for f in fields]
        worst = max(gaps) - min(gaps) + abs(gaps[0] - none + explicit(lambda x: 0 * x))
        if worst > 1e-4:
            raise WrongAnswer(f"On {kind} data your loss minus the explicit one differs from field to field, by up to {worst:.4f}; expected one "
                              "constant: is the derivative of the field there, by autograd, with its weight and its sign?")
    return "No score of the data in it, and no boundary term: the weight has taken it away."


@coursework("cw4.1b", "a gamma density, fitted by its score", read="section 4.3, (4.7), for a loss that is quadratic in its parameters")
def fit_gamma(answer, *, seed):
    """On many samples: the weighted least squares of the true score, which holds for data that are no gamma at all, too. k = 5."""
    width, rate = uniform(seed, (0.6, 0.9), (0.7, 1.6))
    generator = seeded(seed + 1)
    groups, n = 25, 5000
    draws = {"exponential": -(1 - torch.rand(groups, n, generator=generator, dtype=f64)).log() / rate,
             "log-normal": (width * torch.randn(groups, n, generator=generator, dtype=f64)).exp()}
    for kind, parameter in (("exponential", rate), ("log-normal", width)):
        x, p, s = positive(kind, parameter)
        root = (p * (x / (1 + x)) ** 2).sqrt()
        best = torch.linalg.lstsq(torch.stack([root / x, -root], 1), (root * s)[:, None]).solution[:, 0]
        wanted = best + torch.tensor([1.0, 0.0], dtype=f64)
        found = []
        for some in draws[kind]:
            pair = ask(answer, some)
            two = len(pair) == 2 if isinstance(pair, (tuple, list)) else tuple(getattr(pair, "shape", ())) == (2,)
            true_for_all(two, "fit_gamma returned something else than a pair; expected (shape, rate): two numbers, or a tensor of shape (2,).")
            found.append([number(v) for v in pair])
        values = torch.tensor(found, dtype=f64)
        error = values.std(0) / groups**0.5
        off = (values.mean(0) - wanted).abs() / error
        for i, name in enumerate(("shape", "rate")):
            if not off[i] < 5:
                raise WrongAnswer(f"On {kind} data the {name} is {values[:, i].mean():.4f}; the minimiser of the weighted loss has {wanted[i]:.4f} ± "
                                  f"{error[i]:.4f} (standard error): {off[i]:.0f} of which it is off. The score of a gamma density is "
                                  "(shape - 1)/x - rate; minimise the mean of edge_loss over both numbers. If it does that already: is cw4.1 correct?")
    return "On log-normal data maximum likelihood would give another gamma density: two estimators, one limit only if the model is true."


@coursework("cw4.2a", "the label for noise that multiplies", read="section 4.3, (4.9) and (4.10)")
def label(answer, *, seed):
    """Its mean given the noisy number, by Gauss-Hermite quadrature over the exact posterior of log x_0."""
    nodes, parts = hermite(40)
    for index in range(3):
        sigma, *data = speckled(seed, index)
        x = noisy_points(sigma, *data, seed)
        r, mean, var = log_posterior(x.log(), sigma, *data)
        u = mean[..., None] + var.sqrt()[:, None] * nodes                                    # (B, K, nodes): log x_0
        eps = (x.log()[:, None, None] - u) / sigma
        value = numbers(ask(answer, x[:, None, None].expand_as(eps), eps, sigma), eps, "label(x, eps, sigma)")
        found, wanted = (r[..., None] * parts * value).sum((1, 2)), noisy_score(sigma, *data)(x)
        by_log = log_score(x.log(), sigma, *data)[0]
        agree(found, wanted, "The mean of your label given x", "the score at x", 1e-6, {
            "it is the score of log x (differentiate in x)": by_log,
            "the density of x holds a factor 1/x besides that of log x, which has a derivative, too": by_log / x,
            "it has the wrong sign": -wanted,
            "it is x times what is expected (the derivative of log x is 1/x)": wanted * x})
    return "Its mean given x is the score, so a network that is trained on it learns the score: no score of the data was needed."


@coursework("cw4.2b", "the mean of log x_0", read="section 4.4, (4.12)")
def log_mean(answer, *, seed):
    """Against the exact posterior mean."""
    for index in range(3):
        sigma, *data = speckled(seed + 1, index)
        x = noisy_points(sigma, *data, seed)
        r, mean, _ = log_posterior(x.log(), sigma, *data)
        s, wanted = noisy_score(sigma, *data)(x), (r * mean).sum(1)
        found = numbers(ask(answer, x, s, sigma), x, "log_mean(x, s, sigma)")
        agree(found, wanted, "log_mean", "the mean of log x_0 given x", 1e-8, {
            "it is off by sigma^2 everywhere, as the score of log x is not x s": wanted - sigma**2,
            "s is the score of x; that of log x is 1 + x s": x.log() + sigma**2 * s,
            "it is the exponential of what is expected": wanted.exp(),
            "the walk goes against the arrow": 2 * x.log() - wanted,
            "(4.12) was used as it stands, but the noise adds to log x, not to x": x + sigma**2 * s})
    return "Tweedie's formula holds where noise adds: in log x."


@coursework("cw4.2c", "the variance of log x_0", read="section 4.4, (4.13)")
def log_variance(answer, *, seed):
    """Against the exact posterior variance."""
    for index in range(3):
        sigma, *data = speckled(seed + 2, index)
        x = noisy_points(sigma, *data, seed).requires_grad_()
        score = noisy_score(sigma, *data)(x)
        s_dot = torch.autograd.grad(score.sum(), x)[0]
        x, s = x.detach(), score.detach()
        r, mean, var = log_posterior(x.log(), sigma, *data)
        wanted = (r * (var + mean**2)).sum(1) - (r * mean).sum(1) ** 2
        found = numbers(ask(answer, x, s, s_dot, sigma), x, "log_variance(x, s, s_dot, sigma)")
        agree(found, wanted, "log_variance", "the variance of log x_0 given x", 1e-7, {
            "it is the square root of what is expected": wanted.sqrt(),
            "(4.13) was used as it stands, with s'(x) where it wants the score of log x, as a whole, differentiated in log x": sigma**2 + sigma**4 * s_dot,
            "one term is missing; the score of log x holds x twice, so its derivative has a product rule": sigma**2 + sigma**4 * x**2 * s_dot},
            tail=" (4.13) wants the score of log x, as a whole, differentiated in log x.")
    return "Relative errors of x_0, from the derivative of the arrows."


@coursework("cw4.3", "the clean mean, from arrows alone", read="section 4.2, (4.3), and your answer to task 2")
def clean_mean(answer, *, seed):
    """Mixtures of log-normals, whose posterior means are known; relative error 1e-3, as the task says."""
    for index in range(3):
        sigma, *data = speckled(seed + 3, index)
        x = noisy_points(sigma, *data, seed, n=5)
        r, mean, var = log_posterior(x.log(), sigma, *data)
        wanted = (r * (mean + var / 2).exp()).sum(1)
        logs = (r * mean).sum(1)
        spread = (r * (var + mean**2)).sum(1) - logs**2
        score = noisy_score(sigma, *data)
        found = numbers(ask(answer, score, x, sigma), x, "clean_mean(score, x, sigma)")
        agree(found, wanted, "clean_mean", "E[x_0 | x]", 1e-3, {
            "it is the exponential of a mean, which is less than the mean of the exponential": logs.exp(),
            "log x_0 was taken for Gaussian given x, but on a mixture it is not": (logs + spread / 2).exp(),
            "(4.12) was used as it stands, but the noise does not add to x": x + sigma**2 * score(x),
            "the factor that completes the square is missing": wanted * math.exp(-(sigma**2) / 2),
            "it lacks a factor exp(sigma^2), so either the square was completed with the wrong sign, or the score of log x was taken to be x s":
                wanted * math.exp(-(sigma**2))})
    return "A ratio of densities, and so a mean that Tweedie's formula cannot give, from the score by (4.3)."


@coursework("cw4.4a", "the variance of a stale walk", read="section 4.7, above (4.17): the recursion of the variance")
def stale_variance(answer, *, seed):
    """Five numbers, of which seven digits are stored."""
    for h, tau, wanted in STALE:
        a = h / (2 * tau**2)
        try:
            close_number(number(ask(answer, h, tau)), wanted, rtol=1e-5, name=f"stale_variance({h}, {tau})", mistakes={
                "the arrow was taken at the present state, or C was taken to be V: this is (4.17)": tau**2 / (1 - a / 2),
                "C was left out. x_k and x_(k-1) are correlated: see the hint of task 4": -h / a**2,
                "C has the wrong sign in its own equation: multiply the recursion by x_k, as the hint of task 4 says": h / (2 * a / (1 - a) - a**2),
                "C was taken to be that of one fresh step. Its arrow, too, is old: see the hint of task 4": h / (2 * a * (1 - a) - a**2),
                "the term with C was added, not taken away": -h / (a**2 + 2 * a / (1 + a)),
                "h was not measured in units of tau^2": tau**2 * wanted,
                "it is in units of tau^2": wanted / tau**2, "it is a standard deviation": wanted**0.5})
        except WrongAnswer as wrong:
            if "looks as if" in str(wrong):
                raise
            raise WrongAnswer(f"{wrong} See the hint of task 4: two equations, one for V and one for C = E[x_k x_(k-1)].") from None
    return "Old arrows widen the law more than long steps do."


@coursework("cw4.4b", "where the stale walk bursts", read="section 4.7, below (4.17)")
def stale_limit(answer, *, seed):
    """Proportional to tau^2, and where the stored variances say."""
    values = {tau: number(ask(answer, tau)) for tau in (1.0, 2.0, 0.3)}
    if abs(values[1.0] - 4) < 0.01:
        units = "" if abs(values[2.0] - 16) < 0.1 else " And h counts in units of tau^2: the limit grows with tau."
        raise WrongAnswer(f"For tau = 1 you say 4, the limit of (4.14) with a fresh arrow; with an old one the walk bursts earlier.{units}")
    ratio = values[2.0] / values[1.0] if values[1.0] else math.nan
    if not abs(ratio - 4) < 1e-6:
        raise WrongAnswer(f"With tau = 2 your limit is {ratio:.3g} times that with tau = 1; expected 4: h counts in units of tau^2.")
    if not 1.9 < values[1.0] < 2.1:
        raise WrongAnswer(f"For tau = 1 you say {values[1.0]:.4g}; walkers with that step show something else. Try x_(k+1) = v^k in the recursion "
                          "without noise: there is a stationary law if both roots v have |v| < 1, and they may be complex.")
    return "Run the walk on both sides of it."


@coursework("cw4.4c", "a walk along stale arrows", read="section 4.6, (4.14), with the arrow of the state before")
def stale_walk(answer, *, seed):
    """A linear score, where the walk is a sum over the roots of its recursion; and two steps written out for a curved one."""
    h, tau, steps = *uniform(seed, (0.3, 0.8), (0.8, 1.4)), 7
    a = h / (2 * tau**2)
    x = torch.randn(4, 2, generator=seeded(seed + 1), dtype=f64)
    z = torch.randn(steps, 4, 2, generator=seeded(seed + 2), dtype=f64)
    roots = torch.linalg.eigvals(torch.tensor([[1.0, -a], [1.0, 0.0]], dtype=f64))
    ring = lambda k: ((roots[0] ** (k + 1) - roots[1] ** (k + 1)) / (roots[0] - roots[1])).real  # noqa: E731  response to one kick
    wanted = x * (ring(steps) - a * ring(steps - 1)) + h**0.5 * sum(ring(steps - 1 - k) * z[k] for k in range(steps))
    found = numbers(ask(answer, lambda x: -x / tau**2, x, h, z), x, "stale_walk(score, x, h, z)")
    fresh = x * (1 - a) ** steps + h**0.5 * sum((1 - a) ** (steps - 1 - k) * z[k] for k in range(steps))
    if bool(((found - fresh).abs() < 1e-9).all()):
        raise WrongAnswer("The arrow is that of the present state: this is (4.14). Here it is that of the state before.")
    if not bool(((found - wanted).abs() < 1e-9).all()):
        one = numbers(ask(answer, lambda x: -x / tau**2, x, h, z[:1]), x, "stale_walk(score, x, h, z[:1])")
        if not bool(((one - (1 - a) * x - h**0.5 * z[0]).abs() < 1e-9).all()):
            raise WrongAnswer("The first step is not x_0 + h/2 s(x_0) + sqrt(h) z_0: there is no state before x_0, so x_0 takes its place.")
        raise WrongAnswer(f"After {steps} steps the walk is off by {float((found - wanted).abs().max()):.3g}: is the arrow one step old, and no more? "
                          "Keep the state before the last one.")
    return "An old arrow costs nothing to have: on many machines it is the only one that has arrived."


@coursework("cw4.5a", "the spread of a fit at one noise level", read="section 4.4, (4.13), and 'What each loss costs'")
def spread(answer, *, seed):
    """Numbers at four levels, to the 1e-3 that the task asks."""
    found = {level: number(ask(answer, *level, 0.6, 0.2)) for level in LEVELS}
    off = {level: abs(found[level] / LEVELS[level][0] - 1) for level in LEVELS}
    for (sigma, which), error in off.items():
        if not error < 1e-3:
            change = abs(number(ask(answer, sigma, which, 0.6, 0.2)) - found[sigma, which])
            hint = "two calls give two values. Did you sample? Integrate on a grid" if change > 0 else spread_hint(found, off)
            raise WrongAnswer(f"spread({sigma}, {which!r}, 0.6, 0.2) is {found[sigma, which]:.5g}; expected {LEVELS[sigma, which][0]:.5g}: {hint}.")
    return "Compare the columns: no level is good for both."


@coursework("cw4.5b", "the best single level", read="task 5: the sum of two squared relative errors")
def best_level(answer, spread, *, seed):
    """By exact spreads, for the student and for the marks alike; the student's own spread serves for the reason alone."""
    found = number(ask(answer))
    if not 0.1 < found < 5:
        raise WrongAnswer(f"best_level() is {found:.4g}; expected a level between 0.1 and 5.")
    v, logs = torch.tensor(SUMS, dtype=f64).log().unbind(1)
    powers = lambda u: u[:, None] ** torch.arange(len(v))  # noqa: E731
    fine = torch.linspace(float(v[0]), float(v[-1]), 4001, dtype=f64)
    curve = powers(fine) @ torch.linalg.solve(powers(v), logs)
    if abs(found / math.exp(fine[curve.argmin()]) - 1) < 0.02:
        return "Judged by the exact spreads, not by yours; so it is marked, too. How much better is each at its own level? That is the conclusion to write."
    start = f"best_level() = {found:.4g} is more than 2 % from the best level by the exact spreads, by which it is judged and marked"
    total = lambda s: sum((number(call(spread, s, k, 0.6, 0.2)) / t) ** 2 for k, t in (("w", 0.6), ("tau", 0.2)))  # noqa: E731
    here = total(found)
    if not math.isfinite(here):
        raise WrongAnswer(f"{start}. By your own spread the sum there is {here}: see cw4.5a first. The errors are relative, and squared.")
    if all(here < total(change * found) for change in (0.96, 1.04)):
        raise WrongAnswer(f"{start}. By your own spread it is the best: is cw4.5a correct, and are the errors relative and squared in best_level, too?")
    raise WrongAnswer(f"{start}. By your own spread the sum of squared relative errors is {here:.3f} there, and less 4 % below or above. "
                      "Are the errors relative, and squared, and are your steps in sigma fine enough?")
