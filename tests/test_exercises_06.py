"""What chapter 6's printed solutions must do besides passing their judge (test_exercises.py)."""

from __future__ import annotations

import math

import pytest
import torch
from printed import printed_solution

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture, three_modes
from diffusion_lib.guidance import autoguided, classifier_free_guided, thresholded
from diffusion_lib.samplers import dpmpp, final
from diffusion_lib.schedules import VPSchedule, time_grid

VP = VPSchedule()


def gaussian(mean: float, variance: float) -> ExactDenoiser:
    parts = (torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[mean]], [variance]))
    return ExactDenoiser(GaussianMixture(*parts), VP)


def standard(n: int, seed: int = 0) -> torch.Tensor:
    """n starts whose sample mean and variance are exactly 0 and 1: a linear walk then has no sampling error."""
    z = torch.randn(n, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (z - z.mean()) / z.std()


def test_solution_of_the_line_is_the_librarys():
    oracle = ExactDenoiser(three_modes(), VP)
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.full((9,), 0.4, dtype=torch.float64)
    label = torch.arange(9) % 3
    for w in (0.5, 3.0):
        library = classifier_free_guided(oracle, {"label": label}, w)(x, t)
        assert torch.allclose(printed_solution(6, "guide")(oracle, x, t, label, 3, w), library)


def test_solution_of_thresholding_is_the_librarys():
    x = 3 * torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for share in (0.5, 0.995):
        assert torch.allclose(printed_solution(6, "threshold")(x, share), thresholded(lambda x, t: x, share)(x, 0.5))


@pytest.mark.parametrize("w", [1.0, 2.0, 4.0])
def test_the_stochastic_sampler_draws_the_law_of_the_exercise(w):
    """Mean and variance within four standard errors, at a stochastic solver of order 2 (its bias is far below them)."""
    mean, variance = printed_solution(6, "guided_law")(1.0, 0.25, 1.0, w)
    generator, n = torch.Generator().manual_seed(1), 20_000
    guided = autoguided(gaussian(1.0, 0.25), gaussian(0.0, 1.0), w)
    start = VP.noise((n, 1), generator, dtype=torch.float64)
    x = final(dpmpp(guided, VP, start, time_grid(VP, 200, "log_snr"), eta=1.0, generator=generator))
    assert abs(float(x.mean()) - mean) < 4 * (variance / n) ** 0.5
    assert abs(float(x.var()) / variance - 1) < 4 * (2 / n) ** 0.5


def test_the_interval_keeps_the_variance_of_the_solution():
    """6.14c on the ODE, without sampling error; the error that is left is that of the steps, which the switch makes first order."""
    expected = printed_solution(6, "variance_in_interval")
    low, high, w = 0.3, 1.5, 3.0
    guided = autoguided(gaussian(1.0, 0.25), gaussian(0.0, 1.0), w, interval=(low, high), schedule=VP)
    errors = []
    for steps in (200, 800):
        x = final(dpmpp(guided, VP, VP.prior_std * standard(500), time_grid(VP, steps, "log_snr")))
        errors.append(abs(float(x.var()) / expected(1.0, 0.25, w, low**2, high**2) - 1))
    assert errors[1] < 0.02
    assert expected(1.0, 0.25, w, 0.0, 1e12) == pytest.approx(0.25**w)
    assert expected(1.0, 0.25, w, 0.7, 0.7) == pytest.approx(0.25)


def test_langevin_steps_turn_the_odes_law_into_the_tilted_one():
    """The numbers of exercise 6.14h: variance 0.016 before, (6.13)'s at level 0.3 with Langevin's bias after, within five standard errors."""
    tilted, w, n, level = printed_solution(6, "tilted_samples"), 3.0, 4000, 0.3
    guided = autoguided(gaussian(1.0, 0.25), gaussian(0.0, 1.0), w)
    generator = torch.Generator().manual_seed(2)
    x = final(dpmpp(guided, VP, VP.prior_std * standard(n), time_grid(VP, 200, "log_snr")))
    assert float(x.var()) == pytest.approx(0.25**w, rel=0.01)
    x = tilted(guided, VP, x, level, 200, 0.5, generator)
    precision = (1 - w) / (1 + level**2) + w / (0.25 + level**2)
    h = 0.5 * level**2
    limit = 1 / (precision * (1 - h * precision / 4))  # of unadjusted Langevin dynamics with this step
    assert (1 / precision, limit) == pytest.approx((0.143, 0.155), abs=5e-4)
    assert abs(float(x.var()) / limit - 1) < 5 * (2 / n) ** 0.5
    assert abs(float(x.mean()) - w / ((0.25 + level**2) * precision)) < 5 * (limit / n) ** 0.5


def test_errors_of_two_networks_add_up():
    """6.14a: 13 times the variance for independent errors at w = 3, none for errors in proportion at w = k / (k - 1)."""
    w, n, generator = 3.0, 200_000, torch.Generator().manual_seed(3)
    e, other = torch.randn(2, n, generator=generator, dtype=torch.float64)
    assert float((w * e - (w - 1) * other).var()) == pytest.approx(13, rel=5 * (2 / n) ** 0.5)
    k = 1.5
    w = k / (k - 1)
    assert float((w * e - (w - 1) * k * e).abs().max()) < 1e-12


@pytest.mark.parametrize("w", [1.5, 3.0])
def test_much_noise_draws_the_tilted_law(w):
    """6.14d: its integrals give (6.16) for eta = 1 and tend to (6.15), with an error that falls like 1 / eta^2."""
    r = 0.25
    q = torch.linspace(r, 1, 400_001, dtype=torch.float64)[:-1]  # v_0 = m = 1

    def law(eta):
        c = 1 + eta**2
        h = ((1 - q) / (1 - r)).log() - w * (q / r).log()  # h(q) - h(r)
        mean = c * w / 2 * torch.exp(c / 2 * h) / (q * (1 - q))
        variance = eta**2 * (1 - r) * torch.exp(c * h) / (1 - q) ** 2
        return torch.tensor([float(torch.trapezoid(part, q)) for part in (mean, variance)])

    assert law(1.0).tolist() == pytest.approx(printed_solution(6, "guided_law")(1.0, r, 1.0, w), rel=1e-4)
    tilt = torch.tensor([w, r]) / (w - (w - 1) * r)
    near, nearer = ((law(eta) / tilt - 1).abs() for eta in (10.0, 20.0))
    assert near.max() < 0.05 and torch.allclose(near / nearer, torch.tensor(4.0), rtol=0.1)


def test_variety_is_lost_in_the_middle():
    """6.14c: a decade of u costs most around sqrt(v_0 v_1), and there (1 - sqrt r) / (1 + sqrt r) of (w - 1) per factor e."""
    variance, (v0, v1, w) = printed_solution(6, "variance_in_interval"), (1.0, 0.25, 3.0)
    middles = torch.logspace(-3, 3, 601, dtype=torch.float64)
    cost = [-math.log(variance(v0, v1, w, u / 1.01, u * 1.01) / v1) / (2 * math.log(1.01)) for u in middles.tolist()]
    top = max(range(601), key=cost.__getitem__)
    assert float(middles[top]) == pytest.approx((v0 * v1) ** 0.5, rel=0.03)
    assert cost[top] == pytest.approx((w - 1) / 3, rel=1e-3)
