"""Every sampler on the exact mixture, and what it promises: states along the grid, evaluations, conditions, dtype, seeds."""

from __future__ import annotations

import math

import pytest
import torch
from laws import SAMPLERS, Counting, output_variance, start

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.samplers import (
    ddim,
    ddim_coefficients,
    ddim_invert,
    ddpm,
    ddpm_step,
    final,
    forward_sde,
    heun,
    predictor_corrector,
)
from diffusion_lib.schedules import DiscreteSchedule, LinearSchedule, VESchedule, VPSchedule, time_grid
from diffusion_lib.transitions import posterior_kernel

MIXTURE = three_modes()
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


def run(name, schedule, x, times, generator=None, denoiser=None, **extra):
    sampler, options, *_ = SAMPLERS[name]
    denoiser = denoiser or ExactDenoiser(MIXTURE, schedule)
    return list(sampler(denoiser, schedule, x, times, generator=generator, **options, **extra))


def nearest(x):
    return (x[:, None] - MIXTURE.means).square().sum(-1).argmin(1)


# --- what a sampler promises -----------------------------------------------------------------------------------------


def evaluations(name, t):
    """The times at which each sampler says it asks the denoiser, for a grid ``t`` (a list) that ends at 0."""
    if name == "heun":  # both ends of each step, but for the last: 2N - 1
        return [time for pair in zip(t, t[1:], strict=False) for time in pair][:-1]
    if name.startswith("corrected"):  # the predictor where it stands, the corrector where it lands: N + (N - 1)
        return [t[0], *(time for time in t[1:-1] for _ in range(2))]
    return t[:-1]


@every_sampler
def test_states_and_evaluations_along_the_grid(schedule, name, generator):
    denoiser, times, x = Counting(ExactDenoiser(MIXTURE, schedule)), time_grid(schedule, 7), start(schedule, 3)
    states = run(name, schedule, x, times, generator, denoiser)
    assert len(states) == 8 and torch.equal(states[0], x)
    expected = evaluations(name.removesuffix("-churn"), times.tolist())
    if name == "heun-churn":  # a step begins where its level, raised by the factor 1 + 2/7, lies; the first cannot rise
        expected[2::2] = schedule.time_of_log_snr(schedule.log_snr(times[1:-1]) - math.log(1 + 2 / 7)).clamp(max=schedule.t_max).tolist()
    assert denoiser.times == pytest.approx(expected, abs=1e-9 if name == "heun-churn" else 0)


def test_evaluations_of_the_others():
    schedule, x = VPSchedule(), start(VPSchedule(), 3)
    times = time_grid(schedule, 7)
    t, asked = times.tolist(), Counting(ExactDenoiser(MIXTURE, schedule))
    states = list(ddim_invert(asked, schedule, x, times))
    assert len(states) == 8 and asked.times == [t[6], *t[6:0:-1]]  # N of them: at t = 0 the step's other end is asked
    asked = Counting(ExactDenoiser(MIXTURE, schedule))
    list(heun(asked, schedule, x, times[:-1]))
    assert len(asked.times) == 12  # 2N, on a grid that stops before t = 0
    for corrections in (0, 1, 3):
        asked = Counting(ExactDenoiser(MIXTURE, schedule))
        list(predictor_corrector(asked, schedule, x, times, corrector_steps=corrections))
        assert len(asked.times) == 7 + corrections * 6


@every_sampler
def test_seeded_and_following_the_dtype(name):
    schedule = VPSchedule()
    x, times = start(schedule, 5).float(), time_grid(schedule, 10)
    a, b, c = (run(name, schedule, x, times, torch.Generator().manual_seed(seed))[-1] for seed in (3, 3, 4))
    assert torch.equal(a, b) and a.dtype == torch.float32
    assert torch.equal(a, c) == (SAMPLERS[name][2] == 0)  # those that draw nothing
    exact = run(name, schedule, x.double(), times, torch.Generator().manual_seed(3))[-1]
    assert exact.dtype == torch.float64


@every_sampler
def test_condition_reaches_the_denoiser(name, generator):
    schedule, label = VPSchedule(), torch.arange(300) % 3
    x = run(name, schedule, start(schedule, 300), time_grid(schedule, 100, "karras"), generator, condition={"label": label})
    assert torch.equal(nearest(x[-1]), label)


def test_the_optimal_variance_hears_the_condition(generator):
    """Two steps from much noise: the spread of one component, not of the mixture, decides how much noise is added."""
    schedule, n = VPSchedule(), 4000
    x, label = start(schedule, n), torch.zeros(n, dtype=torch.long)
    times = torch.tensor([1.0, 0.5], dtype=torch.float64)
    x = run("ddpm-optimal", schedule, x, times, generator, condition={"label": label})[-1]
    exact = MIXTURE.marginal(schedule, 0.5)
    std = float(schedule.alpha(0.5) ** 2 * 0.15**2 + schedule.sigma(0.5) ** 2) ** 0.5
    # alpha(1) = 0.0066, so x_1 is N(0, 1) up to 4e-5 in variance and 0.01 in mean: far below 4 standard errors.
    assert bool(((x.mean(0) - exact.means[0]).abs() < 4 * std / n**0.5).all())
    assert bool(((x.std(0) / std - 1).abs() < 4 / (2 * n) ** 0.5).all())


@pytest.mark.parametrize("name", [name for name, (_, _, draws, _) in SAMPLERS.items() if draws and not name.startswith(("heun-churn", "dpmpp-sde"))])
def test_the_last_step_adds_no_noise(name):
    """The last state is a function of the one before. (Churn adds its noise before a step, and the step takes it away.)"""
    schedule, x = LinearSchedule(), start(LinearSchedule(), 10)
    times = torch.tensor([0.01, 0.0], dtype=torch.float64)
    a, b = (run(name, schedule, x, times, torch.Generator().manual_seed(seed))[-1] for seed in (0, 1))
    assert torch.equal(a, b)


def test_the_last_step_of_the_multistep_sde_adds_no_noise():
    """It looks back too, so the two walks are given the same noise before, and another one where they end."""
    schedule, times, ends = VPSchedule(), time_grid(VPSchedule(), 4), []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(0)
        states = SAMPLERS["dpmpp-sde"][0](ExactDenoiser(MIXTURE, schedule), schedule, start(schedule, 3), times, eta=1.0, generator=generator)
        before = [next(states) for _ in range(4)]
        generator.manual_seed(seed)
        ends.append((before[-1], next(states)))
    assert torch.equal(ends[0][0], ends[1][0]) and torch.equal(ends[0][1], ends[1][1])


def test_the_last_ddpm_step_adds_no_noise():
    schedule = DiscreteSchedule.from_name("linear", 100)
    x, x0_hat = torch.randn(10, 2, dtype=torch.float64), torch.randn(10, 2, dtype=torch.float64)
    for variance in ("posterior", "forward"):
        a, b = (
            ddpm_step(x, x0_hat, 0.0, 0.01, schedule, variance, generator=torch.Generator().manual_seed(seed))
            for seed in (0, 1)
        )
        assert torch.equal(a, b)
    assert torch.allclose(a, x0_hat, rtol=1e-12)  # c_x0 = 1, c_xt = 0


# --- the mixture -----------------------------------------------------------------------------------------------------


@every_sampler
def test_samples_the_mixture(schedule, name, generator):
    """Weights, means, spreads and correlation of the components, each within 4 standard errors, after 200 steps.

    A first-order sampler is off by O(1/200). Its spread is therefore compared with the exact law of this sampler, on this grid, for one
    Gaussian as narrow as a component (``output_variance``), and that law with the truth to 6 % (its order is fitted elsewhere).
    Euler's method in t on VE works against 2 log(5000) = 17 units of log noise level a unit of t, and gets 1000 steps.
    """
    steps, n = (1000 if name == "euler" and isinstance(schedule, VESchedule) else 200), 2000
    times = time_grid(schedule, steps, "log_snr")
    law = float(output_variance(name, schedule, times, [0.15**2], [schedule.prior_std**2])) ** 0.5
    assert abs(law / 0.15 - 1) < 0.06
    x = run(name, schedule, start(schedule, n), times, generator)[-1]
    component = nearest(x)
    for k, weight in enumerate(MIXTURE.weights.tolist()):
        mine = x[component == k]
        assert abs(len(mine) / n - weight) < 4 * math.sqrt(weight * (1 - weight) / n)
        centred = (mine - MIXTURE.means[k]) / law
        assert bool((centred.mean(0).abs() < 4 / math.sqrt(len(mine))).all())
        assert bool((centred.std(0) - 1).abs().max() < 4 / math.sqrt(2 * len(mine)))
        assert abs(float(centred.prod(1).mean())) < 4 / math.sqrt(len(mine))


# --- the DDPM step and its relatives ---------------------------------------------------------------------------------


def test_ddim_with_eta_one_is_the_ddpm_posterior(schedule):
    x, times = start(schedule, 16), time_grid(schedule, 20)
    denoiser = ExactDenoiser(MIXTURE, schedule)
    a, b = (
        list(sampler(denoiser, schedule, x, times, generator=torch.Generator().manual_seed(5), **options))
        for sampler, options in ((ddim, {"eta": 1.0}), (ddpm, {"variance": "posterior"}))
    )
    for p, q in zip(a, b, strict=True):
        assert float((p - q).abs().max()) < 1e-12 * max(1.0, float(q.abs().max()))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_eta_scales_the_standard_deviation_of_the_noise(schedule, eta):
    """x_s = alpha_s x0_hat + sqrt(sigma_s^2 - c^2) eps_hat + c z with c = eta * (posterior standard deviation), term by term."""
    times = time_grid(schedule, 9)
    for t, s, (a, b, c) in zip(times, times[1:], ddim_coefficients(schedule, times, eta), strict=False):
        variance = float(posterior_kernel(schedule, s, t)[2])
        toward_noise = max(0.0, float(schedule.sigma(s)) ** 2 - eta**2 * variance) ** 0.5  # of eps_hat = (x - alpha x0_hat) / sigma
        assert c == pytest.approx(eta * variance**0.5, rel=1e-12, abs=1e-15)
        assert a == pytest.approx(toward_noise / float(schedule.sigma(t)), rel=1e-9, abs=1e-12)
        assert b == pytest.approx(float(schedule.alpha(s)) - a * float(schedule.alpha(t)), rel=1e-9, abs=1e-12)


def test_a_predictor_without_corrections_is_the_sampler(schedule):
    x, times, denoiser = start(schedule, 16), time_grid(schedule, 20, "log_snr"), ExactDenoiser(MIXTURE, schedule)
    for predictor, name in (("euler_maruyama", "sde"), ("ancestral", "ddpm-posterior")):
        options = {"predictor": predictor, "corrector_steps": 0, "generator": torch.Generator().manual_seed(5)}
        a = final(predictor_corrector(denoiser, schedule, x, times, **options))
        b = run(name, schedule, x, times, torch.Generator().manual_seed(5))[-1]
        assert float((a - b).abs().max()) < 1e-12 * max(1.0, float(b.abs().max()))


def test_one_ddim_step_keeps_the_marginal_for_any_eta(schedule, generator):
    """From x_t of the true marginal *given x_0*, a step with the true x_0 gives x_s with mean alpha_s x_0 and variance sigma_s^2."""
    n, s, t, x0 = 200_000, 0.3, 0.5, 0.8
    times = torch.tensor([t, s], dtype=torch.float64)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    x_t = alpha[0] * x0 + sigma[0] * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    for eta in (0.0, 0.5, 1.0):
        x_s = final(ddim(lambda x, t: torch.full_like(x, x0), schedule, x_t, times, eta=eta, generator=generator))
        assert abs(float(x_s.mean() - alpha[1] * x0)) < 4 * float(sigma[1]) / n**0.5
        assert abs(float(x_s.std() / sigma[1]) - 1) < 4 / (2 * n) ** 0.5


def test_ddpm_step_has_the_stated_mean_and_variance(generator):
    schedule = DiscreteSchedule.from_name("linear")
    s, t, n = 499 / 1000, 500 / 1000, 200_000
    x, x0_hat = torch.full((n, 1), 0.3, dtype=torch.float64), torch.full((n, 1), -0.6, dtype=torch.float64)
    c_x0, c_xt, posterior = posterior_kernel(schedule, s, t)
    for variance, expected in (("posterior", posterior), ("forward", schedule.betas[499])):
        out = ddpm_step(x, x0_hat, s, t, schedule, variance, generator=generator)
        assert abs(float(out.mean() - (c_x0 * -0.6 + c_xt * 0.3))) < 4 * float(expected) ** 0.5 / n**0.5
        assert abs(float(out.var() / expected) - 1) < 4 * (2 / n) ** 0.5


def test_grids_of_float32_and_parts_of_the_way_are_grids(schedule):
    """A state belongs to a time, so a walk may begin and end anywhere on the path; only beyond t_max there is none."""
    x, times = start(schedule, 4), time_grid(schedule, 10)
    for name in SAMPLERS:
        for grid in (times.float(), times[3:], times[:7]):
            assert torch.isfinite(run(name, schedule, x, grid, torch.Generator().manual_seed(0))[-1]).all()
    for states in (ddim_invert(ExactDenoiser(MIXTURE, schedule), schedule, x, times.float()), forward_sde(schedule, x, times.float().flip(0))):
        assert torch.isfinite(final(states)).all()
