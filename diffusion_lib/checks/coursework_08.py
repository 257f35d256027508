"""The judges of chapter 8's coursework. They judge by laws (exchange, simulation, exact mixtures, quadrature, coverage) and hold no solution."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.checks import captions_08  # noqa: F401  (registers tasks 5 and 6)
from diffusion_lib.checks.compare import call, close_number, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer, coursework
from diffusion_lib.checks.typed import parts, tensor
from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture
from diffusion_lib.losses import UniformTimes
from diffusion_lib.losses.lsgm import _ends
from diffusion_lib.losses.weights import ON_X0
from diffusion_lib.nets import Codebook
from diffusion_lib.schedules import CosineSchedule, EDMSchedule, LinearSchedule, Schedule, SubVPSchedule, VPSchedule

DOUBLE = torch.float64


# --- 1. water with weights -------------------------------------------------------------------------------------------


@coursework("cw8.1", "the best code for a given rate", read="section 8.3, the lines above (8.4)")
def best_code(answer, *, seed):
    """The rate is the budget; no exchange of rate between two directions helps; beta is what a nat saves."""
    generator = seeded(seed)
    for nats in (0.7, 4.0, 11.0):
        lam = torch.exp(4 * torch.rand(6, generator=generator, dtype=DOUBLE) - 3)                 # 0.05 .. 2.7
        weight = torch.exp(3 * torch.rand(6, generator=generator, dtype=DOUBLE) - 1.5)            # 0.2 .. 4.5

        d, beta = parts(answer, 2, "the distortions (n,), and beta", lam, weight, nats)
        d, beta = tensor(d, (6,), "distortion"), float(tensor(beta, (), "beta"))
        true_for_all(d > 0, "A distortion is not above 0, which no finite rate reaches.")
        true_for_all(d <= lam * (1 + 1e-3), "A distortion is larger than its direction's variance: a direction of which nothing is sent has its variance "
                                            "as its error, so no direction does worse.")
        rate = 0.5 * (lam / d).log()
        spent = float(rate.sum())
        hint = " That is the factor between bits and nats." if abs(spent / nats - math.log(2)) < 1e-3 else ""
        true_for_all(abs(spent - nats) < 4e-3, f"Your code spends {spent:.4f} nats, the sum of log(variance / distortion) / 2; the budget was {nats}.{hint}")
        _no_exchange_helps(lam, weight, d, rate)
        small = 1e-4                                                                              # of a nat, spent where it saves most
        saved = float((weight * d).max()) * -math.expm1(-2 * small) / small
        hint = " It is half of that." if abs(2 * beta / saved - 1) < 5e-3 else ""
        true_for_all(abs(beta / saved - 1) < 5e-3, f"The distortions are right, and beta is {beta:.5f}; but the next small piece of rate saves {saved:.5f} of "
                     f"weighted error a nat, and at the minimum of error + beta x nats the two are in balance.{hint}")
    return "A nat costs the same wherever it is spent, and is spent where an error is seen."


def _no_exchange_helps(lam: Tensor, weight: Tensor, d: Tensor, rate: Tensor, move: float = 1e-3) -> None:
    """Moving ``move`` nats from a direction to another must not lower the weighted error. (So the prices agree within 2 move.)"""
    total = float((weight * d).sum())
    for i in range(len(d)):
        if rate[i] < move:
            continue
        for j in range(len(d)):
            change = float(weight[i] * d[i]) * math.expm1(2 * move) + float(weight[j] * d[j]) * math.expm1(-2 * move)
            true_for_all(i == j or change > -1e-8 * total, f"This is not the least weighted error: move {move:g} nats from a direction of variance "
                         f"{float(lam[i]):.3f} and weight {float(weight[i]):.2f} to one of {float(lam[j]):.3f} and {float(weight[j]):.2f}, and the error "
                         f"changes by {change:.1e}. (In (8.4) all directions weigh the same.)")


# --- 2. a codebook that follows --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _followed(decay: float, every: int, n: int) -> tuple[float, float, float]:
    """What the library's codebook does, measured: the lag in batches, the variance of the code in units of one vector's over n, the least count."""
    rounds = math.ceil(30 / (-math.log(decay) * every)) + 1                                       # until the start is forgotten, to e^-30

    def run(count: int, value: Callable[[int], float]):
        book = Codebook(2, 1, decay=decay, revive_below=0.0).double().train()
        book.table.copy_(torch.tensor([[0.0], [1e6]]))
        for r in range((count - 1) * every + 1):
            here = r % every == 0
            least = float(book.counts[0])
            book(torch.full((1, 1, 1, n), value(r) if here else 1e6, dtype=DOUBLE))
            if here:
                yield r, float(book.table[0]), least

    r, code, least = list(run(rounds, lambda r: 0.01 * r))[-1]
    weights = [code for _, code, _ in run(2 * rounds, lambda r: float(r == (rounds - 1) * every))]          # of one batch, as it fades
    return r - code / 0.01, sum(w * w for w in weights), least


def _codebook(seed: int) -> list[tuple[float, int, int]]:
    k = torch.randint(0, 5, (3,), generator=seeded(seed)).tolist()
    return [(0.8 + 0.02 * k[0], 3 + k[1], 4 + k[2]), (0.6 + 0.05 * k[2], 2 + k[0], 2 + k[1]), (0.9 + 0.01 * k[0], 1, 3 + k[1])]


def _follow(answer: Callable, part: int, seed: int, name: str, mistakes: dict[str, Callable[[float, int, int], float]]) -> None:
    for case in _codebook(seed):
        value = parts(answer, 3, "lag, share, least", *case)[part]
        wrong = {text: formula(*case) for text, formula in mistakes.items()} if case[1] > 1 else {}
        shown = f"{name} at decay={case[0]:.2f}, every={case[1]}, n={case[2]}"
        close_number(value, _followed(*case)[part], rtol=1e-5, name=shown, mistakes=wrong)


@coursework("cw8.2a", "how far a code lags behind", read="section 8.6, above (8.9): the weight of a batch r batches back is decay^r")
def lag(answer, *, seed):
    """Against the library's codebook."""
    _follow(answer, 0, seed, "lag", {
        "a code were chosen in every batch: those that do not choose it fade it as well": lambda g, p, n: g / (1 - g),
        "the lag is counted in batches that choose the code: count all batches": lambda g, p, n: g**p / (1 - g**p),
        "the batch that has just come counted as old as the next one: it is 0 batches old": lambda g, p, n: p / (1 - g**p),
    })
    return "The codebook runs after the encoder, and this is how far behind it is."


@coursework("cw8.2b", "how noisy a code is", read="section 8.6, above (8.9): a weighted mean, and the variance of one")
def share(answer, *, seed):
    """Against the library's codebook."""
    _follow(answer, 1, seed, "share", {
        "a code were chosen in every batch": lambda g, p, n: (1 - g) / (1 + g),
        "these were the sum of the weights of one batch, and not of their squares": lambda g, p, n: 1 - g**p,
        "the weights were not divided by their sum": lambda g, p, n: 1 / (1 - g ** (2 * p)),
    })
    return "A longer memory is quieter and later: the two answers pull against each other."


@coursework("cw8.2c", "when a rare code is in danger", read="section 8.6, (8.9)")
def least(answer, *, seed):
    """Against the library's codebook."""
    _follow(answer, 2, seed, "least", {
        "it is the largest N, just after the code was chosen": lambda g, p, n: (1 - g) * n / (1 - g**p),
        "it is the mean number of vectors a batch": lambda g, p, n: n / p,
        "one batch too many had gone by: N fades in the batches between two choices, and in the one that chooses it grows":
            lambda g, p, n: (1 - g) * n * g**p / (1 - g**p),
    })
    return "A code whose least N is below the threshold is taken away from its vectors, though it is in use."


# --- 3. pixels from latents ------------------------------------------------------------------------------------------


def _pixels(seed: int, s: float, r: float, centre: float):
    """A mixture of latents, its decoder, and the mixture of pixels."""
    generator = seeded(seed)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=DOUBLE)
    means, spread = torch.randn(3, 2, generator=generator, dtype=DOUBLE), 0.02 + 0.3 * torch.rand(3, 2, generator=generator, dtype=DOUBLE)
    q = torch.linalg.qr(torch.randn(5, 2, generator=generator, dtype=DOUBLE)).Q
    b = centre * torch.randn(5, generator=generator, dtype=DOUBLE)
    outside = r**2 * (torch.eye(5, dtype=DOUBLE) - q @ q.T)
    pixels = GaussianMixture(weights, b + s * means @ q.T, torch.stack([s**2 * (q * v) @ q.T + outside for v in spread]))
    return GaussianMixture(weights, means, spread), q, b, pixels


@coursework("cw8.3a", "the best denoiser of pixels, from the best denoiser of latents", read="section 8.7, (8.10) and the assertion with `ratio` below it")
def pixel_denoiser(answer, *, seed):
    """Exact mixtures; one feature after the other, so that the first that fails can be named."""
    vp, line = VPSchedule(), LinearSchedule()
    cases = (
        (1.0, 0.3, 0.0, vp, vp, "Even with s = 1, b = 0 and one path for both"),
        (1.0, 0.3, 1.0, vp, vp, "With s = 1 and b = 0 it is right. With a b that is not 0 (s = 1, one path)"),
        (2.5, 0.4, 0.0, vp, vp, "With s = 1 it is right. With s = 2.5 (b = 0, one path for both)"),
        (0.3, 0.2, 1.0, vp, vp, "With s = 2.5 and b = 0 it is right. With s = 0.3 and b together (one path)"),
        (2.5, 0.3, 1.0, vp, line, "With one path for both it is right. With latents on a straight line (LinearSchedule) and pixels on VPSchedule"),
        (0.6, 0.5, 1.0, SubVPSchedule(), CosineSchedule(), "With latents on CosineSchedule and pixels on SubVPSchedule, where alpha^2 + sigma^2 is not 1,"),
    )
    for k, (s, r, centre, path, latent_path, where) in enumerate(cases):
        latents, q, b, pixels = _pixels(7 * seed + k, s, r, centre)
        best = ExactDenoiser(latents, latent_path)
        generator = seeded(seed + k)
        t = 0.1 + 0.6 * torch.rand(40, generator=generator, dtype=DOUBLE)                         # later, a small s asks beyond the latents' path
        x = path.alpha(t)[:, None] * pixels.sample(40, generator) + path.sigma(t)[:, None] * torch.randn(40, 5, generator=generator, dtype=DOUBLE)
        made = call(answer, lambda z, t, best=best: best(z, t), latent_path, path, q, b, s, r)
        if not callable(made):
            raise WrongAnswer(f"pixel_denoiser returned a {type(made).__name__}; expected a function of (x, t).")
        found, wanted = tensor(call(made, x, t), (40, 5), "what your denoiser returns"), ExactDenoiser(pixels, path)(x, t)
        if float((found - wanted).abs().max()) < 1e-4 * float(wanted.abs().max()):
            continue
        gap = found - wanted
        inside, outside = float((gap @ q).norm()), float((gap - gap @ q @ q.T).norm())
        if outside > 1e-3 * inside:
            rest = (found - b) - (found - b) @ q @ q.T
            why = ("the part outside the decoder's range is set to zero: the data have standard deviation r there" if float(rest.norm()) < 1e-6
                   else "the part outside the decoder's range is wrong: the data are Gaussian there, of standard deviation r, and so their best denoiser is "
                        "known")
        else:
            why = "the part in the decoder's range is wrong: compare x_t there with a noisy latent, and ask how much signal and noise each has"
            if float(((s * (found - b) - (wanted - b)) @ q).norm()) < 1e-3 * float(((wanted - b) @ q).norm()):
                why += "; and is the guess multiplied by s?"
        if k == 1:
            why = "how much of b is there in x_t?"
        raise WrongAnswer(f"{where}, your denoiser is off by up to {float(gap.abs().max()):.3f}: {why}{'' if why.endswith('?') else '.'}")
    return "The map is affine, so guidance of strength w in the latents is guidance of strength w in the pixels."


def _error(path: Schedule, variance: float, t: Tensor, z0: Tensor) -> Tensor:
    """E |x0_hat - z0|^2 over the noise, for the best denoiser of N(0, variance I): t (n,), z0 (n, D) -> (n,). Exact, by two nodes."""
    one = torch.ones(1, dtype=DOUBLE)
    best = ExactDenoiser(GaussianMixture(one, torch.zeros(1, z0.shape[1], dtype=DOUBLE), variance * one), path)
    return sum((best(path.alpha(t)[:, None] * z0 + path.sigma(t)[:, None] * node, t) - z0).square().sum(1) for node in (-1.0, 1.0)) / 2


def _grid(path: Schedule, low: float, high: float, n: int = 6001) -> Tensor:
    """Times from low to high, even in half log-SNR."""
    ends = path.log_snr(torch.tensor([low, high], dtype=DOUBLE))
    return path.time_of_log_snr(torch.linspace(float(ends[0]), float(ends[1]), n, dtype=DOUBLE)).clamp(low, high)


@coursework("cw8.3b", "what the dropped directions cost", read="section 8.12, (8.16) with its weight, and section 8.3 for what to expect")
def dropped_nats(answer, *, seed):
    """Its difference between two times is the integral between them; without signal it is 0."""
    u = torch.rand(4, generator=seeded(seed), dtype=DOUBLE).tolist()
    cases = ((LinearSchedule(), 0.03 + 0.1 * u[0], 0.6, 0.2 + u[1], 1), (VPSchedule(), 0.05, 0.5 + 0.3 * u[2], 2.0 + u[3], 3),
             (EDMSchedule(20.0), 0.02 + 0.1 * u[3], 0.7, 0.5, 10))
    for path, low, high, r, count in cases:
        t = _grid(path, low, high)
        x0 = torch.full((len(t), 1), r, dtype=DOUBLE)                                             # +r and -r: the mean square is the variance
        per_direction = float(torch.trapezoid(ON_X0["elbo"](path, t) * _error(path, r**2, t, x0), t))
        scales = [[float(f(torch.tensor(at, dtype=DOUBLE))) for f in (path.alpha, path.sigma)] for at in (low, high)]
        early, late = (float(tensor(call(answer, r, count, *scale), (), "dropped_nats")) for scale in scales)
        shown = f"dropped_nats between two times of {type(path).__name__} (r = {r:.2f}, count = {count})"
        close_number(early - late, count * per_direction, rtol=1e-4, name=shown, mistakes={
            "one direction were counted: there are `count` of them": per_direction,
            "this were counted in bits": count * per_direction / math.log(2),
            "the water were at the noise: log(signal / noise) / 2 is the rate of (8.4), at the error of a *code*; the integrand here is the error of the best "
            "denoiser, which never exceeds r^2": count * math.log(scales[0][0] * scales[1][1] / scales[0][1] / scales[1][0]),
        })
    nothing = float(tensor(call(answer, 0.7, 2, 0.0, 1.0), (), "dropped_nats without signal"))
    true_for_all(abs(nothing) < 1e-9, f"With alpha = 0 the path is at its end and nothing has been spent yet; your formula says {nothing:.4g} nats.")
    return "Mutual information: what x_t tells about the dropped directions. Seen so, a finer grain costs without end."


# --- 4. LSGM on another path -----------------------------------------------------------------------------------------


def _lsgm(seed: int) -> list[tuple[Schedule, float, float, float]]:
    u = torch.rand(3, generator=seeded(seed), dtype=DOUBLE).tolist()
    return [(LinearSchedule(), 0.15 + 0.2 * u[0], 0.02, 0.6), (VPSchedule(), 3 + 2 * u[1], 0.01, 0.4), (EDMSchedule(5.0), 1.5 + u[2], 0.02, 0.9)]


@coursework("cw8.4a", "the times at which to look", read="section 8.12, (8.18): the best density is proportional to the integrand")
def times(answer, *, seed, n=20_000, k=5.0):
    """Weighted means are unbiased (k standard errors); the weighted terms are all equal."""
    for case, (path, v, tau, end) in enumerate(_lsgm(seed)):
        zeros = torch.zeros(n, 1, dtype=DOUBLE)
        t, weight, _ = parts(answer, 3, "t, weight, rest", zeros, path, v, tau, end, seeded(seed + case))
        t, weight = tensor(t, (n,), "t"), tensor(weight, (n,), "weight")
        name = f"{type(path).__name__}, v = {v:.2f}, from {tau} to {end}"
        true_for_all((t > tau - 1e-6) & (t < end + 1e-6), f"{name}: t runs from {float(t.min()):.4f} to {float(t.max()):.4f}.")
        true_for_all(t.std() > 0, f"{name}: all times are the same; draw them with the generator.")
        true_for_all(weight > 0, f"{name}: a weight is not above 0; it is 1 over a density.")
        for power in range(3):
            values, exact = weight * t**power, (end ** (power + 1) - tau ** (power + 1)) / (power + 1)
            off, error = float(values.mean()) - exact, float(values.std()) / n**0.5 + 1e-5 * exact
            scaled = " It is too small by the length of the range: here the weight is 1 / r(t) itself." if abs(
                float(values.mean()) * (end - tau) / exact - 1) < 0.02 and abs(off) > k * error else ""
            what = ("weight", "weight x t", "weight x t^2")[power]
            true_for_all(abs(off) <= k * error, f"{name}: the mean of {what} is {float(values.mean()):.4f} ± {error:.4f}; expected the integral of "
                                                f"{('1', 't', 't^2')[power]}, {exact:.4f}. So weight is not 1 over the density of your times.{scaled}")
        term = weight * ON_X0["elbo"](path, t) * _error(path, v, t, torch.full((n, 1), v**0.5, dtype=DOUBLE))
        spread = float(term.std() / term.mean())
        true_for_all(spread < 2e-3, f"{name}: the weights fit the times, but the weighted terms h(t) / r(t) vary by {100 * spread:.0f} % of their mean. For "
                                    "latents of variance v there is a density with which they do not vary at all; (8.19) is that for v = 1 on a path with "
                                    "alpha^2 + sigma^2 = 1.")
    return "Every time now tells equally much."


@coursework("cw8.4b", "what stands outside the integral", read="section 8.12, (8.15), and what is integrated there from tau to T")
def rest(answer, *, seed):
    """Integral + rest is the cross-entropy from the prior's own density."""
    for case, (path, v, tau, end) in enumerate(_lsgm(seed)):
        z0 = 1.3 * torch.randn(4, 3, generator=seeded(seed + case), dtype=DOUBLE)
        found = tensor(parts(answer, 3, "t, weight, rest", z0, path, v, tau, end, seeded(seed))[2], (4,), "rest")
        one, start = torch.ones(1, dtype=DOUBLE), torch.tensor(tau, dtype=DOUBLE)
        low = GaussianMixture(one, torch.zeros(1, 3, dtype=DOUBLE), v * one).marginal(path, tau)
        whole = -sum(low.log_prob(path.alpha(start) * z0 + path.sigma(start) * node) for node in (-1.0, 1.0)) / 2
        t = _grid(path, tau, end)
        inside = torch.stack([torch.trapezoid(ON_X0["elbo"](path, t) * _error(path, v, t, z.expand(len(t), 3)), t) for z in z0])
        gap = found + inside - whole
        name = f"{type(path).__name__}, v = {v:.2f}, from {tau} to {end}"
        if float(gap.abs().max()) < 1e-3:
            continue
        if torch.allclose(found, _ends(z0, UniformTimes(tau, end), path), atol=1e-3):
            raise WrongAnswer(f"{name}: it looks as if the path ended in N(0, I), as in (8.16). Here it stops early, and the prior is not N(0, I) there: which "
                              "law does it have at T?")
        same = float(gap.std()) < 1e-3
        raise WrongAnswer(f"{name}: integral + rest is off by {', '.join(f'{g:.4f}' for g in gap.tolist())} nats for four latents, "
                          + (f"the same {float(gap.mean()) / 3:.4f} a dimension for each: look at the terms without z_0." if same else
                             "by other amounts for other z_0: look at the term with z_0, and at what it is divided by."))
    return "Nothing here needs the path to end in N(0, I)."
