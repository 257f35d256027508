"""The four losses of score matching differ by a constant that does not depend on the parameters: values and gradients.

Comparisons of means are between losses of the *same* samples, in groups: the mean over groups of a difference,
against k = 5 standard errors of that mean (with 60 groups it is a t with 59 degrees of freedom, beyond 5 with
probability 6e-6; there are about 250 comparisons, so that a right answer would fail for one seed in seven hundred).
"""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_lib.exact import three_modes
from diffusion_lib.losses import (
    denoising_score_matching,
    explicit_score_matching,
    implicit_score_matching,
    sliced_score_matching,
)
from diffusion_lib.schedules import EDMSchedule

M, EDM, K = three_modes(), EDMSchedule(1.0), 5.0  # under EDMSchedule(1) the time is sigma
SIGMA = 0.3


class Net(torch.nn.Module):
    """A score with 2 -> 8 -> 2 units and a linear part."""

    def __init__(self, seed: int):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        shapes = [(2, 8), (8,), (8, 2), (2,), (2, 2)]
        make = [torch.nn.Parameter(torch.randn(s, dtype=torch.float64, generator=draw)) for s in shapes]
        self.weights = torch.nn.ParameterList(make)

    def forward(self, x):
        a, b, c, d, e = self.weights
        return torch.tanh(x @ a + b) @ c + d + x @ e


def groups(count=60, size=500, sigma=0.0):
    """Samples of M with noise sigma, in groups."""
    draw = torch.Generator().manual_seed(0)
    x = M.sample(count * size, draw)
    x = x + sigma * torch.randn(x.shape, generator=draw, dtype=x.dtype)
    return x.split(size)


def gradient(net, losses):
    return torch.cat([g.flatten() for g in torch.autograd.grad(losses.mean(), tuple(net.parameters()))])


def mean_and_error(values):
    values = torch.stack(values)
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def true_score(x, sigma=0.0):
    return M.score(x, sigma, EDM)


# Each: a group of samples -> (a loss that needs no grad log p, the explicit loss)
def implicit(net, x, draw):
    return implicit_score_matching(net, x), explicit_score_matching(net, x, true_score(x))


def sliced(net, x, draw):
    loss = sliced_score_matching(net, x, generator=draw)
    return loss, explicit_score_matching(net, x, true_score(x))


def sliced_plain(net, x, draw):
    loss = sliced_score_matching(net, x, probe="gaussian", reduced=False, projections=2, generator=draw)
    return loss, explicit_score_matching(net, x, true_score(x))


def denoising(net, x, draw):
    """The explicit loss on the noised density, on the same noised samples: only the target differs."""
    twin = torch.Generator().set_state(draw.get_state())
    eps = torch.randn(x.shape, generator=twin, dtype=x.dtype)
    noised = x + SIGMA * eps
    explicit = explicit_score_matching(net, noised, true_score(noised, SIGMA))
    loss = denoising_score_matching(net, x, SIGMA, generator=draw)
    assert torch.allclose(loss, 0.5 * (net(noised) + eps / SIGMA).square().sum(1))
    return loss, explicit


LOSSES = [implicit, sliced, sliced_plain, denoising]


def constant(loss, parts):
    """The explicit loss minus the other: 1/2 E||grad log p||^2, for denoising less D / (2 sigma^2); one value a
    group."""
    sigma = SIGMA if loss is denoising else 0.0
    draw = torch.Generator().manual_seed(9)
    noised = [x + sigma * torch.randn(x.shape, generator=draw, dtype=x.dtype) for x in parts]
    values = [0.5 * true_score(x, sigma).square().sum(1).mean() for x in noised]
    return [v - (2 / (2 * sigma**2) if sigma else 0.0) for v in values]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_value_is_the_explicit_loss_minus_a_constant(loss, seed):
    """The difference is the known constant, at three parameter vectors."""
    net, draw, parts = Net(seed), torch.Generator().manual_seed(seed), groups()
    expected, differences = constant(loss, parts), []
    for x, c in zip(parts, expected, strict=True):
        other, explicit = loss(net, x, draw)
        differences.append((explicit - other).mean().detach() - c)
    mean, error = mean_and_error(differences)
    assert abs(float(mean)) < K * float(error), (float(mean), float(error))
    assert float(error) < 0.05 * float(torch.stack(expected).mean().abs())  # the test can see a wrong constant


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_that_of_the_explicit_loss(loss, seed):
    net, draw = Net(seed), torch.Generator().manual_seed(seed)
    differences, sizes = [], []
    for x in groups():
        other, explicit = loss(net, x, draw)
        target = gradient(net, explicit)
        differences.append(gradient(net, other) - target)
        sizes.append(target)
    mean, error = mean_and_error(differences)
    assert bool((mean.abs() < K * error).all()), (mean / error).abs().max()
    size, _ = mean_and_error(sizes)
    assert float((size.abs() / error).max()) > 20  # the test can see half a gradient


def test_denoising_does_not_learn_the_clean_score():
    """Its gradient is that of the noised density's loss, and far from the clean one's."""
    net, draw = Net(1), torch.Generator().manual_seed(1)
    differences = []
    for x in groups():
        explicit = gradient(net, explicit_score_matching(net, x, true_score(x)))
        differences.append(gradient(net, denoising_score_matching(net, x, SIGMA, generator=draw)) - explicit)
    mean, error = mean_and_error(differences)
    assert float((mean / error).abs().max()) > 20


def test_linear_score_exactly(generator):
    """For s = A x + b: tr A + 1/2 ||s||^2, sample by sample, and v^T A v + 1/2 (v^T s)^2 along signs v when A is
    diagonal."""
    x = torch.randn(40, 5, dtype=torch.float64, generator=generator)
    a = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    b = torch.randn(5, dtype=torch.float64, generator=generator)
    expected = a.trace() + 0.5 * (x @ a.T + b).square().sum(1)
    assert torch.allclose(implicit_score_matching(lambda x: x @ a.T + b, x), expected, rtol=1e-12)
    d = a.diagonal()
    expected = d.sum() + 0.5 * (x * d + b).square().sum(1)  # signs meet a diagonal without error
    assert torch.allclose(sliced_score_matching(lambda x: x * d + b, x, generator=generator), expected, rtol=1e-12)
    assert float(explicit_score_matching(lambda x: x @ a.T, x, x @ a.T).abs().max()) == 0


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
@pytest.mark.parametrize("reduced", [True, False])
def test_slices_average_to_the_implicit_loss(probe, reduced, generator):
    """Sample by sample, over 4000 slices: k = 5 standard errors, 16 comparisons."""
    x, net = M.sample(16, generator), Net(4)
    options = {"probe": probe, "reduced": reduced, "generator": generator}
    with torch.no_grad():
        drawn = sliced_score_matching(net, x.repeat(4000, 1), **options).reshape(4000, 16)
        target = implicit_score_matching(net, x)
    error = drawn.std(0) / math.sqrt(4000)
    assert bool(((drawn.mean(0) - target).abs() < K * error).all())


def test_what_lowers_the_variance(generator):
    """Exact 1/2 ||s||^2 in place of its estimate; more projections, in proportion (k = 5 on a ratio of two
    variances)."""
    x, net = M.sample(1, generator).repeat(20_000, 1), Net(5)

    def spread(**options):
        with torch.no_grad():
            return float(sliced_score_matching(net, x, probe="gaussian", generator=generator, **options).var())

    assert spread() < spread(reduced=False)
    ratio = spread() / spread(projections=4)
    # A quadratic form of two Gaussians has kurtosis at most 15: the relative error of a variance is sqrt((15 - 1) / n).
    error = math.sqrt(14 / 20_000) * math.sqrt(2)
    assert abs(ratio / 4 - 1) < K * error, ratio


def test_variance_of_the_denoising_loss_grows_as_noise_falls(generator):
    """Like sigma^-4: the slope of log variance over a factor of 10 in sigma, at sigmas so small that s matters
    little."""
    x = M.sample(20_000, generator)
    small, large = (
        float(denoising_score_matching(lambda x: -x, x, s, generator=generator).var()) for s in (1e-3, 1e-2)
    )
    # relative error of each variance: sqrt((kurtosis - 1) / n), kurtosis 9 for an exponential (1/2 chi^2 with D = 2)
    error = math.sqrt(8 / 20_000) * math.sqrt(2) / math.log(10)
    assert (
        abs(math.log10(small / large) - 4) < K * error + 0.01
    )  # 0.01: sigma^2 ||s||^2 / D at sigma = 1e-2 is below 1e-3


def test_the_gaussian_fit_is_that_of_maximum_likelihood(generator):
    """The implicit loss of -P x + b on any data is least at P = (sample covariance)^-1, b = P (sample mean)."""
    mix = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    x = torch.randn(200, 3, dtype=torch.float64, generator=generator) ** 3 @ mix + 1.0  # not Gaussian at all
    mean, covariance = x.mean(0), torch.cov(x.T, correction=0)
    truth = torch.linalg.inv(covariance)
    precision, shift = truth.contiguous().clone().requires_grad_(), (truth @ mean).clone().requires_grad_()

    def loss():
        return implicit_score_matching(lambda x: shift - x @ precision.T, x).mean()

    grads = torch.autograd.grad(loss(), (precision, shift))
    assert max(float(g.abs().max()) for g in grads) < 1e-10
    with torch.no_grad():
        precision.copy_(torch.eye(3))
        shift.zero_()
    options = {"max_iter": 500, "tolerance_grad": 1e-11, "tolerance_change": 0, "line_search_fn": "strong_wolfe"}
    search = torch.optim.LBFGS([precision, shift], **options)

    def closure():
        search.zero_grad()
        value = loss()
        value.backward()
        return value

    search.step(closure)
    assert torch.allclose(precision, truth, rtol=1e-5, atol=1e-6)
    assert torch.allclose(shift, truth @ mean, rtol=1e-5, atol=1e-6)


def test_pictures_dtype_and_no_grad(generator):
    """(B, C, H, W) in float32; the values are the same where gradients are off, and then carry no graph."""
    x = torch.randn(3, 1, 2, 2, generator=generator)
    weight = torch.randn(4, 4, generator=generator, requires_grad=True)

    def score(x):
        return torch.sin(x.flatten(1) @ weight).reshape(x.shape)

    with_graph = implicit_score_matching(score, x)
    jacobians = [torch.autograd.functional.jacobian(lambda y: score(y[None])[0], row).reshape(4, 4) for row in x]
    trace = torch.stack([j.trace() for j in jacobians])
    assert torch.allclose(with_graph, trace + 0.5 * score(x).square().flatten(1).sum(1), rtol=1e-5, atol=1e-5)
    assert with_graph.shape == (3,) and with_graph.dtype == torch.float32 and with_graph.requires_grad
    with torch.no_grad():
        without = implicit_score_matching(score, x)
    assert torch.equal(without, with_graph.detach()) and not without.requires_grad and not x.requires_grad
    sigma = torch.tensor([0.1, 1.0, 2.0])
    a, b = (denoising_score_matching(score, x, sigma, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b) and a.shape == (3,)


def test_a_score_that_does_not_depend_on_x():
    """Its divergence is 0, and its parameters still get a gradient."""
    bias = torch.ones(2, requires_grad=True)
    losses = implicit_score_matching(lambda x: bias.expand_as(x), torch.zeros(5, 2))
    assert torch.allclose(losses, torch.ones(5)) and torch.allclose(
        torch.autograd.grad(losses.mean(), bias)[0], torch.ones(2)
    )
