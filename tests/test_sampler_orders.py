"""How fast each sampler's error falls: fitted slopes over step counts. Over paths the median is taken, since a few change mode."""

from __future__ import annotations

import math

import pytest
import torch
from laws import SAMPLERS, gaussian, level_grid, marginal_variance, output_variance, slope, start

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.samplers import (
    ddim,
    ddim_coefficients,
    ddim_invert,
    euler_maruyama,
    euler_maruyama_coefficients,
    final,
    heun,
)
from diffusion_lib.schedules import EDMSchedule, VPSchedule, time_grid
from diffusion_lib.targets import convert

MIXTURE = three_modes()
STEPS = (40, 80, 160, 320)
HIGHEST, LOWEST = 5.0, 0.05  # noise levels between which paths are followed


def euler_walk(denoiser, schedule, x, times):
    return euler_maruyama(denoiser, schedule, x, times, stochasticity=0.0)


# --- paths of the probability-flow ODE -------------------------------------------------------------------------------


def clean_start(n=200):
    """y = x/alpha at the highest noise level, drawn from its marginal: the same for every schedule."""
    generator = torch.Generator().manual_seed(0)
    return MIXTURE.sample(n, generator) + HIGHEST * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def followed(walk, schedule, y, steps):
    """y = x/alpha at the lowest noise level."""
    times = level_grid(schedule, steps, HIGHEST, LOWEST)
    x = final(walk(ExactDenoiser(MIXTURE, schedule), schedule, schedule.alpha(times[0]) * y, times))
    return x / schedule.alpha(times[-1])


@pytest.fixture(scope="module")
def arrived():
    """Where the exact flow carries ``clean_start``: classical Runge-Kutta of order 4 on dy/dlevel = eps_hat, 1600 steps in log level."""
    schedule, y = EDMSchedule(), clean_start()
    h = math.log(LOWEST / HIGHEST) / 1600

    def slope_of(u, y):
        level = math.exp(u)
        return y - MIXTURE.denoise(y, level / schedule.sigma_max, schedule)  # level * eps_hat

    for k in range(1600):
        u = math.log(HIGHEST) + k * h
        a = slope_of(u, y)
        b = slope_of(u + h / 2, y + h / 2 * a)
        c = slope_of(u + h / 2, y + h / 2 * b)
        d = slope_of(u + h, y + h * c)
        y = y + h / 6 * (a + 2 * b + 2 * c + d)
    return y


@pytest.mark.parametrize("walk, order", [(ddim, 1), (euler_walk, 1), (heun, 2)], ids=["ddim", "euler", "heun"])
def test_order_of_paths_on_the_mixture(walk, order, arrived):
    schedule, y = VPSchedule(), clean_start()
    errors = [float((followed(walk, schedule, y, n) - arrived).norm(dim=1).median()) for n in STEPS]
    assert abs(slope(STEPS, errors) + order) < 0.15


@pytest.mark.parametrize("walk", [ddim, heun], ids=["ddim", "heun"])
def test_these_paths_depend_on_noise_levels_alone(schedule, walk):
    """In x/alpha and sigma/alpha every schedule is the same problem, so the same levels give the same path under each."""
    y = clean_start(20)
    expected, found = followed(walk, EDMSchedule(), y, 30), followed(walk, schedule, y, 30)
    assert float((found - expected).abs().max()) < 1e-9


def test_ddim_is_euler_in_x_over_alpha(schedule):
    times, x = time_grid(schedule, 25), start(schedule, 16)
    denoiser = ExactDenoiser(MIXTURE, schedule)
    y, level = x / schedule.alpha(times[0]), schedule.noise_level(times)
    for k, state in enumerate(ddim(denoiser, schedule, x, times)):
        if k:
            t = times[k - 1].expand(len(x))
            x_t = schedule.alpha(times[k - 1]) * y
            eps_hat = convert(denoiser(x_t, t), x_t, t, schedule, "x0", "eps")
            y = y + (level[k] - level[k - 1]) * eps_hat
        x_k = schedule.alpha(times[k]) * y
        assert float((x_k - state).abs().max()) < 1e-12 * max(1.0, float(x.abs().max()))


def test_the_flow_of_a_gaussian(schedule):
    """x_0 = m + s (x_T - alpha m) / sqrt(alpha^2 s^2 + sigma^2), solved by hand; the grid goes on to t = 0."""
    mean, std, x = 0.4, 0.5, start(schedule, 64)
    alpha, variance = schedule.alpha(schedule.t_max), marginal_variance(schedule, schedule.t_max, std**2)
    exact = mean + std * (x - alpha * mean) / variance.sqrt()
    denoiser = ExactDenoiser(gaussian([std**2] * 2, mean), schedule)
    for walk, order in ((ddim, 1), (heun, 2)):
        errors = []
        for n in STEPS:
            times = time_grid(schedule, n, "karras", noise_min=1e-4)
            errors.append(float((final(walk(denoiser, schedule, x, times)) - exact).norm(dim=1).median()))
        assert abs(slope(STEPS, errors) + order) < 0.15


def test_going_up_and_down_again(schedule):
    """ddim_invert, then ddim on the same grid: the error halves when the number of steps doubles."""
    denoiser, x0 = ExactDenoiser(MIXTURE, schedule), MIXTURE.sample(200, torch.Generator().manual_seed(1))
    errors = []
    for n in STEPS:
        times = time_grid(schedule, n, "log_snr")
        latent = final(ddim_invert(denoiser, schedule, x0, times))
        errors.append(float((final(ddim(denoiser, schedule, latent, times)) - x0).norm(dim=1).median()))
    assert abs(slope(STEPS, errors) + 1) < 0.1


def test_the_way_up_is_the_exact_flow(schedule):
    """Encoding a Gaussian: x_T = sqrt(alpha^2 + sigma^2 / s^2) x_0 in the limit, at order 1, so the latents have their noise's spread."""
    std, x0 = 0.5, 0.5 * torch.randn(64, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    denoiser = ExactDenoiser(gaussian([std**2] * 2), schedule)
    exact = (marginal_variance(schedule, schedule.t_max, std**2) / std**2).sqrt() * x0
    errors = []
    for n in STEPS:
        times = time_grid(schedule, n, "log_snr", noise_min=1e-3)
        found = final(ddim_invert(denoiser, schedule, x0, times))
        errors.append(float(((found - exact) / exact).abs().median()))
    assert abs(slope(STEPS, errors) + 1) < 0.1


# --- laws: weak order, without Monte Carlo ---------------------------------------------------------------------------

SPREADS = [0.15**2, 0.4**2, 1.0, 4.0]  # variances of four data sets: an error's leading coefficient may vanish for one, not for all
SDE_FAMILY = ("sde", "sde-half", "euler")


def law_error(name, schedule, steps):
    """The largest relative error of the variance that arrives, from the exact marginal at the first time to that at the last."""
    times = level_grid(schedule, steps, HIGHEST, LOWEST)
    exact = marginal_variance(schedule, times[-1], SPREADS)
    found = output_variance(name, schedule, times, SPREADS, marginal_variance(schedule, times[0], SPREADS))
    return float((found / exact - 1).abs().max())


def fitted_law(name, schedule, steps):
    return slope(steps, [law_error(name, schedule, n) for n in steps])


@pytest.mark.parametrize("name", [n for n, (*_, order) in SAMPLERS.items() if order and n not in SDE_FAMILY])
def test_weak_order(schedule, name):
    """The limit is the same for every eta: DDIM's family shares its marginals."""
    assert abs(fitted_law(name, schedule, (50, 100, 200)) + SAMPLERS[name][3]) < 0.15


@pytest.mark.parametrize("name", SDE_FAMILY)
def test_weak_order_of_the_sde(smooth_schedule, name):
    """The limit is the same for every stochasticity: SDE and ODE share their marginals."""
    assert abs(fitted_law(name, smooth_schedule, (100, 200, 400)) + 1) < 0.15


def test_the_optimal_variance_is_exact_on_gaussians(schedule):
    assert law_error("ddpm-optimal", schedule, 5) < 1e-11


# --- strong order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stochasticity", [1.0, 0.5])
def test_strong_order_of_euler_maruyama(stochasticity, monkeypatch):
    """The same Brownian path on nested grids, through the sampler itself: noise is replaced by the path's increments over sqrt(h).

    Additive noise: strong order 1, where a g that depends on x would give 1/2. The reference has 16 times the steps of the finest walk.
    """
    schedule, n, finest = VPSchedule(), 200, 2048
    grid = torch.linspace(0.9, 0.1, finest + 1, dtype=torch.float64)
    increments = torch.randn(finest, n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start_law = MIXTURE.marginal(schedule, 0.9)
    x, denoiser = start_law.sample(n, torch.Generator().manual_seed(1)), ExactDenoiser(MIXTURE, schedule)

    def walk(steps):
        draws = iter(increments.reshape(steps, finest // steps, n, 2).sum(1) / math.sqrt(finest // steps))
        monkeypatch.setattr("diffusion_lib.noise.randn_like", lambda x, generator: next(draws))
        return final(euler_maruyama(denoiser, schedule, x, grid[:: finest // steps], stochasticity=stochasticity))

    reference, steps = walk(finest), (16, 32, 64, 128)
    errors = [float((walk(k) - reference).norm(dim=1).median()) for k in steps]
    assert abs(slope(steps, errors) + 1) < 0.15


def test_the_ddpm_step_is_the_reverse_sde_to_second_order(schedule):
    """x_s = a x_t + b x0_hat + c z: a, b and c^2 of the two steps differ by O(h^2) or less, while each differs from its value at h = 0 by O(h)."""
    t, widths = 0.5005, (4e-4, 2e-4, 1e-4, 5e-5)  # inside one piece of the discrete schedules' beta
    ancestral, euler = [], []
    for h in widths:
        times = torch.tensor([t, t - h], dtype=torch.float64)
        for found, (a, b, c) in (
            (ancestral, ddim_coefficients(schedule, times, eta=1.0)[0]),
            (euler, euler_maruyama_coefficients(schedule, times)[0]),
        ):
            found.append((a, b, c**2))
    for ours, theirs, limit in zip(zip(*ancestral, strict=True), zip(*euler, strict=True), (1.0, 0.0, 0.0), strict=True):
        difference = [abs(p - q) for p, q in zip(ours, theirs, strict=True)]
        assert slope(widths, difference) > 1.95  # 3 for one of them where beta is constant
        assert abs(slope(widths, [abs(p - limit) for p in ours]) - 1) < 0.05
