"""Annealed importance sampling: the normalising constant within its error bar, an error bar that covers, and where it
must not be believed."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_lib.exact import three_modes
from diffusion_lib.samplers import (
    annealed_importance_sampling,
    effective_sample_size,
    geometric_path,
    langevin,
    log_mean_weight,
)

M, SHIFT, WIDE = three_modes(), 1.7, 2.0


def broad(x):
    """N(0, WIDE^2 I) in 2-D, normalised."""
    return -0.5 * x.square().sum(1) / WIDE**2 - math.log(2 * math.pi * WIDE**2)


def target(x):
    """M times exp(SHIFT): log Z = SHIFT."""
    return M.log_prob(x) + SHIFT


def starts(n, seed=0):
    return WIDE * torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run(n, temperatures, seed=0, **options):
    betas = torch.linspace(0, 1, temperatures + 1) ** 2
    options = {"step_size": [0.5 / (1 + 40 * float(b)) for b in betas[1:]], **options}
    draw = torch.Generator().manual_seed(seed + 100)
    return annealed_importance_sampling(
        geometric_path(broad, target), starts(n, seed), betas, generator=draw, **options
    )


@pytest.mark.parametrize("temperatures", [1, 4, 16, 64])
def test_log_z_within_its_error_bar(temperatures):
    """k = 4 standard errors, from one temperature (plain importance sampling) to many."""
    result = run(4000, temperatures)
    assert abs(result.log_z - SHIFT) < 4 * result.standard_error
    assert result.standard_error < 0.1 and result.acceptance.shape == (temperatures,)
    assert bool(((result.acceptance > 0.5) & (result.acceptance <= 1)).all())


def test_the_error_bar_is_honest():
    """log Z ± 1.96 se over 200 repeats of 300 chains: the number of hits lies within 3 binomial standard deviations
    of 190.

    The lower limit is the claim; the upper one would catch a bar that is far too long.
    """
    repeats, n = 200, 300
    result = run(repeats * n, 24)
    bars = [log_mean_weight(part) for part in result.log_weights.split(n)]
    hits = sum(abs(log_z - SHIFT) < 1.96 * se for log_z, se in bars)
    spread = 3 * math.sqrt(repeats * 0.95 * 0.05)
    assert 190 - spread <= hits <= min(190 + spread, repeats - 1), hits
    # And the bars are as long as log Z is spread (a standard deviation of 200 numbers is known to 1 / sqrt(2 * 200)).
    values, errors = torch.tensor(bars, dtype=torch.float64).T
    ratio = float(errors.square().mean().sqrt() / values.std())
    assert abs(ratio - 1) < 4 / math.sqrt(2 * repeats) + float(errors.mean()) ** 2, ratio


def test_mean_weight_is_unbiased_however_short_the_walk():
    """With 2 temperatures and steps that are much too long: E w = Z exactly, k = 4 standard errors of 200,000
    weights."""
    w = (run(200_000, 2, step_size=1.0).log_weights - SHIFT).exp()
    assert abs(float(w.mean()) - 1) < 4 * float(w.std()) / math.sqrt(len(w))


def test_log_is_too_low_by_half_the_variance():
    """Log of a mean of few weights: the bias -se^2 / 2 of the docstring, over 12,000 groups of 50 log-normal weights;
    k = 4.5."""
    draw = torch.Generator().manual_seed(0)
    groups, n, s = 12_000, 50, 0.7
    log_w = s * torch.randn(groups, n, dtype=torch.float64, generator=draw) - s**2 / 2  # mean weight 1
    values = torch.tensor([log_mean_weight(g)[0] for g in log_w], dtype=torch.float64)
    variance = (math.exp(s**2) - 1) / n  # of the mean, exactly
    skew = (math.exp(s**2) + 2) * math.sqrt(math.exp(s**2) - 1)  # of a log-normal: gives the next term of the expansion
    expected = -variance / 2 + skew * variance**1.5 / math.sqrt(n) / 3 - 3 * variance**2 / 4
    error = float(values.std()) / math.sqrt(groups)
    assert abs(float(values.mean()) - expected) < 4.5 * error and abs(expected) > 4.5 * error


def test_effective_sample_size():
    equal = torch.full((10,), 3.0, dtype=torch.float64)
    assert effective_sample_size(equal) == pytest.approx(10)
    assert effective_sample_size(torch.tensor([0.0, -800.0, -900.0])) == pytest.approx(1)
    assert effective_sample_size(torch.tensor([1e3, 1e3, -1e3])) == pytest.approx(2)
    w = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, se = log_mean_weight(w.log())
    assert effective_sample_size(w.log()) == pytest.approx(float(w.sum() ** 2 / w.square().sum()))
    assert mean == pytest.approx(math.log(float(w.mean()))) and se == pytest.approx(
        float(w.std() / w.mean()) / math.sqrt(50)
    )
    assert log_mean_weight(equal)[1] == pytest.approx(0, abs=1e-7)


def test_more_temperatures_more_effective_samples():
    """ESS / N grows at every doubling."""
    n = 4000
    share = [run(n, k).ess / n for k in (2, 4, 8, 16, 32, 64)]
    assert all(b > a for a, b in zip(share, share[1:], strict=False)), share
    assert share[-1] > 5 * share[0], share


def test_variance_of_log_weights_falls_with_the_temperatures():
    """Between two Gaussians where moves mix well, Var log w falls like 1 / K: the fitted slope over K = 8 .. 64."""
    counts, variances = [8, 16, 32, 64], []
    start, end = (lambda x: -0.5 * x.square().sum(1)), (lambda x: -0.5 * (x - 2).square().sum(1) / 0.25)
    for k in counts:
        draw = torch.Generator().manual_seed(k)
        x = torch.randn(2000, 2, dtype=torch.float64, generator=draw)
        betas = torch.linspace(0, 1, k + 1)
        steps = [0.8 / (1 + 3 * float(b)) for b in betas[1:]]
        options = {"step_size": steps, "steps_per_level": 8, "generator": draw}
        result = annealed_importance_sampling(geometric_path(start, end), x, betas, **options)
        assert abs(result.log_z - math.log(0.25)) < 4 * result.standard_error  # (0.5)^2
        variances.append(float(result.log_weights.var()))
    slope = math.log(variances[-1] / variances[0]) / math.log(counts[-1] / counts[0])
    assert -1.2 < slope < -0.8, (slope, variances)


def test_weighted_samples_are_samples_of_the_end():
    """Component shares of the weighted chains, with the standard error of a ratio of means; k = 4.5."""
    result = run(8000, 24)
    w = result.log_weights.softmax(0)
    of = torch.eye(3, dtype=torch.float64)[torch.cdist(result.x, M.means).argmin(1)]
    share = w @ of
    error = (w.square() @ (of - share).square()).sqrt()
    assert bool(((share - M.weights).abs() < 4.5 * error).all()), (share, error)


def test_a_mode_that_was_not_visited_is_not_in_the_error_bar():
    """The docstring's warning, measured: from a start inside one component the bar is short and log Z is that
    component's alone."""
    centre = M.means[0]

    def start(x):
        return -0.5 * (x - centre).square().sum(1) / 0.04 - math.log(2 * math.pi * 0.04)

    x = centre + 0.2 * starts(2000) / WIDE
    draw = torch.Generator().manual_seed(1)
    path = geometric_path(start, target)
    result = annealed_importance_sampling(path, x, torch.linspace(0, 1, 9), step_size=0.01, generator=draw)
    assert abs(result.log_z - (SHIFT + math.log(0.5))) < 4 * result.standard_error
    assert abs(result.log_z - SHIFT) > 20 * result.standard_error and result.ess > 500


def test_moves_are_those_of_langevin():
    """One temperature: the weight is p_end / p_start at the start, and the move one step of MALA with the same
    noise."""
    x = starts(40, 3)
    result = annealed_importance_sampling(
        geometric_path(broad, target), x, [0.0, 1.0], step_size=0.02, generator=torch.Generator().manual_seed(7)
    )
    assert torch.allclose(result.log_weights, target(x) - broad(x))
    score = lambda x: torch.autograd.functional.jacobian(lambda y: M.log_prob(y).sum(), x)  # noqa: E731
    walk = list(langevin(score, x, [0.02], log_prob=M.log_prob, generator=torch.Generator().manual_seed(7)))
    assert torch.allclose(result.x, walk[1]) and float(result.acceptance[0]) == float(
        (walk[1] != x).any(1).double().mean()
    )
