"""The variational bound against exact log-densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture, three_modes
from diffusion_lib.likelihood import bits_per_dim, elbo
from diffusion_lib.losses import bound_term, prior_term
from diffusion_lib.schedules import VPSchedule, time_grid


@pytest.mark.parametrize("variance", ["posterior", "forward", "optimal"])
def test_bound_is_above_and_close_to_the_truth(schedule, variance, generator):
    """The mean gap over 1000 points is positive up to 4 standard errors; with 200 steps and the best variance it is below 0.25 nats."""
    mixture = three_modes()
    x0 = mixture.sample(1000, generator)
    bound = elbo(
        ExactDenoiser(mixture, schedule),
        schedule,
        x0,
        times=time_grid(schedule, 200, "karras"),
        variance=variance,
        generator=generator,
    )
    gap = bound.total + mixture.log_prob(x0)
    standard_error = float(gap.std()) / 1000**0.5
    assert float(gap.mean()) > -4 * standard_error
    if variance == "optimal":
        assert float(gap.mean()) < 0.25 + 4 * standard_error


def test_gap_falls_as_one_over_T():
    """For Gaussian data each term depends on x only through (x_0 - x0_hat)^2, whose mean Var[x_0 | x_t] is known: so the expected
    bound is exact, without sampling, and its gap to the entropy falls with slope -1 in T."""
    schedule, s = VPSchedule(), 0.5
    data = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 1).double(), torch.tensor([s**2]).double())
    x = torch.full((1, 1), s, dtype=torch.float64)  # x_0^2 = E[x_0^2], for the prior term
    entropy = 0.5 * math.log(2 * math.pi * math.e * s**2)
    steps, gaps = [25, 50, 100, 200, 400], []
    for n in steps:
        times, total = time_grid(schedule, n).tolist(), prior_term(x, schedule)
        for t, before in zip(times[:-1], times[1:], strict=True):
            x0_hat = x + data.posterior(x, t, schedule).variance.sqrt()
            total = total + bound_term(x, x, x0_hat, before, t, schedule, variance="forward")
        gaps.append(float(total) - entropy)
    assert min(gaps) > 0
    slope = np.polyfit(np.log(steps), np.log(np.array(gaps) - float(prior_term(x, schedule))), 1)[0]
    assert -1.1 < slope < -0.9


def test_terms_add_up_and_have_their_shapes(generator):
    schedule, mixture = VPSchedule(), three_modes()
    bound = elbo(
        ExactDenoiser(mixture, schedule),
        schedule,
        mixture.sample(5, generator),
        times=time_grid(schedule, 10),
        generator=generator,
    )
    assert bound.prior.shape == bound.reconstruction.shape == bound.total.shape == (5,) and bound.diffusion.shape == (
        9,
        5,
    )
    assert torch.allclose(bound.total, bound.prior + bound.diffusion.sum(0) + bound.reconstruction)
    assert bool((bound.prior >= 0).all()) and bool((bound.diffusion >= 0).all())


def test_bits_per_dim():
    assert float(bits_per_dim(torch.tensor(64 * math.log(2.0)), 64)) == pytest.approx(1.0)
    # A uniform density on [-1, 1] (log 1/2 per dimension), widened by half a bin on both sides, is log2(17) bits for 17 levels.
    nats = torch.tensor(64 * math.log(2 * 17 / 16))
    assert float(bits_per_dim(nats, 64, bins=17)) == pytest.approx(math.log2(17))


def test_discretized_bound_of_a_uniform_coin(generator):
    """Data of two values, known to cost log 2 nats: the bound with 2 bins is above it, and close."""
    schedule = VPSchedule()
    coin = GaussianMixture(
        torch.full((2,), 0.5).double(), torch.tensor([[-1.0], [1.0]]).double(), torch.zeros(2).double()
    )
    x0 = coin.sample(1000, generator)
    bound = elbo(
        ExactDenoiser(coin, schedule),
        schedule,
        x0,
        times=time_grid(schedule, 400),
        variance="posterior",
        decoder="discretized",
        bins=2,
        generator=generator,
    )
    mean, standard_error = float(bound.total.mean()), float(bound.total.std()) / 1000**0.5
    assert math.log(2) - 4 * standard_error < mean < math.log(2) + 0.1
