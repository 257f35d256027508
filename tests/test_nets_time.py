"""Networks that are told another number than t, the U-Net's two ways to hear it, and the classifier of noisy pictures."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from diffusion_lib.checkpoints import WEIGHTS, load, save
from diffusion_lib.denoisers import EDMDenoiser, NetDenoiser
from diffusion_lib.guidance import classifier_guided
from diffusion_lib.losses import LogNormalLevels
from diffusion_lib.nets import C_NOISE_RANGE, MLP, NoisyClassifier, UNet, build, parameter_count
from diffusion_lib.nets.unet import ResidualBlock
from diffusion_lib.samplers import ddim, final
from diffusion_lib.schedules import VPSchedule, time_grid

RANGED = [lambda **options: UNet(1, 8, (1, 2), classes=3, **options), lambda **options: MLP(2, width=8, depth=1, classes=3, **options)]
ranged = pytest.mark.parametrize("make", RANGED, ids=["UNet", "MLP"])


def perturbed(net, seed=0):
    """Every parameter off its initial value, so that zero-initialised branches take part."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return net


def batch(net, n=4):
    return torch.randn(n, *((2,) if isinstance(net, MLP) else (1, 8, 8)), generator=torch.Generator().manual_seed(1))


@ranged
def test_time_range_is_moved_to_zero_and_one(make):
    """The same weights, asked at low + u (high - low) and at u."""
    plain, ranged = perturbed(make()), make(time_range=(-2.0, 6.0))
    ranged.load_state_dict(plain.state_dict())
    x, u = batch(plain), torch.tensor([0.0, 0.25, 0.6, 1.0])
    assert torch.allclose(ranged(x, -2 + 8 * u), plain(x, u), atol=1e-5)
    assert torch.allclose(ranged(x, 2.0), plain(x, 0.5), atol=1e-5)
    assert not torch.allclose(plain(x, 0.1), plain(x, 0.9), atol=1e-3)


@ranged
@pytest.mark.parametrize("t", [-2.51, 2.51, float("nan"), float("-inf")])
def test_a_number_outside_is_refused(make, t):
    net = make(time_range=C_NOISE_RANGE)
    with pytest.raises(ValueError, match=r"time_range=\(-2\.5, 2\.5\).*EDMDenoiser"):
        net(batch(net), torch.full((4,), t))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        make()(batch(net), torch.full((4,), 1.01))  # without a range it is t in [0, 1]


@ranged
def test_c_noise_of_every_level_that_training_and_sampling_ask_for_is_in_range(make, schedule):
    net = make(time_range=C_NOISE_RANGE)
    denoiser = EDMDenoiser(net, 0.5, schedule)
    x, t = batch(net, 500), LogNormalLevels(schedule).sample(500, torch.Generator().manual_seed(0))[0]
    assert torch.isfinite(denoiser(x, t)).all()
    for kind in ("uniform", "karras", "log_snr", "quadratic", "asinh"):
        for t in time_grid(schedule, 12, kind)[:-1]:
            assert torch.isfinite(denoiser(x[:1], float(t))).all()


@pytest.mark.parametrize("wrong", [(1.0, 0.0), (0.5, 0.5), (float("nan"), 1.0)])
def test_a_range_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="time_range"):
        MLP(2, width=8, time_range=wrong)


@ranged
@pytest.mark.parametrize("options", [{}, {"time_range": C_NOISE_RANGE}], ids=["t", "c_noise"])
def test_checkpoints_keep_the_range(make, options, tmp_path):
    net = perturbed(make(**options))
    save(tmp_path / "net", net, {})
    again, card = load(tmp_path / "net")
    assert card["config"]["time_range"] == list(options.get("time_range", (0.0, 1.0)))
    assert torch.equal(again(batch(net), 0.5), net(batch(net), 0.5)) and again.config == net.config


@ranged
def test_cards_written_before_there_was_a_range_still_load(make, tmp_path):
    net = perturbed(make())
    save(tmp_path / "old", net, {})
    path = tmp_path / "old.json"
    card = json.loads(path.read_text())
    for key in ("time_range", "adaptive_norm"):
        card["config"].pop(key, None)
    path.write_text(json.dumps(card))
    again, _ = load(tmp_path / "old")
    assert torch.equal(again(batch(net), 0.3), net(batch(net), 0.3))


def test_the_shipped_weights_are_such_cards():
    config = json.loads((WEIGHTS / "digits-ddpm.json").read_text())["config"]
    assert build("UNet", config).config["adaptive_norm"] is True and tuple(build("UNet", config).config["time_range"]) == (0.0, 1.0)


# --- the additive embedding ------------------------------------------------------------------------------------------


def test_without_adaptive_norm_the_vector_is_added_before_the_norm():
    block = perturbed(ResidualBlock(4, 8, 6, adaptive_norm=False))
    h, vector = torch.randn(2, 4, 5, 5), torch.randn(2, 6)
    inner = block.conv_in(F.silu(block.norm_in(h))) + block.modulation(vector)[:, :, None, None]
    expected = block.shortcut(h) + block.conv_out(F.silu(block.norm_out(inner)))
    assert torch.allclose(block(h, vector), expected, atol=1e-6) and block.modulation.out_features == 8


def test_the_additive_unet_hears_time_and_class_and_trains():
    net, adaptive = (perturbed(UNet(1, 8, (1, 2), classes=3, adaptive_norm=flag)) for flag in (False, True))
    assert parameter_count(net) < parameter_count(adaptive) and net.config["adaptive_norm"] is False
    x = batch(net)
    assert not torch.allclose(net(x, 0.2), net(x, 0.8), atol=1e-3)
    assert not torch.allclose(net(x, 0.2, torch.tensor([0, 1, 2, 3])), net(x, 0.2, torch.tensor([1, 2, 0, 3])), atol=1e-3)
    net(x, 0.2, torch.tensor([0, 1, 2, 3])).square().mean().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in net.parameters())
    torch.manual_seed(3)
    one = UNet(1, 8, (1, 2), adaptive_norm=False)
    torch.manual_seed(3)
    again = build("UNet", json.loads(json.dumps(one.config)))
    assert again.config == one.config and all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))


# --- the classifier of noisy pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize("channels, size, classes", [(1, 8, 10), (3, 16, 4), (1, 28, 2), (2, 4, 3)])
def test_classifier_shapes_gradients_and_config(channels, size, classes, tmp_path):
    net = perturbed(NoisyClassifier(channels, size, classes, width=8))
    x = torch.randn(3, channels, size, size, requires_grad=True)
    out = net(x, torch.tensor([0.1, 0.5, 0.9]))
    assert out.shape == (3, classes)
    out.log_softmax(1)[:, 0].sum().backward()
    assert float(x.grad.abs().sum()) > 0 and all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in net.parameters())
    assert torch.allclose(net(x[1:2], 0.5), out[1:2], atol=1e-5) and not torch.allclose(net(x[:1], 0.9), out[:1], atol=1e-3)
    save(tmp_path / "c", net, {})
    again, card = load(tmp_path / "c")
    assert card["architecture"] == "NoisyClassifier" and torch.equal(again(x, 0.3), net.eval()(x, 0.3))


def test_a_classifier_steers_a_sampler():
    """Inside the sampler's no_grad, on pictures: the class asked for becomes more probable than without, in every sample."""
    torch.manual_seed(0)
    schedule, net = VPSchedule(), perturbed(NoisyClassifier(1, 8, 3, width=8)).eval()
    denoiser = NetDenoiser(lambda x, t: 0 * x, schedule, "v")

    def log_prob(x, t):
        return net(x, t).log_softmax(1)[:, 1]

    x, times = schedule.noise((8, 1, 8, 8), torch.Generator().manual_seed(0), dtype=torch.float32), time_grid(schedule, 20)
    plain = final(ddim(denoiser, schedule, x, times))
    guided = final(ddim(classifier_guided(denoiser, schedule, log_prob, 1.0), schedule, x, times))
    with torch.no_grad():
        gain = log_prob(guided, torch.full((8,), 0.01)) - log_prob(plain, torch.full((8,), 0.01))
    assert bool((gain > 0).all())


@pytest.mark.parametrize("call, words", [
    (lambda: NoisyClassifier(size=6), "multiple of 4"),
    (lambda: NoisyClassifier(classes=0), "classes=0"),
    (lambda: NoisyClassifier()(torch.zeros(2, 1, 16, 16), 0.5), r"\(2, 1, 16, 16\); expected \(B, 1, 8, 8\)"),
    (lambda: NoisyClassifier()(torch.zeros(2, 3, 8, 8), 0.5), r"expected \(B, 1, 8, 8\)"),
    (lambda: NoisyClassifier()(torch.zeros(2, 1, 8, 8), 1.5), r"\[0, 1\]"),
])  # fmt: skip
def test_the_classifier_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call()
