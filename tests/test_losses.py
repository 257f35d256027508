"""The denoising loss sits on the Bayes floor for a perfect network; weights make targets equal; importance sampling is unbiased."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffusion_lib.denoisers import NetDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.losses import (
    DenoisingLoss,
    DiscreteTimes,
    HybridLoss,
    ImportanceTimes,
    UniformTimes,
    VariationalLoss,
    loss_weight,
)
from diffusion_lib.schedules import DiscreteSchedule, VPSchedule
from diffusion_lib.targets import TARGETS, convert, diffuse

MIXTURE = three_modes()


def exact_net(schedule, target, offset=0.0):
    """A perfect predictor of ``target``, with x0_hat shifted by ``offset``."""
    return lambda x, t: convert(MIXTURE.denoise(x, t, schedule) + offset, x, t, schedule, "x0", target)


def batch(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return MIXTURE.sample(n, generator), torch.randn(n, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("target", TARGETS)
def test_perfect_net_sits_on_the_bayes_floor(schedule, target):
    """E||target - E[target | x_t]||^2 = E||target||^2 - E||E[target | x_t]||^2, exemplar's (2.32) for any target."""
    from diffusion_lib.targets import training_target

    n = 50_000
    x0, eps = batch(n)
    t = torch.full((n,), 0.5, dtype=torch.float64)
    losses = DenoisingLoss(schedule, target).per_sample(exact_net(schedule, target), x0, t, eps)
    truth = training_target(x0, eps, t, schedule, target).square().mean(1)
    prediction = exact_net(schedule, target)(diffuse(x0, eps, t, schedule), t).square().mean(1)
    difference = losses - (truth - prediction)
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / n**0.5


@pytest.mark.parametrize("weight", ["x0", "eps", "elbo", "min_snr", "truncated_snr"])
def test_a_named_weight_means_the_same_for_every_target(schedule, weight):
    x0, eps = batch(200)
    t = 0.1 + 0.8 * torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    losses = [
        DenoisingLoss(schedule, target, weight).per_sample(exact_net(schedule, target, 0.1), x0, t, eps)
        for target in TARGETS
    ]
    for other in losses[1:]:
        assert torch.allclose(other, losses[0], rtol=1e-6, atol=1e-10)


def test_eps_weight_is_simple_for_eps(schedule):
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    assert torch.allclose(loss_weight("eps", t, schedule, "eps"), torch.ones_like(t), rtol=1e-9)


def test_min_snr_clamps_the_snr_from_above():
    """Hang et al. 2023: for eps the weight is min(SNR, 5) / SNR: 1 where noisy, below 1 where clean."""
    schedule = VPSchedule()
    t = torch.linspace(0.02, 0.95, 50, dtype=torch.float64)
    snr = (schedule.alpha(t) / schedule.sigma(t)) ** 2
    assert torch.allclose(loss_weight("min_snr", t, schedule, "eps"), snr.clamp(max=5) / snr, rtol=1e-9)


def test_elbo_weight_is_the_slope_of_the_snr(schedule):
    """-SNR'(t) / 2 by autograd: Kingma et al. 2021, eq. 17."""
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(((schedule.alpha(t) / schedule.sigma(t)) ** 2).sum(), t)
    assert torch.allclose(loss_weight("elbo", t.detach(), schedule, "x0"), -slope / 2, rtol=1e-6)


def test_shards_together_see_the_whole_batch():
    loss, x0 = DenoisingLoss(VPSchedule()), batch(8)[0]
    whole = loss.draw(x0, torch.Generator().manual_seed(4))
    parts = [loss.draw(x0[:4], torch.Generator().manual_seed(4), (rank, 2)) for rank in range(2)]
    for i in range(4):
        assert torch.equal(torch.cat([parts[0][i], parts[1][i]]), whole[i])


def test_discrete_times_are_one_to_T():
    t, weight = DiscreteTimes(10).sample(10_000, torch.Generator().manual_seed(0))
    assert (
        sorted({round(v * 10) for v in t.tolist()}) == list(range(1, 11))
        and float(weight.min()) == float(weight.max()) == 1.0
    )


def test_stratified_times_fill_every_cell():
    t, _ = UniformTimes(0.0, 1.0, stratified=True).sample(100, torch.Generator().manual_seed(0))
    assert torch.equal((t * 100).floor().sort().values, torch.arange(100.0))


def test_importance_sampling_is_unbiased_and_better():
    """The estimate of mean_k L_k for a steep L_k: same mean within 4 standard errors, and a smaller variance."""
    steps, n, generator = 50, 100_000, torch.Generator().manual_seed(0)
    value = 1 / torch.arange(1, steps + 1, dtype=torch.float64)
    times = ImportanceTimes(steps)
    assert torch.allclose(times.probabilities(), torch.full((steps,), 1 / steps, dtype=torch.float64))
    for _ in range(10):
        times.update(torch.arange(1, steps + 1) / steps, value)
    assert torch.allclose(times.probabilities(), 0.999 * value / value.sum() + 0.001 / steps)
    estimates = {}
    for name, sampler in (("importance", times), ("uniform", DiscreteTimes(steps))):
        t, weight = sampler.sample(n, generator)
        estimates[name] = weight.double() * value[(t * steps).round().long() - 1]
        assert abs(float(estimates[name].mean() - value.mean())) < 4 * float(estimates[name].std()) / n**0.5
    assert float(estimates["importance"].var()) < 0.1 * float(estimates["uniform"].var())


def test_importance_goes_by_the_root_mean_square():
    """Losses 0, 2 and losses 1, 1 have one mean; the first have sqrt(2) times the second moment's root, and are drawn as much more often."""
    times = ImportanceTimes(2, history=2)
    for losses in ([0.0, 1.0], [2.0, 1.0]):
        times.update(torch.tensor([0.5, 1.0]), torch.tensor(losses))
    roots = torch.tensor([2**0.5, 1.0], dtype=torch.float64)
    assert torch.allclose(times.probabilities(), 0.999 * roots / roots.sum() + 0.001 / 2)


def test_importance_times_resume():
    times = ImportanceTimes(4, history=2)
    times.update(torch.tensor([0.25, 0.5, 0.75, 1.0]), torch.ones(4))
    other = ImportanceTimes(4, history=2)
    other.load_state_dict(times.state_dict())
    assert torch.equal(other.losses, times.losses) and torch.equal(other.counts, times.counts)


class TwoChannels(nn.Module):
    """Mean and variance heads with a parameter each, to see which loss moves which."""

    def __init__(self):
        super().__init__()
        self.mean, self.spread = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(0.1))

    def forward(self, x, t):
        return torch.cat([self.mean * x, self.spread * torch.ones_like(x)], 1)


def test_the_bound_in_hybrid_loss_does_not_move_the_mean():
    schedule, net = DiscreteSchedule.from_name("linear", 100), TwoChannels()
    x0, eps = (v.float() for v in batch(64))
    t = schedule.time(torch.arange(1, 65)).float()
    hybrid = HybridLoss(schedule).per_sample(net, x0, t, eps).mean()
    gradients = torch.autograd.grad(hybrid, (net.mean, net.spread))
    simple = DenoisingLoss(schedule).per_sample(lambda x, t: net(x, t).chunk(2, 1)[0], x0, t, eps).mean()
    assert torch.allclose(gradients[0], torch.autograd.grad(simple, net.mean)[0], rtol=1e-5)
    assert abs(float(gradients[1])) > 0


@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_variational_loss_is_the_elbo_term_by_term(variance):
    """With the same noise, its value at step k is T / D times the bound's term of the step from k to k - 1, for every k, to rounding."""
    from diffusion_lib.likelihood import elbo
    from diffusion_lib.schedules import time_grid

    steps, (x0, _) = 30, batch(16)
    schedule = DiscreteSchedule.from_name("linear", steps)
    net, loss = exact_net(schedule, "eps"), VariationalLoss(schedule, variance=variance)
    options = {"times": time_grid(schedule, steps), "variance": variance, "generator": torch.Generator().manual_seed(3)}
    bound = elbo(NetDenoiser(net, schedule), schedule, x0, **options)
    terms, draw = torch.cat([bound.diffusion, bound.reconstruction[None]]), torch.Generator().manual_seed(3)
    for k, term in zip(range(steps, 0, -1), terms, strict=True):
        eps = torch.randn(x0.shape, generator=draw, dtype=x0.dtype)
        value = loss.per_sample(net, x0, torch.full((16,), k / steps, dtype=x0.dtype), eps)
        assert torch.allclose(value, steps / 2 * term, rtol=1e-7, atol=1e-9)


def test_variational_loss_estimates_the_elbo():
    """Its mean over random steps, times D, is the bound without the prior term: within 4 standard errors."""
    from diffusion_lib.likelihood import elbo
    from diffusion_lib.schedules import time_grid

    schedule, n = DiscreteSchedule.from_name("linear", 100), 20_000
    x0, _ = batch(n)
    generator = torch.Generator().manual_seed(2)
    net = exact_net(schedule, "eps")
    loss = VariationalLoss(schedule, variance="forward")
    t, eps, _, _ = loss.draw(x0, generator)
    random_steps = 2 * loss.per_sample(net, x0, t, eps)
    bound = elbo(
        NetDenoiser(net, schedule),
        schedule,
        x0[:4000],
        times=time_grid(schedule, 100),
        variance="forward",
        generator=generator,
    )
    all_steps = bound.diffusion.sum(0) + bound.reconstruction
    error = float(random_steps.mean() - all_steps.mean())
    assert abs(error) < 4 * (float(random_steps.var()) / n + float(all_steps.var()) / 4000) ** 0.5
