"""What keeps a strongly guided x0_hat in bounds: its spread rescaled, or its range thresholded; and wrong calls of all guidance."""

from __future__ import annotations

import math
import re

import pytest
import torch

from diffusion_lib.denoisers import ExactDenoiser, NetDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.guidance import autoguided, classifier_free_guided, classifier_guided, rescaled, thresholded
from diffusion_lib.nets import MLP
from diffusion_lib.samplers import ddim, ddpm
from diffusion_lib.schedules import VPSchedule, time_grid

PICTURES = (5, 2, 4, 4)


def pictures(seed=0, dtype=torch.float64):
    return torch.randn(PICTURES, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def spread(x):
    return x.flatten(1).std(1, unbiased=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rescaled_has_the_spread_of_the_conditional(dtype):
    guided, conditional = 3 * pictures(0, dtype) + 0.4, pictures(1, dtype)
    out = rescaled(guided, conditional, 1.0)
    assert out.dtype == dtype and torch.allclose(spread(out), spread(conditional), rtol=1e-5)
    ratio = (out / guided).flatten(1)  # one factor a sample: the picture is the same, with less contrast
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4)


def test_rescaled_by_a_share_goes_part_of_the_way():
    guided, conditional = 3 * pictures(0), pictures(1)
    assert rescaled(guided, conditional, 0.0) is guided
    whole, some = (rescaled(guided, conditional, share) for share in (1.0, 0.3))
    assert torch.allclose(some, 0.3 * whole + 0.7 * guided, rtol=1e-12)
    assert torch.allclose(rescaled(conditional, conditional, 0.6), conditional, rtol=1e-12)


def test_a_constant_sample_stays_as_it_is():
    """Its spread is 0, which no factor can mend."""
    guided = pictures(0)
    guided[2] = 0.7
    out = rescaled(guided, pictures(1), 1.0)
    assert torch.equal(out[2], guided[2]) and bool(torch.isfinite(out).all())


def fixed(x0_hat):
    return lambda x, t, **condition: x0_hat


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("limit", [1.0, 2.5])
def test_thresholded_is_in_range_and_leaves_alone_what_is(dtype, limit):
    x0_hat = pictures(0).to(dtype)
    x0_hat[1] = 0.9 * limit * torch.sin(x0_hat[1])
    out = thresholded(fixed(x0_hat), 0.9, limit)(x0_hat, 0.5)
    assert out.dtype == dtype and float(out.abs().max()) <= limit * (1 + 2 * torch.finfo(dtype).eps)
    assert torch.equal(out[1], x0_hat[1])


def test_thresholding_clamps_at_the_quantile_of_each_sample():
    """|x0_hat| = 1, 2, ..., 32 in shuffled order: share 0.5 puts s at 16.5, between the two in the middle, and half of the pixels on the rim."""
    size = torch.arange(1, 33, dtype=torch.float64)[torch.randperm(32, generator=torch.Generator().manual_seed(0))].reshape(1, 2, 4, 4)
    sign = torch.where(pictures()[:1] > 0, 1.0, -1.0)
    x0_hat = torch.cat([sign * size, 10 * sign * size])
    out = thresholded(fixed(x0_hat), 0.5)(x0_hat, 0.5)
    assert torch.allclose(out[0], (sign * size / 16.5).clamp(-1, 1)[0], rtol=1e-12)
    assert torch.allclose(out[1], out[0], rtol=1e-12), "each sample has its own s"
    whole = thresholded(fixed(x0_hat), 1.0)(x0_hat, 0.5)
    assert torch.allclose(whole[0], (sign * size / 32)[0], rtol=1e-12), "share 1 takes the maximum: nothing is clamped"


def test_thresholded_passes_conditions_on():
    seen = {}
    thresholded(lambda x, t, **condition: seen.update(condition) or x)(pictures(), 0.5, label=3)
    assert seen == {"label": 3}


# --- wrong calls -----------------------------------------------------------------------------------------------------

VP, EXACT = VPSchedule(), ExactDenoiser(three_modes(), VPSchedule())
X, T = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.full((4,), 0.5, dtype=torch.float64)
LABEL = {"label": torch.zeros(4, dtype=torch.long)}
NET = NetDenoiser(MLP(2, width=8, depth=1, classes=3), VP)
PLAIN = NetDenoiser(MLP(2, width=8, depth=1), VP)


def free(denoiser=EXACT, condition=LABEL, scale=2.0, **options):
    return classifier_free_guided(denoiser, condition, scale, **options)


CASES = [
    *[(f"{name} at scale {scale}", lambda f=f, scale=scale: f(scale), ValueError, rf"scale={scale}.*finite.*>= 0")
      for scale in (-0.5, math.inf, math.nan)
      for name, f in [("free", lambda s: free(scale=s)), ("auto", lambda s: autoguided(EXACT, EXACT, s)),
                      ("classifier", lambda s: classifier_guided(EXACT, VP, lambda x, t: x.sum(1), s))]],
    ("scale that is a tensor", lambda: free(scale=torch.ones(4)), ValueError, r"scale=tensor.*finite number"),
    ("empty interval", lambda: free(interval=(0.5, 0.5)), ValueError, r"interval=\(0\.5, 0\.5\) holds no"),
    ("reversed interval", lambda: free(interval=(2.0, 0.5)), ValueError, r"lower one first"),
    ("negative level in an interval", lambda: free(interval=(-1.0, 0.5)), ValueError, r"0 <= low"),
    ("NaN in an interval", lambda: free(interval=(math.nan, 0.5)), ValueError, r"holds no noise level"),
    ("interval of one number", lambda: free(interval=0.5), ValueError, r"two noise levels"),
    ("interval of three numbers", lambda: autoguided(EXACT, EXACT, 2.0, interval=(0, 1, 2)), ValueError, r"two noise levels"),
    ("reversed interval of autoguidance", lambda: autoguided(EXACT, EXACT, 2.0, interval=(2.0, 0.5)), ValueError, r"lower one first"),
    ("interval without a schedule", lambda: free(lambda x, t: x, interval=(0.1, 1.0), null=LABEL), ValueError, r"names no schedule.*schedule="),
    ("unknown condition", lambda: free(NET, {"lable": LABEL["label"]}), ValueError, r"'lable'.*'label': correct the name"),
    ("unknown condition with a null", lambda: free(NET, {"lable": LABEL["label"]}, null={"lable": torch.tensor(3)})(X.float(), T), TypeError, r"lable"),
    ("label of a net without classes", lambda: free(PLAIN), ValueError, r"'label'.*classes="),
    ("label with a null for a net without classes", lambda: free(PLAIN, null={"label": 0})(X.float(), T), ValueError, r"no classes"),
    ("no condition", lambda: free(condition={}), ValueError, r"by name"),
    ("condition without a name", lambda: free(condition=LABEL["label"]), ValueError, r"by name"),
    ("condition of another length", lambda: free(condition={"label": torch.zeros(3).long()})(X, T), ValueError, r"\(3,\).*4 samples"),
    ("other condition of another length", lambda: free()(X, T, text=torch.zeros(3, 5)), ValueError, r"'text'.*\(3, 5\).*4 samples"),
    ("condition given twice", lambda: free()(X, T, **LABEL), ValueError, r"twice"),
    ("condition given twice, by the sampler", lambda: list(ddim(free(), VP, X, time_grid(VP, 2), condition=LABEL)), ValueError, r"twice"),
    ("label out of range", lambda: free(NET, {"label": torch.tensor(7)})(X.float(), T), ValueError, r"label spans"),
    ("learned variance of a guided denoiser", lambda: ddpm(free(), VP, X, time_grid(VP, 2), variance="learned"), ValueError, r"learned"),
    *[(f"rescale by {share}", lambda share=share: free(rescale=share), ValueError, r"rescale=.*\[0, 1\]") for share in (-0.1, 1.1, math.nan, "all")],
    ("rescaled by 2", lambda: rescaled(X, X, 2.0), ValueError, r"rescale=2\.0"),
    ("share of 0 to threshold", lambda: thresholded(EXACT, 0.0), ValueError, r"share=0"),
    ("share above 1 to threshold", lambda: thresholded(EXACT, 99.5), ValueError, r"share=99\.5"),
    ("limit of 0", lambda: thresholded(EXACT, 0.9, 0.0), ValueError, r"limit=0\.0"),
]  # fmt: skip


@pytest.mark.parametrize("call, error, words", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused_in_one_sentence(call, error, words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert re.search(words, message), message
    assert "\n" not in message and 20 < len(message) < 400, message
