"""Annealed Langevin sampling: which weights a mixture gets, a recursion on a Gaussian, and what it costs.

As in test_langevin.py only the last states of independent chains are compared; k = 4.5 standard errors, for weights 4.
"""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture, three_modes, two_modes
from diffusion_lib.samplers import annealed_langevin, final, langevin
from diffusion_lib.schedules import (
    CosineSchedule,
    EDMSchedule,
    VESchedule,
    VPSchedule,
    annealed_step_size,
    geometric_levels,
    level_times,
    variance_after_steps,
)

K = 4.5
EDM = EDMSchedule(1.0)


def compare_variance(x, truth):
    assert abs(float(x.var()) - truth) < K * truth * math.sqrt(2 / len(x)), (float(x.var()), truth)


LEVELS = geometric_levels(4.0, 0.15, 23)
SLOW = {"steps_per_level": 60, "step_size": 0.2}


def start(schedule, times, n, dim, seed):
    z = torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return float(schedule.sigma(times[0])) * z


def weights_of(mixture, x, t, schedule):
    """(share of each component, its standard error), by posterior probabilities."""
    p = mixture.class_posterior(x, t, schedule)
    return p.mean(0), p.std(0) / math.sqrt(len(p))


@pytest.mark.slow
@pytest.mark.parametrize(
    "schedule", [VESchedule(0.01, 5.0), VPSchedule(), CosineSchedule()], ids=["ve", "vp", "cosine"]
)
def test_plain_gets_weights_wrong_and_annealed_right(schedule):
    """Same start, same number of evaluations. Plain: by basins of attraction. Annealed: 4 s.e., and means and
    covariances."""
    mixture, n = three_modes(), 2000
    times = level_times(schedule, LEVELS)
    x, last, generator = start(schedule, times, n, 2, 1), float(times[-2]), torch.Generator().manual_seed(2)
    exact = ExactDenoiser(mixture, schedule)
    walk = annealed_langevin(exact, schedule, x, times, denoise=False, generator=generator, **SLOW)
    ending = final(walk) * float(schedule.alpha(last))  # at t = 0 it was divided by alpha: back to the last level
    share, error = weights_of(mixture, ending, last, schedule)
    assert bool(((share - mixture.weights).abs() < 4 * error).all()), (share, error)

    noised = mixture.marginal(schedule, last)
    nearest = mixture.class_posterior(ending, last, schedule).argmax(1)
    for k in range(3):
        part, variance = ending[nearest == k], float(noised.variances[k, 0])
        assert bool(((part.mean(0) - noised.means[k]).abs() < K * math.sqrt(variance / len(part))).all())
        # Between the Gaussian's own variance and ULA's at its curvature, 1 / (1 - h / (4 variance)), k s.e. on both sides.
        h = SLOW["step_size"] * float(schedule.sigma(last)) ** 2
        error = K * math.sqrt(2 / len(part))
        ratio = part.var(0) / variance
        assert bool(((ratio > 1 - error) & (ratio < (1 + error) / (1 - h / (4 * variance)))).all()), ratio
        assert bool(torch.corrcoef(part.T)[0, 1].abs() < K / math.sqrt(len(part)))

    count = SLOW["steps_per_level"] * len(LEVELS)
    plain = final(
        langevin(
            lambda x: mixture.score(x, 0.0, EDM), x / schedule.alpha(times[0]), [0.005] * count, generator=generator
        )
    )
    share, error = weights_of(mixture, plain, 0.0, schedule)
    assert float(((share - mixture.weights).abs() / error).max()) > 10, share


def test_annealed_is_blind_to_the_schedule(schedule):
    """With the same levels, noise and h / sigma^2 the walk in x/alpha is the same under every schedule, to rounding."""
    mixture, options = three_modes(), {"steps_per_level": 5, "step_size": 0.2}

    def walk(schedule):
        times = level_times(schedule, LEVELS)
        x, generator = start(schedule, times, 50, 2, 1), torch.Generator().manual_seed(2)
        states = annealed_langevin(ExactDenoiser(mixture, schedule), schedule, x, times, generator=generator, **options)
        return [x / schedule.alpha(t) for x, t in zip(states, times, strict=True)]

    for a, b in zip(walk(schedule), walk(EDMSchedule(5.0)), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)


def test_annealed_on_a_gaussian(generator):
    """On N(0, c^2) every step is linear: the variance at the end is a recursion, step by step, and Tweedie's factor
    at the end."""
    c, ve = 0.5, VESchedule(0.01, 5.0)
    gauss = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.full((1,), c**2)).to(
        torch.zeros(1, dtype=torch.float64)
    )
    times = level_times(ve, geometric_levels(3.0, 0.1, 10))
    sigma = ve.sigma(times[:-1])
    r, steps = annealed_step_size(sigma, 5), 5
    v = float(sigma[0]) ** 2
    for s in sigma.tolist():
        total, h = c**2 + s**2, r * s**2
        v = total * variance_after_steps(math.sqrt(v / total), steps, h / total)
    x = start(ve, times, 40_000, 1, 1)
    options = {"steps_per_level": steps, "step_size": r}
    noisy = final(
        annealed_langevin(ExactDenoiser(gauss, ve), ve, x, times, denoise=False, generator=generator, **options)
    )
    compare_variance(noisy[:, 0], v)
    clean = final(annealed_langevin(ExactDenoiser(gauss, ve), ve, x, times, generator=generator, **options))
    compare_variance(clean[:, 0], v * (c**2 / (c**2 + 0.1**2)) ** 2)


def test_annealed_counts_its_evaluations(schedule, generator):
    calls = []

    def denoiser(x, t, label):
        assert torch.equal(label, torch.arange(4))
        calls.append(float(t[0]))
        return 0.1 * x

    times = level_times(schedule, geometric_levels(2.0, 0.1, 6))
    x, condition = torch.randn(4, 3, generator=generator), {"label": torch.arange(4)}
    for denoise in (True, False):
        calls.clear()
        options = {"steps_per_level": 3, "step_size": 0.1, "denoise": denoise, "condition": condition}
        states = list(annealed_langevin(denoiser, schedule, x, times, generator=generator, **options))
        assert len(states) == len(times) == 7 and torch.equal(states[0], x) and states[-1].dtype == x.dtype
        assert len(calls) == 6 * 3 + denoise
        assert calls == pytest.approx([t for t in times[:-1].tolist() for _ in range(3)] + [float(times[-2])] * denoise)


def test_annealed_on_a_part_of_the_levels():
    """A grid that does not end at 0 ends with a rescaled state and no denoising: two walks in a row are one."""
    vp, mixture = VPSchedule(), two_modes()
    times, exact = level_times(vp, geometric_levels(2.0, 0.1, 6)), ExactDenoiser(mixture, vp)
    x, draw = start(vp, times, 20, 1, 1), torch.Generator().manual_seed(0)
    options = {"steps_per_level": 2, "step_size": 0.1}
    half = final(annealed_langevin(exact, vp, x, times[:4], generator=draw, **options))
    whole = final(annealed_langevin(exact, vp, half, times[3:], generator=draw, **options))
    again = torch.Generator().manual_seed(0)
    assert torch.allclose(whole, final(annealed_langevin(exact, vp, x, times, generator=again, **options)))
