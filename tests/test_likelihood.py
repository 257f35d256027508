"""The variational bound against exact log-densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture, three_modes, two_modes
from diffusion_lib.likelihood import VariationalDequantiser, bits_per_dim, elbo
from diffusion_lib.losses import bound_term, dequantise, prior_term
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


def test_a_grid_in_float32_is_still_a_whole_grid(schedule, generator):
    x0 = three_modes().sample(3, generator)
    bound = elbo(ExactDenoiser(three_modes(), schedule), schedule, x0, times=time_grid(schedule, 9).float(), generator=generator)
    assert bool(torch.isfinite(bound.total).all())


# --- dequantisation --------------------------------------------------------------------------------------------------

BINS = 5  # coarse, so that a density bends inside a bin: w = 1/2
LEVELS = torch.linspace(-1, 1, BINS, dtype=torch.float64)[:, None]


def log_masses():
    """log P of each grey value: the mixture's probability inside its bin, from distribution functions."""
    m = two_modes()
    edges = torch.stack([LEVELS - 0.25, LEVELS + 0.25])  # (2, BINS, 1)
    below, above = (m.weights * torch.special.ndtr((edges - m.means[:, 0]) / m.covariances.sqrt())).sum(-1)
    return (above - below).log()


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 2)).double()


def test_a_dequantisers_density_integrates_to_one_over_the_bin(monkeypatch):
    """Fed an even grid of z, it returns y on the bin and log q(y|x): the trapezoid rule in y gives 1."""
    dequantiser = VariationalDequantiser(network(), BINS)
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    monkeypatch.setattr("diffusion_lib.noise.randn_like", lambda x, generator: z)
    for level in LEVELS:
        y, log_q = (v.detach() for v in dequantiser(level.expand(len(z), 1)))
        assert bool(((y - level).abs() <= 0.25).all()) and float(y.max() - y.min()) > 0.499
        assert abs(float(torch.trapezoid(log_q.exp(), y[:, 0])) - 1) < 1e-6


def test_a_dequantisers_density_is_a_product_over_pixels():
    """log q sums over all dimensions but the batch: two pixels, one noise draw, against the change of variables by autograd."""
    net = nn.Conv2d(1, 2, 1).double()
    x = torch.tensor([-0.5, 0.5], dtype=torch.float64).reshape(1, 1, 1, 2)
    y, log_q = (v.detach() for v in VariationalDequantiser(net, BINS)(x, torch.Generator().manual_seed(3)))
    z = torch.randn(1, 1, 1, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    mean, log_scale = net(x).chunk(2, 1)
    expected = x + 0.5 * (torch.sigmoid(mean + log_scale.exp() * z) - 0.5)
    volume, z = torch.autograd.grad(expected.sum(), z)[0].log().sum(), z.detach()
    assert log_q.shape == (1,) and torch.allclose(y, expected, rtol=1e-12)
    assert float(torch.distributions.Normal(0, 1).log_prob(z).sum() - volume) == pytest.approx(float(log_q), rel=1e-12)


def test_variational_dequantisation_is_between_the_even_one_and_the_truth(generator):
    """E_q[log p(y) - log q(y|x)] <= log P(x) at every grey value, and nearer to it than with an even spread, after training."""
    mixture, exact = two_modes(), log_masses()
    dequantiser = VariationalDequantiser(network(), BINS)
    optimiser = torch.optim.Adam(dequantiser.parameters(), lr=0.02)
    batch = LEVELS.repeat(64, 1)
    for _ in range(300):
        y, log_q = dequantiser(batch, generator)
        optimiser.zero_grad()
        (log_q - mixture.log_prob(y)).mean().backward()
        optimiser.step()
    n = 20_000
    with torch.no_grad():
        y, log_q = dequantiser(LEVELS.repeat(n, 1), generator)
    learned = (mixture.log_prob(y) - log_q).reshape(n, BINS)
    even = (mixture.log_prob(dequantise(LEVELS.repeat(n, 1), 0.5, generator)) + math.log(0.5)).reshape(n, BINS)
    error = 4 * ((learned.var(0) + even.var(0)) / n).sqrt()  # 4 standard errors
    assert bool((learned.mean(0) < exact + error).all()) and bool((even.mean(0) < exact + error).all())
    masses = exact.exp() / exact.exp().sum()
    gap, even_gap = (float(masses @ (exact - v.mean(0))) for v in (learned, even))
    assert even_gap > 0.1 and gap < even_gap / 2  # what is left: a density cut at the bin's edge is no logit-normal
