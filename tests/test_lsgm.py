"""LSGM: the cross-entropy against closed forms, the mixed score, the importance-sampled time, and joint training."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_lib.denoisers import ExactDenoiser, MixedDenoiser, NetDenoiser
from diffusion_lib.exact import GaussianMixture
from diffusion_lib.losses import (
    LSGMLoss,
    UniformTimes,
    VPImportanceTimes,
    cross_entropy,
    lsgm_terms,
    prior_denoiser,
    vae_bound,
)
from diffusion_lib.losses.weights import ON_X0
from diffusion_lib.nets import LSGM, MLP
from diffusion_lib.samplers import ddim, final
from diffusion_lib.schedules import CosineSchedule, LinearSchedule, VESchedule, VPSchedule, time_grid
from diffusion_lib.targets import convert
from diffusion_lib.training import Batches, train
from diffusion_lib.transitions import gaussian_kl, gaussian_log_prob

VP, TAU, N = VPSchedule(), 1e-2, 40_000
TIMES = {"importance": VPImportanceTimes(VP, TAU, stratified=True), "uniform": UniformTimes(TAU, stratified=True)}
LATE = {"late": VPImportanceTimes(VP, 0.3), "late uniform": UniformTimes(0.3)}            # tau so large that no factor of 1 - tau hides


def gaussian(mean, variance):
    """One Gaussian as a mixture, float64."""
    mean, variance = torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(variance, dtype=torch.float64)
    return GaussianMixture(torch.ones(1, dtype=torch.float64), mean[None], variance[None])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def at(t):
    """(alpha, sigma) at t, as numbers."""
    t = torch.tensor(t, dtype=torch.float64)
    return float(VP.alpha(t)), float(VP.sigma(t))


# --- the cross-entropy

PRIORS = {"normal": ([0.0, 0.0], [1.0, 1.0]), "narrow": ([0.5, -1.0], [0.3, 2.0])}
POSTERIORS = {"sharp": ([0.2, 0.7], [0.01, 0.04]), "wide": ([-1.0, 0.0], [0.5, 1.5])}


def exact_cross_entropy(prior, posterior, tau=TAU):
    """CE(q_tau || p_tau) of two diffused Gaussians, plus what the estimator's N(0, I) at t = 1 adds to it: both closed forms."""
    (m, s), (a, b) = (tuple(torch.tensor(v, dtype=torch.float64) for v in pair) for pair in (prior, posterior))
    alpha, sigma = at(tau)
    variance = alpha**2 * s + sigma**2
    value = 0.5 * (torch.log(2 * math.pi * variance) + (alpha**2 * b + sigma**2 + alpha**2 * (a - m) ** 2) / variance).sum()
    alpha, sigma = at(1.0)
    true = (alpha**2 * s + sigma**2).log()
    second = alpha**2 * ((a - m) ** 2 + b)                                              # E (alpha z_0 - alpha m)^2
    to_true = 0.5 * (true - 2 * math.log(sigma) - 1 + (sigma**2 + second) / true.exp()).sum()
    to_normal = 0.5 * (-2 * math.log(sigma) - 1 + sigma**2 + alpha**2 * (a**2 + b)).sum()
    return float(value + to_normal - to_true)


@pytest.mark.parametrize("times", (TIMES | LATE).values(), ids=(TIMES | LATE).keys())
@pytest.mark.parametrize("posterior", POSTERIORS.values(), ids=POSTERIORS.keys())
@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
def test_the_cross_entropy_of_gaussians_is_exact(prior, posterior, times):
    """The analytic term, which never looks at q's density, against the closed form: within 4 standard errors."""
    z0 = gaussian(*posterior).sample(N, seeded())
    values = cross_entropy(ExactDenoiser(gaussian(*prior), VP), VP, z0, times, seeded(1))
    se = float(values.std()) / N**0.5
    assert abs(float(values.mean()) - exact_cross_entropy(prior, posterior, times.t_min)) < 4 * se


def test_the_cross_entropy_with_a_mixture_prior_is_that_of_its_density():
    """Against plain Monte Carlo of -log p_tau(z_tau), the prior's density being known: within 4 standard errors of the difference."""
    prior = GaussianMixture(torch.tensor([0.3, 0.7]).double(), torch.tensor([[-1.0], [0.8]]).double(), torch.tensor([[0.05], [0.2]]).double())
    z0 = gaussian([0.3], [0.2]).sample(N, seeded())
    values = cross_entropy(ExactDenoiser(prior, VP), VP, z0, TIMES["importance"], seeded(1))
    alpha, sigma = at(TAU)
    z = alpha * z0 + sigma * torch.randn(N, 1, generator=seeded(2), dtype=torch.float64)
    plain = -prior.marginal(VP, TAU).log_prob(z)
    assert abs(float(values.mean() - plain.mean())) < 4 * float((values.var() + plain.var()) / N) ** 0.5


def test_a_wrong_prior_costs_more_by_the_fisher_gap():
    """CE is least for the prior that equals q: a moved prior costs the KL between the two at tau, within 4 standard errors."""
    q, moved = ([0.0, 0.0], [0.3, 0.3]), ([1.0, 0.0], [0.3, 0.3])
    z0 = gaussian(*q).sample(N, seeded())
    own, other = (cross_entropy(ExactDenoiser(gaussian(*p), VP), VP, z0, TIMES["importance"], seeded(1)) for p in (q, moved))
    gap = exact_cross_entropy(moved, q) - exact_cross_entropy(q, q)
    assert gap > 1 and abs(float((other - own).mean()) - gap) < 4 * float((other - own).std()) / N**0.5


def test_the_cross_entropy_needs_a_start_above_zero():
    with pytest.raises(ValueError, match="t_min > 0"):
        cross_entropy(ExactDenoiser(gaussian([0.0], [1.0]), VP), VP, torch.zeros(2, 1).double(), UniformTimes(0.0))


# --- the mixed score


@pytest.mark.parametrize("target", ["eps", "score", "v", "x0"])
def test_mixed_score_at_mix_zero_is_exact_for_the_normal(smooth_schedule, target):
    torch.manual_seed(0)
    net = MLP(3, 16, 1).double()
    torch.nn.init.normal_(net.head.weight)
    exact = ExactDenoiser(gaussian([0.0] * 3, [1.0] * 3), smooth_schedule)
    x, t = torch.randn(5, 3, dtype=torch.float64), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    net_denoiser = NetDenoiser(net, smooth_schedule, target)
    torch.testing.assert_close(MixedDenoiser(net_denoiser, 0.0)(x, t), exact(x, t), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(MixedDenoiser(net_denoiser, 1.0)(x, t), net_denoiser(x, t), rtol=1e-12, atol=1e-12)


def test_scores_mix_as_the_paper_writes_it():
    """eps_hat = (1 - a) sigma z + a eps'_hat for a variance-preserving path, a one share per dimension."""
    torch.manual_seed(0)
    net, mix = MLP(3, 16, 1).double(), torch.tensor([0.0, 0.3, 1.0]).double()
    torch.nn.init.normal_(net.head.weight)
    z, t = torch.randn(5, 3, dtype=torch.float64), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    found = convert(MixedDenoiser(NetDenoiser(net, VP, "eps"), mix)(z, t), z, t, VP, "x0", "eps")
    torch.testing.assert_close(found, (1 - mix) * VP.sigma(t)[:, None] * z + mix * net(z, t), rtol=1e-9, atol=1e-9)


def test_an_untrained_prior_of_mix_zero_walks_as_on_the_normal():
    """DDIM on N(0, I) multiplies by alpha_s alpha_t + sigma_s sigma_t a step: the walk is that product, to rounding."""
    net = LSGM(4, latent=3, width=8, prior_width=8, prior_depth=1, mix_logit=-1000.0).double()
    noise, times = VP.noise((5, 3), seeded(), dtype=torch.float64), time_grid(VP, 50)
    alpha, sigma = VP.alpha(times), VP.sigma(times)
    factor = (alpha[1:] * alpha[:-1] + sigma[1:] * sigma[:-1]).prod()
    torch.testing.assert_close(final(ddim(prior_denoiser(net, VP), VP, noise, times)), factor * noise, rtol=1e-9, atol=0)


# --- the times


@pytest.mark.parametrize("schedule", [VP, CosineSchedule(), VPSchedule(1.0, 5.0)], ids=["vp", "cosine", "mild"])
def test_log_sigma_squared_is_uniform_and_the_density_integrates_to_one(schedule):
    times = VPImportanceTimes(schedule, 1e-3)
    t, weight = times.sample(N, seeded())
    assert float(t.min()) >= 1e-3 - 1e-9 and float(t.max()) <= schedule.t_max + 1e-7
    ends = 2 * schedule.sigma(torch.tensor([times.t_min, times.t_max], dtype=torch.float64)).log()
    share = ((2 * schedule.sigma(t.double()).log() - ends[0]) / (ends[1] - ends[0])).sort().values
    gap = float((share - torch.arange(1, N + 1) / N).abs().max())
    assert gap < 2.0 / N**0.5                                                           # Kolmogorov: exceeded with probability 7e-4
    grid = torch.linspace(math.log(times.t_min), math.log(times.t_max), 20_001, dtype=torch.float64).exp().clamp(max=times.t_max)
    assert float(torch.trapezoid(times.density(grid), grid)) == pytest.approx(1.0, abs=1e-4)
    torch.testing.assert_close(weight.double(), 1 / ((times.t_max - 1e-3) * times.density(t.double())), rtol=1e-3, atol=0)


@pytest.mark.parametrize("stratified", [False, True])
def test_weighted_means_are_unbiased(stratified):
    """E[weight f(t)] is the plain mean of f over [t_min, t_max]: within 4 standard errors (of independent draws; stratified ones are nearer)."""
    times = VPImportanceTimes(VP, TAU, stratified=stratified)
    t, weight = times.sample(N, seeded())
    for f, mean in ((lambda t: t, (1 + TAU) / 2), (lambda t: t**2, (1 - TAU**3) / 3 / (1 - TAU)), (torch.ones_like, 1.0)):
        values = (weight * f(t)).double()
        assert abs(float(values.mean()) - mean) < 4 * float(values.std()) / N**0.5 + 1e-6


def test_for_normal_data_every_time_has_the_same_expected_term():
    """Where a density is variance-optimal: term(t) / r(t) is a constant, D/2 log(sigma_1^2 / sigma_tau^2), to rounding."""
    times, t = VPImportanceTimes(VP, TAU), torch.linspace(TAU, 1, 50, dtype=torch.float64)
    expected_error = VP.sigma(t) ** 2                                                   # E (z_0 - alpha z_t)^2 for N(0, 1)
    ratio = ON_X0["elbo"](VP, t) * expected_error / times.density(t)
    assert float(ratio.max() - ratio.min()) < 1e-9 * float(ratio.max())
    assert float(ratio[0]) == pytest.approx(math.log(at(1.0)[1] / at(TAU)[1]), rel=1e-9)


def test_importance_sampling_lowers_the_variance():
    exact = ExactDenoiser(gaussian([0.0] * 2, [1.0] * 2), VP)
    z0 = torch.randn(N, 2, generator=seeded(), dtype=torch.float64)
    ours, plain = (cross_entropy(exact, VP, z0, times, seeded(1)) for times in (VPImportanceTimes(VP, TAU), UniformTimes(TAU)))
    assert float(ours.var()) < 0.25 * float(plain.var())
    assert abs(float(ours.mean() - plain.mean())) < 4 * float((ours.var() + plain.var()) / N) ** 0.5


@pytest.mark.parametrize("schedule", [VESchedule(), LinearSchedule()])
def test_times_refuse_schedules_that_do_not_preserve_variance(schedule):
    with pytest.raises(ValueError, match=r"alpha\^2 \+ sigma\^2 = 1"):
        VPImportanceTimes(schedule)
    with pytest.raises(ValueError, match="at t = 0 there is no noise"):
        VPImportanceTimes(VP, 0.0)


# --- the bound and its training


def small(mix_logit=-30.0):
    torch.manual_seed(0)
    return LSGM(6, latent=2, width=16, prior_width=16, prior_depth=1, mix_logit=mix_logit).double()


def test_with_a_normal_prior_the_bound_is_that_of_a_vae():
    """mix = 0: entropy and cross-entropy are together minus the KL of q(z_tau | x) to N(0, I), within 4 standard errors."""
    net, x = small(), torch.randn(1, 6, generator=seeded(), dtype=torch.float64).expand(N, -1)
    with torch.no_grad():
        terms = lsgm_terms(net, x, VP, TIMES["importance"], seeded(1))
        mean, log_var = (v[0] for v in net.vae.encode(x[:1]))
        alpha, sigma = at(TAU)
        kl = gaussian_kl(alpha * mean, (alpha**2 * log_var.exp() + sigma**2).log(), torch.zeros(2), torch.zeros(2)).sum()
        found = terms.cross_entropy - terms.entropy
        assert abs(float(found.mean() - kl)) < 4 * float(found.std()) / N**0.5
        z = alpha * mean + (alpha**2 * log_var.exp() + sigma**2).sqrt() * torch.randn(N, 2, generator=seeded(2), dtype=torch.float64)
        plain = gaussian_log_prob(x, net.vae.decode(z), net.vae.decoder_log_var).sum(1)
        difference = terms.reconstruction.mean() - plain.mean()
        assert abs(float(difference)) < 4 * float((terms.reconstruction.var() + plain.var()) / N) ** 0.5
        usual = vae_bound(net.vae, x[:100], generator=seeded(3)).mean()                 # chapter 1's, at z_0: near, since tau is small
        assert abs(float(terms.bound.mean() - usual)) < 1.0


def test_the_entropy_is_that_of_the_diffused_latent():
    """An encoder much narrower than sigma_tau, prior N(0, I): CE - H is the KL of q(z_tau | x), within 4 standard errors, and not that of q(z_0 | x)."""
    net, mean, log_var = small(), torch.tensor([0.5, -1.0]).double(), torch.full((2,), -12.0).double()
    net.vae.encode = lambda x: (mean.expand(len(x), -1), log_var.expand(len(x), -1))
    with torch.no_grad():
        terms = lsgm_terms(net, torch.zeros(N, 6).double(), VP, TIMES["importance"], seeded(1))
    alpha, sigma = at(TAU)
    assert math.exp(-6) < 0.3 * sigma
    kl = gaussian_kl(alpha * mean, (alpha**2 * log_var.exp() + sigma**2).log(), torch.zeros(2), torch.zeros(2)).sum()
    found = terms.cross_entropy - terms.entropy
    assert abs(float(found.mean() - kl)) < 4 * float(found.std()) / N**0.5


def test_the_prior_weight_changes_the_priors_gradient_and_nothing_else():
    x, gradients = torch.randn(64, 6, generator=seeded(), dtype=torch.float64), {}
    for weight in ("likelihood", "eps"):
        net = small(0.0)
        loss = LSGMLoss(VP, TAU, prior_weight=weight)(net, x, generator=seeded(1))
        loss.backward()
        gradients[weight] = (loss.detach(), {name: p.grad for name, p in net.named_parameters()})
    assert torch.equal(gradients["likelihood"][0], gradients["eps"][0])
    for name, one in gradients["likelihood"][1].items():
        other = gradients["eps"][1][name]
        if name.startswith("vae."):
            torch.testing.assert_close(one, other)
        elif one is not None and float(one.abs().sum()) > 0:
            assert not torch.allclose(one, other), name


def test_the_eps_weight_is_half_the_squared_error_of_eps():
    """With uniform times on [tau, 1]: the prior's own gradient is that of (1 - tau) / 2 || eps_hat - eps ||^2."""
    net, x = small(0.0), torch.randn(64, 6, generator=seeded(), dtype=torch.float64)
    times, generator = UniformTimes(TAU), seeded(1)
    own = lsgm_terms(net, x, VP, times, generator, prior_weight="eps").cross_entropy.sum()
    (found,) = torch.autograd.grad(own, net.prior.head.bias)
    generator = seeded(1)                                                               # the same draws, by hand
    mean, log_var = net.vae.encode(x)
    z0 = (mean + (0.5 * log_var).exp() * torch.randn(64, 2, generator=generator, dtype=torch.float64)).detach()
    torch.randn(64, 2, generator=generator, dtype=torch.float64)
    t = (TAU + (1 - TAU) * torch.rand(64, generator=generator)).double()
    eps = torch.randn(64, 2, generator=generator, dtype=torch.float64)
    z = VP.alpha(t)[:, None] * z0 + VP.sigma(t)[:, None] * eps
    eps_hat = 0.5 * VP.sigma(t)[:, None] * z + 0.5 * net(z, t)
    (expected,) = torch.autograd.grad((1 - TAU) / 2 * (eps_hat - eps).square().sum(), net.prior.head.bias)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_joint_training_raises_the_bound_over_a_normal_prior():
    """Two far clusters in the plane: a VAE with prior N(0, I) loses; the learned prior sees two modes. Judged on fresh draws, 4 standard errors."""
    side = torch.randint(0, 2, (4096, 1), generator=seeded()) * 2.0 - 1
    x = side * torch.tensor([2.0, -1.0]) + 0.1 * torch.randn(4096, 2, generator=seeded(1))
    bounds = {}
    for name, logit in (("normal", -30.0), ("learned", -1.0)):
        torch.manual_seed(0)
        net = LSGM(2, latent=2, width=32, prior_width=32, prior_depth=1, mix_logit=logit)
        if name == "normal":
            net.logit.requires_grad_(False)
        train(net, LSGMLoss(VP, TAU), Batches(x, batch_size=256), steps=400, lr=3e-3, cooldown=0.5, device="cpu", precision="fp32", progress=False)
        with torch.no_grad():
            bounds[name] = lsgm_terms(net, x, VP, TIMES["importance"], seeded(2)).bound
    gain = bounds["learned"].mean() - bounds["normal"].mean()
    assert float(gain) > 4 * float((bounds["learned"].var() + bounds["normal"].var()) / 4096) ** 0.5


def test_lsgm_refuses_several_processes_and_unknown_weights():
    with pytest.raises(ValueError, match="2 processes"):
        LSGMLoss()(small(), torch.randn(4, 6).double(), shard=(0, 2))
    with pytest.raises(ValueError, match="did you mean 'likelihood'"):
        LSGMLoss(prior_weight="likelyhood")
