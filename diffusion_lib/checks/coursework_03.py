"""The judges of chapter 3's coursework, a bridge from data to a measurement: they test laws, not formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from diffusion_lib.checks.compare import call, mean_close, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer, coursework
from diffusion_lib.exact import GaussianMixture, three_modes, two_modes

ROUNDING = 1e-9                       # float64 answers; float32 ones get 2e-4


def _uniform(seed: int, n: int, *ranges: tuple[float, float]) -> list[tuple[float, ...]]:
    draws = torch.rand(n, len(ranges), generator=seeded(100 + seed), dtype=torch.float64)
    return [tuple(low + float(u) * (high - low) for u, (low, high) in zip(row, ranges, strict=True)) for row in draws]


def _number(value: object, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise WrongAnswer(f"{name} returned a {type(value).__name__}; expected one number.") from None


def _state(value: object, shape: tuple[int, ...], name: str) -> Tensor:
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        given = f"the shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise WrongAnswer(f"{name} returned {given}; expected a tensor of shape {shape}.")
    true_for_all(torch.isfinite(value), f"{name} holds NaN or infinity: look for a division by sigma = 0, at t = 1 or at s = 0.")
    return value.detach()


class _Coefficients:
    """x_s = a x_t + b x_0 + g y + c z, read off an answer."""

    def __init__(self, step: Callable, t: float, s: float, tau: float, eta: float) -> None:
        zero, one = torch.zeros(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
        where = f"bridge_step at t = {t:.3g}, s = {s:.3g}, eta = {eta:g}"
        def run(*state):
            return _state(call(step, *(v.clone() for v in state[:3]), t, s, tau, eta, state[3].clone()), (3, 2), where)
        # at t = 1 the state is the measurement, so that x_t and y move together
        together = one if t == 1 else zero
        parts = [run(one, zero, together, zero), run(zero, one, zero, zero), run(together, zero, one, zero), run(zero, zero, zero, one)]
        self.a, self.b, self.g, self.c = (float(part.double().mean()) for part in parts)
        if t == 1:
            self.a = 0.0
        self.tolerance = ROUNDING if parts[0].dtype == torch.float64 else 2e-4
        mixed = torch.randn(4, 3, 2, generator=seeded(3), dtype=torch.float64)
        if t == 1:
            mixed[0] = mixed[2]
        expected = sum(k * v for k, v in zip((self.a, self.b, self.g, self.c), mixed, strict=True))
        true_for_all((run(*mixed).double() - expected).abs() < 20 * self.tolerance, f"{where} is not linear in x_t, x_0, y and z, entry by entry.")


@coursework("cw3.1", "one step of the family on the bridge", read="section 3.3, (3.1) to (3.6), with y in the mean")
def bridge_step(answer: Callable, *, seed: int) -> str:
    """The mean and the variance given x_0 and y; no noise at eta = 0; no x_0 on the way up at eta = 1; c proportional to eta."""
    for t, share, tau in _uniform(seed, 4, (0.2, 0.95), (0.1, 0.9), (0.4, 1.8)):
        s, fresh = share * t, None
        for eta in (1.0, 0.0, 0.6):
            k, here = _Coefficients(answer, t, s, tau, eta), f"(t = {t:.3g}, s = {s:.3g}, tau = {tau:.3g}, eta = {eta:g})"
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
                true_for_all(near(k.c, eta * fresh), f"c is {k.c:.5f}; expected eta times its value at eta = 1, {eta * fresh:.5f} {here}.")
    for eta in (0.0, 0.6, 1.0):
        end = _Coefficients(answer, 0.4, 0.0, 1.3, eta)
        true_for_all(abs(end.b - 1) + abs(end.a) + abs(end.g) + abs(end.c) < 1e-6, f"The step to s = 0 must return x_0 (eta = {eta:g}).")
        start = _Coefficients(answer, 1.0, 0.7, 1.3, eta)
        spread = 1.3 * math.sqrt(0.21)
        true_for_all(abs(start.b - 0.3) < 1e-5 and abs(start.g - 0.7) < 1e-5, f"At t = 1 the mean of x_0.7 must be 0.3 x_0 + 0.7 y (eta = {eta:g}).")
        true_for_all(abs(start.c - spread) < 1e-5, f"At t = 1 there is no noise to keep, so all of it must be fresh, whatever eta: c is "
                                                   f"{start.c:.4f}, expected {spread:.4f} (eta = {eta:g}).")
    return "The marginals are right for every eta, and at eta = 1 the way up forgets x_0."


def _by_grid(mixture: GaussianMixture, points: Tensor, log_evidence: Tensor) -> Tensor:
    """E[x_0 | evidence] by a sum over points of the plane or line; log_evidence (B, points)."""
    return (mixture.log_prob(points) + log_evidence).softmax(1) @ points


@coursework("cw3.2", "the exact guess from two measurements", read="book/notation.md, 'From an EDM denoiser', and section 3.6, (3.9)")
def guess(answer: Callable, *, seed: int) -> str:
    """Against Bayes' rule, summed over a fine grid."""
    line = torch.linspace(-4, 4, 4001, dtype=torch.float64)[:, None]
    axis = torch.linspace(-3.2, 3.2, 161, dtype=torch.float64)
    plane = torch.cartesian_prod(axis, axis)
    for i, (t, tau, spread) in enumerate([*_uniform(seed, 3, (0.3, 0.9), (0.6, 1.6), (0.5, 1.5)), (1.0, 1.0, 0.8)]):
        mixture, points = (two_modes(), line) if i % 2 == 0 else (three_modes(), plane)
        generator = seeded(7 * seed + i)
        x0 = mixture.sample(6, generator)
        noise = torch.randn(2, *x0.shape, generator=generator, dtype=torch.float64)
        y = x0 + spread * noise[0]
        x_t = (1 - t) * x0 + t * y + tau * math.sqrt(t * (1 - t)) * noise[1]
        where = f"guess at t = {t:.3g}, tau = {tau:.3g}, spread = {spread:.3g}"
        found = _state(call(answer, mixture, x_t.clone(), y.clone(), t, tau, spread), tuple(x0.shape), where).double()
        from_y = Normal(points, spread).log_prob(y[:, None]).sum(-1)
        from_x = torch.zeros_like(from_y)
        if t < 1:
            from_x = Normal((1 - t) * points + t * y[:, None], tau * math.sqrt(t * (1 - t))).log_prob(x_t[:, None]).sum(-1)
        right = _by_grid(mixture, points, from_x + from_y)
        if (found - right).abs().max() < 1e-5:
            continue
        for what, evidence in {
            "it ignores y: y says something of x_0 by itself, and not only through x_t": from_x,
            "it ignores x_t": from_y,
            "y is counted twice": from_x + 2 * from_y,
        }.items():
            if (found - _by_grid(mixture, points, evidence)).abs().max() < 1e-5:
                raise WrongAnswer(f"It looks as if {what} ({where}).")
        at = int((found - right).abs().flatten().argmax())
        raise WrongAnswer(f"{where} is {float(found.flatten()[at]):.5f} in entry {at}; Bayes' rule says {float(right.flatten()[at]):.5f}. "
                          "Two measurements of x_0 with independent noises make one: which, and at which noise level?")
    return "At t = 1 it is the mean of the posterior of y alone."


def _bayes_weights(mixture: GaussianMixture, y: Tensor, spread: float) -> Tensor:
    """Posterior weights of the components given one y."""
    eye = torch.eye(mixture.dim, dtype=torch.float64)
    return torch.stack([w.log() + MultivariateNormal(m, (c + spread**2) * eye).log_prob(y)
                        for w, m, c in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)]).softmax(0)


@coursework("cw3.3", "the sampler on the bridge", read="section 3.5, (3.8), with your step and your guess; where does the walk start?")
def walk(answer: Callable, *, seed: int) -> str:
    """A point comes out exact; a Gaussian with its mean and nearly its variance; the three clouds in the shares that Bayes' rule gives."""
    f64 = {"dtype": torch.float64}
    def grid(steps):
        return torch.linspace(1, 0, steps + 1, **f64)
    point = GaussianMixture(torch.ones(1, **f64), torch.tensor([[0.7, -0.2]], **f64), torch.zeros(1, **f64))
    y = torch.randn(5, 2, generator=seeded(seed), **f64)
    for eta in (0.0, 1.0):
        found = _state(call(answer, point, y.clone(), grid(3), 1.0, 0.5, eta, seeded(seed)), (5, 2), "walk")
        true_for_all((found.double() - point.means).abs() < 1e-4, f"If the data are one point, every walk must end there, after three steps too; "
            f"yours misses it (eta = {eta:g}).")
    n, steps, spread, ell = 3000, 100, 0.8, 0.6
    one = GaussianMixture(torch.ones(1, **f64), torch.tensor([[0.5, -1.0]], **f64), torch.tensor([ell**2], **f64))
    twice = [_state(call(answer, one, y.clone(), grid(4), 0.5, spread, eta, seeded(seed)), (5, 2), "walk") for eta in (0.0, 1.0)]
    true_for_all(not torch.allclose(*twice), "eta = 0 and eta = 1 give the same walk: eta is not used.")
    y = torch.tensor([[1.3, 0.2]], **f64)
    precision = 1 / ell**2 + 1 / spread**2
    mean, variance = (one.means[0] / ell**2 + y[0] / spread**2) / precision, 1 / precision
    for i, eta in enumerate((0.0, 1.0)):
        x = _state(call(answer, one, y.expand(n, 2).clone(), grid(steps), 0.5, spread, eta, seeded(11 * seed + i)), (n, 2), "walk").double()
        mean_close(x, mean, name=f"the mean of your samples for Gaussian data (eta = {eta:g})")
        allowed = 5 * (2 / n) ** 0.5 + 10 / steps                    # k = 5 standard errors, and what a hundred steps may lose: section 3.7
        ratio = x.var(0) / variance
        true_for_all((ratio - 1).abs() < allowed, f"For Gaussian data the variance of your samples, given y, is {float(ratio[0]):.3f} and "
                                                  f"{float(ratio[1]):.3f} "
                     f"times that of the posterior p(x_0 | y), with {steps} steps; expected 1 ± {allowed:.2f} (eta = {eta:g}).")
    clouds, n = three_modes(), 3000
    y = torch.tensor([[0.3, 0.4]], **f64) + 0.2 * torch.randn(1, 2, generator=seeded(seed), **f64)
    right = _bayes_weights(clouds, y[0], 1.2)
    for i, eta in enumerate((0.0, 0.5)):
        x = _state(call(answer, clouds, y.expand(n, 2).clone(), grid(steps), 1.0, 1.2, eta, seeded(13 * seed + i)), (n, 2), "walk").double()
        shares = torch.bincount(torch.cdist(x, clouds.means).argmin(1), minlength=3) / n
        allowed = 5 * (right * (1 - right) / n).sqrt() + 3 / steps
        true_for_all((shares - right).abs() < allowed, f"Given y, the three clouds have the shares {', '.join(f'{v:.3f}' for v in shares)}; Bayes' rule says "
                     f"{', '.join(f'{v:.3f}' for v in right)} (eta = {eta:g}).")
    return "It samples the posterior of a noisy measurement, with no training."


def _chapters(times: Tensor, tau: float, ell: float) -> float:
    """(3.14) of the chapter, for data of the spread ell and without any measurement, from infinite noise."""
    rho = tau * (times[1:-1] / (1 - times[1:-1])).sqrt()
    angle = torch.cat([times.new_tensor([math.pi / 2]), torch.atan(rho / ell), times.new_zeros(1)])
    return float((angle[:-1] - angle[1:]).cos().square().prod())


def _random_grid(seed: int, steps: int) -> Tensor:
    inner = torch.rand(steps - 1, generator=seeded(40 + seed), dtype=torch.float64) * 0.96 + 0.02
    return torch.cat([inner.new_ones(1), inner.sort(descending=True).values, inner.new_zeros(1)])


@coursework("cw3.4a", "the variance that a walk keeps", read="section 3.7, (3.12) to (3.14): what is left unknown when y is known?")
def kept(answer: Callable, *, seed: int) -> str:
    """Limits in which the chapter's (3.14) holds, and what a measurement as good as the data must do."""
    for i, (tau, ell, other) in enumerate(_uniform(seed, 3, (0.4, 1.6), (0.3, 1.5), (0.3, 1.5))):
        times = _random_grid(10 * seed + i, 3 + 2 * i)
        def value(tau, spread, ell, times=times):
            return _number(call(answer, times.clone(), tau, spread, ell), "kept")
        useless, base = value(tau, 1e7, ell), _chapters(times, tau, ell)
        true_for_all(abs(useless - base) < 1e-6, f"With a useless measurement (spread 10^7) the walk keeps {base:.6f} by (3.14); you give {useless:.6f}.")
        perfect, half = value(tau, 1e-4, ell), _chapters(times, tau, 1e-4)
        true_for_all(abs(perfect - half) < 1e-6 + 1e-3 * half, "With a nearly perfect measurement (spread 10^-4) the spread of the data must not "
            "matter any more: "
                     "the variance that counts is that of x_0 given y.")
        equal, expected = value(tau, ell, ell), _chapters(times, tau, ell / math.sqrt(2))
        true_for_all(abs(equal - expected) < 1e-8, f"With spread = ell the measurement halves the variance of x_0, so that the walk keeps "
                                                   f"{expected:.6f}; you give {equal:.6f}.")
        one, two = value(tau, other, ell), value(tau, ell, other)
        true_for_all(abs(one - two) < 1e-9, "Data and measurement enter the variance of x_0 given y in the same way, but yours changes when spread "
                                            "and ell are exchanged.")
        scaled = value(3 * tau, 3 * other, 3 * ell)
        true_for_all(abs(one - scaled) < 1e-9, "The share must not change if x_0, y and the noise are all measured in another unit.")
    return "Both ends are right, and all between them by symmetry."


@coursework("cw3.4b", "the best grid", read="section 3.8, and the line under (3.14)")
def best_times(answer: Callable, kept: Callable, *, seed: int) -> str:
    """As good as the bound of (3.14), by the student's own measure."""
    for i, (tau, spread, ell) in enumerate(_uniform(seed, 3, (0.4, 1.6), (0.3, 1.5), (0.3, 1.5))):
        steps = 3 + 4 * i
        times = _state(call(answer, steps, tau, spread, ell), (steps + 1,), "best_times").double()
        true_for_all(times[0] == 1 and times[-1] == 0, f"The grid begins at {float(times[0]):.6g} and ends at {float(times[-1]):.6g}; expected 1 and "
                                                       f"0 exactly.")
        true_for_all(times[1:] < times[:-1], "The times must fall.")
        share, best = _number(call(kept, times, tau, spread, ell), "kept"), math.cos(math.pi / 2 / steps) ** (2 * steps)
        true_for_all(share > best - 1e-6, f"By your kept this grid of {steps} steps keeps {share:.5f} of the variance; the best one keeps cos(pi / "
                                          f"2N)^(2N) = {best:.5f}.")
    return "No grid of as many steps keeps more."


@coursework("cw3.4c", "the best bridge for even times", read="task 4: try it with your kept, then look for the symmetry")
def best_tau(answer: Callable, kept: Callable, *, seed: int) -> str:
    """No other tau keeps more on an even grid."""
    for spread, ell in _uniform(seed, 3, (0.3, 1.5), (0.3, 1.5)):
        for steps in (4, 10):
            even = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
            def share(tau, even=even, spread=spread, ell=ell):
                return _number(call(kept, even.clone(), tau, spread, ell), "kept")
            tau = _number(call(answer, spread, ell), "best_tau")
            true_for_all(0 < tau < math.inf, f"best_tau is {tau:.4g}; expected a positive number.")
            low, here, high = (share(tau * math.exp(h)) for h in (-0.01, 0.0, 0.01))
            true_for_all(abs(high - low) < 0.02 * abs(low - 2 * here + high) and low - 2 * here + high < 0,
                         f"For spread {spread:.3g} and ell {ell:.3g}, {steps} even times keep {here:.5f} at your tau = {tau:.4g}; a "
                         f"{'larger' if high > low else 'smaller'} tau keeps more.")
    return "By symmetry: exchange t and 1 - t."


def _nets(seed: int) -> list[Callable]:
    """Smooth functions that stand for a network's guess."""
    (p, q, r), = _uniform(seed, 1, (0.7, 0.8), (0.05, 0.12), (0.1, 0.3))
    return [lambda x, y, t: p * x + q * torch.sin(2 * x) + r * y, lambda x, y, t: p * x + q * torch.tanh(x - y) - r * t * y]


@coursework("cw3.5", "the exact way back", read="section 3.10, (3.15): the equation on the left, not the approximation")
def encode(answer: Callable, step: Callable, *, seed: int) -> str:
    """The student's own steps, down from the code, must end at the data."""
    for i, net in enumerate(_nets(seed)):
        x0, y = torch.randn(2, 4, 2, generator=seeded(50 * seed + i), dtype=torch.float64)
        times = torch.linspace(0.8, 0, 5 + i, dtype=torch.float64)
        tau = 0.7 + 0.5 * i
        code = _state(call(answer, net, x0.clone(), y.clone(), times.clone(), tau), (4, 2), "encode").double()
        x, zero = code, torch.zeros_like(code)
        for t, s in zip(times.tolist(), times.tolist()[1:], strict=False):
            x = _state(call(step, x, net(x, y, t), y.clone(), t, s, tau, 0.0, zero), (4, 2), "bridge_step").double()
        off = float((x - x0).abs().max())
        true_for_all(off < 1e-6, f"Walked down from your code, with your steps of task 1 at eta = 0, the data come back with an error of {off:.2g}; "
                                 f"expected less than 1e-6. "
                     "The noise that counts is the one at the upper end of each step.")
    return "Exact with any number of steps, and with any smooth guess."


@coursework("cw3.6", "what noise does on two bridges", read="task 6: measure with your walk of task 3")
def noise(thin: float, wide: float, *, seed: int) -> str:
    """Only the form of the numbers; their values are judged after you hand in."""
    for name, value in (("kept_thin", thin), ("kept_wide", wide)):
        share = _number(value, name)
        true_for_all(0 < share < 1, f"{name} is {share:.4g}; expected a share of the variance, between 0 and 1.")
    return "The form is right; the values are judged after you hand in."
