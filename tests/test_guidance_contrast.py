"""Guidance by contrast: exact on the mixture, one forward pass of twice the batch, and the law that it draws from Gaussian data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from laws import Counting, class_log_prob, level_grid, slope

from diffusion_lib.denoisers import ExactDenoiser, NetDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.guidance import autoguided, classifier_free_guided, classifier_guided, rescaled
from diffusion_lib.nets import MLP
from diffusion_lib.samplers import final, heun
from diffusion_lib.schedules import EDMSchedule, LinearSchedule, VPSchedule, expand

MIXTURE = three_modes()
TIMES = (0.1, 0.4, 0.7, 0.95)
LABEL = torch.arange(32) % 3


def noisy(schedule, t, n=32, seed=0):
    return MIXTURE.marginal(schedule, t).sample(n, torch.Generator().manual_seed(seed))


def levels_as_times(schedule, *levels):
    """The times (B,) at which sigma/alpha has these values."""
    return schedule.time_of_log_snr(-torch.tensor(levels, dtype=torch.float64).log())


# --- exactness on M --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", TIMES)
def test_scale_one_is_the_conditional_and_scale_zero_the_unconditional(schedule, t):
    x, denoiser = noisy(schedule, t), ExactDenoiser(MIXTURE, schedule)
    guided = {w: classifier_free_guided(denoiser, {"label": LABEL}, w)(x, t) for w in (0.0, 1.0)}
    assert torch.equal(guided[1.0], denoiser(x, t, label=LABEL)) and torch.equal(guided[0.0], denoiser(x, t))


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("scale", [0.5, 2.0, 7.5])
def test_the_difference_is_the_gradient_of_the_class_posterior(schedule, t, scale):
    """x0_hat(y) - x0_hat() = (sigma^2/alpha) grad log p(y|x_t); so scale w is classifier guidance at w with the exact noisy classifier."""
    x, denoiser = noisy(schedule, t), ExactDenoiser(MIXTURE, schedule)
    leaf = x.clone().requires_grad_()
    gradient = torch.autograd.grad(MIXTURE.class_posterior(leaf, t, schedule).log().gather(1, LABEL[:, None]).sum(), leaf)[0]
    found = classifier_free_guided(denoiser, {"label": LABEL}, scale)(x, t)
    expected = denoiser(x, t) + scale * schedule.sigma(t) ** 2 / schedule.alpha(t) * gradient
    by_classifier = classifier_guided(denoiser, schedule, class_log_prob(MIXTURE, schedule, LABEL), scale)(x, t)
    close = {"rtol": 1e-9, "atol": 1e-10 * float(expected.abs().max())}
    assert torch.allclose(found, expected, **close) and torch.allclose(found, by_classifier, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_and_a_net_does_as_an_oracle(dtype):
    """Against two passes, one for each label, through a network with random weights."""
    torch.manual_seed(0)
    net = MLP(2, width=16, depth=2, classes=3).to(dtype)
    torch.nn.init.normal_(net.head.weight)
    for denoiser in (NetDenoiser(net, VPSchedule(), "v"), ExactDenoiser(MIXTURE, VPSchedule())):
        x, t = noisy(VPSchedule(), 0.5).to(dtype), torch.full((32,), 0.5, dtype=dtype)
        out = classifier_free_guided(denoiser, {"label": LABEL}, 2.5)(x, t)
        asked, null = denoiser(x, t, label=LABEL), denoiser(x, t, label=torch.full((32,), 3))
        assert out.dtype == dtype
        assert torch.allclose(out, null + 2.5 * (asked - null), rtol=0, atol=100 * torch.finfo(dtype).eps * float(out.detach().abs().max()))


# --- cost, intervals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale, size", [(0.0, 32), (1.0, 32), (0.5, 64), (3.0, 64)])
def test_one_forward_pass_of_twice_the_batch(scale, size):
    schedule = VPSchedule()
    counted = Counting(ExactDenoiser(MIXTURE, schedule))
    classifier_free_guided(counted, {"label": LABEL}, scale, null={"label": torch.tensor(3)})(noisy(schedule, 0.5), 0.5)
    assert counted.sizes == [size]


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_a_batch_whose_times_lie_inside_and_outside(schedule, scale):
    """(low, high]: the ends count by the rule, samples outside get the conditional denoiser, and no sample sees its neighbours."""
    levels = (0.1, 0.2, 0.2001, 0.7, 1.4999, 1.5001, 9.0)
    t, label, inside = levels_as_times(schedule, *levels), torch.arange(7) % 3, [0.2 < v <= 1.5 for v in levels]
    inside[1] = bool(schedule.noise_level(t[1]) > 0.2)  # the rounding of its time decides
    x = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * expand(schedule.sigma(t), torch.ones(7, 2))
    counted = Counting(ExactDenoiser(MIXTURE, schedule))
    options = {"interval": (0.2, 1.5), "null": {"label": 3}, "schedule": schedule}
    out = classifier_free_guided(counted, {"label": label}, scale, **options)(x, t)
    everywhere = classifier_free_guided(counted.denoiser, {"label": label}, scale)(x, t)
    conditional = counted.denoiser(x, t, label=label)
    assert counted.sizes == [14] and sum(inside) >= 3
    expected = torch.where(torch.tensor(inside)[:, None], everywhere, conditional)
    assert torch.allclose(out, expected, rtol=1e-12, atol=1e-12) and not torch.allclose(everywhere, conditional)


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_outside_the_interval_it_costs_what_the_conditional_costs(scale):
    schedule = EDMSchedule()
    counted = Counting(ExactDenoiser(MIXTURE, schedule))
    guided = classifier_free_guided(counted, {"label": LABEL}, scale, interval=(0.2, 1.5), null={"label": 3}, schedule=schedule)
    x = noisy(schedule, 0.5)
    for level in (0.1, 1.6, 40.0):
        t = levels_as_times(schedule, level).expand(32)
        assert torch.equal(guided(x, t), counted.denoiser(x, t, label=LABEL))
    assert counted.sizes == [32] * 3


def test_the_whole_axis_is_no_interval(schedule):
    x, denoiser = noisy(schedule, 0.4), ExactDenoiser(MIXTURE, schedule)
    a, b = (classifier_free_guided(denoiser, {"label": LABEL}, 2.0, interval=i)(x, 0.4) for i in (None, (0.0, float("inf"))))
    assert torch.equal(a, b)


# --- conditions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", [2, torch.tensor(2), torch.tensor([2])], ids=["int", "0-d", "(1,)"])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_one_condition_for_all(one, batch, scale):
    denoiser, x = ExactDenoiser(MIXTURE, VPSchedule()), noisy(VPSchedule(), 0.5, batch)
    each = classifier_free_guided(denoiser, {"label": torch.full((batch,), 2)}, scale)(x, 0.5)
    assert torch.equal(classifier_free_guided(denoiser, {"label": one}, scale)(x, 0.5), each)


@pytest.mark.parametrize("text", [torch.ones(4, 5), torch.ones(1, 5), torch.tensor(1.0)], ids=["(B, 5)", "(1, 5)", "0-d"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_other_conditions_reach_both_halves(text, scale):
    seen = {}

    def denoiser(x, t, label=None, text=None, size=None):
        seen.update(label=label, text=text, size=size)
        return x * label[:, None]

    guided = classifier_free_guided(denoiser, {"label": torch.tensor([1, 2, 3, 4]), "size": torch.tensor(0.5)}, scale,
                                    null={"label": torch.tensor([7]), "size": 0.0})  # fmt: skip
    x = torch.ones(4, 2)
    out = guided(x, 0.5, text=text)
    halves = {0.0: ["null"], 1.0: ["asked"], 2.0: ["asked", "null"]}[scale]
    labels = {"asked": [1, 2, 3, 4], "null": [7] * 4}
    assert seen["label"].tolist() == sum((labels[h] for h in halves), [])
    assert seen["size"].tolist() == sum(([0.5 if h == "asked" else 0.0] * 4 for h in halves), [])
    assert seen["text"].shape == (4 * len(halves), *text.shape[1:]) and bool((seen["text"] == 1).all())
    asked = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
    assert torch.equal(out, (7 + scale * (asked - 7)).expand(4, 2))


# --- autoguidance, rescaling -----------------------------------------------------------------------------------------


def test_autoguidance_is_a_line_through_two_denoisers(schedule):
    better, weak = ExactDenoiser(MIXTURE, schedule), ExactDenoiser(MIXTURE.marginal(VPSchedule(), 0.2), schedule)
    x, t, label = noisy(schedule, 0.5), 0.5, {"label": LABEL}
    assert torch.equal(autoguided(better, better, 3.0)(x, t, **label), better(x, t, **label))
    a, b = better(x, t, **label), weak(x, t, **label)
    assert torch.allclose(autoguided(better, weak, 3.0)(x, t, **label), b + 3 * (a - b), rtol=1e-12)
    assert torch.equal(autoguided(better, weak, 1.0)(x, t, **label), a) and torch.allclose(autoguided(better, weak, 0.0)(x, t, **label), b)


def test_autoguidance_asks_each_once_and_the_better_one_alone_where_it_does_not_guide():
    schedule, x = EDMSchedule(), noisy(EDMSchedule(), 0.5)
    better, weak = (Counting(ExactDenoiser(MIXTURE, schedule)) for _ in range(2))
    autoguided(better, weak, 1.0)(x, 0.5)
    guided = autoguided(better, weak, 2.0, interval=(0.2, 1.5), schedule=schedule)
    guided(x, levels_as_times(schedule, 3.0).expand(32))
    assert (better.sizes, weak.sizes) == ([32, 32], [])
    guided(x, levels_as_times(schedule, 1.0).expand(32))
    assert (better.sizes, weak.sizes) == ([32] * 3, [32])


def test_rescale_acts_on_the_guided_samples_alone():
    schedule, denoiser = EDMSchedule(), ExactDenoiser(MIXTURE, EDMSchedule())
    x, t = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), levels_as_times(schedule, 0.1, 1.0, 1.4)
    label = LABEL[:3]
    options = {"interval": (0.2, 1.5), "rescale": 0.7}
    out = classifier_free_guided(denoiser, {"label": label}, 4.0, **options)(x, t)
    asked, null = denoiser(x, t, label=label), denoiser(x, t)
    assert torch.equal(out[0], asked[0]) and torch.allclose(out[1:], rescaled(null + 4 * (asked - null), asked, 0.7)[1:], rtol=1e-12)
    assert torch.equal(autoguided(denoiser, lambda x, t: 0 * x, 2.0, rescale=0.7)(x, t), rescaled(2 * null, null, 0.7))


def test_rescale_does_not_jump_at_scale_zero():
    denoiser, x = ExactDenoiser(MIXTURE, EDMSchedule()), noisy(EDMSchedule(), 0.01)
    none, little = (classifier_free_guided(denoiser, {"label": LABEL}, w, rescale=1.0)(x, 0.01) for w in (0.0, 1e-9))
    assert torch.allclose(none, little, atol=1e-6) and not torch.allclose(none, denoiser(x, 0.01), atol=1e-3)


# --- the law that guidance draws -------------------------------------------------------------------------------------


def guided_gaussian(scale, v, m, w, highest, lowest):
    """(gain, offset) of y(lowest) = gain y(highest) + offset for y = x/alpha, from N(m[0], v[0]) away towards N(m[1], v[1]).

    dy/ds = sum_k w_k (y - m_k) s / (v_k + s^2) with w = (1 - scale, scale), which is linear; its propagator is the product over k of
    ((v_k + s^2) / (v_k + S^2))^(w_k / 2), and the offset an integral over it (Gauss-Legendre in log s).
    """
    nodes, weights = np.polynomial.legendre.leggauss(200)
    middle, half = (np.log(highest) + np.log(lowest)) / 2, (np.log(highest) - np.log(lowest)) / 2
    s = np.exp(middle + half * nodes)

    def propagator(s):
        return np.prod([((v_k + lowest**2) / (v_k + s**2)) ** (w_k / 2) for v_k, w_k in zip(v, w, strict=True)], axis=0)

    pull = sum(w_k * m_k * s / (v_k + s**2) for v_k, m_k, w_k in zip(v, m, w, strict=True))
    return float(propagator(highest)), float((half * weights * s * pull * propagator(s)).sum())


@pytest.mark.parametrize("schedule", [VPSchedule(), EDMSchedule(), LinearSchedule()], ids=["vp", "edm", "linear"])
@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
def test_guided_gaussians_end_where_the_closed_form_says(schedule, scale):
    """p(x_0) = N(0, 1), y = x_0 + N(0, 1/3) seen as 1.5: p(x_0|y) = N(1.125, 1/4). Heun's mean and variance go there at order 2."""
    v, m, highest, lowest = (1.0, 0.25), (0.0, 1.125), 60.0, 0.01

    def denoiser(x, t, label):
        k = label.long()
        y, s = x / expand(schedule.alpha(t), x), expand(schedule.noise_level(t), x)
        variance, mean = torch.tensor(v, dtype=x.dtype)[k][:, None], torch.tensor(m, dtype=x.dtype)[k][:, None]
        return mean + variance / (variance + s**2) * (y - mean)

    guided = classifier_free_guided(denoiser, {"label": torch.tensor(1)}, scale, null={"label": 0})
    gain, offset = guided_gaussian(scale, v, m, (1 - scale, scale), highest, lowest)
    steps, errors = (100, 200, 400), {"gain": [], "offset": []}
    for n in steps:
        times = level_grid(schedule, n, highest, lowest)
        begin, end = (schedule.alpha(t) for t in (times[0], times[-1]))
        y = final(heun(guided, schedule, begin * torch.tensor([[0.0], [1.0]], dtype=torch.float64), times))[:, 0] / end
        errors["gain"].append(abs(float(y[1] - y[0]) - gain))
        errors["offset"].append(abs(float(y[0]) - offset))
    assert 1.8 < -slope(steps, errors["gain"]) < 2.2, errors
    assert 1.8 < -slope(steps, errors["offset"]), errors  # at scale 4 its error still has a part of order 3, which falls faster
    # The variance from N(0, S^2), S -> infinity, is v_0^(1 - w) v_1^w and not that of the tilted law p(x_0) p(y|x_0)^w.
    variance, tilted = (gain * highest) ** 2, 1 / ((1 - scale) / v[0] + scale / v[1])
    assert variance == pytest.approx(v[0] ** (1 - scale) * v[1] ** scale, rel=0.01)
    assert abs(variance / tilted - 1) > 0.1
