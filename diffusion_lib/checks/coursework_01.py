"""The judges of chapter 1's coursework: they compare with laws and with sums over a fine grid, not with closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Exponential, Poisson

from diffusion_lib.checks.compare import call, close_to_reference, mean_close, seeded, true_for_all, variance_close
from diffusion_lib.checks.core import WrongAnswer, coursework

U = torch.linspace(-46.0, 7.0, 6001, dtype=torch.float64)
GRID = U.exp()                                       # places z > 0, even in log z
CELL = GRID * (U[1] - U[0])                          # sum(f(GRID) * CELL) is the integral of f over z > 0, to 12 digits
EXACT = 1e-7                                         # relative: formulas against the grid, which is good to 1e-11


def _log_density(rate: float) -> Tensor:
    """log of q(z) dz of the encoder on the grid."""
    return Exponential(torch.tensor(rate, dtype=torch.float64)).log_prob(GRID) + CELL.log()


def _density(rate: float) -> Tensor:
    return _log_density(rate).exp()


def _cases(seed: int, n: int) -> list[tuple[int, float, float, float]]:
    """n random (x, gain, rate, beta)."""
    generator = seeded(1000 + seed)
    x = torch.randint(0, 8, (n,), generator=generator)
    rest = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    return [(int(k), float(0.3 + 3 * a), float(0.3 + 2 * b), float(0.2 + 4 * c)) for k, (a, b, c) in zip(x, rest, strict=True)]


@coursework("cw1.1", "log-weights of the counting VAE", read="section 1.1, (1.1) and (1.2), and section 1.6, before (1.19)")
def log_weight(answer: Callable, *, seed: int) -> str:
    """Importance weights average to p(x), and weighted draws have the posterior's moments."""
    cases = _cases(seed, 6)
    x, rate = (torch.tensor([case[i] for case in cases], dtype=torch.float64) for i in (0, 2))
    for gain in (cases[0][1], cases[1][1], 1.0):
        found = _tensor(call(answer, x.clone(), GRID.expand(len(x), -1).clone(), gain, rate.clone()), "log_weight")
        if found.shape != (len(x), len(GRID)):
            raise WrongAnswer(f"log_weight has shape {tuple(found.shape)} for x (6,), z (6, {len(GRID)}), rate (6,); expected (6, {len(GRID)}): "
                              "x and rate need a second axis, and nothing is averaged yet.")
        true_for_all(torch.isfinite(found), "log_weight holds NaN or infinity for small or large z: do not take the logarithm of a power or an exponential.")
        mass = (found.double() + torch.stack([_log_density(float(r)) for r in rate])).exp()
        total = mass.sum(1)
        ratio = total / ((gain / (1 + gain)) ** x / (1 + gain))
        if not torch.allclose(ratio, torch.ones_like(ratio), rtol=_precision(found), atol=0):
            raise WrongAnswer(_explain_total(ratio, x, gain, rate))
        mean = (mass * GRID).sum(1) / total
        joint = torch.stack([Poisson(gain * GRID).log_prob(k).exp() * _density(1.0) for k in x])
        expected = (joint * GRID).sum(1) / joint.sum(1)
        true_for_all((mean - expected).abs() <= 10 * _precision(found) * expected,
                     f"The weights have the right mean p(x), but weighted draws of z have the mean {float(mean[0]):.5g} at x = {x[0]:.0f}, gain "
                     f"{gain:.3g}, where "
                     f"the posterior has {float(expected[0]):.5g}: look at the terms in z.")
    return "With these weights any encoder, good or bad, measures p(x)."


def _precision(value: Tensor) -> float:
    return 1e-6 if value.dtype == torch.float64 else 1e-3


def _explain_total(ratio: Tensor, x: Tensor, gain: float, rate: Tensor) -> str:
    log_ratio = ratio.log()
    for what, guess in {
        "log x! is missing from log p(x | z), or has the wrong sign": torch.lgamma(x + 1),
        "the x log(gain) of the Poisson's mean gain * z is missing": -x * math.log(gain),
        "the log(rate) of log q is missing": rate.log(),
    }.items():
        for factor in (1.0, 2.0):
            if torch.allclose(log_ratio, factor * guess, atol=1e-4):
                return f"E_q of the weights must be p(x), but it is off by a factor that depends on x as if {what}."
    at = int(log_ratio.abs().nan_to_num(1e9).argmax())
    return (f"E_q of the weights must be p(x), but at x = {x[at]:.0f}, gain {gain:.3g}, rate {float(rate[at]):.3g} it is {float(ratio[at]):.4g} times that: "
            "is every one of log p(z), log p(x | z) and log q(z | x) there, with its sign, and is rate one over the mean?")


def _tensor(value: object, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise WrongAnswer(f"{name} returned a {type(value).__name__}; expected a tensor.")
    return value.detach()


def _number(answer: Callable, name: str, *args: float) -> float:
    value = call(answer, *args)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise WrongAnswer(f"{name} returned a {type(value).__name__}; expected one number.") from None


def _rebuild(x: float, gain: float, rate: float) -> float:
    return float((_density(rate) * Poisson(gain * GRID).log_prob(torch.tensor(x, dtype=torch.float64))).sum())


def _price(rate: float) -> float:
    prior, q = Exponential(torch.ones((), dtype=torch.float64)), Exponential(torch.tensor(rate, dtype=torch.float64))
    return float((_density(rate) * (q.log_prob(GRID) - prior.log_prob(GRID))).sum())


@coursework("cw1.2a", "the bound in closed form", read="section 1.1, (1.4), and section 1.5, (1.16); (1.5) is for Gaussians only")
def bound(answer: Callable, *, seed: int) -> str:
    """The two terms, each by a sum over the grid."""
    def rebuild(x, gain, rate, beta):
        return _rebuild(x, gain, rate)
    def right(x, gain, rate, beta):
        return _rebuild(x, gain, rate) - beta * _price(rate)
    close_to_reference(answer, right, _cases(seed, 6), rtol=EXACT, atol=1e-7, name="bound", mistakes={
        "beta is not used": lambda x, gain, rate, beta: _rebuild(x, gain, rate) - _price(rate),
        "the sign of the price is wrong": lambda x, gain, rate, beta: _rebuild(x, gain, rate) + beta * _price(rate),
        "the price is missing": rebuild,
        "log x! is missing": lambda x, gain, rate, beta: right(x, gain, rate, beta) + math.lgamma(x + 1),
        "rate is taken for the mean of z: it is one over the mean": lambda x, gain, rate, beta: right(x, gain, 1 / rate, beta),
        "log z was averaged as if E log z = log E z: that leaves out Euler's constant for each count":
            lambda x, gain, rate, beta: right(x, gain, rate, beta) + 0.5772156649015329 * x,
        "the KL is taken the other way round, from the prior to q":
            lambda x, gain, rate, beta: _rebuild(x, gain, rate) - beta * (rate - 1 - math.log(rate)),
    })
    return "No draws are needed: the second of the two terms is the price, (1.4)."


@coursework("cw1.2b", "the best encoder", read="section 1.5, (1.16): the slope of the bound in rate is zero")
def best_rate(answer: Callable, *, seed: int) -> str:
    """The bound's slope must vanish at the answer, and change sign there."""
    for x, gain, _, beta in [*_cases(seed, 6), (0, 2.0, 1.0, 1.0)]:
        found = _number(answer, "best_rate", x, gain, beta)
        true_for_all(found > 0 and math.isfinite(found), f"best_rate({x:.0f}, {gain:.3g}, {beta:.3g}) is {found:.4g}; a rate is positive and finite.")
        def value(rate, x=x, gain=gain, beta=beta):
            return _rebuild(x, gain, rate) - beta * _price(rate)
        low, here, high = (value(found * math.exp(h)) for h in (-1e-3, 0.0, 1e-3))
        slope, curvature = (high - low) / 2e-3, (low - 2 * here + high) / 1e-6
        off = abs(slope / curvature) if curvature < 0 else 1.0        # Newton's step: how far the maximum is, in log rate
        if off > 1e-5:
            inverse = value(1 / found)
            hint = " (Its reciprocal does better: is this the mean of z and not its rate?)" if inverse > here and abs(found - 1) > 1e-3 else ""
            raise WrongAnswer(f"At x = {x:.0f}, gain {gain:.4g}, beta {beta:.4g} your rate {found:.5g} is not the top: the bound still "
                              f"{'rises' if slope > 0 else 'falls'} with the rate there.{hint}")
    return "Where is it the posterior itself?"


@coursework("cw1.3a", "slopes through the draw", read="section 1.3, (1.8) and (1.9): first make z from noise that knows nothing of rate")
def pathwise(answer: Callable, *, seed: int) -> str:
    """Mean and variance of the draws for three f whose averages are known."""
    n = 40_000
    for i, (_, _, rate, _) in enumerate(_cases(seed, 2)):
        def draw(f, n=n, i=i, rate=rate):
            return _tensor(call(answer, f, rate, n, seeded(7 * seed + i)), "pathwise").double()
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
        first, second = draw(lambda z: z), draw(lambda z: z**2)
        mean_close(first, -1 / rate, name=name.format("z"))
        variance_close(first, 1 / rate**2, name=name.format("z").replace("mean", "variance"))
        mean_close(second, -4 / rate**2, name=name.format("z^2"))
        again = draw(lambda z: z)
        true_for_all(torch.equal(first, again), "Two calls with equal generators differ: draw from the generator that is given.")
    return "With f = log the variance is zero: no other estimator does that."


def _score(rate: float) -> Tensor:
    """The slope of log q in log(rate), by a central difference."""
    q = [Exponential(torch.tensor(rate * math.exp(h), dtype=torch.float64)).log_prob(GRID) for h in (1e-5, -1e-5)]
    return (q[0] - q[1]) / 2e-5


def _variance_with(rate: float, baseline: float) -> float:
    slope = (GRID - baseline) * _score(rate)
    q = _density(rate)
    return float((q * slope**2).sum() - (q * slope).sum() ** 2)


@coursework("cw1.3b", "the best constant baseline", read="section 1.3, (1.7) and the lines before (1.10)")
def baseline(answer: Callable, *, seed: int) -> str:
    """The variances by a sum over the grid; and no other constant may give a smaller one."""
    for rate in (1.0, *(case[2] for case in _cases(seed, 3))):
        found = call(answer, rate)
        if not isinstance(found, tuple) or len(found) != 3:
            raise WrongAnswer("baseline(rate) returns three numbers: without, best, with_best.")
        without, best, with_best = (float(v) for v in found)
        here = f"at rate {rate:.4g}"
        _same(without, _variance_with(rate, 0.0), f"The variance without a baseline {here}", {
            "the square of the mean slope is not subtracted": _second_moment(rate, 0.0),
            "it is the slope in rate, not in log(rate)": _variance_with(rate, 0.0) / rate**2,
            "it is the variance of the pathwise slope of 3a": 1 / rate**2,
        })
        at, below, above = (_variance_with(rate, best + h / rate) for h in (0.0, -0.01, 0.01))
        if abs(above - below) > 1e-3 * (above + below - 2 * at):
            mean = float((_density(rate) * GRID).sum())
            hint = (" It is the mean of f: f goes together with the square of the score, so the mean is not the "
                    "best." if abs(best - mean) < 1e-6 * mean else "")
            raise WrongAnswer(f"{here.capitalize()} a {'larger' if above < below else 'smaller'} baseline than your {best:.5g} has a smaller variance.{hint}")
        _same(with_best, at, f"The variance with your (right) baseline {here}", {
            "the square of the mean slope is not subtracted": _second_moment(rate, best),
            "the baseline is added, not subtracted": _variance_with(rate, -best),
        })
    return "Compare what it saves with what the mean of f saves, and with the variance of 3a, 1 / rate^2."


def _second_moment(rate: float, baseline: float) -> float:
    return float((_density(rate) * ((GRID - baseline) * _score(rate)) ** 2).sum())


def _same(found: float, expected: float, what: str, mistakes: dict[str, float]) -> None:
    if abs(found - expected) <= 1e-5 * abs(expected):
        return
    for explanation, value in mistakes.items():
        if abs(found - value) <= 1e-5 * abs(value):
            raise WrongAnswer(f"{what} is {found:.6g}: it looks as if {explanation}.")
    raise WrongAnswer(f"{what} is {found:.6g}; expected {expected:.6g}.")


def _chi_sq(x: float, gain: float, rate: float) -> float:
    """By a sum over the grid; 0 / 0 is avoided by working with logarithms."""
    log_joint = Poisson(gain * GRID).log_prob(torch.tensor(x, dtype=torch.float64)) - GRID
    log_post = log_joint - (log_joint + CELL.log()).logsumexp(0)
    log_q = Exponential(torch.tensor(rate, dtype=torch.float64)).log_prob(GRID)
    return float((2 * log_post - log_q + CELL.log()).logsumexp(0).exp()) - 1


@coursework("cw1.4a", "chi squared of the counting VAE", read="section 1.6, the line before (1.21); (1.21) itself is for Gaussians")
def chi_squared(answer: Callable, *, seed: int) -> str:
    """Against a sum over the grid where it is finite; and infinite where the sum has no limit."""
    cases = [(x, gain, (0.1 + 1.7 * rate / 2.3) * (1 + gain)) for x, gain, rate, _ in _cases(seed, 6)]
    close_to_reference(answer, _chi_sq, [*cases, (0, 1.0, 1.0)], rtol=1e-6, name="chi_sq", mistakes={
        "the 1 is not subtracted": lambda *c: _chi_sq(*c) + 1,
        "it is chi^2 the other way round, with posterior and q exchanged": _chi_sq_reverse,
    })
    true_for_all(abs(_number(answer, "chi_sq", 0, 1.5, 2.5)) < 1e-9, "At x = 0, gain 1.5 and rate 2.5, q is the posterior: chi^2 is 0 there.")
    for x, gain, _, extra in _cases(seed, 4):
        for rate in (2.2 * (1 + gain), 3 * (1 + gain) + extra):
            try:
                found = _number(answer, "chi_sq", x, gain, rate)
            except (ZeroDivisionError, OverflowError, ValueError):
                found = math.nan
            true_for_all(found == math.inf, f"At x = {x:.0f}, gain {gain:.4g}, rate {rate:.4g} you give {found:.4g}; expected math.inf: "
                         "compare the tails of posterior^2 and q for large z.")
    return "Have you thought of the rate exactly on the border?"


def _chi_sq_reverse(x: float, gain: float, rate: float) -> float:
    log_joint = Poisson(gain * GRID).log_prob(torch.tensor(x, dtype=torch.float64)) - GRID
    log_post = log_joint - (log_joint + CELL.log()).logsumexp(0)
    log_q = Exponential(torch.tensor(rate, dtype=torch.float64)).log_prob(GRID)
    return float((2 * log_q - log_post + CELL.log()).logsumexp(0).exp()) - 1


@coursework("cw1.4b", "the best encoder for many draws", read="task 4: minimise your chi squared over the rate")
def many_draws(answer: Callable, *, seed: int) -> str:
    """No other rate has a smaller chi squared."""
    for x, gain, _, _ in [*_cases(seed, 5), (3, 2.0, 1.0, 1.0)]:
        found = _number(answer, "best_rate_many", x, gain)
        true_for_all(0 < found < math.inf, f"best_rate_many({x:.0f}, {gain:.3g}) is {found:.4g}; a rate is positive and finite.")
        low, here, high = (_chi_sq(x, gain, found * math.exp(h)) for h in (-1e-3, 0.0, 1e-3))
        curvature = low - 2 * here + high
        true_for_all(curvature > 0 and abs(high - low) / 2 * 1e-3 / curvature < 1e-5,
                     f"At x = {x:.0f}, gain {gain:.4g} a {'larger' if high < low else 'smaller'} rate than your {found:.5g} has a smaller chi^2.")
    return "Is the best encoder for many draws wider, narrower, or the one you know from task 2?"


def _likelihood(W: Tensor, S: Tensor, noise: Tensor, beta: float) -> Tensor:
    """Average log-likelihood of N(0, W W^T + beta diag(noise)) for data of covariance S, without its constant."""
    C = W @ W.T + beta * torch.diag(noise)
    return -0.5 * (torch.logdet(C) + torch.linalg.solve(C, S).trace())


def _climb(S: Tensor, noise: Tensor, beta: float, latents: int, seed: int) -> Tensor:
    """The best W that gradient ascent finds from three random starts."""
    found = []
    for start in range(3):
        W = (0.5 * torch.randn(len(S), latents, generator=seeded(start + 10 * seed), dtype=S.dtype)).requires_grad_()
        optimizer = torch.optim.LBFGS([W], max_iter=600, tolerance_grad=1e-11, tolerance_change=1e-14, line_search_fn="strong_wolfe")

        def closure(W: Tensor = W, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = -_likelihood(W, S, noise, beta)
            loss.backward()
            return loss

        optimizer.step(closure)
        found.append(W.detach())
    return max(found, key=lambda W: float(_likelihood(W, S, noise, beta)))


def _camera(seed: int, size: int = 6) -> tuple[Tensor, Tensor]:
    """A random covariance and the noise variances of a camera's pixels."""
    generator = seeded(500 + seed)
    root = torch.randn(size, size + 2, generator=generator, dtype=torch.float64)
    scale = (1.5 * torch.rand(size, generator=generator, dtype=torch.float64) - 1).exp()
    noise = (3 * torch.rand(size, generator=generator, dtype=torch.float64) - 3).exp()
    return scale[:, None] * (root @ root.T / size) * scale, noise


@coursework("cw1.5a", "the best decoder of a camera", read="section 1.4, (1.13) and (1.14): first make all pixels equally noisy")
def best_decoder(answer: Callable, *, seed: int) -> str:
    """As likely as the best W that gradient ascent finds."""
    for i, (latents, beta) in enumerate(((2, 1.0), (3, 2.0), (4, 6.0))):
        S, noise = _camera(10 * seed + i)
        W = _tensor(call(answer, S.clone(), noise.clone(), beta, latents), "best_decoder").to(S.dtype)
        true_for_all(W.shape == (len(S), latents), f"best_decoder returned the shape {tuple(W.shape)} for 6 pixels and {latents} latents; expected "
                                                   f"(6, {latents}).")
        true_for_all(torch.isfinite(W), "best_decoder holds NaN or infinity: a latent that does not pay has the column 0, not the root of a negative number.")
        mine, best = (float(_likelihood(w, S, noise, beta)) for w in (W, _climb(S, noise, beta, latents, seed)))
        if best - mine > 1e-7:
            plain = float(_likelihood(_climb(S, torch.full_like(noise, float(noise.mean())), beta, latents, seed), S, noise, beta))
            hint = (" It is what one flat noise, the mean of all pixels, would ask for: the pixels do not share it." if abs(plain - mine) < 1e-6 else
                    " For beta = 1 you are right: is the noise beta * noise, (1.17)?" if i > 0 else "")
            raise WrongAnswer(f"With {latents} latents and beta = {beta:g} your W falls short of the best by {best - mine:.3g} nats.{hint}")
    return "Ascent from random starts finds nothing better."


@coursework("cw1.5b", "survivors on the digits", read="section 1.5, (1.17) and (1.18), in pixels that are equally noisy")
def survivors(camera: float, flat: float, told: float, *, seed: int) -> str:
    """Only the form of the numbers; their values are judged after you hand in."""
    for name, value in (("alive_camera", camera), ("alive_flat", flat)):
        whole = isinstance(value, (int, float)) and float(value) == int(value) and 0 <= value <= 8
        true_for_all(whole, f"{name} is {value!r}; expected how many of 8 latents survive, a whole number from 0 to 8.")
    true_for_all(isinstance(told, (int, float)) and math.isfinite(told) and told >= 0,
                 f"told_camera is {told!r}; expected nats, a number that is not negative.")
    return "The form is right; the values are judged after you hand in."
