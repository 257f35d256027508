"""What chapter 4's printed solutions must do besides passing their judge (test_exercises.py)."""

from __future__ import annotations

import re

import torch
from printed import page, printed_solution

from diffusion_lib.exact import GaussianMixture, three_modes, two_modes
from diffusion_lib.losses import denoising_score_matching
from diffusion_lib.samplers import langevin
from diffusion_lib.schedules import VESchedule, VPSchedule

VE = VESchedule()


def test_moments_are_those_of_the_exact_posterior():
    schedule, mixture, t = VPSchedule(), three_modes(), 0.4
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    mean, covariance = printed_solution(4, "posterior_moments")(lambda x: mixture.score(x, t, schedule), x, alpha, sigma)
    posterior = mixture.posterior(x, t, schedule)
    assert torch.allclose(mean, posterior.mean) and torch.allclose(covariance.diagonal(dim1=1, dim2=2), posterior.variance)


def test_step_is_the_librarys_step():
    mixture, generator = three_modes(), torch.Generator().manual_seed(0)
    x = mixture.sample(200, generator)
    score = lambda x: mixture.score(x, 0.0, VE)  # noqa: E731
    *_, library = langevin(score, x, [0.05], log_prob=mixture.log_prob, generator=torch.Generator().manual_seed(1))
    noise = torch.Generator().manual_seed(1)
    z = torch.randn(x.shape, generator=noise, dtype=x.dtype)
    u = torch.rand(len(x), generator=noise, dtype=x.dtype)
    assert torch.allclose(printed_solution(4, "mala_step")(x, score, mixture.log_prob, 0.05, z, u), library)


def test_quiet_loss_has_the_same_mean_gradient_and_far_less_noise():
    """At the right answer for sigma = 0.02 both gradients have mean 0 (5 standard errors); the spread falls by 5 or more."""
    n, sigma, mixture = 20_000, 0.02, two_modes()
    generator = torch.Generator().manual_seed(0)
    x0, eps = mixture.sample(n, generator), torch.randn(n, 1, generator=generator, dtype=torch.float64)
    noisy = GaussianMixture(mixture.weights, mixture.means, mixture.covariances + sigma**2)
    spread = []
    for loss in (printed_solution(4, "quiet_denoising"), None):
        a = torch.ones(n, 1, dtype=torch.float64, requires_grad=True)
        f = lambda x, a=a: a * noisy.score(x, 0.0, VE)  # noqa: E731
        value = loss(f, x0, eps, sigma) if loss else denoising_score_matching(f, x0, sigma, generator=generator)
        gradient = torch.autograd.grad(value.sum(), a)[0]
        assert abs(gradient.mean()) < 5 * gradient.std() / n**0.5
        spread.append(gradient.std())
    assert spread[1] > 5 * spread[0]


def test_quiet_loss_is_the_noisier_one_from_a_tenth_on():
    """On the three clouds the two spreads cross between sigma = 0.05 and 0.2, as the solution says."""
    n, mixture, generator = 10_000, three_modes(), torch.Generator().manual_seed(1)
    quieter = {}
    for sigma in (0.05, 0.2):
        noisy = GaussianMixture(mixture.weights, mixture.means, mixture.covariances + sigma**2)
        x0, eps = mixture.sample(n, generator), torch.randn(n, 2, generator=generator, dtype=torch.float64)
        a = torch.ones(n, 1, dtype=torch.float64, requires_grad=True)
        f = lambda x, a=a, noisy=noisy: a * noisy.score(x, 0.0, VE)  # noqa: E731
        plain = 0.5 * (f(x0 + sigma * eps) + eps / sigma).square().sum(1)
        quiet = printed_solution(4, "quiet_denoising")(f, x0, eps, sigma)
        spread = [torch.autograd.grad(value.sum(), a)[0].std() for value in (quiet, plain)]
        quieter[sigma] = spread[0] < spread[1]
    assert quieter == {0.05: True, 0.2: False}


def test_tempering_finds_the_weights():
    """Shares of 1500 independent ladders within 5 standard errors, widths within a tenth; the solution quotes the shares."""
    mixture, n = three_modes(), 1500
    x = printed_solution(4, "tempering")(mixture, n, 300, torch.Generator().manual_seed(0))
    nearest = torch.cdist(x, mixture.means).argmin(1)
    shares = torch.bincount(nearest, minlength=3) / n
    assert ((shares - mixture.weights).abs() < 5 * (mixture.weights * (1 - mixture.weights) / n).sqrt()).all()
    assert all(abs((x[nearest == i] - mixture.means[i]).std() / 0.15 - 1) < 0.1 for i in range(3))
    quoted = re.search(r"1500 ladders .* shares ([\d.]+), ([\d.]+) and ([\d.]+)", page(4))
    assert all(abs(float(said) - share) < 0.01 for said, share in zip(quoted.groups(), shares, strict=True))
