"""Chapter 1's bounds and gradients against closed forms: tolerances are float64 rounding or k = 5 standard errors."""

import math

import pytest
import torch

from diffusion_lib.losses import (
    VAELoss,
    dequantise,
    iwae_bound,
    log_weights,
    pathwise_gradient,
    probabilistic_pca,
    score_function_gradient,
    vae_bound,
    vae_terms,
)
from diffusion_lib.nets import VAE, LinearVAE


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def data():
    factors = torch.randn(6, 3, generator=seeded(1), dtype=torch.float64)
    z = torch.randn(400, 3, generator=seeded(2), dtype=torch.float64)
    return z @ factors.T + 0.3 * torch.randn(400, 6, generator=seeded(3), dtype=torch.float64) + 1.0


@pytest.fixture
def optimal(data):
    """The linear VAE at the closed-form optimum, where q is the posterior."""
    fit = probabilistic_pca(data, 2)
    vae = LinearVAE(6, latent=2).double()
    total = fit.weight.square().sum(0) + fit.variance
    state = {"mu": fit.mean, "decoder_weight": fit.weight, "encoder_weight": fit.weight.T / total[:, None],
             "encoder_log_var": (fit.variance / total).log(), "decoder_log_var": torch.tensor(fit.variance, dtype=torch.float64).log()}
    vae.load_state_dict(state)
    return vae.requires_grad_(False), fit


def test_every_weight_of_the_optimal_linear_vae_is_the_exact_likelihood(data, optimal):
    vae, fit = optimal
    cov = fit.weight @ fit.weight.T + fit.variance * torch.eye(6, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(fit.mean, cov).log_prob(data)
    log_w = log_weights(vae, data, 3, seeded())
    torch.testing.assert_close(log_w, exact[:, None].expand(-1, 3), atol=1e-9, rtol=0)
    assert abs(exact.mean() - fit.log_likelihood) < 1e-9


def test_weights_are_unbiased_for_p_of_x_whatever_q_is(data):
    """E_q[p(x, z) / q(z|x)] = p(x), within 5 standard errors, for a q that is far from the posterior but wider (bounded weights)."""
    vae = LinearVAE(6, latent=2).double().requires_grad_(False)
    vae.encoder_weight.zero_()
    vae.encoder_log_var.fill_(math.log(1.5**2))
    vae.decoder_weight.copy_(torch.randn(6, 2, generator=seeded(5)))
    w, x = vae.decoder_weight, data[:1]
    exact = torch.distributions.MultivariateNormal(vae.mu, w @ w.T + torch.eye(6, dtype=torch.float64)).log_prob(x)
    ratio = (log_weights(vae, x, 100_000, seeded(13))[0] - exact).exp()
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / len(ratio) ** 0.5 < 0.1


@pytest.mark.parametrize("latent", [0, 1, 2, 5])
def test_ppca_beats_its_neighbours(data, latent):
    fit = probabilistic_pca(data, latent)

    def likelihood(weight, variance):
        return torch.distributions.MultivariateNormal(fit.mean, weight @ weight.T + variance * torch.eye(6, dtype=torch.float64)).log_prob(data).mean()

    best = likelihood(fit.weight, fit.variance)
    assert abs(best - fit.log_likelihood) < 1e-9
    for seed in range(5):
        step = 0.02 * torch.randn(fit.weight.shape, generator=seeded(seed), dtype=torch.float64)
        assert likelihood(fit.weight + step, fit.variance) < best + 1e-12
        assert likelihood(fit.weight, fit.variance * (1.05 if seed % 2 else 0.95)) < best


def test_ppca_drops_directions_below_the_given_variance(data):
    eigenvalues = torch.linalg.eigvalsh(torch.cov(data.T, correction=0)).flip(0)
    level = float((eigenvalues[0] + eigenvalues[1]) / 2)
    lengths = probabilistic_pca(data, 3, variance=level).weight.norm(dim=0)
    assert lengths[0] > 0 and (lengths[1:] == 0).all()


def test_bound_of_any_linear_vae_is_below_log_p_by_the_kl(data):
    vae = LinearVAE(6, latent=2).double().requires_grad_(False)
    vae.encoder_weight.copy_(0.1 * torch.randn(2, 6, generator=seeded(4)))
    vae.decoder_weight.copy_(torch.randn(6, 2, generator=seeded(5)))
    x = data[:1].expand(20_000, 6)
    bound = vae_bound(vae, x, generator=seeded(6))
    w, variance = vae.decoder_weight, vae.decoder_log_var.exp()
    precision = (w.T @ w + variance * torch.eye(2, dtype=torch.float64)) / variance
    posterior = torch.distributions.MultivariateNormal(torch.linalg.solve(precision, w.T @ (data[0] - vae.mu) / variance), precision_matrix=precision)
    mean, log_var = vae.encode(data[:1])
    q = torch.distributions.MultivariateNormal(mean[0], torch.diag(log_var[0].exp()))
    gap = torch.distributions.kl_divergence(q, posterior)
    log_p = torch.distributions.MultivariateNormal(vae.mu, w @ w.T + variance * torch.eye(6, dtype=torch.float64)).log_prob(data[0])
    assert abs(bound.mean() - (log_p - gap)) < 5 * bound.std() / len(x) ** 0.5
    assert gap > 0.1


def test_terms_beta_and_loss_agree(data):
    torch.manual_seed(0)
    vae = VAE(6, latent=2, width=16).double()
    rebuilt, kl = vae_terms(vae, data, seeded(7))
    torch.testing.assert_close(vae_bound(vae, data, beta=3.0, generator=seeded(7)), rebuilt - 3 * kl)
    torch.testing.assert_close(VAELoss(beta=3.0)(vae, data, generator=seeded(7)), (3 * kl - rebuilt).mean())


def test_loss_on_two_processes_sees_what_one_sees(data):
    torch.manual_seed(0)
    vae, loss = VAE(6, latent=2, width=16).double(), VAELoss(bin_width=0.1)
    whole = loss(vae, data[:8], generator=seeded(8))
    halves = [loss(vae, data[4 * r:4 * r + 4], generator=seeded(8), shard=(r, 2)) for r in range(2)]
    torch.testing.assert_close(whole, sum(halves) / 2)


def test_more_draws_never_lower_the_bound():
    log_w = 3 * torch.randn(50, 64, generator=seeded(9), dtype=torch.float64)
    bounds = [iwae_bound(log_w.reshape(50, -1, k)).mean(1) for k in (1, 2, 4, 8, 16, 32, 64)]
    for worse, better in zip(bounds, bounds[1:], strict=False):
        assert (better >= worse - 1e-12).all()
    torch.testing.assert_close(bounds[0], log_w.mean(1))
    torch.testing.assert_close(bounds[-1], log_w.exp().mean(1).log())


def test_iwae_bound_survives_tiny_weights():
    assert iwae_bound(torch.full((2, 5), -3000.0)).tolist() == [-3000.0, -3000.0]


@pytest.mark.parametrize("name", ["pathwise", "score", "leave-one-out"])
def test_gradients_agree_with_the_exact_slope(name):
    mean, log_var = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([0.2, -0.7], dtype=torch.float64)

    def f(z):
        return z[:, 0] ** 2 * z[:, 1] + z[:, 1] ** 3

    var = log_var.exp()
    exact_mean = torch.stack([2 * mean[0] * mean[1], mean[0] ** 2 + var[0] + 3 * (mean[1] ** 2 + var[1])])
    exact_log_var = torch.stack([var[0] * mean[1], 3 * mean[1] * var[1]])      # E f = (m0^2 + v0) m1 + m1^3 + 3 m1 v1
    n = 200_000
    if name == "pathwise":
        estimates = pathwise_gradient(f, mean, log_var, n, seeded(10))
    else:
        estimates = score_function_gradient(f, mean, log_var, n, seeded(10), baseline=name == "leave-one-out")
    for g, exact in zip(estimates, (exact_mean, exact_log_var), strict=True):
        assert ((g.mean(0) - exact).abs() < 5 * g.std(0) / n**0.5).all()


def test_leave_one_out_baseline_is_unbiased_for_two_draws():
    mean, log_var = torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64)
    g = seeded(11)
    estimates = torch.stack([score_function_gradient(lambda z: z[:, 0] ** 2, mean, log_var, 2, g, baseline=True)[0].mean() for _ in range(5000)])
    assert abs(estimates.mean() - 0.6) < 5 * estimates.std() / 5000**0.5      # a baseline with the draw itself would give 0.3


def test_dequantise_fills_the_bins_evenly():
    x = torch.zeros(100_000)
    u = dequantise(x, 0.125, seeded(12))
    assert u.min() >= -0.0625 and u.max() <= 0.0625
    assert abs(u.mean()) < 5 * 0.125 / 12**0.5 / 100_000**0.5
    assert abs(u.var() / (0.125**2 / 12) - 1) < 5 * (0.8 / 100_000) ** 0.5    # kurtosis of a uniform: 9/5


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: probabilistic_pca(x, 6), "latent < 6"),
        (lambda x: probabilistic_pca(x, 2, variance=0.0), "expected > 0"),
        (lambda x: probabilistic_pca(x * float("nan"), 2), "NaN"),
        (lambda x: iwae_bound(x[:, :0]), "K >= 1"),
        (lambda x: VAELoss(beta=-1.0), "beta=-1.0"),
        (lambda x: dequantise(x, -0.1), "bin_width=-0.1"),
        (lambda x: pathwise_gradient(torch.sum, x[0], x[0, :3], 5), "one log variance"),
        (lambda x: score_function_gradient(lambda z: z.sum(1), x[0], x[0], 1, baseline=True), ">= 2"),
    ],
)
def test_bad_input_is_refused(data, call, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        call(data)


def test_bits_per_dim_of_a_uniform_guess():
    from diffusion_lib.likelihood import bits_per_dim

    dims, bins = 64, 17
    density = -dims * math.log(17 * 2 / 16)                                    # uniform on 17 bins of width 1/8
    assert abs(bits_per_dim(torch.tensor(-density), dims, bins) - math.log2(17)) < 1e-5
