"""Noise levels: the numbers of NCSNv2's paper, the recursion behind its step size, and where its rules say nothing."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_lib.losses import DenoisingLoss, LevelTimes, denoising_score_matching
from diffusion_lib.schedules import (
    VESchedule,
    annealed_step_size,
    geometric_levels,
    largest_distance,
    level_count,
    level_overlap,
    level_ratio,
    level_times,
    variance_after_steps,
)


def test_geometric_levels():
    levels = geometric_levels(50.0, 0.01, 232)
    assert levels.shape == (232,) and float(levels[0]) == 50.0 and float(levels[-1]) == 0.01
    ratio = levels[:-1] / levels[1:]
    assert torch.allclose(ratio, torch.full_like(ratio, 5000 ** (1 / 231)), rtol=1e-12)


def test_step_size_is_that_of_the_paper():
    """NCSNv2 on CIFAR-10: sigma from 50 to 0.01 in 232 levels, 5 steps a level, epsilon = 6.2e-6 (Song & Ermon 2020,
    Sec. 5)."""
    step_size = annealed_step_size(geometric_levels(50.0, 0.01, 232), 5)
    assert f"{step_size * 0.01**2 / 2:.1e}" == "6.2e-06"


@pytest.mark.parametrize("ratio, steps", [(1.04, 5), (1.36, 3), (2.0, 100), (1.2, 1)])
def test_step_size_is_the_minimiser(ratio, steps):
    levels = geometric_levels(ratio, 1.0, 2)
    best = annealed_step_size(levels, steps)
    reached = variance_after_steps(ratio, steps, best)
    others = [variance_after_steps(ratio, steps, r) for r in torch.linspace(1e-4, 2, 20001).tolist()]
    assert reached <= min(others) + 1e-12 and reached > 1 and min(others) > 1


@pytest.mark.parametrize("step_size", [0.05, 0.5, 1.5])
def test_variance_after_steps_is_the_recursion(step_size):
    """One step of Langevin on N(0, 1) takes the variance v to (1 - r/2)^2 v + r."""
    v = 1.7**2
    for steps in range(1, 8):
        v = (1 - step_size / 2) ** 2 * v + step_size
        assert variance_after_steps(1.7, steps, step_size) == pytest.approx(v, rel=1e-12)


@pytest.mark.parametrize("dim", [5, 8, 64, 3072])
def test_ratio_has_half_overlap(dim):
    ratio = level_ratio(dim)
    assert ratio > 1 and level_overlap(dim, ratio) == pytest.approx(0.5, abs=1e-9)
    count = level_count(50.0, 0.01, ratio)
    assert 5000 ** (1 / (count - 1)) <= ratio * (1 + 1e-9) < 5000 ** (1 / max(count - 2, 1)) * (1 + 1e-8)


def test_ratio_in_high_dimension():
    """The upper tail is then nothing, and a - 3 ratio = 0 gives ratio = 1 / (1 - 3 / sqrt(2 D))."""
    assert level_ratio(3072) == pytest.approx(1 / (1 - 3 / math.sqrt(6144)), rel=1e-8)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_rule_says_nothing_in_low_dimension(dim):
    """a - 3 ratio = (sqrt(2 D) - 3) ratio - sqrt(2 D) falls with the ratio for D <= 4: every ratio overlaps."""
    assert min(level_overlap(dim, r) for r in torch.logspace(0, 3, 2000).tolist()) > 0.9
    with pytest.raises(ValueError, match="dim >= 5"):
        level_ratio(dim)


def test_overlap_is_that_of_the_norms():
    """Against the exact law of ||x|| (chi): the Gaussian approximation of Prop. 2 has an error of order D^-1/2."""
    from scipy.stats import chi

    dims = [64, 256, 1024, 4096]
    errors = []
    for dim in dims:
        ratio = level_ratio(dim)
        middle, half = ratio * math.sqrt(dim), 3 * ratio / math.sqrt(2)
        exact = chi.cdf(middle + half, dim) - chi.cdf(middle - half, dim)
        errors.append(abs(exact - level_overlap(dim, ratio)))
    slope = math.log(errors[-1] / errors[0]) / math.log(dims[-1] / dims[0])
    assert -0.6 < slope < -0.4 and errors[-1] < 1 / math.sqrt(dims[-1]), (slope, errors)


def test_level_times_are_where_the_noise_is(schedule):
    levels = geometric_levels(4.0, 0.05, 9)
    times = level_times(schedule, levels)
    assert times.shape == (10,) and float(times[-1]) == 0 and bool((times.diff() < 0).all())
    assert torch.allclose(schedule.noise_level(times[:-1]), levels, rtol=1e-9)


def test_level_times_reach_the_top():
    ve = VESchedule(0.01, 8.0)
    levels = geometric_levels(ve.prior_std, 0.01, 5)
    assert float(level_times(ve, levels)[0]) == pytest.approx(1.0, abs=1e-12)


def test_largest_distance(generator):
    x = torch.randn(700, 3, 2, generator=generator)  # more than one piece
    brute = max(float((a - x).flatten(1).norm(dim=1).max()) for a in x)
    assert largest_distance(x) == pytest.approx(brute, rel=1e-6)


def test_level_times_sampler_is_uniform(generator):
    """Each of L times is drawn with probability 1/L: k = 4.5 binomial standard errors, L comparisons."""
    times = torch.tensor([0.9, 0.5, 0.2, 0.05])
    n = 40_000
    t, weight = LevelTimes(times).sample(n, generator)
    share = torch.stack([(t == value).double().mean() for value in times])
    assert bool((weight == 1).all()) and float(share.sum()) == pytest.approx(1)
    assert bool(((share - 0.25).abs() < 4.5 * math.sqrt(0.25 * 0.75 / n)).all()), share


def test_loss_on_levels_is_weighted_score_matching():
    """NCSN's loss: sigma^2 ||s + eps / sigma||^2 of a score s = -net / sigma is the eps loss of net. Same noise, to
    rounding."""
    ve = VESchedule(0.01, 5.0)
    draw = torch.Generator().manual_seed(0)
    x0 = torch.randn(32, 3, dtype=torch.float64, generator=draw)
    mix = torch.randn(3, 3, dtype=torch.float64, generator=draw)
    t = 0.4 * torch.ones(32, dtype=torch.float64)
    sigma = float(ve.sigma(0.4))
    eps = torch.randn(32, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = DenoisingLoss(ve, times=LevelTimes(t[:1])).per_sample(lambda x, t: torch.tanh(x @ mix), x0, t, eps)
    same = torch.Generator().manual_seed(1)
    theirs = denoising_score_matching(lambda x: -torch.tanh(x @ mix) / sigma, x0, sigma, generator=same)
    assert torch.allclose(ours, 2 * sigma**2 * theirs / 3, rtol=1e-10)
