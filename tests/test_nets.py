"""Networks: shapes, labels, bad input, initialisation, gradients, symmetries, and rebuilding from a JSON config."""

import json

import pytest
import torch
from torch import nn

from diffusion_lib.nets import MLP, VAE, LinearVAE, RandomFourier, UNet, build, parameter_count, sinusoidal
from diffusion_lib.nets.attention import SelfAttention
from diffusion_lib.nets.blocks import ResidualBlock
from diffusion_lib.nets.embeddings import LabelEmbedding
from diffusion_lib.nets.unet import places

SMALL = dict(width=8, multipliers=(1, 2), blocks=1)
NETS = [
    lambda: MLP(2, width=16, depth=2),
    lambda: MLP(3, width=16, depth=1, classes=4, out_dim=6),
    lambda: UNet(**SMALL),
    lambda: UNet(3, 8, (1, 2, 2), blocks=(1, 2, 1), attention=(1, -1), classes=10, learned_variance=True, dropout=0.1),
    lambda: VAE((1, 8, 8), latent=2, width=4),
    lambda: VAE(5, latent=2, width=8, learn_scale=False),
    lambda: LinearVAE(5, latent=2),
]


def perturb(net: nn.Module, seed: int = 0) -> nn.Module:
    """Move every parameter off its initial value, so that zero-initialised branches take part."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return net


def pictures(batch: int, channels: int = 1, height: int = 8, width: int = 8, seed: int = 0, **options) -> torch.Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed), **options)


# --- embeddings


def test_sinusoidal_matches_its_formula():
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    got = sinusoidal(t, 6)
    frequencies = [1.0, 10_000 ** -0.5, 1e-4]
    expected = torch.stack([wave(1000 * t * f) for wave in (torch.sin, torch.cos) for f in frequencies], dim=1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-11)


def test_sinusoidal_tells_neighbouring_steps_apart():
    t = torch.arange(1001) / 1000
    distance = torch.cdist(sinusoidal(t, 32), sinusoidal(t, 32)) + 1e3 * torch.eye(1001)
    assert distance.min() > 0.5


def test_sinusoidal_of_half_precision_time_is_computed_in_single():
    assert sinusoidal(torch.tensor([0.5], dtype=torch.bfloat16), 8).dtype == torch.float32


def test_random_fourier_lies_on_circles_and_is_kept_by_a_checkpoint():
    torch.manual_seed(0)
    embedding = RandomFourier(8, scale=3.0)
    out = embedding(torch.rand(5))
    torch.testing.assert_close(out[:, :4] ** 2 + out[:, 4:] ** 2, torch.ones(5, 4))
    assert "frequencies" in embedding.state_dict() and parameter_count(embedding) == 0


@pytest.mark.parametrize("dim", [3, 0])
def test_odd_embeddings_are_refused(dim):
    with pytest.raises(ValueError, match="even"):
        sinusoidal(torch.rand(2), dim)
    with pytest.raises(ValueError, match="even"):
        RandomFourier(dim)


# --- every network


@pytest.mark.parametrize("make", NETS)
def test_config_round_trip_rebuilds_the_same_network(make):
    torch.manual_seed(3)
    net = make()
    torch.manual_seed(3)
    again = build(type(net).__name__, json.loads(json.dumps(net.config)))
    assert again.config == net.config
    assert type(again) is type(net)
    for (name, a), (other, b) in zip(net.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other and torch.equal(a, b)


@pytest.mark.parametrize("make", NETS)
def test_gradient_reaches_every_parameter(make):
    net = perturb(make()).train()
    if isinstance(net, (VAE, LinearVAE)):
        x = torch.randn(4, *net.data_shape)
        out, mean, log_var = net(x, torch.Generator().manual_seed(0))
        loss = ((out - x) ** 2 / net.decoder_log_var.exp()).mean() + mean.square().mean() + log_var.square().mean()
    else:
        x = torch.randn(4, net.dim) if isinstance(net, MLP) else pictures(4, net.channels)
        label = None if net.null_label is None else torch.tensor([0, 1, 2, net.null_label])
        loss = net(x, torch.linspace(0.1, 0.9, 4), label).square().mean()
    loss.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("make", NETS[:4])
def test_the_untrained_network_predicts_zero(make):
    net = make().eval()
    x = torch.randn(3, net.dim) if isinstance(net, MLP) else pictures(3, net.channels)
    assert net(x, torch.rand(3)).abs().max() == 0


def test_build_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="did you mean 'UNet'"):
        build("Unet", {})
    with pytest.raises(ValueError, match="wdth"):
        build("UNet", {"wdth": 3})


# --- U-Net


@pytest.mark.parametrize("height, width", [(8, 8), (4, 12), (28, 28), (2, 2)])
def test_unet_keeps_any_shape_it_accepts(height, width):
    assert perturb(UNet(**SMALL))(pictures(2, 1, height, width), torch.rand(2)).shape == (2, 1, height, width)


def test_unet_with_learned_variance_doubles_the_channels():
    net = UNet(channels=3, learned_variance=True, **SMALL)
    assert net(pictures(2, 3), torch.rand(2)).shape == (2, 6, 8, 8)


def test_unet_refuses_sizes_it_cannot_halve():
    with pytest.raises(ValueError, match="7x8 pixels; expected multiples of 2"):
        UNet(**SMALL)(pictures(1, 1, 7, 8), torch.rand(1))
    with pytest.raises(ValueError, match="multiples of 4"):
        UNet(width=8, multipliers=(1, 1, 1))(pictures(1, 1, 8, 6), torch.rand(1))


@pytest.mark.parametrize("x, t, message", [
    (pictures(2, 3), torch.rand(2), "channels=1"),
    (pictures(2)[0], torch.rand(2), "4 dimensions"),
    (pictures(2), torch.rand(3), "one time per sample"),
    (pictures(2), torch.tensor([0.5, 500.0]), r"\[0, 1\]"),
])
def test_unet_refuses_wrong_input(x, t, message):
    with pytest.raises(ValueError, match=message):
        UNet(**SMALL)(x, t)


@pytest.mark.parametrize("wrong", [
    dict(attention=(2,)), dict(attention=(True,)), dict(dropout=1.0), dict(blocks=(1, 1, 1)), dict(blocks=0),
    dict(multipliers=()), dict(channels=0), dict(classes=0), dict(width=3),
])
def test_unet_refuses_wrong_construction(wrong):
    with pytest.raises(ValueError, match="expected"):
        UNet(**(SMALL | wrong))


def test_unet_treats_the_batch_as_a_set():
    net = perturb(UNet(**SMALL, classes=3)).double().eval()
    x, t, label = pictures(5, dtype=torch.float64), torch.rand(5, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(net(x, t, label)[order], net(x[order], t[order], label[order]), rtol=0, atol=1e-12)
    torch.testing.assert_close(net(x, t, label)[:1], net(x[:1], t[:1], label[:1]), rtol=0, atol=1e-12)


def test_unet_time_may_be_one_number_for_all():
    net = perturb(UNet(**SMALL)).eval()
    torch.testing.assert_close(net(pictures(3), 0.3), net(pictures(3), torch.full((3,), 0.3)))


def test_unet_depends_on_time_and_on_every_pixel():
    net = perturb(UNet(**SMALL)).eval()
    x = pictures(1).requires_grad_()
    assert (net(x, 0.2) - net(x, 0.202)).abs().max() > 1e-6
    (grad,) = torch.autograd.grad(net(x, 0.2)[0, 0, 0, 0], x)
    assert (grad != 0).all()  # attention and group norm see the whole picture


def test_unet_is_deterministic_and_dropout_rests_in_eval():
    net = perturb(UNet(**SMALL, dropout=0.5))
    assert not torch.equal(net(pictures(2), 0.5), net(pictures(2), 0.5))
    net.eval()
    assert torch.equal(net(pictures(2), 0.5), net(pictures(2), 0.5))


def test_unet_runs_in_double_and_under_bf16_autocast_close_to_single():
    net = perturb(UNet(**SMALL)).eval()
    x, t = pictures(2), torch.tensor([0.2, 0.7])
    single = net(x, t)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, t)
    double = net.double()(x.double(), t.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)
    assert (half.double() - double).abs().max() < 0.1 * double.abs().max()  # bf16 keeps 8 bits


def test_unet_output_is_contiguous_whatever_the_input_layout():
    net = perturb(UNet(channels=3, **SMALL)).eval()
    x = pictures(2, 3)
    out = net(x.contiguous(memory_format=torch.channels_last), 0.5)
    assert out.is_contiguous()
    torch.testing.assert_close(out, net(x, 0.5))


def test_residual_block_moves_with_the_picture():
    torch.manual_seed(0)
    block = perturb(ResidualBlock(4, 4, 8)).double()
    x = torch.zeros(1, 4, 16, 16, dtype=torch.float64)
    x[:, :, 6:9, 6:9] = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    condition = torch.randn(1, 8, dtype=torch.float64)
    moved = block(x.roll((2, -1), (2, 3)), condition)
    inside = (slice(None), slice(None), slice(4, 13), slice(3, 12))  # what the border's padding cannot reach
    torch.testing.assert_close(moved[inside], block(x, condition).roll((2, -1), (2, 3))[inside], rtol=0, atol=1e-12)


def test_attention_does_not_know_where_a_pixel_is():
    torch.manual_seed(0)
    attention = perturb(SelfAttention(64)).double()
    assert attention.heads == 2
    x = torch.randn(2, 64, 3, 4, dtype=torch.float64)
    order = torch.randperm(12)
    shuffled = x.flatten(2)[:, :, order].view_as(x)
    expected = attention(x).flatten(2)[:, :, order].view_as(x)
    torch.testing.assert_close(attention(shuffled), expected, rtol=0, atol=1e-12)


def test_coordinates_tell_places_apart_and_their_mirror_images():
    """Far from the border a convolution sees the same wherever it looks; with coordinates the same patch gives another answer in another place."""
    x = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    x[..., 15:18, 11:14] = 1
    for coordinates in (False, True):
        torch.manual_seed(0)
        net = perturb(UNet(**{**SMALL, "multipliers": (1,), "attention": ()}, coordinates=coordinates)).double()
        there = net(x.roll(8, 3), 0.5).roll(-8, 3)
        same = torch.allclose(there[..., 14:19, 10:15], net(x, 0.5)[..., 14:19, 10:15], rtol=0, atol=1e-9)
        assert same != coordinates
        assert net.config["coordinates"] is coordinates
    where = places(x)[0]
    assert where.shape == (14, 32, 32) and float(where.abs().max()) <= 1
    across, down = where[:2]
    assert torch.equal(across, -across.flip(1)) and torch.equal(down, -down.flip(0)) and torch.equal(across, down.T)
    assert float(across[0, 0]) == -1 + 1 / 32 and float(down[-1, 0]) == 1 - 1 / 32
    assert torch.allclose(where[2::4] ** 2 + where[4::4] ** 2, torch.ones(3, 32, 32, dtype=torch.float64))
    assert torch.allclose(where[7], torch.sin(torch.pi * down))


# --- labels


@pytest.mark.parametrize("make", [lambda: UNet(**SMALL, classes=3), lambda: MLP(2, width=16, depth=1, classes=3)])
def test_no_label_means_the_null_class(make):
    net = perturb(make()).eval()
    x = pictures(2) if isinstance(net, UNet) else torch.randn(2, 2)
    assert net.null_label == 3
    torch.testing.assert_close(net(x, 0.5), net(x, 0.5, torch.tensor([3, 3])), rtol=0, atol=0)
    assert (net(x, 0.5) - net(x, 0.5, torch.tensor([0, 1]))).abs().amax(dim=tuple(range(1, x.ndim))).min() > 1e-6
    assert torch.equal(net(x, 0.5, torch.tensor([0, 1], dtype=torch.int32)), net(x, 0.5, torch.tensor([0, 1])))


@pytest.mark.parametrize("label, error, message", [
    (torch.tensor([0, 4]), ValueError, r"spans \[0, 4\]"),
    (torch.tensor([-1, 0]), ValueError, "null class"),
    (torch.tensor([0, 1, 2]), ValueError, "one class per sample"),
    (torch.tensor([0.0, 1.0]), TypeError, "call .long()"),
    ([0, 1], TypeError, "torch.tensor"),
])
def test_wrong_labels_are_refused(label, error, message):
    with pytest.raises(error, match=message):
        UNet(**SMALL, classes=3)(pictures(2), 0.5, label)


def test_a_label_without_classes_is_refused():
    with pytest.raises(ValueError, match="no classes"):
        UNet(**SMALL)(pictures(2), 0.5, torch.tensor([0, 1]))


def test_label_embedding_has_one_row_more_than_classes():
    embedding = LabelEmbedding(3, 8)
    assert embedding.table.weight.shape == (4, 8)
    assert torch.equal(embedding(None, 2), embedding(torch.tensor([3, 3]), 2))


# --- autoencoders


@pytest.mark.parametrize("net", [VAE((1, 8, 8), width=4), VAE(6, width=8), LinearVAE(6)])
def test_autoencoder_shapes(net):
    shape = net.data_shape
    x = torch.randn(3, *shape)
    mean, log_var = net.encode(x)
    assert mean.shape == log_var.shape == (3, 2)
    assert net.decode(mean).shape == x.shape
    assert net.decode(torch.randn(7, 3, 2)).shape == (7, *x.shape)
    assert net.decoder_log_var.shape == ()
    first, second = net(x, torch.Generator().manual_seed(1)), net(x, torch.Generator().manual_seed(1))
    assert torch.equal(first[0], second[0])
    with pytest.raises(ValueError, match="expected"):
        net.encode(torch.randn(3, 9))
    with pytest.raises(ValueError, match="2 latent"):
        net.decode(torch.randn(3, 5))


def test_draws_have_the_encoder_mean_and_variance():
    vae, n = LinearVAE(3), 40_000
    mean, log_var = torch.tensor([[1.0, -2.0]]).expand(n, 2), torch.tensor([[0.0, -2.0]]).expand(n, 2)
    z = vae.sample_latent(mean, log_var, torch.Generator().manual_seed(0))
    std = (0.5 * log_var[0]).exp()
    assert ((z.mean(0) - mean[0]).abs() < 4 * std / n**0.5).all()                      # 4 standard errors
    assert ((z.var(0) - std**2).abs() < 4 * std**2 * (2 / n) ** 0.5).all()             # 4 standard errors


def test_the_decoder_scale_is_learned_or_fixed():
    assert "decoder_log_var" in dict(VAE(4).named_parameters())
    fixed = VAE(4, decoder_std=0.5, learn_scale=False)
    assert "decoder_log_var" in fixed.state_dict() and "decoder_log_var" not in dict(fixed.named_parameters())
    assert float(fixed.decoder_log_var.exp()) == pytest.approx(0.25)


@pytest.mark.parametrize("make", [
    lambda: VAE((1, 6, 8)), lambda: VAE((8, 8)), lambda: VAE(4, decoder_std=0.0), lambda: VAE(0),
    lambda: LinearVAE(2, latent=3),
])
def test_autoencoders_refuse_wrong_construction(make):
    with pytest.raises(ValueError, match="expected"):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: UNet(**SMALL, classes=3), lambda: MLP(2, width=16, depth=1, classes=3)])
def test_the_graph_compiles_whole(make):
    net = perturb(make()).eval()
    x = pictures(2) if isinstance(net, UNet) else torch.randn(2, 2)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    t, label = torch.tensor([0.1, 0.9]), torch.tensor([0, 3])
    torch.testing.assert_close(compiled(x, t, label), net(x, t, label))


def test_the_weights_are_plain_tensors_that_safetensors_can_keep():
    assert all(value.is_contiguous() for value in UNet(**SMALL).state_dict().values())
