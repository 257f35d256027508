"""The judges of chapter 3's coursework, a bridge from data to a measurement: they test laws, not formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Normal

from diffusion_lib.checks.compare import call, seeded, true_for_all
from diffusion_lib.checks.core import OpenAnswer, WrongAnswer, coursework
from diffusion_lib.checks.laws_03 import (
    Coefficients,
    after_kept,
    asked,
    by_grid,
    chapters,
    left_of,
    nets,
    number_of,
    random_grid,
    state_of,
    uniform,
    walks,
)
from diffusion_lib.exact import three_modes, two_modes


@coursework("cw3.1", "one step of the family on the bridge", read="section 3.3, (3.1) to (3.6), with y in the mean")
def bridge_step(answer: Callable, *, seed: int) -> str:
    """The mean and the variance given x_0 and y; no noise at eta = 0; no x_0 on the way up at eta = 1; c proportional to eta."""
    for t, share, tau in uniform(seed, 4, (0.2, 0.95), (0.1, 0.9), (0.4, 1.8)):
        s, fresh = share * t, None
        for eta in (1.0, 0.0, 0.6):
            k, here = Coefficients(answer, t, s, tau, eta), f"(t = {t:.3g}, s = {s:.3g}, tau = {tau:.3g}, eta = {eta:g})"
            def near(u, v, k=k):
                return abs(u - v) < 20 * k.tolerance
            true_for_all(near(k.a * (1 - t) + k.b, 1 - s), f"Given x_0 and y, the mean of x_s has the factor {k.a * (1 - t) + k.b:.4f} of x_0; "
                f"expected 1 - s = {1 - s:.4f} {here}.")
            true_for_all(near(k.a * t + k.g, s), f"Given x_0 and y, the mean of x_s has the factor {k.a * t + k.g:.4f} of y; expected s = {s:.4f} {here}: "
                         "y is a part of the mean of x_t as well, so it is in eps_t.")
            variance = k.a**2 * tau**2 * t * (1 - t) + k.c**2
            true_for_all(near(variance, tau**2 * s * (1 - s)),
                         f"Given x_0 and y, the variance of x_s is {variance:.5f}; expected tau^2 s (1 - s) = {tau**2 * s * (1 - s):.5f} {here}: what "
                         f"is fresh must be taken from eps_t.")
            true_for_all(k.a > -k.tolerance and k.c > -k.tolerance, f"A root has the wrong sign {here}: eps_t and z enter with a plus.")
            if eta == 1:
                fresh = k.c
                on_x0 = (1 - t) - k.a * tau**2 * t * (1 - t) / (tau**2 * s * (1 - s)) * (1 - s)
                true_for_all(near(on_x0, 0), f"At eta = 1 the way up from x_s to x_t must not need x_0, but x_0 enters it with {on_x0:.4f} {here}: "
                             "which noise level sigma / alpha does this path have?")
            elif eta == 0:
                true_for_all(near(k.c, 0), f"At eta = 0 nothing is fresh, but c is {k.c:.4f} {here}.")
            else:
                true_for_all(near(k.c, eta * fresh), f"The factor c is {k.c:.5f}; expected eta times its value at eta = 1, {eta * fresh:.5f} {here}.")
    for eta in (0.0, 0.6, 1.0):
        end = Coefficients(answer, 0.4, 0.0, 1.3, eta)
        true_for_all(abs(end.b - 1) + abs(end.a) + abs(end.g) + abs(end.c) < 1e-6, f"The step to s = 0 must return x_0 (eta = {eta:g}).")
        start = Coefficients(answer, 1.0, 0.7, 1.3, eta)
        spread = 1.3 * math.sqrt(0.21)
        true_for_all(abs(start.b - 0.3) < 1e-5 and abs(start.g - 0.7) < 1e-5, f"At t = 1 the mean of x_0.7 must be 0.3 x_0 + 0.7 y (eta = {eta:g}).")
        true_for_all(abs(start.c - spread) < 1e-5, f"At t = 1 there is no noise to keep, so all of it must be fresh, whatever eta: c is "
                                                   f"{start.c:.4f}, expected {spread:.4f} (eta = {eta:g}).")
    return "The marginals are right for every eta, and at eta = 1 the way up forgets x_0."


@coursework("cw3.2", "the exact guess from two measurements",
            read="Notation, 'From an EDM denoiser', section 3.1 (the scaled state) and section 2.4 (complete the square: precisions add)")
def guess(answer: Callable, *, seed: int) -> str:
    """Against Bayes' rule, summed over a fine grid."""
    line = torch.linspace(-4, 4, 4001, dtype=torch.float64)[:, None]
    axis = torch.linspace(-3.2, 3.2, 161, dtype=torch.float64)
    plane = torch.cartesian_prod(axis, axis)
    for i, (t, tau, spread) in enumerate([*uniform(seed, 3, (0.3, 0.9), (0.6, 1.6), (0.5, 1.5)), (1.0, 1.0, 0.8)]):
        mixture, points = (two_modes(), line) if i % 2 == 0 else (three_modes(), plane)
        generator = seeded(7 * seed + i)
        x0 = mixture.sample(6, generator)
        noise = torch.randn(2, *x0.shape, generator=generator, dtype=torch.float64)
        y = x0 + spread * noise[0]
        x_t = (1 - t) * x0 + t * y + tau * math.sqrt(t * (1 - t)) * noise[1]
        where = f"guess at t = {t:.3g}, tau = {tau:.3g}, spread = {spread:.3g}"
        given = asked(answer, f"t = {t:.3g}", mixture, x_t.clone(), y.clone(), t, tau, spread)
        true_for_all(not isinstance(given, Tensor) or not given.isnan().any(),
                     f"Your guess is nan at t = {t:.3g}: so the level that you give to denoise, or the measurement, is nan at t = {t:.3g}"
                     f"{', where 1 - t and sigma_t are 0' if t == 1 else ''}.")
        found = state_of(given, tuple(x0.shape), where).double()
        from_y = Normal(points, spread).log_prob(y[:, None]).sum(-1)
        from_x = torch.zeros_like(from_y)
        if t < 1:
            from_x = Normal((1 - t) * points + t * y[:, None], tau * math.sqrt(t * (1 - t))).log_prob(x_t[:, None]).sum(-1)
        right = by_grid(mixture, points, from_x + from_y)
        if (found - right).abs().max() < 1e-5:
            continue
        for what, evidence in {
            "it ignores y: y says something of x_0 by itself, and not only through x_t": from_x,
            "it ignores x_t": from_y,
            "y is counted twice": from_x + 2 * from_y,
        }.items():
            if (found - by_grid(mixture, points, evidence)).abs().max() < 1e-5:
                raise WrongAnswer(f"It looks as if {what} ({where}).")
        at = int((found - right).abs().flatten().argmax())
        raise WrongAnswer(f"Your {where} is {float(found.flatten()[at]):.5f} in entry {at}; Bayes' rule says {float(right.flatten()[at]):.5f}. "
                          "Two measurements of x_0 with independent noises make one: which, and at which noise level?")
    return "At t = 1 it is the mean of the posterior of y alone."


def _earlier(step: Callable | None, guessed: Callable | None, seed: int) -> str:
    """Which earlier task is to be mended before the walk; "" if none."""
    for name, number, judge, answer in (("bridge_step", 1, bridge_step, step), ("guess", 2, guess, guessed)):
        try:
            if answer is not None:
                judge(answer, seed=seed)
        except (OpenAnswer, NotImplementedError):
            return f"Your {name} is not written yet (task {number}). "
        except (AssertionError, ArithmeticError, AttributeError, TypeError, ValueError):
            return f"Your {name} is not right yet (task {number}): mend it first. What the walk shows: "
    return ""


@coursework("cw3.3", "the sampler on the bridge", read="section 3.5, (3.8), with your step and your guess, and the bridge at t = 1 for the start")
def walk(answer: Callable, step: Callable | None = None, guessed: Callable | None = None, *, seed: int) -> str:
    """The walk alone is judged; step and guessed only say where a wrong walk may come from."""
    try:
        return walks(answer, seed)
    except (OpenAnswer, NotImplementedError):
        raise
    except (AssertionError, ArithmeticError, AttributeError, TypeError, ValueError) as problem:
        earlier = _earlier(step, guessed, seed)
        if not earlier:
            raise
        text = str(problem) if isinstance(problem, AssertionError) else f"it raised {type(problem).__name__}: {str(problem).rstrip('.')}."
        raise WrongAnswer(earlier.strip() if earlier.endswith("). ") else earlier + text[:1].upper() + text[1:]) from None


@coursework("cw3.4a", "the variance that a walk keeps", read="section 3.7, (3.12) to (3.14), with what is left unknown of x_0 when y is known")
def kept(answer: Callable, *, seed: int) -> str:
    """Limits in which the chapter's (3.14) holds, and what a measurement as good as the data must do."""
    for i, (tau, ell, other) in enumerate(uniform(seed, 3, (0.4, 1.6), (0.3, 1.5), (0.3, 1.5))):
        times = random_grid(10 * seed + i, 3 + 2 * i)
        def value(tau, spread, ell, times=times):
            return number_of(call(answer, times.clone(), tau, spread, ell), "kept")
        useless, base = value(tau, 1e7, ell), chapters(times, tau, ell)
        true_for_all(abs(useless - base) < 1e-6, f"With a useless measurement (spread 10^7) the walk keeps {base:.6f} by (3.14); you give {useless:.6f}.")
        perfect, half = value(tau, 1e-4, ell), chapters(times, tau, 1e-4)
        true_for_all(abs(perfect - half) < 1e-6 + 1e-3 * half, "With a nearly perfect measurement (spread 10^-4) the spread of the data must not "
            "matter any more: "
                     "the variance that counts is that of x_0 given y.")
        equal, expected = value(tau, ell, ell), chapters(times, tau, ell / math.sqrt(2))
        true_for_all(abs(equal - expected) < 1e-8, f"With spread = ell the measurement halves the variance of x_0, so that the walk keeps "
                                                   f"{expected:.6f}; you give {equal:.6f}.")
        one, two = value(tau, other, ell), value(tau, ell, other)
        true_for_all(abs(one - two) < 1e-9, "Data and measurement enter the variance of x_0 given y in the same way, but yours changes when spread "
                                            "and ell are exchanged.")
        between = chapters(times, tau, left_of(other, ell))
        true_for_all(abs(two - between) < 1e-8, f"With spread = {other:.4g} and ell = {ell:.4g} the walk keeps {between:.6f}; you give {two:.6f}: what is "
                                                "the variance of x_0 given y?")
        scaled = value(3 * tau, 3 * other, 3 * ell)
        true_for_all(abs(one - scaled) < 1e-9, "The share must not change if x_0, y and the noise are all measured in another unit.")
    return "Each step keeps cos^2 of its angle, the first one too."


@coursework("cw3.4b", "the best grid", read="section 3.8, and the line under (3.14)")
def best_times(answer: Callable, *, seed: int) -> str:
    """As good as the bound of (3.14)."""
    for i, (tau, spread, ell) in enumerate(uniform(seed, 3, (0.4, 1.6), (0.3, 1.5), (0.3, 1.5))):
        steps = 3 + 4 * i
        times = state_of(after_kept(answer, "best_times", steps, tau, spread, ell), (steps + 1,), "best_times").double()
        true_for_all(times[0] == 1 and times[-1] == 0, f"Your grid must begin at 1 and end at 0 exactly; 1 - times[0] is {1 - float(times[0]):.1e} and "
                                                       f"times[-1] is {float(times[-1]):.1e}.")
        true_for_all(times[1:] < times[:-1], "The times must fall.")
        share, best = chapters(times, tau, left_of(spread, ell)), math.cos(math.pi / 2 / steps) ** (2 * steps)
        true_for_all(share > best - 1e-6, f"This grid of {steps} steps keeps {share:.5f} of the variance; the best one keeps cos(pi / "
                                          f"2N)^(2N) = {best:.5f}.")
    return "No grid of as many steps keeps more."


@coursework("cw3.4c", "the best bridge for even times", read="task 4: try it with your kept, then look for the symmetry")
def best_tau(answer: Callable, *, seed: int) -> str:
    """No other tau keeps more on an even grid."""
    for spread, ell in uniform(seed, 3, (0.3, 1.5), (0.3, 1.5)):
        for steps in (4, 10):
            even, left = torch.linspace(1, 0, steps + 1, dtype=torch.float64), left_of(spread, ell)
            tau = number_of(after_kept(answer, "best_tau", spread, ell), "best_tau")
            true_for_all(0 < tau < math.inf, f"Your best_tau is {tau:.4g}; expected a positive number.")
            low, here, high = (chapters(even, tau * math.exp(h), left) for h in (-0.01, 0.0, 0.01))
            true_for_all(abs(high - low) < 0.02 * abs(low - 2 * here + high) and low - 2 * here + high < 0,
                         f"For spread {spread:.3g} and ell {ell:.3g}, {steps} even times keep {here:.5f} at your tau = {tau:.4g}; a "
                         f"{'larger' if high > low else 'smaller'} tau keeps more (give it to 10^-4, or as a formula).")
    return "By symmetry: exchange t and 1 - t."


@coursework("cw3.5", "the exact way back", read="section 3.10, (3.15): the equation on the left, not the approximation")
def encode(answer: Callable, *, seed: int) -> str:
    """Steps at eta = 0, down from the code, must end at the data."""
    for i, net in enumerate(nets(seed)):
        x0, y = torch.randn(2, 4, 2, generator=seeded(50 * seed + i), dtype=torch.float64)
        times = torch.linspace(0.8, 0, 5 + i, dtype=torch.float64)
        top, tau = float(times[0]), 0.7 + 0.5 * i
        code = state_of(asked(answer, "times from 0.8 down to 0", net, x0.clone(), y.clone(), times.clone(), tau), (4, 2), "encode").double()
        def off(x, net=net, x0=x0, y=y, times=times, tau=tau):
            level, bar = tau * (times / (1 - times)).sqrt(), (x - times[0] * y) / (1 - times[0])
            for t, here, below in zip(times.tolist(), level, level[1:], strict=False):
                bar = bar + (below - here) * (bar - net((1 - t) * bar + t * y, y, t)) / here          # (3.9)
            return float((bar - x0).abs().max())
        if off(code) < 1e-6:
            continue
        if min(off(code + top * y), off((1 - top) * code + top * y), off(code + top * y, net=lambda x, y, t, net=net: net(x - t * y, y, t))) < 1e-6:
            raise WrongAnswer("The part of y is missing in the state: x_t is (1 - t) times the scaled state, plus t y. It is to be in what you return, "
                              "and in what `net` gets.")
        raise WrongAnswer(f"Walked down from your code, by steps at eta = 0, the data come back with an error of {off(code):.2g}; expected less than 1e-6. "
                          "The noise that counts is the one at the upper end of each step.")
    return "Exact with any number of steps, and with any smooth guess."


@coursework("cw3.6", "what noise does on two bridges", read="task 6: measure with your walk of task 3")
def noise(thin: float, wide: float, *, seed: int) -> str:
    """Only the form of the numbers; their values are judged after you hand in."""
    for name, value in (("kept_thin", thin), ("kept_wide", wide)):
        try:
            share = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise WrongAnswer(f"Your {name} is a {type(value).__name__}; expected one number.") from None
        true_for_all(0 < share < 1, f"Your {name} is {share:.4g}; expected a share of the variance, between 0 and 1.")
    return "The form is right; the values are judged after you hand in."
