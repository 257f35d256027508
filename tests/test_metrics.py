"""Metrics against closed forms and against what is true; tolerances from rounding or from k standard errors."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_lib import checkpoints
from diffusion_lib.data.digits import digits
from diffusion_lib.metrics import (
    accuracy,
    bootstrap,
    digit_accuracy,
    digit_features,
    digit_frechet,
    frechet_distance,
    frechet_floor,
    gaussian_frechet,
    memorisation_ratio,
    mmd,
    nearest_neighbours,
    precision_recall,
    sliced_wasserstein,
    wasserstein_1d,
)


@pytest.fixture
def g():
    return torch.Generator().manual_seed(0)


def normal(*shape, g):
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def whitened(x):
    """Move and shape samples so that their mean is exactly 0 and their covariance exactly the identity."""
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T)).T)


def test_frechet_of_two_gaussians_in_closed_form(g):
    a, b = whitened(normal(200, 3, g=g)), whitened(normal(150, 3, g=g))
    scale_a, scale_b = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([4.0, 1.0, 0.5]).double()
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    exact = float(shift.square().sum() + (scale_a - scale_b).square().sum())            # commuting covariances: sum (s_a - s_b)^2
    turn = torch.linalg.qr(normal(3, 3, g=g)).Q
    assert frechet_distance(a * scale_a @ turn, (b * scale_b + shift) @ turn) == pytest.approx(exact, rel=1e-10)


def test_frechet_of_covariances_that_do_not_commute(g):
    p, q = normal(4, 4, g=g), normal(4, 4, g=g)
    a, b = p @ p.T + 0.1 * torch.eye(4), q @ q.T
    root = torch.linalg.eigvals(a @ b).sqrt().real.sum()                                # the trace of (A B)^(1/2), another way
    exact = float(a.trace() + b.trace() - 2 * root)
    zero = torch.zeros(4).double()
    assert gaussian_frechet(zero, a, zero, b) == pytest.approx(exact, rel=1e-9)
    assert gaussian_frechet(zero, b, zero, a) == pytest.approx(exact, rel=1e-9)


def test_frechet_is_zero_on_itself_and_never_negative(g):
    x = normal(60, 8, g=g)
    assert 0 <= frechet_distance(x, x) < 1e-10
    flat = torch.cat([x, torch.zeros(60, 2)], 1)                                        # a singular covariance
    assert 0 <= frechet_distance(flat, flat) < 1e-6
    assert frechet_distance(x.float(), x.float() + 1) == pytest.approx(8, rel=1e-5)


def test_frechet_bias_falls_like_one_over_n(g):
    x = normal(4000, 4, g=g)
    small, large = (frechet_floor(x, n, n, repeats=40, generator=g) for n in (100, 400))
    ratio, se = small.value / large.value, small.value / large.value * math.hypot(small.se / small.value, large.se / large.value)
    assert abs(ratio - 4) < 4 * se + 0.3                                                # 4 standard errors, and the next order in 1/n
    with pytest.raises(ValueError, match="two disjoint sets"):
        frechet_floor(x, 3000, 3000)


def test_precision_and_recall_see_what_is_missing(g):
    real = torch.cat([normal(300, 2, g=g) * 0.1 - 3, normal(300, 2, g=g) * 0.1 + 3])
    one_mode = normal(600, 2, g=g) * 0.1 + 3
    precision, recall = precision_recall(real, one_mode)
    assert precision > 0.9 and 0.4 < recall < 0.55                                      # half the modes are gone
    blurred = torch.cat([one_mode[:300], normal(300, 2, g=g) * 0.1 + torch.tensor([3.0, -3.0])])
    precision, recall = precision_recall(real[300:], blurred)
    assert 0.4 < precision < 0.6 and recall > 0.9
    assert precision_recall(real, real) == (1.0, 1.0)


def test_precision_recall_by_hand():
    real, samples = torch.tensor([[0.0], [1.0], [2.0], [10.0]]), torch.tensor([[0.5], [30.0], [31.0], [32.0]])
    # k = 1: real radii 1, 1, 1, 8; the samples' 29.5, 1, 1, 1
    precision, recall = precision_recall(real, samples, k=1)
    assert precision == 0.25 and recall == 1.0                                          # only 0.5 is near real points; its ball reaches all
    assert precision_recall(real, samples + 100, k=1) == (0.0, 0.0)


def test_mmd_of_gaussians_matches_its_closed_form_and_its_error_bar(g):
    shift, n = 0.7, 400
    found = [mmd(normal(n, 1, g=g), normal(n, 1, g=g) + shift, bandwidth=1.0) for _ in range(30)]
    exact = 2 / math.sqrt(3) * (1 - math.exp(-(shift**2) / 6))                          # E k for N(0, 2) + bandwidth 1: variance 3
    values, errors = torch.tensor([m.value for m in found]), torch.tensor([m.se for m in found])
    assert abs(values.mean() - exact) < 4 * values.std() / 30**0.5                      # 4 standard errors: unbiased
    assert 0.6 < errors.mean() / values.std() < 1.6                                     # the spread itself is known to 13 %


def test_mmd_is_unbiased_for_few_samples(g):
    """Equal distributions, 12 samples each: the mean of 400 estimates is 0 within 4 standard errors; with the diagonal it would be 0.08."""
    values = torch.tensor([mmd(normal(12, 1, g=g), normal(12, 1, g=g), bandwidth=1.0).value for _ in range(400)])
    assert abs(values.mean()) < 4 * values.std() / 20 < 0.04


def test_mmd_permutations_tell_equal_from_different(g):
    same = mmd(normal(60, 2, g=g), normal(60, 2, g=g), permutations=200, generator=g)
    different = mmd(normal(60, 2, g=g), normal(60, 2, g=g) + 1, permutations=200, generator=g)
    assert same.p_value > 0.02 and different.p_value == pytest.approx(1 / 201) and math.isnan(mmd(torch.rand(5, 1), torch.rand(5, 1)).p_value)


def test_wasserstein_1d_is_exact():
    x, y = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([5.0, 6.0, 8.0])
    assert wasserstein_1d(x, y) == pytest.approx(5) and wasserstein_1d(x, y.flip(0), p=2) == pytest.approx(5)
    assert wasserstein_1d(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0, 2.0])) == pytest.approx(0.5)


def test_wasserstein_1d_agrees_with_scipy_for_unequal_sizes(g):
    from scipy.stats import wasserstein_distance

    for n, m in ((7, 12), (30, 45), (5, 5)):
        x, y = normal(n, g=g), normal(m, g=g)
        assert wasserstein_1d(x, y) == pytest.approx(wasserstein_distance(x.numpy(), y.numpy()), rel=1e-12)


def test_sliced_wasserstein_of_a_shift(g):
    x = normal(500, 6, g=g)
    shift = torch.zeros(6).double()
    shift[0] = 3.0                                                                      # mean over directions of (u . shift)^2 = |shift|^2 / 6
    estimate = sliced_wasserstein(x, x + shift, projections=4000, generator=g) ** 2
    spread = math.sqrt(2 * 5 / (36 * 8)) * 9                                            # sd of 9 u_1^2, u uniform on the sphere in 6-D
    assert abs(estimate - 9 / 6) < 4 * spread / 4000**0.5


def test_accuracy_has_its_binomial_error():
    scores = torch.eye(4).repeat(25, 1)
    labels = torch.arange(4).repeat(25)
    labels[:25] = (labels[:25] + 1) % 4
    assert accuracy(scores, labels).value == 0.75 and accuracy(scores, labels).se == pytest.approx((0.75 * 0.25 / 100) ** 0.5)


def test_nearest_neighbours_and_copies(g):
    train, fresh, held_out = (normal(n, 1, 2, 2, g=g) for n in (300, 200, 200))
    distance, index = nearest_neighbours(train[[5, 17]] + 1e-3, train)
    assert index.tolist() == [5, 17] and torch.allclose(distance, torch.full((2,), 2e-3).double())
    honest = memorisation_ratio(fresh, train, held_out, generator=g)
    assert abs(honest.value - 1) < 4 * honest.se
    assert memorisation_ratio(train[:100], train, held_out, generator=g).value == 0
    near = memorisation_ratio(train[:100] + 0.01 * normal(100, 1, 2, 2, g=g), train, held_out, generator=g)
    assert near.value < 0.2


def test_bootstrap_finds_the_standard_error_of_a_mean(g):
    x = normal(400, g=g)
    found = bootstrap(lambda a: float(a.mean()), x, repeats=400, generator=g)
    exact = float(x.std()) / 20
    assert found.value == float(x.mean()) and abs(found.se - exact) < 4 * exact / math.sqrt(2 * 400)


def test_the_shipped_classifier_is_as_good_as_its_card_says():
    images, labels = digits("test")
    _, card = checkpoints.pretrained("digits-classifier")
    assert digit_accuracy(images, labels) == pytest.approx(card["metrics"]["accuracy"], abs=5e-5) and card["metrics"]["accuracy"] >= 0.985
    assert digit_features(images).shape == (355, 32) and not digit_features(images).requires_grad


def test_digit_frechet_ranks_real_noisy_and_noise(g):
    images, _ = digits("test")
    real = digit_frechet(images)
    noisy = digit_frechet((images + 0.3 * torch.randn(images.shape, generator=g)).repeat(2, 1, 1, 1))
    noise = digit_frechet(torch.randn(images.shape, generator=g))
    assert real.ratio == 1 and 0 < real.floor < 0.5 and math.isnan(real.se)
    assert real.distance < noisy.distance < noise.distance and noisy.se == 0
    assert digit_frechet(images, stratified=False).floor > 3 * real.floor               # what chance in the class proportions costs


@pytest.mark.parametrize(("call", "message"), [
    (lambda: frechet_distance(torch.randn(5, 8), torch.randn(50, 8)), "expected at least 9"),
    (lambda: frechet_distance(torch.randn(50, 8), torch.randn(50, 7)), "8 numbers a sample"),
    (lambda: frechet_distance(torch.full((50, 2), math.nan), torch.randn(50, 2)), "400 values|100 values"),
    (lambda: precision_recall(torch.randn(3, 2), torch.randn(9, 2)), "at least 4 samples"),
    (lambda: precision_recall(torch.randn(9, 2), torch.randn(9, 2), k=0), "k=0"),
    (lambda: mmd(torch.randn(9, 2), torch.randn(8, 2)), "cut both to 8"),
    (lambda: wasserstein_1d(torch.randn(9, 2), torch.randn(9, 2)), "use sliced_wasserstein"),
    (lambda: accuracy(torch.randn(9, 2), torch.zeros(8)), "one label a row"),
    (lambda: digit_features(torch.randn(9, 1, 28, 28)), "expected digits"),
    (lambda: digit_frechet(torch.randn(9, 1, 8, 8)), "at least 355"),
    (lambda: bootstrap(lambda x: 0.0, torch.randn(9), repeats=1), "repeats=1"),
])
def test_wrong_calls(call, message):
    with pytest.raises(ValueError, match=message):
        call()
