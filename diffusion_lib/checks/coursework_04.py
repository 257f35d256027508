"""The judges of chapter 4's coursework: data with an edge, noise that multiplies, stale arrows, and what a noise level sees.

They judge by laws (a loss against the explicit one, posteriors of Gaussian mixtures in log x, the roots of a recursion) or by numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, close_number, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer, coursework

f64 = torch.float64
LOG_X = torch.linspace(-14.0, 5.0, 305, dtype=f64)         # x = e^v: smooth integrands that vanish at both ends


def _uniform(seed: int, *bounds: tuple[float, float]) -> list[float]:
    draws = torch.rand(len(bounds), generator=seeded(seed), dtype=f64).tolist()
    return [low + (high - low) * u for (low, high), u in zip(bounds, draws, strict=True)]


def _positive(kind: str, a: float) -> tuple[Tensor, Tensor, Tensor]:
    """Points x > 0, their probabilities, and the true score, of a density with an edge at 0 or none."""
    x = LOG_X.exp()
    log_p, score = {"exponential": (-a * x, torch.full_like(x, -a)), "half a normal": (-x**2 / (2 * a**2), -x / a**2),
                    "gamma": ((a - 1) * LOG_X - 2 * x, (a - 1) / x - 2),
                    "log-normal": (-LOG_X - LOG_X**2 / (2 * a**2), -(1 + LOG_X / a**2) / x)}[kind]
    return x, (log_p + LOG_X).softmax(0), score


def _numbers(value: object, like: Tensor, name: str) -> Tensor:
    """A student's tensor in float64, of the shape of ``like``."""
    value = torch.as_tensor(value).detach().to(f64)
    true_for_all(value.shape == like.shape, f"{name} has shape {tuple(value.shape)}; expected {tuple(like.shape)}: one number for each entry of x.")
    true_for_all(value.isfinite(), f"{name} holds NaN or infinity: look for a division by zero or the logarithm of a negative number.")
    return value


@coursework("cw4.1", "a loss for data with an edge", read="section 4.3, (4.5) and (4.6), and exercise 4.15b")
def edge_loss(answer, *, seed):
    """Against the explicit loss: the two may differ by a constant alone, for every field and every density."""
    a, b, c, width = _uniform(seed, (0.6, 1.6), (0.4, 1.2), (1.3, 2.5), (0.6, 1.0))
    weight = lambda x: (x / (1 + x)) ** 2  # noqa: E731
    densities = [("exponential", a), ("half a normal", b), ("gamma", c), ("log-normal", width)]
    for kind, parameter in densities:
        x, p, s = _positive(kind, parameter)

        def mean(f, x=x, p=p):
            return float((p * _numbers(call(answer, f, x), x, "edge_loss(f, x)")).sum())

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
    width, rate = _uniform(seed, (0.6, 0.9), (0.7, 1.6))
    generator = seeded(seed + 1)
    groups, n = 25, 5000
    draws = {"exponential": -(1 - torch.rand(groups, n, generator=generator, dtype=f64)).log() / rate,
             "log-normal": (width * torch.randn(groups, n, generator=generator, dtype=f64)).exp()}
    for kind, parameter in (("exponential", rate), ("log-normal", width)):
        x, p, s = _positive(kind, parameter)
        root = (p * (x / (1 + x)) ** 2).sqrt()
        best = torch.linalg.lstsq(torch.stack([root / x, -root], 1), (root * s)[:, None]).solution[:, 0]
        wanted = best + torch.tensor([1.0, 0.0], dtype=f64)
        found = []
        for some in draws[kind]:
            pair = call(answer, some)
            true_for_all(isinstance(pair, (tuple, list)) and len(pair) == 2, "fit_gamma returned something else than a pair; expected (shape, rate).")
            found.append([float(v) for v in pair])
        values = torch.tensor(found, dtype=f64)
        error = values.std(0) / groups**0.5
        off = (values.mean(0) - wanted).abs() / error
        for i, name in enumerate(("shape", "rate")):
            if not off[i] < 5:
                raise WrongAnswer(f"On {kind} data the {name} is {values[:, i].mean():.4f}; the minimiser of the weighted loss has {wanted[i]:.4f} ± "
                                  f"{error[i]:.4f} (standard error): {off[i]:.0f} of which it is off. The score of a gamma density is "
                                  "(shape - 1)/x - rate; minimise the mean of edge_loss over both numbers.")
    return "On log-normal data maximum likelihood would give another gamma density: two estimators, one limit only if the model is true."


def _speckled(seed: int, index: int) -> tuple[float, Tensor, Tensor, Tensor]:
    """sigma, and weights, means and variances (K,) of log x_0: one component, then two."""
    sigma, w, m, gap, v, u = _uniform(seed + 10 * index, (0.3, 0.8), (0.3, 0.7), (-0.5, 0.5), (0.9, 1.6), (0.05, 0.2), (0.1, 0.3))
    if index == 0:
        return sigma, torch.ones(1, dtype=f64), torch.tensor([m], dtype=f64), torch.tensor([v], dtype=f64)
    return sigma, torch.tensor([w, 1 - w], dtype=f64), torch.tensor([m, m + gap], dtype=f64), torch.tensor([v, u], dtype=f64)


def _log_score(y: Tensor, sigma: float, w: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The score of y = log of the noisy number, and the responsibilities (B, K)."""
    total = v + sigma**2
    r = (w.log() - total.log() / 2 - (y[:, None] - m) ** 2 / (2 * total)).softmax(1)
    return -(r * (y[:, None] - m) / total).sum(1), r


def _noisy_score(sigma: float, w: Tensor, m: Tensor, v: Tensor):
    """The score of the noisy number itself, as a function (B,) -> (B,)."""
    return lambda x: (_log_score(x.log().reshape(-1), sigma, w, m, v)[0].reshape(x.shape) - 1) / x


def _log_posterior(y: Tensor, sigma: float, w: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of log x_0 given y, a mixture again: responsibilities, means (B, K), variances (K,)."""
    gain = v / (v + sigma**2)
    return _log_score(y, sigma, w, m, v)[1], m + gain * (y[:, None] - m), (1 - gain) * v


def _noisy_points(sigma: float, w: Tensor, m: Tensor, v: Tensor, seed: int, n: int = 6) -> Tensor:
    z = torch.rand(n, generator=seeded(seed), dtype=f64) * 4 - 2
    return (m.mean() + z * (m.var(correction=0) + v.mean() + sigma**2).sqrt()).exp()


@coursework("cw4.2a", "the label for noise that multiplies", read="section 4.3, (4.9) and (4.10)")
def label(answer, *, seed):
    """Its mean given the noisy number, by Gauss-Hermite quadrature over the exact posterior of log x_0."""
    nodes, parts = _hermite(40)
    for index in range(3):
        sigma, *data = _speckled(seed, index)
        x = _noisy_points(sigma, *data, seed)
        r, mean, var = _log_posterior(x.log(), sigma, *data)
        u = mean[..., None] + var.sqrt()[:, None] * nodes                                    # (B, K, nodes): log x_0
        eps = (x.log()[:, None, None] - u) / sigma
        value = _numbers(call(answer, x[:, None, None].expand_as(eps), eps, sigma), eps, "label(x, eps, sigma)")
        found, wanted = (r[..., None] * parts * value).sum((1, 2)), _noisy_score(sigma, *data)(x)
        by_log = _log_score(x.log(), sigma, *data)[0]
        _agree(found, wanted, "The mean of your label given x", "the score at x", 1e-6, {
            "it is the score of log x, not that of x: differentiate in x": by_log,
            "the density of x holds a factor 1/x besides that of log x: it has a derivative, too": by_log / x,
            "it has the wrong sign": -wanted,
            "it is x times what is expected: the derivative of log x is 1/x": wanted * x})
    return "Its mean given x is the score, so a network that is trained on it learns the score: no score of the data was needed."


@coursework("cw4.2b", "the mean of log x_0", read="section 4.4, (4.12)")
def log_mean(answer, *, seed):
    """Against the exact posterior mean."""
    for index in range(3):
        sigma, *data = _speckled(seed + 1, index)
        x = _noisy_points(sigma, *data, seed)
        r, mean, _ = _log_posterior(x.log(), sigma, *data)
        s, wanted = _noisy_score(sigma, *data)(x), (r * mean).sum(1)
        found = _numbers(call(answer, x, s, sigma), x, "log_mean(x, s, sigma)")
        _agree(found, wanted, "log_mean", "the mean of log x_0 given x", 1e-8, {
            "it is off by sigma^2 everywhere: the score of log x is not x s": wanted - sigma**2,
            "it is the exponential of what is expected": wanted.exp(),
            "the walk goes against the arrow": 2 * x.log() - wanted,
            "(4.12) was used as it stands: the noise adds to log x, not to x": x + sigma**2 * s})
    return "Tweedie's formula holds where noise adds: in log x."


@coursework("cw4.2c", "the variance of log x_0", read="section 4.4, (4.13)")
def log_variance(answer, *, seed):
    """Against the exact posterior variance."""
    for index in range(3):
        sigma, *data = _speckled(seed + 2, index)
        x = _noisy_points(sigma, *data, seed).requires_grad_()
        score = _noisy_score(sigma, *data)(x)
        s_dot = torch.autograd.grad(score.sum(), x)[0]
        x, s = x.detach(), score.detach()
        r, mean, var = _log_posterior(x.log(), sigma, *data)
        wanted = (r * (var + mean**2)).sum(1) - (r * mean).sum(1) ** 2
        found = _numbers(call(answer, x, s, s_dot, sigma), x, "log_variance(x, s, s_dot, sigma)")
        what = "the variance of log x_0 given x. (4.13) asks for the score of log x, as a whole, differentiated in log x"
        _agree(found, wanted, "log_variance", what, 1e-7, {
            "it is the square root of what is expected": wanted.sqrt(),
            "(4.13) was used as it stands: the derivative must be that of the score of log x, in log x": sigma**2 + sigma**4 * s_dot})
    return "Relative errors of x_0, from the derivative of the arrows."


@coursework("cw4.3", "the clean mean, from arrows alone", read="section 4.2, (4.3), and your answer to task 2")
def clean_mean(answer, *, seed):
    """Mixtures of log-normals, whose posterior means are known; relative error 1e-3, as the task says."""
    for index in range(3):
        sigma, *data = _speckled(seed + 3, index)
        x = _noisy_points(sigma, *data, seed, n=5)
        r, mean, var = _log_posterior(x.log(), sigma, *data)
        wanted = (r * (mean + var / 2).exp()).sum(1)
        logs = (r * mean).sum(1)
        spread = (r * (var + mean**2)).sum(1) - logs**2
        score = _noisy_score(sigma, *data)
        found = _numbers(call(answer, score, x, sigma), x, "clean_mean(score, x, sigma)")
        _agree(found, wanted, "clean_mean", "E[x_0 | x]", 1e-3, {
            "it is the exponential of a mean, which is less than the mean of the exponential": logs.exp(),
            "log x_0 was taken for Gaussian given x: on a mixture it is not": (logs + spread / 2).exp(),
            "(4.12) was used as it stands: the noise does not add to x": x + sigma**2 * score(x),
            "the factor that completes the square is missing": wanted * math.exp(-(sigma**2) / 2),
            "it lacks a factor exp(sigma^2): either the square was completed with the wrong sign, or the score of log x was taken to be x s":
                wanted * math.exp(-(sigma**2))})
    return "A ratio of densities, and so a mean that Tweedie's formula cannot give, from the score by (4.3)."


def _hermite(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights for the mean over N(0, 1) (Golub & Welsch 1969)."""
    off = torch.arange(1, n, dtype=f64).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return values, vectors[0] ** 2


def _agree(found: Tensor, wanted: Tensor, name: str, what: str, rtol: float, mistakes: dict[str, Tensor]) -> None:
    close = lambda other: bool(((found - other).abs() <= rtol * other.abs().clamp_min(0.1 * float(other.abs().max()))).all())  # noqa: E731
    if close(wanted):
        return
    for explanation, other in mistakes.items():
        if close(other):
            looks = "it looks as if " * (" was used" in explanation or " was taken for" in explanation)
            raise WrongAnswer(f"{name} is not {what}: {looks}{explanation}.")
    at = int((found - wanted).abs().argmax())
    raise WrongAnswer(f"{name} is {found[at]:.5g} in entry {at}; expected {wanted[at]:.5g}, {what}.")


# (h, tau, V) of task 4, by an integral over frequencies
STALE = ((0.2, 1.0, 1.164021), (0.6, 1.0, 1.614907), (1.0, 1.0, 2.4), (0.9, 1.5, 3.068182), (0.02, 0.25, 0.07991623))


@coursework("cw4.4a", "the variance of a stale walk", read="section 4.7, above (4.17): the recursion of the variance")
def stale_variance(answer, *, seed):
    """Five numbers, of which seven digits are stored."""
    for h, tau, wanted in STALE:
        a = h / tau**2
        close_number(call(answer, h, tau), wanted, rtol=1e-5, name=f"stale_variance({h}, {tau})", mistakes={
            "the arrow was taken at the present state: this is (4.17)": tau**2 / (1 - a / 4),
            "h was not measured in units of tau^2": tau**2 * wanted,
            "it is in units of tau^2": wanted / tau**2, "it is a standard deviation": wanted**0.5})
    return "Old arrows widen the law more than long steps do."


@coursework("cw4.4b", "where the stale walk bursts", read="section 4.7, below (4.17)")
def stale_limit(answer, *, seed):
    """Proportional to tau^2, and where the stored variances say."""
    values = {tau: float(call(answer, tau)) for tau in (1.0, 2.0, 0.3)}
    ratio = values[2.0] / values[1.0] if values[1.0] else math.nan
    if not abs(ratio - 4) < 1e-6:
        raise WrongAnswer(f"With tau = 2 your limit is {ratio:.3g} times that with tau = 1; expected 4: h counts in units of tau^2.")
    if values[1.0] > 3.99:
        raise WrongAnswer("This is the limit of (4.14) with a fresh arrow; with an old one the walk bursts earlier.")
    if not 1.9 < values[1.0] < 2.1:
        raise WrongAnswer(f"For tau = 1 you say {values[1.0]:.4g}; walkers with that step show something else. Try x_(k+1) = v^k in the recursion "
                          "without noise: there is a stationary law if both roots v have |v| < 1, and they may be complex.")
    return "Run the walk on both sides of it."


@coursework("cw4.4c", "a walk along stale arrows", read="section 4.6, (4.14), with the arrow of the state before")
def stale_walk(answer, *, seed):
    """A linear score, where the walk is a sum over the roots of its recursion; and two steps written out for a curved one."""
    h, tau, steps = *_uniform(seed, (0.3, 0.8), (0.8, 1.4)), 7
    a = h / (2 * tau**2)
    x = torch.randn(4, 2, generator=seeded(seed + 1), dtype=f64)
    z = torch.randn(steps, 4, 2, generator=seeded(seed + 2), dtype=f64)
    roots = torch.linalg.eigvals(torch.tensor([[1.0, -a], [1.0, 0.0]], dtype=f64))
    ring = lambda k: ((roots[0] ** (k + 1) - roots[1] ** (k + 1)) / (roots[0] - roots[1])).real  # noqa: E731  response to one kick
    wanted = x * (ring(steps) - a * ring(steps - 1)) + h**0.5 * sum(ring(steps - 1 - k) * z[k] for k in range(steps))
    found = _numbers(call(answer, lambda x: -x / tau**2, x, h, z), x, "stale_walk(score, x, h, z)")
    fresh = x * (1 - a) ** steps + h**0.5 * sum((1 - a) ** (steps - 1 - k) * z[k] for k in range(steps))
    if bool(((found - fresh).abs() < 1e-9).all()):
        raise WrongAnswer("The arrow is that of the present state: this is (4.14). Here it is that of the state before.")
    if not bool(((found - wanted).abs() < 1e-9).all()):
        one = _numbers(call(answer, lambda x: -x / tau**2, x, h, z[:1]), x, "stale_walk(score, x, h, z[:1])")
        if not bool(((one - (1 - a) * x - h**0.5 * z[0]).abs() < 1e-9).all()):
            raise WrongAnswer("The first step is not x_0 + h/2 s(x_0) + sqrt(h) z_0: there is no state before x_0, so x_0 takes its place.")
        raise WrongAnswer(f"After {steps} steps the walk is off by {float((found - wanted).abs().max()):.3g}: is the arrow one step old, and no more? "
                          "Keep the state before the last one.")
    return "An old arrow costs nothing to have: on many machines it is the only one that has arrived."


# (sigma, S for w, S for tau) of task 5 at w = 0.6, tau = 0.2, by quadrature to 1e-6
LEVELS = ((0.2, 24.2141, 0.206577), (0.5, 1.84871, 0.610614), (1.0, 0.787533, 1.32826), (3.0, 0.532007, 7.50601))


@coursework("cw4.5a", "the spread of a fit at one noise level", read="section 4.4, (4.13), and 'What each loss costs'")
def spread(answer, *, seed):
    """Numbers at four levels, to the 1e-3 that the task asks."""
    for sigma, weight, width in LEVELS:
        for which, wanted in (("w", weight), ("tau", width)):
            _spread_close(answer, sigma, which, 0.6, 0.2, wanted)
    return "Compare the columns: no level is good for both."


def _spread_close(answer, sigma: float, which: str, w: float, tau: float, wanted: float) -> None:
    found = float(call(answer, sigma, which, w, tau))
    name = f"spread({sigma}, {which!r}, {w}, {tau})"
    if not abs(found / wanted - 1) < 1e-3:
        hint = "differentiate s in the parameter that was asked for, at fixed x, and integrate over p_sigma, as finely as the smallest width asks"
        if 0.3 < found / wanted < 3:
            hint = "near, not right. The noise of the label given x is the variance of eps given x, over sigma^2: (4.13) has it"
        if abs(found / wanted**2 - 1) < 1e-3:
            hint = "it is the square of what is expected: S is a standard deviation"
        raise WrongAnswer(f"{name} is {found:.5g}; expected {wanted:.5g}: {hint}.")


@coursework("cw4.5b", "the best single level", read="task 5: the sum of two squared relative errors")
def best_level(answer, spread, *, seed):
    """By the student's own spread: the sum is larger 4 % below and 4 % above, so that its minimum is within about 2 %."""
    found = float(call(answer))
    if not 0.1 < found < 5:
        raise WrongAnswer(f"best_level() is {found:.4g}; expected a level between 0.1 and 5.")
    total = lambda s: (float(call(spread, s, "w", 0.6, 0.2)) / 0.6) ** 2 + (float(call(spread, s, "tau", 0.6, 0.2)) / 0.2) ** 2  # noqa: E731
    here = total(found)
    for change in (0.96, 1.04):
        if not here < total(change * found):
            raise WrongAnswer(f"By your own spread the sum of squared relative errors is {here:.3f} at best_level() = {found:.4g}, and "
                              f"{total(change * found):.3f} at {change * found:.4g}, which is not more. Are the errors relative, and squared?")
    return "How much better is each at its own level? That is the conclusion to write."
