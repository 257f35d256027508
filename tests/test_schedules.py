"""Identities of the schedules, to rounding in float64; their SDEs against the path; their grids."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_lib.schedules import (
    GRIDS,
    CosineSchedule,
    DiscreteSchedule,
    LinearSchedule,
    Schedule,
    VESchedule,
    VPSchedule,
    expand,
    schedule_from_config,
    time_grid,
)


def interior(schedule, n=501):
    return torch.linspace(0.0031, schedule.t_max, n, dtype=torch.float64)


def relative(a, b):
    return float(((a - b).abs() / (1 + b.abs())).max())


def test_starts_at_data_and_ends_in_noise(schedule):
    assert float(schedule.alpha(0.0)) == 1.0 and float(schedule.sigma(0.0)) == 0.0
    assert float(schedule.noise_level(schedule.t_max)) > 50 or schedule.prior_std == pytest.approx(50)


def test_log_snr_falls(schedule):
    assert bool((schedule.log_snr(interior(schedule)).diff() < 0).all())


def test_closed_form_derivatives_agree_with_autograd(schedule):
    t = interior(schedule)
    assert relative(schedule.alpha_dot(t), Schedule._alpha_dot(schedule, t)) < 1e-14
    assert relative(schedule.sigma_dot(t), Schedule._sigma_dot(schedule, t)) < 1e-11


def test_drift_and_diffusion_are_those_of_the_path(schedule):
    """f = alpha'/alpha, and the variance equation (sigma^2)' = 2 f sigma^2 + g^2 that makes the SDE follow the path."""
    t = interior(schedule)
    assert relative(schedule.drift(t), schedule.alpha_dot(t) / schedule.alpha(t)) < 1e-12
    sigma = schedule.sigma(t)
    growth = 2 * sigma * schedule.sigma_dot(t)
    assert relative(2 * schedule.drift(t) * sigma**2 + schedule.diffusion_sq(t), growth) < 1e-12


def test_time_of_log_snr_inverts(schedule):
    t = interior(schedule)
    assert float((schedule.time_of_log_snr(schedule.log_snr(t)) - t).abs().max()) < 1e-13


def test_bisection_inverts_too(schedule):
    """What a reader's own schedule inherits, having only alpha and sigma."""
    t = interior(schedule)
    assert float((Schedule._time_of_log_snr(schedule, schedule.log_snr(t)) - t).abs().max()) < 1e-13


def test_keeps_shape_and_dtype(schedule):
    for dtype in (torch.float32, torch.float64):
        t = torch.full((2, 3), 0.5, dtype=dtype)
        for method in (
            schedule.alpha,
            schedule.sigma,
            schedule.log_snr,
            schedule.drift,
            schedule.diffusion_sq,
            schedule.sigma_dot,
        ):
            assert method(t).shape == t.shape and method(t).dtype == dtype


def test_small_times_keep_their_precision(schedule):
    """sigma near t = 0 is a small difference of near-equal numbers if computed carelessly: float32 against float64."""
    t = torch.tensor([1e-5, 1e-4, 1e-3], dtype=torch.float64)
    single, double = schedule.sigma(t.float()).double(), schedule.sigma(t)
    limit = 2e-3 if isinstance(schedule, DiscreteSchedule) else 1e-5  # a table of 1000 entries in float32
    assert float((single / double - 1).abs().max()) < limit


def test_config_rebuilds(schedule):
    assert schedule_from_config(schedule.config) == schedule


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_grids(schedule, kind, steps):
    times = time_grid(schedule, steps, kind)
    assert times.shape == (steps + 1,) and times.dtype == torch.float64
    assert float(times[0]) == schedule.t_max and float(times[-1]) == 0.0
    assert bool((times.diff() < 0).all())


def test_karras_grid_is_the_papers_formula():
    from diffusion_lib.schedules import EDMSchedule

    n, low, high, rho = 18, 0.002, 80.0, 7
    sigma = EDMSchedule(high).sigma(time_grid(EDMSchedule(high), n, "karras"))
    i = torch.arange(n, dtype=torch.float64)
    expected = (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    assert torch.allclose(sigma[:-1], expected, rtol=1e-12) and float(sigma[-1]) == 0.0


def test_grid_can_start_at_a_lower_noise_level():
    times = time_grid(VPSchedule(), 10, noise_max=1.0)
    assert float(VPSchedule().noise_level(times[0])) == pytest.approx(1.0)


def test_vp_is_the_limit_of_ddpm():
    """DDPM's T = 1000 linear betas are VP(0.1, 20) in the limit: log alpha-bar agrees to O(1/T)."""
    discrete, k = DiscreteSchedule.from_name("linear"), torch.arange(1, 1001)
    t = discrete.time(k)
    error = (discrete.alpha(t).log() - VPSchedule().alpha(t).log()).abs().max()
    assert (
        float(error) < 0.06
    )  # half of the sum of beta^2 / 2, beta = 0.02: 0.03 in log alpha, plus the first step's offset


def test_ddpm_tables_are_the_product_of_the_betas():
    schedule = DiscreteSchedule.from_name("linear")
    assert float(schedule.betas[0]) == pytest.approx(1e-4) and float(schedule.betas[-1]) == pytest.approx(0.02)
    product = torch.cumprod(1 - schedule.betas, 0)
    k = torch.arange(1, 1001)
    assert torch.allclose(schedule.alphas_bar[k], product, rtol=1e-13)
    assert torch.allclose(schedule.alpha(schedule.time(k)) ** 2, product, rtol=1e-11)
    assert float(product[-1]) == pytest.approx(4.0358e-5, rel=1e-3)  # the value that Ho et al.'s schedule ends on


@pytest.mark.parametrize("T", [50, 100, 4000])
def test_linear_betas_reach_the_same_noise_for_any_T(T):
    """-b - b^2 < log(1 - b) < -b for 0 < b < 0.68, and the scaled betas sum to 10.05 for every T: this brackets log alpha-bar_T."""
    schedule = DiscreteSchedule.from_name("linear", T)
    assert -10.05 - float(schedule.betas.square().sum()) < float(schedule.alphas_bar[-1].log()) < -10.05


def test_cosine_is_nichols_formula():
    t, s = torch.linspace(0, 0.99, 100, dtype=torch.float64), 0.008
    f = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    assert torch.allclose(CosineSchedule().alpha(t) ** 2, f / f[0], rtol=1e-12)
    discrete = DiscreteSchedule.from_name("cosine")
    k = torch.arange(0, 990)
    assert torch.allclose(discrete.alphas_bar[k], CosineSchedule().alpha(discrete.time(k)) ** 2, rtol=1e-9)
    assert float(discrete.betas.max()) == 0.999


def test_ve_differs_from_songs_formula_by_sigma_min():
    schedule, t = VESchedule(), torch.linspace(0.1, 1, 10, dtype=torch.float64)
    theirs = schedule.sigma_min * (schedule.sigma_max / schedule.sigma_min) ** t
    assert torch.allclose(theirs**2 - schedule.sigma(t) ** 2, torch.full_like(t, schedule.sigma_min**2), rtol=1e-6)


def test_linear_is_rectified_flow():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.equal(LinearSchedule().alpha(t), 1 - t) and torch.equal(LinearSchedule().sigma(t), t)


def test_a_new_schedule_needs_only_alpha_and_sigma():
    class Quarter(Schedule):
        def _alpha(self, t):
            return torch.cos(math.pi / 2 * 0.99 * t)

        def _sigma(self, t):
            return torch.sin(math.pi / 2 * 0.99 * t)

    t = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    assert relative(Quarter().diffusion_sq(t), -2 * Quarter().drift(t)) < 1e-12
    assert bool((time_grid(Quarter(), 20, "karras").diff() < 0).all())


def test_expand_reshapes_one_number_per_sample():
    x = torch.zeros(4, 3, 2, 2)
    assert expand(torch.arange(4.0, dtype=torch.float64), x).shape == (4, 1, 1, 1)
    assert expand(torch.arange(4.0, dtype=torch.float64), x).dtype == torch.float32
    assert expand(torch.tensor(2.0), x).ndim == 0


def test_prior_draws_have_the_stated_width(schedule, generator):
    x = schedule.noise((200_000,), generator, dtype=torch.float64)
    assert abs(float(x.std()) / schedule.prior_std - 1) < 4 / math.sqrt(
        2 * 200_000
    )  # 4 standard errors of a standard deviation
