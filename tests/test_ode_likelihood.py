"""The likelihood of the probability-flow ODE against exact log-densities, and Hutchinson's estimate against the exact trace."""

from __future__ import annotations

import math

import pytest
import torch
from laws import Counting, gaussian, marginal_variance, slope

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture, high_dimensional, three_modes, two_modes
from diffusion_lib.likelihood import ode_likelihood, ode_log_likelihood
from diffusion_lib.schedules import VPSchedule, expand

MIXTURE = three_modes()
CENTRED = GaussianMixture(MIXTURE.weights, MIXTURE.means - MIXTURE.mean(), MIXTURE.covariances)


def test_within_a_thousandth_of_a_nat_with_256_evaluations(schedule, generator):
    x = CENTRED.sample(400, generator)
    denoiser = Counting(ExactDenoiser(CENTRED, schedule))
    error = ode_log_likelihood(denoiser, schedule, x, steps=256) - CENTRED.log_prob(x)
    assert len(denoiser.times) == 256
    assert float(error.abs().mean()) <= 1e-3


def gaussian_flow(x, mean, std, schedule, level=1e-3):
    """(nats, latent) of the exact flow of N(mean, std^2 I) from this noise level to t_max, the prior's mismatch included.

    x/alpha - mean grows by sqrt((s^2 + b^2) / (s^2 + a^2)) between noise levels a and b, and the volume by its power D.
    """
    t, dim, prior = schedule.t_max, x.shape[1], schedule.prior_std
    growth = (float(marginal_variance(schedule, t, std**2)) / (std**2 + level**2)) ** 0.5  # with alpha in it
    latent = float(schedule.alpha(t)) * mean + growth * (x - mean)
    nats = -0.5 * (latent / prior).square().sum(1) - dim * math.log(prior * math.sqrt(2 * math.pi)) + dim * math.log(growth)
    return nats, latent


def test_order_of_the_integrator(schedule, generator):
    """32 to 256 evaluations. With more, what is left, below 1e-5 nats, is the low order of the first three steps."""
    std, steps = 0.5, (32, 64, 128, 256)
    x = std * torch.randn(64, 2, generator=generator, dtype=torch.float64)
    denoiser = ExactDenoiser(gaussian([std**2] * 2), schedule)
    nats, latent = gaussian_flow(x, 0.0, std, schedule)
    found = [ode_likelihood(denoiser, schedule, x, steps=n) for n in steps]
    density = [float((f.nats - nats).abs().median()) for f in found]
    place = [float((f.latent - latent).norm(dim=1).median()) for f in found]
    assert abs(slope(steps, density) + 4) < 0.4 and abs(slope(steps, place) + 4) < 0.4
    assert bool((found[-1].standard_error == 0).all())


def test_it_is_the_density_at_the_smallest_noise_level(generator):
    """noise_min is a blur that is really there: with 0.1 the answer is log p of the mixture blurred by 0.1, not of the mixture."""
    x, schedule = CENTRED.sample(200, generator), VPSchedule()
    found = ode_log_likelihood(ExactDenoiser(CENTRED, schedule), schedule, x, steps=256, noise_min=0.1)
    blurred = GaussianMixture(CENTRED.weights, CENTRED.means, CENTRED.covariances + 0.1**2)
    assert float((found - blurred.log_prob(x)).abs().mean()) < 1e-3
    assert float((found - CENTRED.log_prob(x)).abs().mean()) > 0.05


def distorted(mixture, schedule):
    """A denoiser that is wrong, smoothly, and right again without noise: the flow of no known density, but of some density."""

    def denoiser(x, t):
        alpha, total = expand(schedule.alpha(t), x), expand(schedule.noise_level(t) ** 2, x) + 1
        return mixture.denoise(x, t, schedule) + 0.4 * (1 - 1 / total) * torch.sin(2 * x / alpha / total.sqrt())

    return denoiser


@pytest.mark.parametrize("make", [ExactDenoiser, distorted], ids=["exact", "distorted"])
def test_a_density_integrates_to_one(schedule, make):
    """Also for a denoiser that is wrong: an error in the volume that an exact score would hide shows here.

    The trapezoid rule on a smooth density that vanishes at both ends is exact to rounding at this spacing; what is left is the integrator's.
    """
    x = torch.linspace(-4, 4, 321, dtype=torch.float64)
    nats = ode_log_likelihood(make(two_modes(), schedule), schedule, x[:, None], steps=256)
    assert abs(float(torch.trapezoid(nats.exp(), x)) - 1) < 1e-3
    if make is distorted:
        assert float((nats - two_modes().log_prob(x[:, None])).abs().max()) > 0.1  # it is another density


def test_conditional_likelihood(schedule, generator):
    """A component alone is not centred, and at t_max a little of its mean is left: the exact flow says what that costs."""
    x, label = MIXTURE.sample_labelled(200, generator)
    found = ode_log_likelihood(ExactDenoiser(MIXTURE, schedule), schedule, x, condition={"label": label})
    expected, _ = gaussian_flow(x, MIXTURE.means[label], 0.15, schedule)
    assert float((found - expected).abs().mean()) < 1e-3


# --- Hutchinson ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def estimated():
    """64 probes of each kind for 400 points in 8 dimensions, and the exact trace by the same integrator."""
    schedule, mixture = VPSchedule(), high_dimensional(8)
    denoiser, x = ExactDenoiser(mixture, schedule), mixture.sample(400, torch.Generator().manual_seed(0))
    exact = ode_log_likelihood(denoiser, schedule, x, steps=24)
    options = {"steps": 24, "divergence": "hutchinson", "probes": 64}
    return exact, {
        probe: ode_likelihood(
            denoiser, schedule, x, probe=probe, generator=torch.Generator().manual_seed(1), **options
        )
        for probe in ("rademacher", "gaussian")
    }


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_and_its_error_bar_honest(estimated, probe):
    """The mean error within 4 standard errors; and 95 % intervals (Student's t, 63 degrees) hold the truth in 95 % of 400 points, within 4."""
    exact, results = estimated
    error, bar = results[probe].nats - exact, results[probe].standard_error
    n = len(error)
    assert abs(float(error.mean())) < 4 * float(bar.square().mean().sqrt()) / n**0.5
    covered = float((error.abs() < 1.998 * bar).double().mean())
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / n)
    assert abs(float((error / bar).std()) - (63 / 61) ** 0.5) < 4 / math.sqrt(2 * n)


def test_signs_vary_less_than_gaussians(estimated):
    """v^T J v has variance 2 sum_{i != j} J_ij^2 with signs, and 2 sum J_ii^2 more with Gaussians."""
    _, results = estimated
    assert float(results["rademacher"].standard_error.mean()) < 0.2 * float(results["gaussian"].standard_error.mean())


def test_one_evaluation_serves_all_probes_and_one_probe_has_no_error_bar():
    schedule, denoiser = VPSchedule(), Counting(ExactDenoiser(MIXTURE, VPSchedule()))
    x = MIXTURE.sample(5, torch.Generator().manual_seed(0))
    options = {"steps": 20, "divergence": "hutchinson", "generator": torch.Generator().manual_seed(1)}
    assert ode_likelihood(denoiser, schedule, x, probes=7, **options).standard_error.shape == (5,)
    assert len(denoiser.times) == 20
    assert ode_likelihood(denoiser, schedule, x, probes=1, **options).standard_error is None


def test_the_error_bar_falls_with_the_root_of_the_probes():
    """Four times the probes, half the error bar."""
    schedule, mixture = VPSchedule(), high_dimensional(8)
    denoiser, x = ExactDenoiser(mixture, schedule), mixture.sample(300, torch.Generator().manual_seed(0))
    bars = [
        ode_likelihood(
            denoiser, schedule, x, steps=16, divergence="hutchinson", probes=k, generator=torch.Generator().manual_seed(k)
        ).standard_error
        for k in (16, 64)
    ]
    ratio = float(bars[0].square().mean() / bars[1].square().mean())
    # Each variance over K probes has relative error sqrt(2 / (K - 1)) or more (2 for these tails), averaged over 300 points.
    assert abs(ratio / 4 - 1) < 4 * 2 * math.sqrt(2 / 15 / 300)


# --- forms -----------------------------------------------------------------------------------------------------------


def test_pictures_dtype_and_gradients():
    """(B, C, H, W) in float32, inside no_grad, with a denoiser known by hand: shrinkage for N(0, s^2 I)."""
    schedule, std = VPSchedule(), 0.5

    def denoiser(x, t):
        alpha, sigma = expand(schedule.alpha(t), x), expand(schedule.sigma(t), x)
        return alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x

    x = std * torch.randn(3, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    exact = -0.5 * (x / std).square().flatten(1).sum(1) - 12 * math.log(std * math.sqrt(2 * math.pi))
    with torch.no_grad():
        found = ode_likelihood(denoiser, schedule, x, steps=128)
    assert found.nats.dtype == torch.float32 and found.nats.shape == (3,) and found.latent.shape == x.shape
    assert not found.nats.requires_grad
    # The prior is N(0, 1) and x_T has variance 1 - (1 - s^2) alpha_T^2: 12 * 0.75 * 4.3e-5 / 2 nats at most, and float32 to 1e-5 of 20 nats.
    assert float((found.nats - exact).abs().max()) < 2e-3
