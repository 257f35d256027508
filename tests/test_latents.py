"""The latent space: scale and shift against the data, refusals, and samplers, guidance and likelihood that walk on it unchanged."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from diffusion_lib.checkpoints import load, save
from diffusion_lib.denoisers import ExactDenoiser, NetDenoiser
from diffusion_lib.exact import GaussianMixture
from diffusion_lib.guidance import classifier_free_guided
from diffusion_lib.latents import LatentSpace
from diffusion_lib.likelihood import ode_log_likelihood
from diffusion_lib.nets import CaptionedUNet, KLAutoencoder, VQAutoencoder
from diffusion_lib.samplers import ddim, ddpm, dpmpp, final, heun
from diffusion_lib.schedules import VPSchedule, time_grid

SMALL = dict(width=8, multipliers=(1, 2, 2))


class Affine(nn.Module):
    """An autoencoder that is exact: each 2x2 block of one channel becomes 4 channels, times a, plus b."""

    latent, factor = 4, 2

    def __init__(self, a=3.0, b=(1.0, -2.0, 0.0, 5.0)):
        super().__init__()
        self.a, self.b = a, torch.tensor(b, dtype=torch.float64)[:, None, None]

    def latents(self, x):
        return self.a * nn.functional.pixel_unshuffle(x, 2) + self.b.to(x)

    def decode(self, z):
        return nn.functional.pixel_shuffle((z - self.b.to(z)) / self.a, 2)

    def latent_shape(self, height, width):
        return 4, height // 2, width // 2


def pictures(n=64, channels=3, size=16, seed=0):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("make", [lambda: KLAutoencoder(**SMALL), lambda: VQAutoencoder(**SMALL, codes=16), Affine])
def test_measured_latents_have_standard_deviation_one(make, shift):
    torch.manual_seed(0)
    net = make().double()
    x = pictures(channels=1 if isinstance(net, Affine) else 3)
    space = LatentSpace.measured(net, x, shift=shift, batch=10)
    with torch.no_grad():
        z = space.encode(x)
    assert float(z.std(unbiased=False)) == pytest.approx(1.0, abs=1e-9)
    if shift:
        assert float(z.mean((0, 2, 3)).abs().max()) < 1e-9
    else:
        assert space.shift == [0.0] * 4 and isinstance(space.scale, float)
    again = LatentSpace.measured(net, x.split(7), shift=shift)                          # batches of pictures, in any cut
    assert again.scale == pytest.approx(space.scale, rel=1e-12)


def test_decode_undoes_encode_and_the_scale_is_the_one_of_the_formula():
    net, x = Affine(), pictures(8, 1)
    space = LatentSpace.measured(net, x)
    torch.testing.assert_close(space.decode(space.encode(x)), x, rtol=0, atol=1e-12)
    assert space.scale == pytest.approx(1 / float((net.latents(x) - net.latents(x).mean((0, 2, 3), keepdim=True)).std(unbiased=False)), rel=1e-9)
    torch.testing.assert_close(LatentSpace(net, 1.0).encode(x), net.latents(x))         # scale 1: as they come
    assert space.shape(16) == (4, 8, 8) and space.shape(16, 20) == (4, 8, 10)


def test_the_card_brings_the_space_back_and_a_missing_scale_is_refused(tmp_path):
    torch.manual_seed(0)
    net, x = KLAutoencoder(**SMALL), pictures().float()
    space = LatentSpace.measured(net, x)
    unet = CaptionedUNet(["red"], width=8, text_width=8)
    save(tmp_path / "latent", unet, {"latents": {**space.entry, "autoencoder": "x"}})
    again, card = load(tmp_path / "latent")
    back = LatentSpace.from_card(net, json.loads(json.dumps(card)))
    assert torch.equal(back.encode(x), space.encode(x)) and again.tokenizer.words == ["red"]
    for broken in ({**card, "latents": {"shift": 0.0}}, {k: v for k, v in card.items() if k != "latents"}):
        with pytest.raises(ValueError, match="CaptionedUNet names no latent scale.*measure it") as error:
            LatentSpace.from_card(net, broken)
        assert "\n" not in str(error.value)
    for scale in (0.0, float("nan"), "big"):
        with pytest.raises(ValueError, match="scale"):
            LatentSpace.from_card(net, {**card, "latents": {"scale": scale}})


def test_a_latent_of_the_wrong_shape_is_refused():
    space = LatentSpace(KLAutoencoder(**SMALL), 1.0)
    with pytest.raises(ValueError, match=r"z has shape \(2, 3, 16, 16\); expected latents \(B, 4, h, w\)"):
        space.decode(torch.zeros(2, 3, 16, 16))
    with pytest.raises(ValueError, match="4 dimensions"):
        space.decode(torch.zeros(4, 8, 8))
    with pytest.raises(ValueError, match="one for each of the 4 channels"):
        LatentSpace(KLAutoencoder(**SMALL), 1.0, [0.0, 1.0])


@pytest.mark.parametrize("sampler", [ddim, ddpm, heun, dpmpp], ids=lambda s: s.__name__)
def test_samplers_walk_on_latents_as_on_any_data(sampler):
    """Pictures whose latents are a known mixture: the walk in latents of shape (4, h, w), decoded, is the walk on flat vectors, to rounding."""
    schedule, space = VPSchedule(), LatentSpace(Affine(), 1 / 3, [1.0, -2.0, 0.0, 5.0])
    means = torch.randn(3, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = ExactDenoiser(GaussianMixture(torch.ones(3).double() / 3, means, torch.full((3, 16), 0.1).double()), schedule)
    noise = schedule.noise((50, *space.shape(4)), torch.Generator().manual_seed(0), dtype=torch.float64)
    times = time_grid(schedule, 20)
    z = final(sampler(lambda z, t: exact(z.flatten(1), t).view_as(z), schedule, noise, times, generator=torch.Generator().manual_seed(2)))
    flat = final(sampler(exact, schedule, noise.flatten(1), times, generator=torch.Generator().manual_seed(2)))
    torch.testing.assert_close(z.flatten(1), flat, rtol=0, atol=1e-9)
    x = space.decode(z)
    assert x.shape == (50, 1, 4, 4)
    torch.testing.assert_close(nn.functional.pixel_unshuffle(x, 2), z, rtol=0, atol=1e-9)       # this space's latents are the pictures' blocks


def test_guidance_and_likelihood_take_latents_and_decode_has_a_gradient():
    torch.manual_seed(0)
    schedule, space = VPSchedule(), LatentSpace(KLAutoencoder(**SMALL), 2.0)
    net = CaptionedUNet(["a", "red", "circle"], length=6, width=8, text_width=8).eval()
    denoiser = NetDenoiser(net, schedule, "v")
    guided = classifier_free_guided(denoiser, {"tokens": net.tokenizer("a red circle")}, 2.0)
    z = final(ddim(guided, schedule, schedule.noise((2, *space.shape(16))), time_grid(schedule, 3)))
    assert space.decode(z).shape == (2, 3, 16, 16)
    assert ode_log_likelihood(denoiser, schedule, z, steps=3, divergence="hutchinson").shape == (2,)
    leaf = z.clone().requires_grad_()
    assert torch.autograd.grad(space.decode(leaf).sum(), leaf)[0].abs().sum() > 0
