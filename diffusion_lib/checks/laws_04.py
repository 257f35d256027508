"""What the judges of coursework 4 compare with: exact scores, spreads and stationary laws."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, seeded
from diffusion_lib.checks.core import WrongAnswer
from diffusion_lib.checks.typed import uniform

f64 = torch.float64
LOG_X = torch.linspace(-14.0, 5.0, 305, dtype=f64)         # x = e^v: smooth integrands that vanish at both ends


def positive(kind: str, a: float) -> tuple[Tensor, Tensor, Tensor]:
    """Points x > 0, their probabilities, and the true score, of a density with an edge at 0 or none."""
    x = LOG_X.exp()
    log_p, score = {"exponential": (-a * x, torch.full_like(x, -a)), "half a normal": (-x**2 / (2 * a**2), -x / a**2),
                    "gamma": ((a - 1) * LOG_X - 2 * x, (a - 1) / x - 2),
                    "log-normal": (-LOG_X - LOG_X**2 / (2 * a**2), -(1 + LOG_X / a**2) / x)}[kind]
    return x, (log_p + LOG_X).softmax(0), score


def ask(answer: object, *args: object) -> object:
    """`call` with copies: an answer may set ``requires_grad`` on what it gets, or write into it."""
    return call(answer, *(a.clone() if isinstance(a, Tensor) else a for a in args))


def number(value: object) -> float:
    """A student's value, without its graph, as a float."""
    return float(value.detach() if isinstance(value, Tensor) else value)


def speckled(seed: int, index: int) -> tuple[float, Tensor, Tensor, Tensor]:
    """sigma, and weights, means and variances (K,) of log x_0: one component, then two."""
    sigma, w, m, gap, v, u = uniform(seed + 10 * index, (0.3, 0.8), (0.3, 0.7), (-0.5, 0.5), (0.9, 1.6), (0.05, 0.2), (0.1, 0.3))
    if index == 0:
        return sigma, torch.ones(1, dtype=f64), torch.tensor([m], dtype=f64), torch.tensor([v], dtype=f64)
    return sigma, torch.tensor([w, 1 - w], dtype=f64), torch.tensor([m, m + gap], dtype=f64), torch.tensor([v, u], dtype=f64)


def log_score(y: Tensor, sigma: float, w: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The score of y = log of the noisy number, and the responsibilities (B, K)."""
    total = v + sigma**2
    r = (w.log() - total.log() / 2 - (y[:, None] - m) ** 2 / (2 * total)).softmax(1)
    return -(r * (y[:, None] - m) / total).sum(1), r


def noisy_score(sigma: float, w: Tensor, m: Tensor, v: Tensor):
    """The score of the noisy number itself, as a function (B,) -> (B,)."""
    return lambda x: (log_score(x.log().reshape(-1), sigma, w, m, v)[0].reshape(x.shape) - 1) / x


def log_posterior(y: Tensor, sigma: float, w: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of log x_0 given y, a mixture again: responsibilities, means (B, K), variances (K,)."""
    gain = v / (v + sigma**2)
    return log_score(y, sigma, w, m, v)[1], m + gain * (y[:, None] - m), (1 - gain) * v


def noisy_points(sigma: float, w: Tensor, m: Tensor, v: Tensor, seed: int, n: int = 6) -> Tensor:
    """Places x > 0 where the noisy density has its mass, (n,)."""
    z = torch.rand(n, generator=seeded(seed), dtype=f64) * 4 - 2
    return (m.mean() + z * (m.var(correction=0) + v.mean() + sigma**2).sqrt()).exp()


def agree(found: Tensor, wanted: Tensor, name: str, what: str, rtol: float, mistakes: dict[str, Tensor], tail: str = "") -> None:
    """Compare entry by entry. Errors: WrongAnswer, with the usual mistake where one explains all entries."""
    close = lambda other: bool(((found - other).abs() <= rtol * other.abs().clamp_min(0.1 * float(other.abs().max()))).all())  # noqa: E731
    if close(wanted):
        return
    for explanation, other in mistakes.items():
        if close(other):
            looks = "it looks as if " * (" was used" in explanation or " was taken for" in explanation)
            raise WrongAnswer(f"{name} is not {what}: {looks}{explanation}.")
    at = int((found - wanted).abs().argmax())
    raise WrongAnswer(f"{name} is {found[at]:.5g} in entry {at}; expected {wanted[at]:.5g}, {what}.{tail}")


# (h, tau, V) of task 4, by an integral over frequencies
STALE = ((0.2, 1.0, 1.164021), (0.6, 1.0, 1.614907), (1.0, 1.0, 2.4), (0.9, 1.5, 3.068182), (0.02, 0.25, 0.07991623))
# task 5 at w = 0.6, tau = 0.2, by quadrature to 1e-6: S; without the noise of the label; of maximum likelihood
LEVELS = {(0.2, "w"): (24.2141, 2.11811, 0.490055), (0.2, "tau"): (0.206577, 0.0564251, 0.283167),
          (0.5, "w"): (1.84871, 0.592932, 0.515420), (0.5, "tau"): (0.610614, 0.399490, 1.16316),
          (1.0, "w"): (0.787533, 0.888292, 0.671338), (1.0, "tau"): (1.32826, 3.84164, 5.33482),
          (3.0, "w"): (0.532007, 4.93615, 1.57219), (3.0, "tau"): (7.50601, 78.3045, 35.1915)}
# (sigma, the sum of the squared relative errors), likewise
SUMS = ((0.4, 28.923343), (0.44, 22.080247), (0.48, 19.307279), (0.52, 18.736700), (0.56, 19.499083), (0.6, 21.132708), (0.66, 24.600612))


def spread_hint(found: dict, off: dict) -> str:
    """Which mistake gives all the numbers; failing that, whether they are near."""
    if not all(math.isfinite(value) for value in found.values()):
        return "a variance below 0 under a root, or 0 / 0? Check the sign in (4.13), and whether p_sigma underflows on your grid"
    other = {"w": "tau", "tau": "w"}
    factor = "a factor {} is {}. The label is -eps/sigma: its variance given x is that of eps over sigma^2, and that of x_0 over sigma^4"
    mistakes = {
        "it is the square of what is expected. S is a standard deviation": lambda s, k: LEVELS[s, k][0] ** 2,
        "it is the spread of the other parameter. At fixed x, differentiate s in the one that was asked for": lambda s, k: LEVELS[s, other[k]][0],
        "it is 1 / sqrt(E[(ds)^2]), with the noise of the label left out. S has Var[dl] above, and l has the label in it": lambda s, k: LEVELS[s, k][1],
        "it is the spread of maximum likelihood (Fisher's), with the noise of the label left out. The fit here is by the score": lambda s, k: LEVELS[s, k][2],
        "the noise of the label was taken to be 1/sigma^2. Given x it is another: (4.13) has it": lambda s, k: LEVELS[s, k][1] / s,
        factor.format("sigma", "too much"): lambda s, k: s * LEVELS[s, k][0],
        factor.format("sigma", "missing"): lambda s, k: LEVELS[s, k][0] / s,
        factor.format("sigma^2", "too much"): lambda s, k: s**2 * LEVELS[s, k][0],
        factor.format("sigma^2", "missing"): lambda s, k: LEVELS[s, k][0] / s**2}
    for explanation, value in mistakes.items():
        if all(abs(found[level] / value(*level) - 1) < 3e-3 for level in found):
            return explanation
    if sum(error < 0.1 for error in off.values()) >= 6:
        return ("your numbers are near at most levels, so the formula may be right: did you sample, or is the grid too coarse or too short? "
                "For w the points between the modes count")
    return ("take the two expectations apart. E[(ds)^2] needs the derivative of s in the parameter, at fixed x; Var[dl] has the variance of the "
            "label given x besides, and (4.13) has that. Both are integrals over p_sigma")
