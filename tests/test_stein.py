"""The kernelised Stein discrepancy against its closed form for a mean shift, the bias of its V-statistic, and the
level and power of its test."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_lib.exact import two_modes
from diffusion_lib.metrics import stein_discrepancy, stein_kernel, stein_test
from diffusion_lib.schedules import EDMSchedule


def normal(n, dim=1, shift=0.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return shift + torch.randn(n, dim, dtype=torch.float64, generator=draw)


def closed_form(shift, dim, width):
    """KSD^2 of N(m, I) to N(0, I), every entry of m = shift, with the kernel exp(-r^2 / (2 width^2)).

    KSD^2 = E (s_p - s_q)(x) . (s_p - s_q)(y) k(x, y) over x, y from q, and here s_p - s_q = -x + (x - m) = -m. So it
    is |m|^2 E k(x, y), and x - y is N(0, 2 I): E k = (width^2 / (width^2 + 2))^(dim/2).
    """
    return dim * shift**2 * (width**2 / (width**2 + 2)) ** (dim / 2)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_kernel_is_the_definition(kernel):
    """s.s' k + s.grad' k + s'.grad k + tr grad grad' k, with derivatives by autograd, to rounding."""
    x, s, width = normal(4, 3, seed=1), normal(4, 3, seed=2), 0.8

    def k(a, b):
        q = (a - b).square().sum() / width**2
        return torch.exp(-q / 2) if kernel == "rbf" else (1 + q) ** -0.5

    u = stein_kernel(x, s, kernel=kernel, bandwidth=width)
    for i in range(4):
        for j in range(4):
            a, b = x[i].clone().requires_grad_(), x[j].clone().requires_grad_()
            value = k(a, b)
            by_a, by_b = torch.autograd.grad(value, (a, b), create_graph=True)
            trace = sum(torch.autograd.grad(by_a[d], b, retain_graph=True)[0][d] for d in range(3))
            expected = s[i] @ s[j] * value + s[i] @ by_b + s[j] @ by_a + trace
            assert float(u[i, j]) == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
    assert torch.allclose(u, u.T, atol=1e-12)


@pytest.mark.parametrize("dim, width", [(1, 0.5), (1, 1.0), (3, 2.0)])
@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_closed_form_of_a_mean_shift(dim, width, shift):
    """The mean of 200 U-statistics of 100 samples: k = 4.5 standard errors of that mean (9 comparisons)."""
    values = []
    for seed in range(200):
        x = normal(100, dim, shift, seed)
        values.append(stein_discrepancy(x, -x, kernel="rbf", bandwidth=width).value)
    values = torch.tensor(values, dtype=torch.float64)
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - closed_form(shift, dim, width)) < 4.5 * error
    if shift == 1.0:
        assert error < 0.05 * closed_form(shift, dim, width)  # the test can see 25 %


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_v_is_biased_upward(kernel):
    """V = ((n - 1) U + the mean of u(x, x)) / n, identically; and so E V = KSD^2 + (E u(x, x) - KSD^2) / n."""
    x = normal(40, 2, 0.3)
    u, v = (stein_discrepancy(x, -x, kernel=kernel, bandwidth=1.0, statistic=s).value for s in "uv")
    own = x.square().sum(1) + 2  # u(x, x) = |s|^2 + tr grad grad' k, which is D / width^2 for both kernels
    assert v == pytest.approx((39 * u + float(own.mean())) / 40, rel=1e-12) and v > u and v > 0


def test_v_has_the_bias_it_says():
    """Over 400 sets of 20 samples of N(0.5, 1): E u(x, x) = 0.5^2 + 1 + 1 with width 1; k = 4.5."""
    sets = [normal(20, 1, 0.5, seed) for seed in range(400)]
    values = torch.tensor([stein_discrepancy(x, -x, kernel="rbf", bandwidth=1.0, statistic="v").value for x in sets])
    truth = closed_form(0.5, 1, 1.0)
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - truth - (2.25 - truth) / 20) < 4.5 * error
    assert abs((2.25 - truth) / 20) > 4.5 * error


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_standard_error(shift):
    """Root mean square of the reported errors against the spread over 400 sets; the spread's own relative error is
    about sqrt((kurtosis - 1) / 4 / 400), kurtosis measured; k = 4. Where p = q it may be up to half too long, as the
    docstring warns."""
    drawn = [stein_discrepancy(normal(100, 1, shift, s), -normal(100, 1, shift, s), bandwidth=1.0) for s in range(400)]
    values = torch.tensor([d.value for d in drawn], dtype=torch.float64)
    centred = values - values.mean()
    kurtosis = float(centred.pow(4).mean() / centred.square().mean() ** 2)
    ratio = math.sqrt(sum(d.se**2 for d in drawn) / 400) / float(values.std())
    error = 4 * math.sqrt((kurtosis - 1) / 4 / 400)
    assert 1 - error < ratio < (1 + error if shift else 1.5), (ratio, kurtosis)


def test_bandwidth_is_the_median_distance():
    x = normal(31, 2)
    distance = float(torch.pdist(x).median())
    assert torch.equal(stein_kernel(x, -x), stein_kernel(x, -x, bandwidth=distance))


def test_it_needs_no_place_and_takes_pictures():
    """Moving samples and density together changes nothing, also far from 0; (N, C, H, W) is flattened."""
    x, s = normal(20, 4, seed=3), normal(20, 4, seed=4)
    assert torch.allclose(stein_kernel(x, s), stein_kernel(x + 1e4, s), rtol=1e-6, atol=1e-6)
    assert torch.equal(stein_kernel(x, s), stein_kernel(x.reshape(20, 1, 2, 2), s.reshape(20, 1, 2, 2)))


# ----------------------------------------------------------------------------------------------------------------- test

M = two_modes()


def mixture_sample(n, seed):
    x = M.sample(n, torch.Generator().manual_seed(seed))
    return x, M.score(x, 0.0, EDMSchedule(1.0))


def p_values(draw, repeats, **options):
    draws = torch.Generator().manual_seed(12345)
    return torch.tensor([stein_test(*draw(seed), generator=draws, **options).p_value for seed in range(repeats)])


def rejections(draw, repeats, **options):
    """Share of p-values <= 0.05."""
    return float((p_values(draw, repeats, **options) <= 0.05).double().mean())


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
@pytest.mark.parametrize("law", ["gaussian", "mixture"])
def test_level(law, kernel):
    """Rejections at 0.05 of samples that are from the density: at most 0.07 of 500, two binomial standard deviations
    above 0.05; at least 0.02 (three below), or the test would be needlessly blunt."""

    def draw(seed):
        x = normal(100, 1, seed=seed)
        return (x, -x) if law == "gaussian" else mixture_sample(100, seed)

    p = p_values(draw, 500, kernel=kernel, bootstraps=199)
    share = float((p <= 0.05).double().mean())
    assert 0.02 <= share <= 0.07, share
    for level in (0.1, 0.5, 0.9):  # a p-value is uniform, not only in its tail: k = 4.5
        assert abs(float((p <= level).double().mean()) - level) < 4.5 * math.sqrt(level * (1 - level) / 500), level


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_power_grows_with_the_sample(kernel):
    """A shift of 0.4: each quadrupling of n rejects more, by 3 binomial standard deviations or up to everything."""

    def draw(n):
        def one(seed):
            x = normal(n, 1, 0.4, seed)
            return x, -x

        return one

    repeats = 200
    shares = [rejections(draw(n), repeats, kernel=kernel, bootstraps=199) for n in (8, 32, 128)]
    for low, high in zip(shares, shares[1:], strict=False):
        assert high - low > 3 * math.sqrt((low * (1 - low) + high * (1 - high)) / repeats), shares
    assert shares[-1] > 0.9, shares


def test_signs_that_stay_for_a_chain():
    """Samples of an AR(1) chain are right but alike: independent signs reject them far too often, signs that stay do
    not."""
    repeats = 150
    states = [normal(repeats)]
    for step in range(1, 200):
        states.append(0.8 * states[-1] + 0.6 * normal(repeats, seed=step))  # stationary N(0, 1)
    chains = torch.stack(states, 1)  # (repeats, 200, 1)

    independent = rejections(lambda i: (chains[i], -chains[i]), repeats, bootstraps=199)
    staying = rejections(lambda i: (chains[i], -chains[i]), repeats, bootstraps=199, flip=0.02)
    error = math.sqrt(0.05 * 0.95 / repeats)
    assert independent > 0.05 + 10 * error and staying < 0.05 + 3 * error, (independent, staying)


def test_p_value_is_a_rank():
    x = normal(50)
    for bootstraps in (1, 9, 99):
        p = stein_test(x, -x, bootstraps=bootstraps, generator=torch.Generator().manual_seed(0)).p_value
        assert 1 / (bootstraps + 1) <= p <= 1 and p * (bootstraps + 1) == pytest.approx(round(p * (bootstraps + 1)))
    far = stein_test(x + 3, -x - 3, bootstraps=99, generator=torch.Generator().manual_seed(0))
    assert far.p_value == 0.01 and far.statistic == stein_discrepancy(x + 3, -x - 3).value
    a, b = (stein_test(x, -x, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert a == b
