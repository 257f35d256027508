"""EDM in the book's variables: what its preconditioning promises, its loss against the formula, and where it trains."""

from __future__ import annotations

import math

import pytest
import torch
from laws import gaussian

from diffusion_lib.checkpoints import denoiser_of, load, save
from diffusion_lib.denoisers import EDMDenoiser, ExactDenoiser, NetDenoiser, on_schedule
from diffusion_lib.exact import three_modes
from diffusion_lib.losses import EDMLoss, LogNormalLevels, UniformTimes
from diffusion_lib.nets import C_NOISE_RANGE, MLP, UNet
from diffusion_lib.schedules import CosineSchedule, DiscreteSchedule, EDMSchedule, VPSchedule, expand
from diffusion_lib.targets import diffuse, training_target
from diffusion_lib.training import Batches, train

LEVELS = torch.tensor([1e-3, 0.02, 0.3, 1.0, 7.0, 49.0], dtype=torch.float64)


def times_of(schedule, levels=LEVELS):
    return schedule.time_of_log_snr(-levels.log())


# --- preconditioning -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma_data", [0.3, 0.5, 1.0, 4.0])
def test_input_and_target_have_unit_variance_and_the_weight_undoes_c_out(sigma_data):
    """Karras et al. 2022, Appendix B.6, as identities at each level: no draws."""
    c_skip, c_out, c_in, c_noise = EDMDenoiser(None, sigma_data).coefficients(LEVELS)
    data, noise = sigma_data**2, LEVELS**2
    one = torch.ones_like(LEVELS)
    assert torch.allclose(c_in**2 * (data + noise), one, rtol=1e-12)
    assert torch.allclose(((1 - c_skip) ** 2 * data + c_skip**2 * noise) / c_out**2, one, rtol=1e-9)
    assert torch.allclose((noise + data) / (LEVELS * sigma_data) ** 2 * c_out**2, one, rtol=1e-12)
    assert torch.allclose(c_noise, LEVELS.log() / 4)
    for nudge in (0.99, 1.01):  # c_skip is where c_out, the amplification of the net's error, is least
        assert bool(((1 - nudge * c_skip) ** 2 * data + (nudge * c_skip) ** 2 * noise > c_out**2).all())


@pytest.mark.parametrize("schedule", [VPSchedule(), CosineSchedule(), DiscreteSchedule.from_name("linear")], ids=["vp", "cosine", "discrete"])
def test_at_sigma_data_one_under_vp_the_net_predicts_minus_v_from_x_itself(schedule):
    """c_skip = alpha^2, c_out = sigma, c_in = alpha: the net sees x_t, and D = alpha x_t + sigma F, which is x_0 = alpha x_t - sigma v."""
    torch.manual_seed(0)
    t = torch.linspace(0.05, 0.95, 32, dtype=torch.float64)
    x = torch.randn(32, 2, dtype=torch.float64)
    v = torch.randn(32, 2, dtype=torch.float64)
    seen = {}

    def net(y, c_noise):
        seen.update(y=y, c_noise=c_noise)
        return -v

    found = EDMDenoiser(net, 1.0, schedule)(x, t)
    assert torch.allclose(found, NetDenoiser(lambda x, t: v, schedule, "v")(x, t), rtol=1e-9, atol=1e-12)
    assert torch.allclose(seen["y"], x, rtol=1e-9) and torch.allclose(seen["c_noise"], -schedule.log_snr(t) / 4, rtol=1e-9)


def test_what_the_net_sees_depends_on_the_noise_level_alone(schedule):
    """One noisy picture, written down on two paths: the net's input, c_noise and x0_hat are the same."""
    t, t_edm = times_of(schedule, LEVELS[:5]), times_of(EDMSchedule(), LEVELS[:5])
    y = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * LEVELS[:5, None]
    seen = []

    def net(y, c_noise):
        seen.append((y, c_noise))
        return torch.sin(y) + c_noise[:, None]

    here = EDMDenoiser(net, 0.5, schedule)(expand(schedule.alpha(t), y) * y, t)
    there = EDMDenoiser(net, 0.5)(y, t_edm)
    for a, b in ((here, there), *zip(*seen, strict=True)):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_and_conditions_reach_the_net(dtype):
    net = MLP(2, width=8, depth=1, classes=3, time_range=C_NOISE_RANGE).to(dtype)
    denoiser, label = EDMDenoiser(net, 0.5, VPSchedule()), torch.tensor([0, 3])
    assert denoiser(torch.randn(2, 2, dtype=dtype), 0.5, label=label).dtype == dtype and denoiser.null_label == 3
    assert EDMDenoiser(lambda x, c: x).null_label is None
    with pytest.raises(TypeError):
        denoiser(torch.randn(2, 2, dtype=dtype), 0.5, lable=label)


def test_with_net_changes_the_net_alone():
    one = EDMDenoiser(lambda x, c: x, 0.7, VPSchedule())
    other = one.with_net(lambda x, c: 0 * x)
    assert (other.sigma_data, other.schedule) == (0.7, VPSchedule()) and other.net is not one.net
    x = torch.randn(4, 2)
    assert torch.equal(other(x, 0.5), EDMDenoiser(lambda x, c: 0 * x, 0.7, VPSchedule())(x, 0.5)) and not torch.equal(other(x, 0.5), one(x, 0.5))


# --- the loss --------------------------------------------------------------------------------------------------------


def test_the_loss_is_eq_8_and_the_squared_error_of_the_raw_net(schedule):
    """lambda ||D - x_0||^2 / D with Table 1's lambda, and again as ||F - (x_0 - c_skip x / alpha) / c_out||^2 / D; both by hand."""
    sigma_data, t = 0.6, times_of(schedule)
    x0, eps = (torch.randn(6, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in (0, 1))

    def net(y, c_noise):
        return torch.tanh(y) * (1 + c_noise[:, None, None, None])

    found = EDMLoss(EDMDenoiser(None, sigma_data, schedule)).per_sample(net, x0, t, eps)
    level = schedule.noise_level(t)
    s = level[:, None, None, None]
    y = x0 + s * eps
    c_skip, c_out = sigma_data**2 / (s**2 + sigma_data**2), s * sigma_data / (s**2 + sigma_data**2).sqrt()
    raw = net(y / (s**2 + sigma_data**2).sqrt(), level.log() / 4)
    weight = (level**2 + sigma_data**2) / (level * sigma_data) ** 2
    assert torch.allclose(found, weight * (c_skip * y + c_out * raw - x0).square().flatten(1).mean(1), rtol=1e-8)
    assert torch.allclose(found, (raw - (x0 - c_skip * y) / c_out).square().flatten(1).mean(1), rtol=1e-8)


def test_an_untrained_net_has_loss_one_at_every_level(schedule):
    """A zero net on N(0, sigma_data^2): the mean over n D values of a squared standard normal, standard error sqrt(2 / (n D))."""
    sigma_data, n, dim = 0.5, 4000, 5
    loss = EDMLoss(EDMDenoiser(None, sigma_data, schedule))
    x0 = gaussian([sigma_data**2] * dim).sample(n, torch.Generator().manual_seed(0))
    eps = torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for t in times_of(schedule):
        each = loss.per_sample(lambda y, c: torch.zeros_like(y), x0, t.expand(n), eps)
        assert abs(float(each.mean()) - 1) < 4.5 * math.sqrt(2 / (n * dim))  # 48 comparisons


def test_the_trained_optimum_is_the_exact_denoiser(schedule):
    """With the F that makes D exact, the loss is lambda times the posterior's variance: no F has less."""
    mixture, n, t = three_modes(), 20_000, float(times_of(schedule, torch.tensor([0.5], dtype=torch.float64)))
    loss, x0 = EDMLoss(EDMDenoiser(None, 0.9, schedule)), mixture.sample(n, torch.Generator().manual_seed(0))
    eps, times = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), torch.full((n,), t, dtype=torch.float64)
    x = diffuse(x0, eps, times, schedule)
    c_skip, c_out, *_ = loss.denoiser.coefficients(schedule.noise_level(times))
    perfect = (mixture.denoise(x, t, schedule) - c_skip[:, None] * x / schedule.alpha(times)[:, None]) / c_out[:, None]
    each = loss.per_sample(lambda *_: perfect, x0, times, eps)
    difference = each - mixture.posterior(x, t, schedule).variance.mean(1) / c_out**2
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / n**0.5
    assert float((loss.per_sample(lambda *_: perfect + 0.1, x0, times, eps) - each).mean()) == pytest.approx(0.01, abs=4 * 0.2 / n**0.5)


def test_at_sigma_data_one_under_vp_it_is_the_loss_of_v():
    schedule, t = VPSchedule(), torch.linspace(0.05, 0.95, 8, dtype=torch.float64)
    x0, eps, v = (torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in range(3))
    found = EDMLoss(EDMDenoiser(None, 1.0, schedule)).per_sample(lambda *_: -v, x0, t, eps)
    assert torch.allclose(found, (v - training_target(x0, eps, t, schedule, "v")).square().mean(1), rtol=1e-8)


def test_it_trains_as_other_losses_do():
    """Called with the raw net; its own times unless others are given; labels dropped to the net's null class; a gradient."""
    net, seen = MLP(2, width=8, depth=1, classes=3, time_range=C_NOISE_RANGE), []
    torch.nn.init.normal_(net.head.weight)
    net.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["label"]), with_kwargs=True)
    loss = EDMLoss(EDMDenoiser(None, 0.5), label_dropout=0.25)
    n = 4000
    value = loss(net, torch.randn(n, 2), generator=torch.Generator().manual_seed(0), label=torch.ones(n, dtype=torch.long))
    value.backward()
    dropped = float((seen[0] == 3).float().mean())
    assert abs(dropped - 0.25) < 4 * math.sqrt(0.25 * 0.75 / n) and bool(((seen[0] == 3) | (seen[0] == 1)).all())
    assert value.ndim == 0 and all(p.grad is not None for p in net.parameters())
    assert isinstance(loss.times, LogNormalLevels) and isinstance(EDMLoss(EDMDenoiser(None, 0.5), UniformTimes()).times, UniformTimes)


def test_the_loss_takes_a_denoiser():
    for given in (VPSchedule(), NetDenoiser(MLP(2), VPSchedule()), None):
        with pytest.raises(TypeError, match=r"expected an EDMDenoiser.*EDMDenoiser\(None, sigma_data\)"):
            EDMLoss(given)


def test_a_net_trained_by_it_comes_near_the_exact_denoiser_and_on_another_schedule_too():
    """Mean squared distance from E[x_0|x_t] where it trains: under a tenth of an untrained net's (1 % to 4 % in two runs)."""
    mixture = three_modes()
    data = mixture.sample(4000, torch.Generator().manual_seed(0)).float()
    torch.manual_seed(0)
    net = MLP(2, width=64, depth=2, time_range=C_NOISE_RANGE)
    shape = EDMDenoiser(net, round(float(data.std()), 4))
    done = train(net, EDMLoss(shape), Batches(data), steps=400, lr=4e-3, ema=0.99, cooldown=0.5, warmup=20, device="cpu", progress=False)
    vp, zero = VPSchedule(), shape.with_net(lambda x, c: 0 * x)
    for level in (0.1, 0.3, 1.0):
        t = float(times_of(vp, torch.tensor([level], dtype=torch.float64)))
        x = mixture.marginal(vp, t).sample(2000, torch.Generator().manual_seed(1))
        exact = ExactDenoiser(mixture, vp)(x, t)
        trained, untrained = (
            float((on_schedule(d, shape.schedule, vp)(x.float(), t).detach() - exact).square().mean()) for d in (shape.with_net(done.ema), zero)
        )
        assert trained < 0.1 * untrained, (level, trained, untrained)


# --- where it trains -------------------------------------------------------------------------------------------------


def test_log_levels_are_normal(schedule):
    n = 20_000
    t, weight = LogNormalLevels(schedule, -1.0, 0.8).sample(n, torch.Generator().manual_seed(0))
    assert t.shape == weight.shape == (n,) and t.dtype == torch.float32 and bool((weight == 1).all())
    z = (schedule.noise_level(t.double()).log() + 1.0) / 0.8
    assert abs(float(z.mean())) < 4.5 / n**0.5 and abs(float(z.std()) - 1) < 4.5 / (2 * n) ** 0.5
    for at, share in ((-1.0, 0.158655), (0.0, 0.5), (2.0, 0.977250)):
        assert abs(float((z < at).double().mean()) - share) < 4.5 * math.sqrt(share * (1 - share) / n)


def test_stratified_log_levels_fill_every_interval():
    """One level in each of n intervals of equal probability, in random order; the mean is then far less random."""
    n, schedule = 200, CosineSchedule()
    t = LogNormalLevels(schedule, 0.9, 0.85, stratified=True).sample(n, torch.Generator().manual_seed(0))[0]
    unit = torch.special.ndtr((schedule.noise_level(t.double()).log() - 0.9) / 0.85)
    assert torch.equal((unit * n).floor().sort().values, torch.arange(n, dtype=torch.float64))
    assert not torch.equal(t, t.sort().values)


def test_levels_above_the_schedule_become_its_highest(schedule):
    """Half of the draws, where the mean is the highest level itself."""
    n, top = 4000, -float(schedule.log_snr(torch.tensor(schedule.t_max, dtype=torch.float64)))
    t = LogNormalLevels(schedule, top, 0.5).sample(n, torch.Generator().manual_seed(0))[0]
    assert float(t.max()) <= schedule.t_max + 1e-7 and abs(float((t >= schedule.t_max - 1e-7).double().mean()) - 0.5) < 4.5 * 0.5 / n**0.5
    again = LogNormalLevels(schedule, top, 0.5).sample(n, torch.Generator().manual_seed(0))[0]
    assert torch.equal(t, again) and torch.isfinite(schedule.log_snr(t)).all()


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_card_with_sigma_data_is_an_edm_denoiser(tmp_path):
    torch.manual_seed(0)
    net = UNet(1, 8, (1, 2), classes=3, time_range=C_NOISE_RANGE, adaptive_norm=False)
    torch.nn.init.normal_(net.head.weight)
    save(tmp_path / "edm", net, {"schedule": VPSchedule().config, "sigma_data": 0.61, "shape": [1, 8, 8]})
    again, card = load(tmp_path / "edm")
    denoiser = denoiser_of(again, card)
    x, label = torch.randn(2, 1, 8, 8), torch.tensor([0, 3])
    assert isinstance(denoiser, EDMDenoiser) and again.config == net.config
    assert torch.equal(denoiser(x, 0.5, label=label), EDMDenoiser(net, 0.61, VPSchedule())(x, 0.5, label=label))
    assert isinstance(denoiser_of(again, card, clip=None), EDMDenoiser)
    with pytest.raises(ValueError, match=r"clip=1\.0.*sigma_data"):
        denoiser_of(again, card, clip=1.0)
    with pytest.raises(ValueError, match="names no schedule"):
        denoiser_of(again, {k: v for k, v in card.items() if k != "schedule"})
