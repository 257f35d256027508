"""The judges of chapter 8's coded exercises."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, close_to_reference, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer, exercise


def _scale(z: Tensor) -> tuple[Tensor, Tensor]:
    shift = z.mean((0, 2, 3))
    return shift, 1 / (z - shift[:, None, None]).square().mean().sqrt()


def _about_common_mean(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.mean((0, 2, 3)), 1 / (z - z.mean()).square().mean().sqrt()


def _about_zero(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.mean((0, 2, 3)), 1 / z.square().mean().sqrt()


def _not_inverted(z: Tensor) -> tuple[Tensor, Tensor]:
    shift, scale = _scale(z)
    return shift, 1 / scale


def _variance(z: Tensor) -> tuple[Tensor, Tensor]:
    shift, scale = _scale(z)
    return shift, scale**2


def _mean_of_channels(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.mean((0, 2, 3)), (1 / z.std((0, 2, 3), correction=0)).mean()


def _by_channel(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.mean((0, 2, 3)), 1 / z.std((0, 2, 3))


@exercise("8.15e", "the latent scale", read="section 8.7, (8.11)", solution=_scale,
          wrong=((_about_common_mean, "common mean"), (_about_zero, "about zero"), (_not_inverted, "multiplies"), (_variance, "variance"),
                 (_mean_of_channels, "after the squares"), (_by_channel, "one scale for all channels")))
def measure_scale(answer):
    """Channels with different means and spreads."""
    generator = seeded(0)
    batches = [torch.randn(40, 3, 5, 4, generator=generator, dtype=torch.float64) * torch.tensor(spread, dtype=torch.float64)[:, None, None]
               + torch.tensor(mean, dtype=torch.float64)[:, None, None]
               for spread, mean in (((0.5, 2.0, 1.0), (1.0, -0.5, 0.2)), ((3.0, 0.3, 0.7), (0.0, 2.0, 0.4)))]
    result = call(answer, batches[0])
    if isinstance(result, tuple) and len(result) == 2 and torch.as_tensor(result[1]).numel() > 1:
        raise WrongAnswer("The scale has one number a channel; expected one scale for all channels, so that no direction is stretched against another.")
    close_to_reference(answer, _scale, [(z,) for z in batches], name="measure_scale", rtol=1e-3, mistakes={
        "the standard deviation is taken about the common mean of all channels: take it about the channel's own": _about_common_mean,
        "the standard deviation is taken about zero: shift each channel first": _about_zero,
        "the scale is the standard deviation: it multiplies the latents, so it is 1 over that": _not_inverted,
        "the scale is 1 over the variance: a square root is missing": _variance,
        "the channels' scales are averaged: average after the squares, over all numbers at once": _mean_of_channels,
    })
    return "These two belong into the model's card: without them its samples cannot be decoded."


def _quantise(z: Tensor, table: Tensor) -> Tensor:
    code = table[torch.cdist(z, table).argmin(1)]
    return z + (code - z).detach()


def _no_gradient(z: Tensor, table: Tensor) -> Tensor:
    return table[torch.cdist(z, table).argmin(1)].detach() + 0 * z


def _gradient_to_codes(z: Tensor, table: Tensor) -> Tensor:
    return table[torch.cdist(z, table).argmin(1)] + 0 * z


def _twice(z: Tensor, table: Tensor) -> Tensor:
    return z + _quantise(z, table) - z.detach()


def _farthest(z: Tensor, table: Tensor) -> Tensor:
    return z + (table[torch.cdist(z, table).argmax(1)] - z).detach()


def _largest_product(z: Tensor, table: Tensor) -> Tensor:
    return z + (table[(z @ table.T).argmax(1)] - z).detach()


def _nothing_stopped(z: Tensor, table: Tensor) -> Tensor:
    return z + (table[torch.cdist(z, table).argmin(1)] - z)


@exercise("8.15f", "quantise, with the straight-through gradient", read="section 8.6, (8.6) and (8.7)", solution=_quantise,
          wrong=((_no_gradient, "gradient"), (_gradient_to_codes, "gradient"), (_twice, "values"), (_farthest, "farthest"),
                 (_largest_product, "inner product"), (_nothing_stopped, "gradient")))
def quantise(answer):
    """Values of several tables, then the gradients in z and in the table."""
    generator = seeded(1)
    inputs = [(torch.randn(30, dim, generator=generator, dtype=torch.float64),
               torch.randn(codes, dim, generator=generator, dtype=torch.float64) * 1.5) for codes, dim in ((4, 2), (16, 3), (1, 2))]
    close_to_reference(answer, _quantise, inputs, name="the values of quantise", mistakes={
        "each vector gets its farthest code: take the least distance": _farthest,
        "the code with the largest inner product is taken: a long code then wins too often; the least distance counts": _largest_product,
    })
    z, table = inputs[1][0].clone().requires_grad_(), inputs[1][1].clone().requires_grad_()
    values = call(answer, z, table)
    true_for_all(values.requires_grad, "The values are right, but no gradient passes: the gradient in z has to be that of the identity.")
    towards = torch.randn(values.shape, generator=generator, dtype=torch.float64)
    in_z, in_table = torch.autograd.grad((values * towards).sum(), (z, table), allow_unused=True)
    true_for_all(in_z is not None and torch.allclose(in_z, towards),
                 "The values are right, but the gradient in z is not that of the identity: add to z a difference whose gradient is stopped.")
    true_for_all(in_table is None or bool((in_table == 0).all()),
                 "A gradient reaches the codes through the values: stop it, since they follow their moving averages.")
    return "The value is the code, the gradient goes past it."


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, root: bool = True, masked: str = "before", over: int = -1) -> Tensor:
    exponent = q @ k.transpose(1, 2) / (q.shape[-1] ** 0.5 if root else 1)
    if masked == "before":
        exponent = exponent.masked_fill(~mask[:, None, :], -math.inf)
    weights = exponent.softmax(over).nan_to_num(0.0)
    if masked == "after":
        weights = weights * mask[:, None, :]
    if masked == "zero":
        weights = exponent.masked_fill(~mask[:, None, :], 0.0).softmax(over)
    return weights @ v


def _attend_answer(q, k, v, mask):
    return _attend(q, k, v, mask)


def _no_root(q, k, v, mask):
    return _attend(q, k, v, mask, root=False)


def _no_mask(q, k, v, mask):
    return _attend(q, k, v, mask, masked="never")


def _mask_after(q, k, v, mask):
    return _attend(q, k, v, mask, masked="after")


def _mask_zero(q, k, v, mask):
    return _attend(q, k, v, mask, masked="zero")


def _over_pixels(q, k, v, mask):
    return _attend(q, k, v, mask, over=1)


@exercise("8.15g", "masked cross-attention", read="section 8.8, (8.12)", solution=_attend_answer,
          wrong=((_no_root, "root"), (_no_mask, "padding"), (_mask_after, "both sums"), (_mask_zero, "exponent of 0"), (_over_pixels, "over the words")))
def cross_attend(answer):
    """Two captions of different lengths; values of another width than the keys."""
    generator = seeded(2)
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 5, 4), (2, 6, 4), (2, 6, 3)))
    mask = torch.tensor([[True] * 6, [True, True, False, True, False, False]])
    close_to_reference(answer, _attend_answer, [(q, k, v, mask), (3 * q, k, v, mask)], name="cross_attend", mistakes={
        "the exponents are not divided by the root of d": _no_root,
        "padding takes part: leave it out by the mask": _no_mask,
        "the weights of padding are set to zero after the softmax: it has to be left out of both sums of (8.12), so mask the exponents": _mask_after,
        "padding gets an exponent of 0, which is a weight of e^0 and not of nothing: take minus infinity": _mask_zero,
        "the weights add up to 1 over the pixels: each pixel's weights add up to 1 over the words": _over_pixels,
    })
    return "Kernel regression, with a kernel that is learned."
