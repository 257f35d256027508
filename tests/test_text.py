"""Tokenizer, text encoder, cross-attention and the captioned U-Net: what padding, order and an empty caption must and must not do."""

from __future__ import annotations

import json

import pytest
import torch
from test_nets import perturb

from diffusion_lib.denoisers import EDMDenoiser, NetDenoiser, null_condition
from diffusion_lib.guidance import classifier_free_guided
from diffusion_lib.losses import DenoisingLoss
from diffusion_lib.losses.denoising import drop_labels
from diffusion_lib.nets import C_NOISE_RANGE, MLP, CaptionedUNet, TextEncoder, Tokenizer, UNet, build
from diffusion_lib.nets.attention import CrossAttention
from diffusion_lib.nets.text import PAD, START
from diffusion_lib.schedules import VPSchedule

WORDS = ("a", "red", "blue", "circle", "square", "left", "of", ",", "and")
SMALL = dict(length=10, width=16, multipliers=(1, 2), text_width=16)


def captioned(seed=0, **options):
    torch.manual_seed(seed)
    return perturb(CaptionedUNet(WORDS, **(SMALL | options))).double().eval()


def latents(n=2, seed=0):
    return torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- tokenizer


def test_tokens_by_hand_and_back():
    tokenizer = Tokenizer(WORDS, 8)
    assert tokenizer(["a red circle, and", "Circle"]).tolist() == [[START, 2, 3, 5, 9, 10, PAD, PAD], [START, 5] + [PAD] * 6]
    assert tokenizer("Red circle,").tolist() == [[START, 3, 5, 9, 0, 0, 0, 0]]
    assert tokenizer.text(tokenizer("Red circle.")[0]) == "red circle"                  # a mark outside the vocabulary is passed over
    assert tokenizer.empty().tolist() == [START] + [PAD] * 7 and len(tokenizer) == len(WORDS) + 2


@pytest.mark.parametrize("prompt, message", [
    ("a rad circle", "'rad' of the prompt is unknown.*did you mean 'red'"),
    ("a xyzzy", "it knows"),
    ("", "holds no word"),
    (" .! ", "holds no word"),
    ("a " * 10, "has 10 words; expected at most 9"),
])
def test_bad_prompts_get_one_sentence(prompt, message):
    with pytest.raises(ValueError, match=message) as error:
        Tokenizer(WORDS, 10)(prompt)
    assert "\n" not in str(error.value)


def test_a_vocabulary_with_repeats_is_refused():
    with pytest.raises(ValueError, match="without repeats"):
        Tokenizer(["a", "A"])


# --- text encoder


def test_padding_changes_nothing():
    torch.manual_seed(0)
    encoder, tokenizer = TextEncoder(len(WORDS) + 2, 10, 16).double().eval(), Tokenizer(WORDS, 10)
    tokens = tokenizer(["a red circle", "a blue square left of a red circle"])
    words, mask, pooled = encoder(tokens)
    short, _, alone = encoder(tokens[:1, :4])
    torch.testing.assert_close(words[:1, :4], short, rtol=0, atol=1e-12)
    torch.testing.assert_close(pooled[:1], alone, rtol=0, atol=1e-12)
    assert mask.sum(1).tolist() == [4, 9]
    torch.testing.assert_close(pooled[0], words[0, :4].mean(0), rtol=0, atol=1e-12)


def test_the_order_of_the_words_reaches_them_in_proportion_to_position_scale():
    tokenizer = Tokenizer(WORDS, 10)
    tokens = tokenizer(["red circle blue square", "blue circle red square"])

    def swap(scale):
        torch.manual_seed(0)
        encoder = TextEncoder(len(tokenizer), 10, 64, position_scale=scale).double().eval()
        words = encoder(tokens)[0].detach()
        return float((words[0, 2] - words[1, 2]).norm() / words[0, 2].norm()), float(encoder.position.detach().std())

    (full, std), (faint, small) = swap(1.0), swap(0.02)
    assert std == pytest.approx(1.0, rel=0.1) and small == pytest.approx(0.02, rel=0.1)
    assert faint < 0.25 * full                                                          # "circle" hardly knows which colour stands before it


@pytest.mark.parametrize("tokens, error, message", [
    (torch.tensor([[1.0]]), TypeError, "integers"),
    (torch.ones(1, 11, dtype=torch.long), ValueError, "L <= 10"),
    (torch.tensor([[1, 11]]), ValueError, "another vocabulary"),
    (torch.tensor([[1, 2], [0, 0]]), ValueError, "padding alone"),
])
def test_wrong_tokens_are_refused(tokens, error, message):
    with pytest.raises(error, match=message):
        TextEncoder(11, 10, 16)(tokens)


# --- cross-attention


def test_cross_attention_is_the_softmax_over_words_that_are_there():
    torch.manual_seed(0)
    layer = perturb(CrossAttention(8, 6)).double()
    h, context = torch.randn(2, 8, 2, 3, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    pixels = layer.norm(h).flatten(2).mT                                                # (B, HW, C); one head of 8 channels
    query, (key, value) = layer.query(pixels), layer.key_value(context).chunk(2, dim=-1)
    weight = (query @ key.mT / 8**0.5).masked_fill(~mask[:, None], -torch.inf).softmax(-1)
    expected = h + layer.out(weight @ value).mT.view_as(h)
    torch.testing.assert_close(layer(h, context, mask), expected, rtol=0, atol=1e-12)
    changed = context.clone()
    changed[1, 2:] = 1e3
    assert torch.equal(layer(h, changed, mask), layer(h, context, mask))


def test_cross_attention_with_several_heads_keeps_pixels_and_heads_apart():
    torch.manual_seed(0)
    layer = perturb(CrossAttention(64, 6)).double()
    h, context, mask = torch.randn(1, 64, 2, 2, dtype=torch.float64), torch.randn(1, 3, 6, dtype=torch.float64), torch.ones(1, 3, dtype=torch.bool)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(layer(h.flatten(2)[:, :, order].view_as(h), context, mask), layer(h, context, mask).flatten(2)[:, :, order].view_as(h),
                               rtol=0, atol=1e-12)
    query = layer.query(layer.norm(h).flatten(2).mT).view(1, 4, 2, 32)
    key, value = layer.key_value(context).view(1, 3, 2, 2, 32).unbind(2)
    weight = torch.einsum("bqhd,bkhd->bhqk", query, key).div(32**0.5).softmax(-1)
    found = torch.einsum("bhqk,bkhd->bqhd", weight, value).reshape(1, 4, 64)
    torch.testing.assert_close(layer(h, context, mask), h + layer.out(found).mT.view_as(h), rtol=0, atol=1e-12)


# --- captioned U-Net


@pytest.mark.parametrize("reads, heard", [("both", True), ("words", True), ("pooled", True), ("nothing", False)])
def test_what_reaches_the_unet(reads, heard):
    net = captioned(reads=reads)
    tokens = net.tokenizer(["a red circle", "a blue square"])
    x = latents()
    difference = float((net(x, 0.5, tokens) - net(x, 0.5, tokens.flip(0))).detach().abs().max())
    assert (difference > 1e-6) == heard
    assert (net.text is None) == (reads == "nothing")


@pytest.mark.parametrize("reads", ["both", "words", "pooled", "nothing"])
def test_captioned_config_round_trip_and_gradients(reads):
    net = captioned(reads=reads)
    again = build("CaptionedUNet", json.loads(json.dumps(net.config))).double().eval()
    assert again.config == net.config and again.tokenizer.words == list(WORDS)
    again.load_state_dict(net.state_dict())
    tokens = net.tokenizer(["a red circle", "a blue square"])
    assert torch.equal(again(latents(), 0.3, tokens), net(latents(), 0.3, tokens))
    net(latents(), torch.tensor([0.2, 0.8]), net.tokenizer(["a red circle , and", "a blue square left of a circle"])).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_padding_does_not_change_a_prediction():
    net = captioned()
    tokens = net.tokenizer(["a red circle", "a blue circle"])
    torch.testing.assert_close(net(latents(), 0.5, tokens), net(latents(), 0.5, tokens[:, :4]), rtol=0, atol=1e-12)


def test_no_tokens_mean_the_empty_caption():
    net = captioned()
    empty = net.null_condition["tokens"].expand(2, -1)
    assert torch.equal(net(latents(), 0.5), net(latents(), 0.5, empty))
    assert float((net(latents(), 0.5) - net(latents(), 0.5, net.tokenizer(["a red circle"] * 2))).detach().abs().max()) > 1e-6


def test_swapped_colours_give_another_prediction_through_words_and_pooled():
    net = captioned()
    two = net.tokenizer(["a red circle left of a blue square", "a blue circle left of a red square"])
    assert float((net(latents(), 0.5, two) - net(latents(), 0.5, two.flip(0))).detach().abs().max()) > 1e-6


def test_unet_takes_context_exactly_where_it_was_built_for_it():
    x, t = torch.randn(1, 1, 8, 8), torch.rand(1)
    words, mask = torch.randn(1, 3, 6), torch.ones(1, 3, dtype=torch.bool)
    reader = UNet(width=8, multipliers=(1, 2), cross_attention=(0,), context=6)
    assert reader(x, t, context=words, mask=mask).shape == x.shape
    plain = UNet(width=8, multipliers=(1, 2))
    for net, given in ((reader, {}), (reader, {"context": words}), (plain, {"context": words, "mask": mask}), (plain, {"pooled": words[:, 0]})):
        with pytest.raises(ValueError, match="exactly where the network was built for it"):
            net(x, t, **given)
    with pytest.raises(ValueError, match="without context"):
        UNet(width=8, multipliers=(1, 2), cross_attention=(0,))
    with pytest.raises(ValueError, match="cross_attention=.* was given; expected levels"):
        UNet(width=8, multipliers=(1, 2), cross_attention=(2,), context=6)


# --- nothing asked


def test_null_condition_of_nets_and_denoisers():
    net, schedule = captioned(), VPSchedule()
    assert null_condition(NetDenoiser(net, schedule))["tokens"].tolist() == net.tokenizer.empty().tolist()
    assert null_condition(EDMDenoiser(UNet(width=8, multipliers=(1,), classes=3, time_range=C_NOISE_RANGE)))["label"] == 3
    assert null_condition(MLP(2, classes=4))["label"] == 4 and null_condition(MLP(2)) == {}
    assert null_condition(type("Own", (), {"null_label": 7})())["label"] == 7           # a net that knows only null_label


def test_guidance_on_captions_is_the_line_through_the_empty_caption():
    net, schedule = captioned(), VPSchedule()
    denoiser, x, t = NetDenoiser(net, schedule), latents(3), torch.full((3,), 0.5, dtype=torch.float64)
    for captions in (["a red circle", "a blue square", "a circle"], ["a red circle"]):
        tokens = net.tokenizer(captions)
        spread = tokens.expand(3, -1)
        with_it, without = denoiser(x, t, tokens=spread), denoiser(x, t)
        found = classifier_free_guided(denoiser, {"tokens": tokens}, 3.0)(x, t)
        torch.testing.assert_close(found, without + 3 * (with_it - without), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(classifier_free_guided(denoiser, {"tokens": tokens}, 0.0)(x, t), without, rtol=1e-9, atol=1e-9)


def test_dropout_puts_the_empty_caption_in_the_rows_it_drops_and_no_other():
    net = captioned()
    tokens, keep = net.tokenizer(["a red circle", "a blue square", "a circle"]), torch.tensor([True, False, True])
    dropped = drop_labels(net, {"tokens": tokens}, keep)["tokens"]
    assert torch.equal(dropped[keep], tokens[keep]) and torch.equal(dropped[1], net.tokenizer.empty())
    with pytest.raises(ValueError, match="one such row a sample"):
        drop_labels(net, {"tokens": tokens[:, :5]}, keep)
    with pytest.raises(ValueError, match="nothing that stands for none"):
        drop_labels(net, {"label": torch.tensor([1, 2, 3])}, keep)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_loss_drops_the_share_it_is_told(share):
    net, seen = captioned(), []
    forward = net.forward
    net.forward = lambda x, t, tokens=None: seen.append(tokens) or forward(x, t, tokens)
    tokens = net.tokenizer(["a red circle"] * 5)
    DenoisingLoss(VPSchedule(), "v", label_dropout=share)(net, latents(5), generator=torch.Generator().manual_seed(0), tokens=tokens)
    assert torch.equal(seen[0], net.tokenizer.empty().expand(5, -1) if share else tokens)
