"""Heun with churn: EDM's stochastic sampler as published, the exact law of its output on Gaussian data, and where it draws noise."""

from __future__ import annotations

import math

import pytest
import torch
from laws import Counting, gains, gaussian, level_grid, marginal_variance, slope, start

from diffusion_lib import noise
from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.samplers import final, heun
from diffusion_lib.samplers.heun import heun_steps
from diffusion_lib.schedules import EDMSchedule, VPSchedule, time_grid

MIXTURE = three_modes()
HIGHEST, LOWEST = 5.0, 0.05
SPREADS = torch.tensor([0.15**2, 0.4**2, 1.0, 4.0], dtype=torch.float64)


# --- as published ----------------------------------------------------------------------------------------------------


def algorithm_2(denoise, x, levels, draws, churn, low, high, churn_noise):
    """Karras et al. 2022, Algorithm 2, line by line, in EDM's own variables: x at noise level t, D(x; t). ``draws`` is one z a line 5."""
    count, states, draws = len(levels) - 1, [x], iter(draws)
    for t, after in zip(levels, levels[1:], strict=False):
        gamma = min(churn / count, math.sqrt(2) - 1) if low <= t <= high else 0.0
        raised = t + gamma * t
        if gamma > 0:
            x = x + math.sqrt(raised**2 - t**2) * churn_noise * next(draws)
        slope_here = (x - denoise(x, raised)) / raised
        new = x + (after - raised) * slope_here
        if after != 0:
            slope_there = (new - denoise(new, after)) / after
            new = x + (after - raised) * (0.5 * slope_here + 0.5 * slope_there)
        x = new
        states.append(x)
    return states


@pytest.mark.parametrize("options", [
    {"churn": 0.0, "churn_interval": (0.0, math.inf), "churn_noise": 1.0},
    {"churn": 3.0, "churn_interval": (0.0, math.inf), "churn_noise": 1.0},
    {"churn": 4.9, "churn_interval": (0.05, 2.0), "churn_noise": 1.007},
    {"churn": 12 * (math.sqrt(2) - 1), "churn_interval": (0.5, 20.0), "churn_noise": 0.9},
], ids=["none", "some", "interval", "most"])  # fmt: skip
def test_it_is_algorithm_2_on_every_schedule(schedule, options, monkeypatch):
    """Every state, with the same noise, on a grid that ends at 0: x/alpha is EDM's x, sigma/alpha its t."""
    steps, rho = 12, 7.0
    levels = [(30 ** (1 / rho) + k / (steps - 1) * (0.01 ** (1 / rho) - 30 ** (1 / rho))) ** rho for k in range(steps)]
    draws = [torch.randn(16, 2, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in range(steps)]
    y = MIXTURE.sample(16, torch.Generator().manual_seed(99)) + 30 * draws[-1].flip(0)
    edm = EDMSchedule()
    expected = algorithm_2(lambda x, t: MIXTURE.denoise(x, t / edm.sigma_max, edm), y, [*levels, 0.0], draws, options["churn"],
                           *options["churn_interval"], options["churn_noise"])  # fmt: skip
    left = iter(draws)
    monkeypatch.setattr(noise, "randn_like", lambda x, generator=None: next(left))
    times = schedule.time_of_log_snr(-torch.tensor(levels, dtype=torch.float64).log())
    times = torch.cat([times, times.new_zeros(1)])
    found = list(heun(ExactDenoiser(MIXTURE, schedule), schedule, schedule.alpha(times[0]) * y, times, **options))
    relative = 1e-12 if isinstance(schedule, EDMSchedule) else 1e-8
    for x, t, exact in zip(found, times, expected, strict=True):
        assert float((x / schedule.alpha(t) - exact).abs().max()) < relative * float(exact.abs().max())


def test_without_churn_it_draws_nothing_and_is_heun(schedule):
    x, times, generator = start(schedule, 8), time_grid(schedule, 9, "karras"), torch.Generator().manual_seed(0)
    denoiser, before = ExactDenoiser(MIXTURE, schedule), generator.get_state()
    plain = final(heun(denoiser, schedule, x, times))
    for options in ({"churn": 0.0}, {"churn": 2.0, "churn_interval": (1e7, 1e8)}, {"churn_noise": 3.0}):
        assert torch.equal(final(heun(denoiser, schedule, x, times, generator=generator, **options)), plain)
    assert torch.equal(generator.get_state(), before)


# --- laws, without Monte Carlo ---------------------------------------------------------------------------------------


def arrived_variance(schedule, steps, **options):
    """The exact variance at the lowest level for each of SPREADS, from their exact marginals at the highest."""
    times = level_grid(schedule, steps, HIGHEST, LOWEST)
    data = gaussian(SPREADS.repeat_interleave(steps + 9))

    def walk(x, generator):
        return final(heun(ExactDenoiser(data, schedule), schedule, x, times, generator=generator, **options))

    p, q = gains(walk, len(SPREADS), steps)
    return p**2 * marginal_variance(schedule, times[0], SPREADS) + q.square().sum(0), marginal_variance(schedule, times[-1], SPREADS)


@pytest.mark.parametrize("options", [{"churn": 8.0}, {"churn": 8.0, "churn_interval": (0.2, 2.0)}], ids=["everywhere", "interval"])
def test_the_marginals_are_kept_at_order_two(schedule, options):
    steps, errors = (50, 100, 200), []
    for n in steps:
        found, exact = arrived_variance(schedule, n, **options)
        errors.append(float((found / exact - 1).abs().max()))
    assert abs(slope(steps, errors) + 2) < 0.15, errors


@pytest.mark.parametrize("churn_noise", [0.9, 1.1])
def test_noise_of_another_size_inflates_by_the_closed_form(churn_noise):
    """In the limit of many steps, in equal ratios of the level, the variance is (v + l^2) (1 + (c^2 - 1) (1 - r^(churn / L))), c = churn_noise.

    l, h are the lowest and highest level, L = log(h / l), r = (v + l^2) / (v + h^2). Noise that enters at level s has (c^2 - 1) 2 churn s^2 du / L too
    much variance in du = d log s, and from there to l the walk multiplies variances by ((v + l^2) / (v + s^2))^(1 + churn / L).
    A sum over the steps goes to an integral at order 1 at least.
    """
    churn, schedule, length = 6.0, EDMSchedule(), math.log(HIGHEST / LOWEST)
    ratio = (SPREADS + LOWEST**2) / (SPREADS + HIGHEST**2)
    limit = (SPREADS + LOWEST**2) * (1 + (churn_noise**2 - 1) * (1 - ratio ** (churn / length)))
    steps = (100, 200, 400)
    errors = [float((arrived_variance(schedule, n, churn=churn, churn_noise=churn_noise)[0] / limit - 1).abs().max()) for n in steps]
    assert slope(steps, errors) < -0.85, errors


# --- where it draws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low, high", [(0.0, math.inf), (0.1, 2.0), (0.0, 0.5), (10.0, math.inf), (0.5004, 0.5005)])
def test_noise_enters_inside_the_interval_alone(low, high, monkeypatch):
    schedule, drawn, randn_like = EDMSchedule(), [], noise.randn_like
    times = time_grid(schedule, 20, "karras", noise_max=40.0)
    inside = [low <= level <= high for level in schedule.noise_level(times[:-1]).tolist()]
    added = [step.added > 0 for step in heun_steps(schedule, times, 4.0, (low, high))]
    assert added == inside
    monkeypatch.setattr(noise, "randn_like", lambda x, generator=None: drawn.append(1) or randn_like(x, generator))
    list(heun(ExactDenoiser(MIXTURE, schedule), schedule, 40 * start(VPSchedule(), 4), times, churn=4.0, churn_interval=(low, high)))
    assert len(drawn) == sum(inside)


def test_the_ends_of_the_interval_belong_to_it():
    """EDM's S_tmin <= t_i <= S_tmax; levels that are powers of two are exact in EDM's time."""
    schedule = EDMSchedule(64.0)
    times = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64) / 64
    added = [step.added for step in heun_steps(schedule, times, 1.0, (1.0, 4.0))]
    assert [a > 0 for a in added] == [False, True, True, True, False]
    assert added[1] == pytest.approx(4.0 * math.sqrt(1.2**2 - 1), rel=1e-12)


def test_it_never_rises_above_the_schedule(schedule):
    """The first step, at t_max, cannot rise; the next ones only up to t_max, and only the noise for that is added."""
    highest = float(schedule.noise_level(torch.tensor(schedule.t_max, dtype=torch.float64)))
    levels = highest * torch.tensor([1.0, 0.9, 0.8, 0.5, 0.1], dtype=torch.float64)
    times = schedule.time_of_log_snr(-levels.log())
    times[0] = schedule.t_max
    asked, churn = Counting(ExactDenoiser(MIXTURE, schedule)), 1.6  # a factor 1.4
    list(heun(asked, schedule, start(schedule, 4), times, churn=churn))
    assert max(asked.times) <= schedule.t_max
    steps = heun_steps(schedule, times, churn)
    for step, level, expected in zip(steps, levels, [1.0, 1.0, 1.0, 0.7], strict=False):
        rise = (expected * highest) ** 2 - float(level) ** 2
        assert step.added**2 == pytest.approx(rise, rel=1e-6, abs=1e-9 * highest**2)
