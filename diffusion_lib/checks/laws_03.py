"""What the judges of coursework 3 compare with: bridges in closed form, and walks by reference steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from diffusion_lib.checks.compare import call, mean_close, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer
from diffusion_lib.exact import GaussianMixture, three_modes
from diffusion_lib.schedules import EDMSchedule

ROUNDING = 1e-9                       # float64 answers; float32 ones get 2e-4


def uniform(seed: int, n: int, *ranges: tuple[float, float]) -> list[tuple[float, ...]]:
    """n draws of one number in each of the (low, high)."""
    draws = torch.rand(n, len(ranges), generator=seeded(100 + seed), dtype=torch.float64)
    return [tuple(low + float(u) * (high - low) for u, (low, high) in zip(row, ranges, strict=True)) for row in draws]


def asked(answer: Callable, where: str, *args: object) -> object:
    """`call`, but an error of arithmetic names the case."""
    try:
        return call(answer, *args)
    except ZeroDivisionError:
        raise WrongAnswer(f"Your code divides by zero ({where}).") from None
    except ValueError as problem:
        if type(problem) is not ValueError:
            raise
        raise WrongAnswer(f"Your code raised {type(problem).__name__} ({where}): {str(problem).rstrip('.')}.") from None


def one_of(ell: float, *mean: float) -> GaussianMixture:
    """Gaussian data as a mixture of one."""
    return GaussianMixture(*(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [list(mean)], [ell**2])))


def left_of(spread: float, ell: float) -> float:
    """The standard deviation of p(x_0 | y), by the library's Bayes' rule."""
    edm = EDMSchedule(sigma_max=1000.0)
    return float(one_of(ell, 0.0).posterior(torch.zeros(1, 1, dtype=torch.float64), spread / edm.sigma_max, edm).variance) ** 0.5


def number_of(value: object, name: str) -> float:
    """A student's value as a float. Errors: WrongAnswer for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise WrongAnswer(f"Your {name} returned a {type(value).__name__}; expected one number.") from None


def state_of(value: object, shape: tuple[int, ...], name: str) -> Tensor:
    """A student's state (B, D), finite. Errors: WrongAnswer for another shape, NaN or infinity."""
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        given = f"the shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise WrongAnswer(f"Your {name} returned {given}; expected a tensor of shape {shape}.")
    true_for_all(torch.isfinite(value), f"Your {name} holds NaN or infinity: look for a division by sigma = 0, at t = 1 or at s = 0.")
    return value.detach()


class Coefficients:
    """x_s = a x_t + b x_0 + g y + c z, read off an answer."""

    def __init__(self, step: Callable, t: float, s: float, tau: float, eta: float) -> None:
        zero, one = torch.zeros(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
        where = f"bridge_step at t = {t:.3g}, s = {s:.3g}, eta = {eta:g}"
        def run(*state):
            at = "t = 1" if t == 1 else "s = 0" if s == 0 else f"t = {t:.3g}, s = {s:.3g}"
            return state_of(asked(step, at, *(v.clone() for v in state[:3]), t, s, tau, eta, state[3].clone()), (3, 2), where)
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
        true_for_all((run(*mixed).double() - expected).abs() < 20 * self.tolerance, f"Your {where} is not linear in x_t, x_0, y and z, entry by entry.")


def by_grid(mixture: GaussianMixture, points: Tensor, log_evidence: Tensor) -> Tensor:
    """E[x_0 | evidence] by a sum over points of the plane or line; log_evidence (B, points)."""
    return (mixture.log_prob(points) + log_evidence).softmax(1) @ points


def bayes_weights(mixture: GaussianMixture, y: Tensor, spread: float) -> Tensor:
    """Posterior weights of the components given one y."""
    eye = torch.eye(mixture.dim, dtype=torch.float64)
    return torch.stack([w.log() + MultivariateNormal(m, (c + spread**2) * eye).log_prob(y)
                        for w, m, c in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)]).softmax(0)


# Exact shares of the posterior variance after three uneven steps at tau = 0.67, spread = 0.8, ell = 0.6: (eta, share)
UNEVEN, SHARES = (1.0, 0.91, 0.03, 0.0), ((0.0, 0.1786), (0.5, 0.1679), (1.0, 0.0994))




def walks(answer: Callable, seed: int) -> str:
    """A point comes out exact; a Gaussian with its mean and nearly its variance; the three clouds in the shares that Bayes' rule gives."""
    f64 = {"dtype": torch.float64}
    def grid(steps):
        return torch.linspace(1, 0, steps + 1, **f64)
    def run(mixture, y, times, tau, spread, eta, seed):
        return state_of(asked(answer, f"eta = {eta:g}", mixture, y.clone(), times, tau, spread, eta, seeded(seed)), tuple(y.shape), "walk").double()
    point, y = one_of(0.0, 0.7, -0.2), torch.randn(5, 2, generator=seeded(seed), **f64)
    for eta in (0.0, 1.0):
        true_for_all((run(point, y, grid(3), 1.0, 0.5, eta, seed) - point.means).abs() < 1e-4,
                     f"If the data are one point, every walk must end there, after three steps too; yours misses it (eta = {eta:g}).")
    n, steps, spread, ell = 3000, 100, 0.8, 0.6
    one = one_of(ell, 0.5, -1.0)
    first, again, other = ([run(one, y, grid(4), 0.5, spread, eta, number) for eta in (0.0, 1.0)] for number in (seed, seed, seed + 1))
    for eta, u, v, w in zip((0.0, 1.0), first, again, other, strict=True):
        true_for_all((u - v).abs() < 1e-9, f"Generators with the same seed gave two different walks (eta = {eta:g}): draw from `generator` alone.")
        true_for_all(not torch.allclose(u, w), f"Generators with different seeds gave the same walk (eta = {eta:g}): draw from the `generator` that you "
                     "are given. The first step needs fresh noise, whatever eta is.")
    true_for_all(not torch.allclose(*first), "With eta = 0 and with eta = 1 you give the same walk: eta is not used.")
    y = torch.tensor([[1.3, 0.2]], **f64)
    precision = 1 / ell**2 + 1 / spread**2
    mean, variance = (one.means[0] / ell**2 + y[0] / spread**2) / precision, 1 / precision
    for i, eta in enumerate((0.0, 1.0)):
        x = run(one, y.expand(n, 2), grid(steps), 0.5, spread, eta, 11 * seed + i)
        true_for_all(x.std(0) > 1e-6, f"All your samples have the same noise: draw one for each row (eta = {eta:g}).")
        mean_close(x, mean, name=f"The mean of your samples for Gaussian data (eta = {eta:g})")
        allowed = 5 * (2 / n) ** 0.5 + 10 / steps                    # k = 5 standard errors, and what a hundred steps may lose: section 3.7
        ratio = x.var(0) / variance
        true_for_all((ratio - 1).abs() < allowed, f"For Gaussian data the variance of your samples, given y, is {float(ratio[0]):.3f} and "
                                                  f"{float(ratio[1]):.3f} "
                     f"times that of the posterior p(x_0 | y), with {steps} steps; expected 1 ± {allowed:.2f} (eta = {eta:g}).")
    clouds, n = three_modes(), 3000
    y = torch.tensor([[0.3, 0.4]], **f64) + 0.2 * torch.randn(1, 2, generator=seeded(seed), **f64)
    right = bayes_weights(clouds, y[0], 1.2)
    for i, eta in enumerate((0.0, 0.5)):
        x = run(clouds, y.expand(n, 2), grid(steps), 1.0, 1.2, eta, 13 * seed + i)
        shares = torch.bincount(torch.cdist(x, clouds.means).argmin(1), minlength=3) / n
        allowed = 5 * (right * (1 - right) / n).sqrt() + 3 / steps
        true_for_all((shares - right).abs() < allowed, f"Given y, the three clouds have the shares {', '.join(f'{v:.3f}' for v in shares)}; Bayes' rule says "
                     f"{', '.join(f'{v:.3f}' for v in right)} (eta = {eta:g}).")
    n = 40_000
    for i, (eta, share) in enumerate(SHARES):
        x = run(one_of(ell, 0.0), torch.full((n, 1), -0.3, **f64), torch.tensor(UNEVEN, **f64), 0.67, spread, eta, 17 * seed + i)
        ratio, allowed = float(x.var() / variance), 5 * (2 / n) ** 0.5
        true_for_all(abs(ratio / share - 1) < allowed, f"On Gaussian data three uneven steps, at the times 1, 0.91, 0.03 and 0, keep {ratio:.4f} of the "
                     f"variance; expected {share:.4f} ± {share * allowed:.4f} (eta = {eta:g}): each step must use its own two times of `times`, and eta.")
    return "It samples the posterior of a noisy measurement, with no training."


def chapters(times: Tensor, tau: float, ell: float) -> float:
    """(3.14) of the chapter, for data of the spread ell and without any measurement, from infinite noise."""
    rho = tau * (times[1:-1] / (1 - times[1:-1])).sqrt()
    angle = torch.cat([times.new_tensor([math.pi / 2]), torch.atan(rho / ell), times.new_zeros(1)])
    return float((angle[:-1] - angle[1:]).cos().square().prod())


def random_grid(seed: int, steps: int) -> Tensor:
    """Uneven times from 1 down to 0, (steps + 1,)."""
    inner = torch.rand(steps - 1, generator=seeded(40 + seed), dtype=torch.float64) * 0.96 + 0.02
    return torch.cat([inner.new_ones(1), inner.sort(descending=True).values, inner.new_zeros(1)])


def after_kept(answer: Callable, name: str, *args: object) -> object:
    """`call`; an answer that searches with a `kept` that is still open says so."""
    try:
        return call(answer, *args)
    except (TypeError, AttributeError) as problem:
        if "NoneType" in str(problem) or "ellipsis" in str(problem):
            raise WrongAnswer(f"Your {name} met a None where it needs a number: if it uses `kept`, write `kept` first.") from None
        raise


def nets(seed: int) -> list[Callable]:
    """Smooth functions that stand for a network's guess."""
    (p, q, r), = uniform(seed, 1, (0.7, 0.8), (0.05, 0.12), (0.1, 0.3))
    return [lambda x, y, t: p * x + q * torch.sin(2 * x) + r * y, lambda x, y, t: p * x + q * torch.tanh(x - y) - r * t * y]
