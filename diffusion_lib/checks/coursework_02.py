"""The judges of chapter 2's coursework: a chain x_k = a_k x_{k-1} + b_k z with any a and b. They judge by laws, and hold no solution.

Everything exact comes from one matrix: x = M w with w = (x_0, z_1, ..., z_T), whatever a and b are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, seeded, true_for_all
from diffusion_lib.checks.core import OpenAnswer, WrongAnswer, coursework, is_open
from diffusion_lib.exact import GaussianMixture
from diffusion_lib.schedules import DiscreteSchedule

ROUNDING = 1e-4  # relative: float32 may be used
SLACK = 0.008  # of a share: five standard errors at n = 100 000 and a share of 0.3, and 0.0005 that the steps lose


def _chain(seed: int, T: int = 9) -> tuple[Tensor, Tensor]:
    """Factors a and b of a chain that gains and loses variance as it goes."""
    draws = torch.rand(2, T, generator=seeded(seed), dtype=torch.float64)
    return 0.6 + 0.6 * draws[0], 0.2 + 0.8 * draws[1]


def _map(a: Tensor, b: Tensor) -> Tensor:
    """M of (x_0 ... x_T) = M (x_0, z_1 ... z_T)."""
    rows = [torch.eye(len(a) + 1, dtype=torch.float64)[0]]
    for k in range(len(a)):
        rows.append(a[k] * rows[-1] + b[k] * torch.eye(len(a) + 1, dtype=torch.float64)[k + 1])
    return torch.stack(rows)


def _covariance(a: Tensor, b: Tensor, s: float) -> Tensor:
    """Of (x_0 ... x_T) for data of standard deviation s."""
    m = _map(a, b)
    return (m[:, :1] * s) @ (m[:, :1] * s).T + m[:, 1:] @ m[:, 1:].T


def _near(value: Any, expected: Any, slack: float = ROUNDING) -> bool:
    value, expected = torch.as_tensor(value, dtype=torch.float64), torch.as_tensor(expected, dtype=torch.float64)
    return bool(((value - expected).abs() <= slack * expected.abs().clamp_min(1e-3)).all())


def _parts(answer: Callable, arguments: tuple, shapes: dict[str, int], odd: str = "is there a division by sigma_0 = 0?") -> list[Tensor]:
    """The tuple that an answer returns, each part a vector of the length it should have."""
    given = call(answer, *arguments)
    if not isinstance(given, (tuple, list)) or len(given) != len(shapes):
        raise WrongAnswer(f"A {type(given).__name__} came back; expected {len(shapes)} tensors: {', '.join(shapes)}.")
    parts = []
    for part, (name, length) in zip(given, shapes.items(), strict=True):
        part = torch.as_tensor(part, dtype=torch.float64)
        true_for_all(part.shape == (length,), f"{name} has the shape {tuple(part.shape)}; expected ({length},) for T = {len(arguments[0])}.")
        true_for_all(part.isfinite(), f"{name} holds NaN or infinity: {odd}")
        parts.append(part)
    return parts


@coursework("cw2.1", "many steps at once", read="section 2.3, above (2.2)")
def marginal(answer: Callable, *, seed: int) -> str:
    """One step; a chain of equal steps; two chains, one after the other."""
    a, b = _chain(seed)
    names = {"alpha": len(a) + 1, "sigma": len(a) + 1}
    root = "the root of a negative number? 1 - alpha_k^2 is not sigma_k^2 here."
    alpha, sigma = _parts(answer, (a, b), names, root)
    true_for_all(_near(alpha[0], 1) and abs(sigma[0]) < 1e-6,
                 f"alpha_0 = {alpha[0]:.4g} and sigma_0 = {sigma[0]:.4g}; x_0 itself has alpha_0 = 1 and sigma_0 = 0.")
    true_for_all(_near(alpha[1], a[0]), f"After one step alpha_1 is {alpha[1]:.4g}; x_1 = a_1 x_0 + b_1 eps with a_1 = {a[0]:.4g}.")
    hint = " It is b_1 squared: return the standard deviation." if _near(sigma[1], b[0] ** 2) else ""
    hint = " It is sqrt(1 - a_1^2), which is b_1 only in a chain that preserves variance." if _near(sigma[1] ** 2, abs(1 - a[0] ** 2)) else hint
    true_for_all(_near(sigma[1], b[0]), f"After one step sigma_1 is {sigma[1]:.4g}; x_1 = a_1 x_0 + b_1 eps with b_1 = {b[0]:.4g}.{hint}")
    m = len(a) // 2
    _, first = _parts(answer, (a[:m], b[:m]), {"alpha": m + 1, "sigma": m + 1}, root)
    scale, second = _parts(answer, (a[m:], b[m:]), {"alpha": len(a) - m + 1, "sigma": len(a) - m + 1}, root)
    true_for_all(_near(alpha[-1], a.prod()), f"alpha_T is {alpha[-1]:.5g}; every step multiplies what is left of x_0, and the product is {a.prod():.5g}.")
    wanted = torch.linalg.vector_norm(torch.stack([scale[-1] * first[-1], second[-1]]))
    hint = " The noise of a step is shrunk by all later steps." if _near(sigma[-1], b.square().sum().sqrt()) else ""
    true_for_all(_near(sigma[-1], wanted), f"The {m} first steps and the {len(a) - m} last ones, one after the other, give noise of standard deviation "
                 f"{wanted:.5g}; all {len(a)} at once give {sigma[-1]:.5g}.{hint}")
    c, d = 0.9, 0.5
    equal = [torch.full((40,), value, dtype=torch.float64) for value in (c, d)]
    _, sigma = _parts(answer, tuple(equal), {"alpha": 41, "sigma": 41}, root)
    wanted = d * ((1 - c**80) / (1 - c**2)) ** 0.5
    true_for_all(_near(sigma[-1], wanted),
                 f"Forty equal steps with a = 0.9, b = 0.5 end at sigma = {wanted:.4f}, a geometric series; yours at {sigma[-1]:.4f}.")
    return "Nothing in it needs a_k^2 + b_k^2 = 1."


@coursework("cw2.2", "one step back, if you knew the answer", read="section 2.4, from (2.4) to (2.6)")
def posterior(answer: Callable, *, seed: int) -> str:
    """Mean, covariance and variance of the pair (x_{k-1}, x_k) given x_0 must come out right."""
    for a, b in (_chain(seed), _chain(seed + 1, 4)):
        m, c = _map(a, b)[:, 0], _covariance(a, b, 0.0)
        c_x0, c_xk, variance = _parts(answer, (a, b), {"c_x0": len(a), "c_xk": len(a), "variance": len(a)})
        true_for_all(_near(c_x0[0], 1) and abs(c_xk[0]) < 1e-6 and abs(variance[0]) < 1e-6,
                     f"At k = 1 the step back is to x_0, which is known: expected 1, 0, 0; you give {c_x0[0]:.4g}, {c_xk[0]:.4g}, {variance[0]:.4g}.")
        for k in range(2, len(a) + 1):
            mean = c_x0[k - 1] + c_xk[k - 1] * m[k]
            true_for_all(_near(c_xk[k - 1] * c[k, k], c[k - 1, k]), f"At k = {k} the covariance of x_{{k-1}} and x_k given x_0 would be "
                         f"{c_xk[k - 1] * c[k, k]:.5g}; expected {c[k - 1, k]:.5g}: look at c_xk. Where did (2.6) use beta_k, and where sqrt(1 - beta_k)?")
            true_for_all(_near(mean, m[k - 1]), f"At k = {k}, averaged over x_k, the mean of x_{{k-1}} given x_0 = 1 is {mean:.5g}; "
                         f"expected alpha_{{k-1}} = {m[k - 1]:.5g}: look at c_x0.")
            total = c_xk[k - 1] ** 2 * c[k, k] + variance[k - 1]
            rooted = _near(c_xk[k - 1] ** 2 * c[k, k] + variance[k - 1] ** 2, c[k - 1, k - 1])
            true_for_all(_near(total, c[k - 1, k - 1]), f"At k = {k} the variance of x_{{k-1}} given x_0 would be {total:.5g} in all; expected "
                         f"{c[k - 1, k - 1]:.5g}: look at the variance{' (you return its square root)' if rooted else ''}.")
    return "Averaged over x_k, the step back returns exactly what the chain had at k - 1."


def _joint_kl(a: Tensor, b: Tensor, s: float, u: float, v: Tensor, first: int = 0) -> Tensor:
    """KL between the forward path and the model's, as two Gaussians of T + 1 dimensions; both end in the same x_T. From x_first on."""
    q, believed = _covariance(a, b, s), _covariance(a, b, u)
    precision = torch.zeros_like(q)
    precision[-1, -1] = 1 / q[-1, -1]
    for k in range(first + 1, len(a) + 1):
        row = torch.zeros(len(a) + 1, dtype=torch.float64)
        row[k - 1], row[k] = 1.0, -believed[k - 1, k] / believed[k, k]
        precision += torch.outer(row, row) / v[k - 1]
    precision, q = precision[first:, first:], q[first:, first:]
    return ((precision @ q).trace() - len(q) - precision.logdet() - q.logdet()) / 2


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL of two Gaussians of mean 0."""
    return (torch.linalg.solve(q, p).trace() - len(p) - p.logdet() + q.logdet()) / 2


def _usual_errors(a: Tensor, b: Tensor, s: float, u: float, v: Tensor) -> dict[str, Tensor]:
    """What the usual mistakes give: the KL the other way round, and the step that knows x_0."""
    q, believed = _covariance(a, b, s), _covariance(a, b, u)
    reversed_, knows = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for k in range(1, len(a) + 1):
        m = believed[k - 1, k] / believed[k, k]
        own = m**2 * q[k, k] + v[k - 1]
        pair = [k - 1, k]
        reversed_ = reversed_ + _kl(torch.stack([torch.stack([own, m * q[k, k]]), torch.stack([m * q[k, k], q[k, k]])]), q[pair][:, pair])
        if k > 1:
            three = [0, k - 1, k]
            model = q[three][:, three].clone()
            model[1] = model[:, 1] = torch.stack([m * q[0, k], own, m * q[k, k]])
            knows = knows + _kl(q[three][:, three], model)
    return {"It is the KL the other way round: the average is over q, the first of the two.": reversed_,
            "It takes the variance given x_0; q(x_{k-1} | x_k) does not know x_0.": knows}


def _excess_case(seed: int, T: int) -> tuple[Tensor, Tensor, Tensor]:
    a, b = _chain(seed, T)
    return a, b, b**2 * (0.5 + torch.rand(T, generator=seeded(seed + 1), dtype=torch.float64))


@coursework("cw2.3", "what a wrong denoiser costs", read="section 2.5, (2.11) and (2.12)")
def excess(answer: Callable, *, seed: int) -> str:
    """Against the KL of two Gaussians of all T + 1 dimensions at once."""
    for i, (s, u) in enumerate(((0.7, 0.7), (0.5, 1.2), (1.6, 0.8))):
        a, b, v = _excess_case(seed + 10 * i, 4 + 3 * i)
        given, wanted = call(answer, a, b, s, u, v), _joint_kl(a, b, s, u, v)
        given = torch.as_tensor(given, dtype=torch.float64)
        true_for_all(given.numel() == 1, f"excess has the shape {tuple(given.shape)}; expected one number, the sum over k.")
        true_for_all(given.isfinite(), f"It is {given.item()}: at k = 1 you divide by the variance given x_0, which is 0; "
                     "q(x_{k-1} | x_k) does not know x_0.")
        hint = ""
        for text, value in (("It is what a right denoiser would cost: the error of the mean is missing.", _joint_kl(a, b, s, s, v)),
                            ("It is what one pays if the data had the believed width.", _joint_kl(a, b, u, u, v)), ("It is twice that.", 2 * wanted),
                            ("It is the mean over k: sum.", wanted / len(a)), ("It is in bits: take the natural logarithm.", wanted / math.log(2)),
                            ("The step to k = 1 is left out: the sum begins with the step from x_1 to x_0.", _joint_kl(a, b, s, u, v, 1)),
                            *_usual_errors(a, b, s, u, v).items()):
            hint = f" {text}" if not hint and _near(given, value) and not _near(value, wanted) else hint
        true_for_all(_near(given, wanted), f"For s = {s}, u = {u} and T = {len(a)} it is {given.item():.6g} nats; expected {wanted:.6g}.{hint}")
    return "It is the distance between two distributions of whole paths."


@coursework("cw2.4", "the variance that a wrong denoiser needs", read="section 2.5, above (2.17)")
def best_variance(answer: Callable, *, seed: int) -> str:
    """No other v_k may give a lower excess."""
    for s, u in ((0.7, 0.7), (0.5, 1.2), (1.6, 0.8)):
        a, b = _chain(seed, 7)
        v = torch.as_tensor(call(answer, a, b, s, u), dtype=torch.float64)
        true_for_all(v.shape == (len(a),), f"best_variance has the shape {tuple(v.shape)}; expected ({len(a)},), v_1 first.")
        true_for_all(v > 0, "A variance that is zero or negative came back; expected v_k > 0 at every k, k = 1 too.")
        least = _joint_kl(a, b, s, u, v)
        hint = " It is b_k^2, the variance of the step forward; the step back is another Gaussian." if _near(v, b**2) else ""
        hint = " Is it the standard deviation? The variance is asked." if _is_root(a, b, s, u, v) else hint
        for k in range(len(a)):
            for factor in (0.98, 1.02):
                other = v.clone()
                other[k] *= factor
                gain = least - _joint_kl(a, b, s, u, other)
                if not hint and (s, u) != (0.7, 0.7):
                    hint = " It is right where u = s, so the error of the mean is missing."
                true_for_all(gain < 1e-7, f"For s = {s}, u = {u} a v_{k + 1} that is {abs(factor - 1) * 100:.0f} % "
                             f"{'larger' if factor > 1 else 'smaller'} lowers the excess by {gain:.2g} nats.{hint}")
    return "A denoiser that errs wants more noise than the exact one."


def _is_root(a: Tensor, b: Tensor, s: float, u: float, v: Tensor) -> bool:
    """Whether v squared would be at the least excess, at every k."""
    least = _joint_kl(a, b, s, u, v**2)
    return all(least - _joint_kl(a, b, s, u, v**2 * (1 + 0.02 * sign * (torch.arange(len(v)) == k))) < 1e-7 for k in range(len(v)) for sign in (-1, 1))


def _mixture(seed: int) -> GaussianMixture:
    draws = torch.rand(7, generator=seeded(seed), dtype=torch.float64)
    weights = 0.2 + draws[:3]
    return GaussianMixture(weights / weights.sum(), 4 * draws[3:6, None] - 1, torch.full((3,), 0.02 + 0.2 * float(draws[6]), dtype=torch.float64))


@coursework("cw2.5a", "the Gaussian to start from", read="section 2.11, and (2.3) for mean and variance")
def matched_start(answer: Callable, *, seed: int) -> str:
    """On random mixtures and chains of several lengths."""
    for i, steps in enumerate((20, 150, 400)):
        mixture = _mixture(seed + i)
        chain = DiscreteSchedule(torch.linspace(1e-4, 0.02, steps, dtype=torch.float64))
        end = mixture.marginal(chain, 1.0)
        lists = [part.flatten().tolist() for part in (mixture.weights, mixture.means, mixture.covariances)]
        mean, std = (float(torch.as_tensor(part, dtype=torch.float64).reshape(())) for part in _pair(call(answer, *lists, chain)))
        right, spread = float(end.mean()[0]), float(end.covariance()[0, 0])
        data, sigma = float(mixture.covariance()[0, 0]), float(chain.sigma(torch.tensor(1.0, dtype=torch.float64)))
        true_for_all(_near(mean, right), f"For T = {steps} the mean of the start is {mean:.5g}; expected {right:.5g}, the mean of x_T.")
        hints = {"It is the variance: return the standard deviation.": spread, "It is the width of the data alone.": data**0.5,
                 "It is the noise alone: x_T still holds alpha_T x_0, which varies.": sigma}
        hint = next((f" {text}" for text, value in hints.items() if _near(std, value)), "")
        true_for_all(_near(std, spread**0.5),
                     f"For T = {steps} the standard deviation of the start is {std:.5g}; expected {spread**0.5:.5g}, that of x_T.{hint}")
    return "Two numbers, and most of the damage is repaired."


def _pair(given: Any) -> tuple[Any, Any]:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise WrongAnswer(f"A {type(given).__name__} came back; expected two numbers: mean and standard deviation.")
    return given[0], given[1]


@coursework("cw2.5b", "what the start does to the shares", read="section 2.11")
def shares(answer: Any, mixture: GaussianMixture, chain: DiscreteSchedule, *, seed: int) -> str:
    """Against an integral over x_T: who starts there ends in a mode with the probability of that mode given x_T."""
    if not isinstance(answer, dict) or not {"standard", "matched"} <= set(answer):
        raise WrongAnswer(f"A {type(answer).__name__} was given; expected a dict with the keys 'standard' and 'matched'.")
    missing = [key for key in ("standard", "matched") if is_open(answer[key])]
    if len(missing) == 2:
        raise OpenAnswer
    if missing:
        raise WrongAnswer(f"shares['{missing[0]}'] is still None: measure this one too.")
    end, line = mixture.marginal(chain, 1.0), torch.linspace(-20, 20, 40_001, dtype=torch.float64)[:, None]
    right = mixture.class_posterior(line, 1.0, chain)[:, 1]
    for key, mean, std in (("standard", 0.0, 1.0), ("matched", float(end.mean()[0]), float(end.covariance()[0, 0]) ** 0.5)):
        weight = (-((line[:, 0] - mean) ** 2) / (2 * std**2)).softmax(0)
        wanted, given = float(weight @ right), float(torch.as_tensor(answer[key], dtype=torch.float64).reshape(()))
        hint = "too few samples, or another start?"
        if abs(given - (1 - wanted)) < SLACK:
            hint = "it is the share of the left-hand mode."
        elif abs(given - float(mixture.weights[1])) < SLACK:
            hint = "it is the share in the data. Measure what this start gives."
        true_for_all(abs(given - wanted) < SLACK, f"From the {key} start you have a share of {given:.4f}; 100 000 samples from that start do not give "
                     f"that, to within {SLACK}: {hint}")
    return "The data have 0.3. Compare both with it before you write."
