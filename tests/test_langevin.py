"""Langevin dynamics against closed forms: ULA's bias, MALA's lack of it, SGLD's variance.

Chains are independent and only their last states are compared, so that standard errors need no autocorrelation. A
variance of n Gaussian numbers has the standard error v sqrt(2 / n). k = 4.5 throughout: some fifty comparisons, a
right answer fails for one seed in 3000.
"""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_lib.exact import three_modes, two_modes
from diffusion_lib.samplers import final, langevin, log_acceptance, minibatch_score, polynomial_steps
from diffusion_lib.schedules import EDMSchedule, variance_after_steps

K = 4.5
EDM = EDMSchedule(1.0)


def zeros(n, dim=1):
    return torch.zeros(n, dim, dtype=torch.float64)


def settled(score, n, h, steps, generator, **options):
    return final(langevin(score, zeros(n), [h] * steps, generator=generator, **options))[:, 0]


def compare_variance(x, truth):
    error = truth * math.sqrt(2 / len(x))
    assert abs(float(x.var()) - truth) < K * error, (float(x.var()), truth, error)
    return error


@pytest.mark.parametrize("h", [0.1, 0.5, 1.0, 2.0, 3.0])
def test_unadjusted_variance(h, generator):
    """ULA on N(0, 1) settles at 1 / (1 - h/4), after enough steps that what is left of the start is below 1e-6."""
    rate = abs(1 - h / 2)
    steps = 3 if rate == 0 else math.ceil(math.log(1e-6) / math.log(rate) / 2) + 1
    x = settled(lambda x: -x, 40_000, h, steps, generator)
    error = compare_variance(x, 1 / (1 - h / 4))
    assert abs(float(x.mean())) < K * math.sqrt(1 / (1 - h / 4) / len(x))
    if h >= 0.5:
        assert abs(1 / (1 - h / 4) - 1) > 10 * error  # the test can tell it from no bias


def test_unadjusted_on_its_way(generator):
    """The variance after k steps is NCSNv2's formula."""
    start = 2.0 * torch.randn(40_000, 1, dtype=torch.float64, generator=generator)
    for k, x in enumerate(langevin(lambda x: -x, start, [0.4] * 8, generator=generator)):
        compare_variance(x[:, 0], variance_after_steps(2.0, k, 0.4))


def test_unadjusted_diverges(generator):
    """|1 - h/2| > 1 for h > 4: the variance at least multiplies by (1 - h/2)^2 in each step."""
    x = settled(lambda x: -x, 2000, 4.5, 40, generator)
    assert float(x.var()) > 0.5 * (1 - 4.5 / 2) ** (2 * 39) * 4.5


@pytest.mark.parametrize("h", [0.5, 1.0, 2.0])
def test_adjusted_has_no_bias(h, generator):
    x = settled(lambda x: -x, 40_000, h, 60, generator, log_prob=lambda x: -0.5 * x[:, 0] ** 2)
    error = compare_variance(x, 1.0)
    assert abs(1 / (1 - h / 4) - 1) > 10 * error  # where ULA would fail


def test_adjusted_keeps_a_mixture(generator):
    """From exact draws of two_modes, 100 steps leave moments where they were; without the adjustment they leave."""
    mixture, h = two_modes(), 0.04
    x = mixture.sample(20_000, generator)
    score = lambda x: mixture.score(x, 0.0, EDM)  # noqa: E731
    after = final(langevin(score, x, [h] * 100, log_prob=mixture.log_prob, generator=generator))
    plain = final(langevin(score, x, [h] * 100, generator=generator))
    exact = mixture.sample(2_000_000, torch.Generator().manual_seed(5))

    def off(y, f):
        error = math.sqrt(float(f(y).var()) / len(y) + float(f(exact).var()) / len(exact))
        return abs(float(f(y).mean() - f(exact).mean())) / error

    tests = [lambda y: (y > 0).double(), lambda y: (y - y.sign()).square(), lambda y: y, lambda y: y**4]
    assert all(off(after, f) < K for f in tests), [off(after, f) for f in tests]
    assert off(plain, tests[1]) > 2 * K  # each component is too wide


def test_acceptance_is_metropolis_ratio(generator):
    """Against Gaussian proposal densities written out, and antisymmetric: detailed balance."""
    mixture, h = three_modes(), 0.05
    x, y = mixture.sample(50, generator), mixture.sample(50, generator)
    s_x, s_y = (mixture.score(z, 0.0, EDM) for z in (x, y))
    p_x, p_y = mixture.log_prob(x), mixture.log_prob(y)

    def q(to, start, score):
        return torch.distributions.Normal(start + 0.5 * h * score, math.sqrt(h)).log_prob(to).sum(1)

    ratio = log_acceptance(x, s_x, p_x, y, s_y, p_y, h)
    assert torch.allclose(ratio, p_y + q(x, y, s_y) - p_x - q(y, x, s_x), rtol=1e-9, atol=1e-9)
    assert torch.allclose(ratio, -log_acceptance(y, s_y, p_y, x, s_x, p_x, h), rtol=1e-9, atol=1e-9)


def test_adjusted_needs_no_constant_and_refuses_what_has_no_density(generator):
    def walk(log_prob):
        draw = torch.Generator().manual_seed(3)
        return final(langevin(lambda x: -x, zeros(500) + 0.5, [0.8] * 20, log_prob=log_prob, generator=draw))

    def half(x):
        return torch.where(x[:, 0] > 0, -0.5 * x[:, 0] ** 2, -math.inf)

    a, b = walk(lambda x: -0.5 * x[:, 0] ** 2), walk(lambda x: 7 - 0.5 * x[:, 0] ** 2)
    assert torch.allclose(a, b) and float(walk(half).min()) > 0


def test_evaluations_and_states(generator):
    calls = []

    def score(x):
        calls.append(1)
        return -x

    states = list(langevin(score, zeros(3), [0.1] * 7, generator=generator))
    assert len(states) == 8 and len(calls) == 7 and torch.equal(states[0], zeros(3))
    calls.clear()
    assert len(list(langevin(score, zeros(3), [0.1] * 7, log_prob=lambda x: -x[:, 0], generator=generator))) == 8
    assert len(calls) == 8


# ------------------------------------------------------------------------------------------------- stochastic gradients


def posterior(n_data, batch, generator):
    """A Gaussian mean with a N(0, 1) prior and unit noise: (score, precision A, mean, variance of the minibatch's
    noise)."""
    data = 1 + torch.randn(n_data, 1, dtype=torch.float64, generator=generator)
    score = minibatch_score(lambda x: -x, lambda x, b: (b - x[:, None]).sum(1), data, batch, generator)
    a = n_data + 1
    return score, a, float(data.sum()) / a, n_data**2 / batch * float(data.var(correction=0))


def test_minibatch_score_is_unbiased(generator):
    score, a, mean, noise = posterior(100, 5, generator)
    drawn = score(torch.full((40_000, 1), 0.3, dtype=torch.float64))[:, 0]
    assert abs(float(drawn.mean()) - a * (mean - 0.3)) < K * math.sqrt(noise / len(drawn))
    fourth = float((drawn - drawn.mean()).pow(4).mean()) / noise**2  # its kurtosis sets the error of its variance
    assert abs(float(drawn.var()) / noise - 1) < K * math.sqrt((fourth - 1) / len(drawn))


@pytest.mark.parametrize("batch", [2, 10, 50])
def test_stochastic_gradient_variance(batch, generator):
    """The stationary variance (1 + h v / 4) / (A (1 - h A / 4)), v the variance of the minibatch's noise, and the
    right mean."""
    score, a, mean, noise = posterior(100, batch, generator)
    h, n = 0.4 / a, 40_000
    truth = (1 + h * noise / 4) / (a * (1 - h * a / 4))
    x = settled(score, n, h, math.ceil(math.log(1e-6) / math.log(1 - h * a / 2) / 2) + 1, generator)
    error = compare_variance(x, truth)
    assert abs(float(x.mean()) - mean) < K * math.sqrt(truth / n)
    assert truth - 1 / (a * (1 - h * a / 4)) > 5 * error  # minibatches of 2, 10 and 50 out of 100 are all seen


def test_falling_steps_reach_the_posterior(generator):
    """SGLD with falling steps: the variance follows its recursion, which tends to 1/A."""
    score, a, mean, noise = posterior(100, 10, generator)
    steps = polynomial_steps(a=2.0 / a, b=5.0, gamma=0.7, steps=400)
    v = 0.0
    for h in steps:
        v = (1 - h * a / 2) ** 2 * v + h + h**2 * noise / 4
    x = final(langevin(score, zeros(20_000), steps, generator=generator))[:, 0]
    compare_variance(x, v)
    far = polynomial_steps(a=2.0 / a, b=5.0, gamma=0.7, steps=100_000)
    for h in far[400:]:
        v = (1 - h * a / 2) ** 2 * v + h + h**2 * noise / 4
    # To first order in h minibatches and ULA add h (noise + A) / 4 of 1/A. The next order is that part squared; the lag
    # behind the falling step is a share gamma / (h A k): how fast log h falls over how fast the variance settles.
    excess, lag = far[-1] * (noise + a) / 4, 0.7 / (far[-1] * a * len(far))
    assert abs(v * a - 1 - excess) < 2 * excess * (excess + lag) and excess < 0.01


def test_polynomial_steps():
    assert polynomial_steps(2.0, 1.0, 1.0, 3) == pytest.approx([2.0, 1.0, 2 / 3])
    assert polynomial_steps(0.1, 4.0, 0.6, 2) == pytest.approx([0.1 * 4**-0.6, 0.1 * 5**-0.6])
