"""The oracle itself: densities against quadrature, scores against autograd, posteriors against samples."""

from __future__ import annotations

import pytest
import torch

from diffusion_lib.exact import GaussianMixture, high_dimensional, three_modes, two_modes
from diffusion_lib.schedules import VPSchedule

FULL = GaussianMixture(
    torch.tensor([0.6, 0.4], dtype=torch.float64),
    torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64),
    torch.tensor([[[0.5, 0.3], [0.3, 0.4]], [[0.2, -0.1], [-0.1, 0.3]]], dtype=torch.float64),
)
DIAGONAL = GaussianMixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64), torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64),
    torch.tensor([[0.5, 0.1], [0.2, 0.3]], dtype=torch.float64),
)  # fmt: skip
MIXTURES = {"two": two_modes(), "three": three_modes(), "high": high_dimensional(), "full": FULL, "diagonal": DIAGONAL}


@pytest.fixture(params=MIXTURES.values(), ids=MIXTURES.keys())
def mixture(request):
    return request.param


def test_density_integrates_to_one():
    x = torch.linspace(-4, 4, 4001, dtype=torch.float64)[:, None]
    assert float(torch.trapezoid(two_modes().log_prob(x).exp(), x[:, 0])) == pytest.approx(1.0, abs=1e-9)
    axis = torch.linspace(-6, 6, 601, dtype=torch.float64)
    for m in (FULL, DIAGONAL, three_modes()):
        density = m.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2
        assert float(density) == pytest.approx(1.0, abs=1e-6)


def test_samples_have_the_stated_moments(mixture, generator):
    n = 100_000
    x = mixture.sample(n, generator)
    mean, covariance = mixture.mean(), mixture.covariance()
    assert bool(((x.mean(0) - mean).abs() < 4.9 * (covariance.diagonal() / n).sqrt()).all())
    centred = x - mean
    products = torch.einsum("nd,ne->nde", centred, centred) if mixture.dim < 10 else centred**2
    expected = covariance if mixture.dim < 10 else covariance.diagonal()
    assert bool(
        ((products.mean(0) - expected).abs() < 4.9 * products.std(0) / n**0.5).all()
    )  # 4.9: 64 coordinates are looked at


def test_score_is_the_gradient_of_the_marginal(mixture, schedule):
    x = torch.randn(20, mixture.dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for t in (0.02, 0.3, 0.8, schedule.t_max):
        y = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(mixture.marginal(schedule, t).log_prob(y).sum(), y)
        score = mixture.score(x, torch.full((20,), t, dtype=torch.float64), schedule)
        assert torch.allclose(score, gradient, rtol=1e-6, atol=1e-9)


def test_denoiser_is_the_regression_of_x0(schedule):
    """E[x_0 | x_t] is orthogonal to every function of x_t: test its error against three of them."""
    generator, n = torch.Generator().manual_seed(3), 100_000
    x0 = FULL.sample(n, generator)
    alpha, sigma = schedule.alpha(0.4).double(), schedule.sigma(0.4).double()
    x = alpha * x0 + sigma * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    error = x0 - FULL.denoise(x, 0.4, schedule)
    scale = x.std()
    for function in (torch.ones_like(x), x / scale, torch.sin(3 * x / scale)):
        product = error * function
        assert bool((product.mean(0).abs() < 4.5 * product.std(0) / n**0.5).all())


def test_posterior_moments_agree_with_its_samples(mixture):
    schedule, n = VPSchedule(), 40_000
    x = mixture.marginal(schedule, 0.3).sample(1, torch.Generator().manual_seed(4))
    posterior = mixture.posterior(x.expand(n, -1), 0.3, schedule)
    draws = posterior.sample(torch.Generator().manual_seed(5))
    standard_error = (posterior.variance[0] / n).sqrt()
    assert bool(((draws.mean(0) - posterior.mean[0]).abs() < 4.9 * standard_error).all())
    squares = (draws - posterior.mean[0]) ** 2
    assert bool(((squares.mean(0) - posterior.variance[0]).abs() < 4.9 * squares.std(0) / n**0.5).all())


def test_tweedie_second_order():
    """Var[x_0 | x_t] = (sigma/alpha)^2 (1 + sigma^2 d score/dx): the derivative of the denoiser, by autograd."""
    schedule, mixture = VPSchedule(), two_modes()
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None].requires_grad_()
    t = torch.full((41,), 0.25, dtype=torch.float64)
    (slope,) = torch.autograd.grad(mixture.denoise(x, t, schedule).sum(), x)
    expected = schedule.sigma(t)[:, None] ** 2 / schedule.alpha(t)[:, None] * slope
    assert torch.allclose(mixture.posterior(x, t, schedule).variance, expected, rtol=1e-9, atol=1e-12)


def test_class_posterior_is_bayes(schedule):
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    marginal = DIAGONAL.marginal(schedule, 0.3)
    parts = [
        GaussianMixture(torch.ones(1).double(), marginal.means[k : k + 1], marginal.covariances[k : k + 1])
        for k in range(2)
    ]
    joint = torch.stack([w * p.log_prob(x).exp() for w, p in zip(DIAGONAL.weights, parts, strict=True)], 1)
    assert torch.allclose(
        DIAGONAL.class_posterior(x, 0.3, schedule), joint / joint.sum(1, keepdim=True), rtol=1e-6, atol=1e-12
    )


def test_point_masses_are_allowed_under_noise():
    points = GaussianMixture(
        torch.full((4,), 0.25), torch.randn(4, 2, generator=torch.Generator().manual_seed(7)), torch.zeros(4)
    )
    x = points.means + 0.001
    assert torch.allclose(points.denoise(x, 0.01, VPSchedule()), points.means, atol=2e-2)
    with pytest.raises(ValueError, match="zero variance"):
        points.log_prob(x)


def test_results_follow_the_input():
    out = three_modes().denoise(torch.randn(3, 2), 0.5, VPSchedule())
    assert out.dtype == torch.float32
