"""Picture autoencoders and the codebook: shapes, refusals, the losses by hand, the codebook's moving averages by hand, training that works."""

from __future__ import annotations

import json
import math

import pytest
import torch

from diffusion_lib.losses import KLLoss, VQLoss
from diffusion_lib.nets import Codebook, KLAutoencoder, VQAutoencoder, build, codebook_use, psnr
from diffusion_lib.training import Batches, train

SMALL = dict(width=8, multipliers=(1, 2, 2))
BOTH = [lambda: KLAutoencoder(**SMALL), lambda: VQAutoencoder(**SMALL, codes=16)]


def pictures(n=4, channels=3, size=16, seed=0):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- both autoencoders


@pytest.mark.parametrize("make", BOTH)
def test_a_latent_is_a_smaller_picture_and_decodes_to_the_size_it_came_from(make):
    net = make().eval()
    z = net.latents(pictures())
    assert z.shape == (4, 4, 4, 4) and net.factor == 4 and net.latent_shape(16, 24) == (4, 4, 6)
    assert net.decode(z).shape == (4, 3, 16, 16)
    assert net.latents(pictures(2, size=8)).shape == (2, 4, 2, 2)


@pytest.mark.parametrize("make", BOTH)
def test_config_round_trip(make):
    net = make()
    again = build(type(net).__name__, json.loads(json.dumps(net.config)))
    assert again.config == net.config
    again.load_state_dict(net.state_dict())
    net.eval(), again.eval()
    assert torch.equal(net.decode(net.latents(pictures())), again.decode(again.latents(pictures())))


def test_the_default_makes_4x8x8_of_3x32x32_with_about_half_a_million_parameters():
    net = KLAutoencoder()
    assert net.latents(pictures(1, size=32)).shape == (1, 4, 8, 8)
    assert 4e5 < sum(p.numel() for p in net.parameters()) < 5e5


@pytest.mark.parametrize("make", BOTH)
def test_wrong_pictures_and_latents_are_refused(make):
    net = make()
    for wrong in (pictures(1, channels=1), pictures(1, size=10)):
        with pytest.raises(ValueError, match=r"expected pictures \(B, 3, H, W\) with H and W multiples of 4"):
            net.latents(wrong)
    with pytest.raises(ValueError, match=r"expected latents \(B, 4, H, W\)"):
        net.decode(pictures(1))


# --- KL


def test_a_draw_has_the_encoders_mean_and_spread():
    net = KLAutoencoder(**SMALL)
    seen = []
    net.decode = lambda z: seen.append(z) or z
    x = pictures(1).expand(4000, -1, -1, -1)
    with torch.no_grad():
        _, mean, log_var = net(x, seeded())
    z, std = seen[0], (0.5 * log_var[0]).exp()
    assert float(((z.mean(0) - mean[0]) / std * 4000**0.5).abs().max()) < 5              # 64 numbers, 5 standard errors
    assert float(((z - mean).std(0) / std - 1).abs().max()) < 5 / 8000**0.5


def test_kl_loss_is_mean_squared_error_plus_the_rate_by_hand():
    """With z at the mean of a decoder that ignores it, both terms are closed forms."""
    net = KLAutoencoder(**SMALL)
    x = pictures()
    mean, log_var = torch.full((4, 4, 4, 4), 2.0), torch.full((4, 4, 4, 4), -1.0)
    net.encode, net.decode = lambda x: (mean, log_var), lambda z: torch.zeros_like(x)
    rate = 64 * 0.5 * (4 + math.exp(-1) - 1 + 1)                                        # nats a picture: 64 latent numbers
    assert float(KLLoss(beta=0.5)(net, x)) == pytest.approx(float(x.square().mean()) + 0.5 * rate / 768, rel=1e-5)
    assert float(KLLoss(beta=0.0)(net, x)) == pytest.approx(float(x.square().mean()), rel=1e-6)


def test_kl_loss_draws_its_share_on_several_processes():
    net, x = KLAutoencoder(**SMALL), pictures(4)
    whole = KLLoss()(net, x, generator=seeded())
    halves = [KLLoss()(net, x[2 * r:2 * r + 2], generator=seeded(), shard=(r, 2)) for r in range(2)]
    torch.testing.assert_close(torch.stack(halves).mean(), whole, rtol=1e-5, atol=0)


def test_psnr_by_hand():
    x = torch.zeros(2, 1, 4, 4)
    y = torch.stack([torch.full((1, 4, 4), 0.2), torch.full((1, 4, 4), 7.0)])           # the second is clamped to 1
    torch.testing.assert_close(psnr(x, y), torch.tensor([20.0, 20 * math.log10(2)]))


# --- codebook


def fixed_codebook(decay=0.5):
    book = Codebook(2, 1, decay=decay, revive_below=0.0)
    book.table.copy_(torch.tensor([[0.0], [10.0]]))
    book.counts.fill_(1.0)
    book.sums.copy_(book.table)
    return book


Z = torch.tensor([1.0, 2.0, 3.0, 6.0]).view(1, 1, 2, 2)


def test_each_vector_takes_its_nearest_code():
    book = fixed_codebook().eval()
    values, index, commitment = book(Z)
    assert index.tolist() == [[[0, 0], [0, 1]]] and values.flatten().tolist() == [0.0, 0.0, 0.0, 10.0]
    assert float(commitment) == (1 + 4 + 9 + 16) / 4
    assert book.table.flatten().tolist() == [0.0, 10.0]                                 # in eval mode nothing moves
    torch.manual_seed(0)
    book, z = Codebook(7, 3).eval(), torch.randn(2, 3, 4, 4)
    nearest = torch.cdist(z.movedim(1, -1).reshape(-1, 3), book.table).argmin(1)
    assert torch.equal(book(z).index.flatten(), nearest)


def test_the_codes_follow_moving_averages_of_their_vectors():
    """decay 1/2: N = (1 + n) / 2, m = (code + sum) / 2, code = m / N. Three vectors chose code 0, one chose code 1."""
    book = fixed_codebook().train()
    book(Z)
    assert book.counts.tolist() == [2.0, 1.0]                                           # (1 + 3) / 2, (1 + 1) / 2
    assert book.table.flatten().tolist() == [(0 + 6) / 2 / 2.0, (10 + 6) / 2 / 1.0]
    book(Z)                                                                             # 6 is now nearest to 8: the same choice
    assert book.counts.tolist() == [2.5, 1.0]
    assert book.table.flatten().tolist() == pytest.approx([(3 + 6) / 2 / 2.5, (8 + 6) / 2])


def test_the_decay_is_the_share_of_the_past():
    """One step at decay 0.9 (a half is its own complement): N = 0.9 + 0.1 n, m = 0.9 code + 0.1 sum."""
    book = fixed_codebook(decay=0.9).train()
    book(Z)
    assert book.counts.tolist() == pytest.approx([0.9 + 0.1 * 3, 1.0])
    assert book.table.flatten().tolist() == pytest.approx([0.1 * 6 / 1.2, 9 + 0.6])


def test_the_gradient_goes_straight_through_and_the_commitment_pulls_z():
    book, z = fixed_codebook().eval(), Z.clone().requires_grad_()
    quantised = book(z)
    weight = torch.tensor([1.0, -2.0, 3.0, 5.0]).view_as(Z)
    (through,) = torch.autograd.grad((weight * quantised.values).sum(), z, retain_graph=True)
    assert torch.equal(through, weight)
    (pull,) = torch.autograd.grad(quantised.commitment, z)
    assert torch.equal(pull, 2 * (Z - torch.tensor([0.0, 0.0, 0.0, 10.0]).view_as(Z)) / 4)


def test_a_dead_code_comes_back_on_a_vector_of_the_batch():
    book = Codebook(3, 1, decay=0.9, revive_below=1.0).train()
    book.table.copy_(torch.tensor([[0.0], [5.0], [1000.0]]))
    book.counts.copy_(torch.tensor([4.0, 4.0, 0.5]))
    book.sums.copy_(book.table * book.counts[:, None])
    z = torch.tensor([0.0, 5.0, 0.1, 5.1, -0.1, 4.9]).view(1, 1, 2, 3)
    index = book(z, seeded()).index
    assert float(book.table[2]) < 6 and float(book.counts[2]) > 0.9 * 2 - 1e-6          # 6 vectors / 3 codes, then one moving average
    assert (index == 2).any()
    kept = Codebook(3, 1, decay=0.9, revive_below=0.0).train()
    kept.table.copy_(torch.tensor([[0.0], [5.0], [1000.0]]))
    kept(z, seeded())
    assert float(kept.table[2]) == 1000.0


def test_the_first_training_batch_lays_out_the_codes_and_the_generator_decides_where():
    z = torch.randn(8, 2, 4, 4, generator=seeded(1))
    first, again, other = (Codebook(5, 2) for _ in range(3))
    for book, seed in ((first, 3), (again, 3), (other, 4)):
        book.train()(z, seeded(seed))
    assert torch.equal(first.table, again.table) and not torch.equal(first.table, other.table)
    assert float(first.table.abs().max()) < float(z.abs().max())                        # means of vectors of the batch


def test_use_counts_codes():
    assert codebook_use(torch.tensor([0, 1, 2, 3]), 8) == pytest.approx((4.0, 0.5))
    assert codebook_use(torch.zeros(10, dtype=torch.long), 8) == pytest.approx((1.0, 0.125))
    p = torch.tensor([0.75, 0.25])
    assert codebook_use(torch.tensor([0, 0, 0, 1]), 2).perplexity == pytest.approx(math.exp(-float((p * p.log()).sum())))


def test_vq_loss_by_hand_and_on_one_process_only():
    net, x = VQAutoencoder(**SMALL, codes=16).eval(), pictures()
    reconstruction, quantised = net(x)
    expected = (reconstruction - x).square().mean() + 0.3 * quantised.commitment
    torch.testing.assert_close(VQLoss(0.3)(net, x), expected)
    with pytest.raises(ValueError, match="2 processes"):
        VQLoss()(net, x, shard=(0, 2))


def test_vq_decode_quantises_what_it_is_given():
    net, x = VQAutoencoder(**SMALL, codes=16).eval(), pictures()
    torch.testing.assert_close(net.decode(net.latents(x)), net(x)[0])
    torch.testing.assert_close(net.decode(net.codebook.lookup(net.index(x))), net(x)[0])


@pytest.mark.parametrize("make, loss", [(BOTH[0], KLLoss(1e-4)), (BOTH[1], VQLoss())])
def test_training_beats_the_mean_picture_and_resumes_to_the_bit(make, loss, tmp_path):
    """Pictures that are one of two colours a quarter: simple enough for a hundred steps."""
    x = (torch.randint(0, 2, (64, 3, 2, 2), generator=seeded()) * 1.6 - 0.8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.manual_seed(0)
    net = make()
    options = dict(lr=5e-3, device="cpu", precision="fp32", progress=False, seed=1)
    torch.manual_seed(0)
    twin = make()
    train(net, loss, Batches(x, batch_size=16), steps=100, **options)
    with torch.no_grad():
        error = (net.decode(net.latents(x)) - x).square().mean()
    assert float(error) < 0.25 * float((x - x.mean(0)).square().mean())
    train(twin, loss, Batches(x, batch_size=16), steps=6, checkpoint=tmp_path, **options)
    torch.manual_seed(0)
    again = make()
    done = train(again, loss, Batches(x, batch_size=16), steps=10, checkpoint=tmp_path, **options)
    torch.manual_seed(0)
    straight = make()
    train(straight, loss, Batches(x, batch_size=16), steps=10, **options)
    assert done.steps == 10
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), straight.state_dict().values(), strict=True))
