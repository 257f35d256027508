"""DDPM and DDIM on problems whose exact answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture, three_modes
from diffusion_lib.samplers import ddim, ddpm, ddpm_step, final
from diffusion_lib.schedules import DiscreteSchedule, VPSchedule, time_grid
from diffusion_lib.transitions import posterior_kernel

MIXTURE = three_modes()


class Counting:
    """A denoiser that counts how often it is asked, and at which times."""

    def __init__(self, denoiser):
        self.denoiser, self.times = denoiser, []

    def __call__(self, x, t, **condition):
        self.times.append(float(t[0]))
        return self.denoiser(x, t, **condition)


def start(schedule, n, seed=0, dim=2):
    return schedule.noise((n, dim), torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_one_evaluation_a_step_and_states_along_the_grid(schedule, sampler):
    denoiser, times = Counting(ExactDenoiser(MIXTURE, schedule)), time_grid(schedule, 7)
    states = list(sampler(denoiser, schedule, start(schedule, 3), times, generator=torch.Generator().manual_seed(1)))
    assert len(states) == 8 and denoiser.times == times[:-1].tolist()


@pytest.mark.parametrize(
    "sampler, options",
    [
        (ddim, {}),
        (ddim, {"eta": 0.5}),
        (ddim, {"eta": 1.0}),
        (ddpm, {}),
        (ddpm, {"variance": "forward"}),
        (ddpm, {"variance": "optimal"}),
    ],
)
def test_samples_the_mixture(schedule, sampler, options, generator):
    """Component weights within 4 standard errors, and each component's mean and covariance, after 300 steps."""
    n = 4000
    times = time_grid(schedule, 300, "karras")
    x = final(
        sampler(ExactDenoiser(MIXTURE, schedule), schedule, start(schedule, n), times, generator=generator, **options)
    )
    component = (x[:, None] - MIXTURE.means).square().sum(-1).argmin(1)
    for k, weight in enumerate(MIXTURE.weights.tolist()):
        mine = x[component == k]
        assert abs(len(mine) / n - weight) < 4 * math.sqrt(weight * (1 - weight) / n)
        # The discretisation leaves a bias: mean within 4 standard errors plus 0.02, spread within 6 % of 0.15 plus 4.
        assert bool(((mine.mean(0) - MIXTURE.means[k]).abs() < 4 * 0.15 / math.sqrt(len(mine)) + 0.02).all())
        assert bool(((mine.std(0) / 0.15 - 1).abs() < 0.06 + 4 / math.sqrt(2 * len(mine))).all())


def test_ddim_converges_to_the_exact_flow_at_order_one(schedule):
    """One Gaussian, where the probability-flow ODE is solved by hand: x_0 = m + s (x_T - alpha m) / sqrt(alpha^2 s^2 + sigma^2)."""
    mean, s = torch.tensor([[0.4, -0.2]], dtype=torch.float64), 0.5
    gaussian = GaussianMixture(torch.ones(1, dtype=torch.float64), mean, torch.tensor([s**2], dtype=torch.float64))
    x = start(schedule, 64)
    alpha, sigma = schedule.alpha(schedule.t_max), schedule.sigma(schedule.t_max)
    exact = mean + s * (x - alpha * mean) / (alpha**2 * s**2 + sigma**2).sqrt()
    steps = [40, 80, 160, 320]
    errors = []
    for n in steps:
        times = time_grid(schedule, n, "karras", noise_min=1e-4)
        errors.append(
            float((final(ddim(ExactDenoiser(gaussian, schedule), schedule, x, times)) - exact).norm(dim=1).median())
        )
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert -1.15 < slope < -0.85


def test_ddim_with_eta_one_is_the_ddpm_posterior(schedule):
    x, times = start(schedule, 16), time_grid(schedule, 20)
    denoiser = ExactDenoiser(MIXTURE, schedule)
    a, b = (
        list(sampler(denoiser, schedule, x, times, generator=torch.Generator().manual_seed(5), **options))
        for sampler, options in ((ddim, {"eta": 1.0}), (ddpm, {"variance": "posterior"}))
    )
    for p, q in zip(a, b, strict=True):
        assert float((p - q).abs().max()) < 1e-12 * max(1.0, float(q.abs().max()))


def test_one_ddim_step_keeps_the_marginal_for_any_eta(schedule, generator):
    """From x_t of the true marginal *given x_0*, a step with the true x_0 gives x_s with mean alpha_s x_0 and variance sigma_s^2."""
    n, s, t, x0 = 200_000, 0.3, 0.5, 0.8
    alpha, sigma = (
        schedule.alpha(torch.tensor([s, t], dtype=torch.float64)),
        schedule.sigma(torch.tensor([s, t], dtype=torch.float64)),
    )
    x_t = alpha[1] * x0 + sigma[1] * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    for eta in (0.0, 0.5, 1.0):
        states = ddim(
            lambda x, t: torch.full_like(x, x0),
            schedule,
            x_t,
            torch.tensor([t, s], dtype=torch.float64),
            eta=eta,
            generator=generator,
        )
        x_s = final(states)
        assert abs(float(x_s.mean() - alpha[0] * x0)) < 4 * float(sigma[0]) / n**0.5
        assert abs(float(x_s.std() / sigma[0]) - 1) < 4 / (2 * n) ** 0.5


def test_ddpm_step_has_the_stated_mean_and_variance(generator):
    schedule = DiscreteSchedule.from_name("linear")
    s, t, n = 499 / 1000, 500 / 1000, 200_000
    x, x0_hat = torch.full((n, 1), 0.3, dtype=torch.float64), torch.full((n, 1), -0.6, dtype=torch.float64)
    c_x0, c_xt, posterior = posterior_kernel(schedule, s, t)
    for variance, expected in (("posterior", posterior), ("forward", schedule.betas[499])):
        out = ddpm_step(x, x0_hat, s, t, schedule, variance, generator=generator)
        assert abs(float(out.mean() - (c_x0 * -0.6 + c_xt * 0.3))) < 4 * float(expected) ** 0.5 / n**0.5
        assert abs(float(out.var() / expected) - 1) < 4 * (2 / n) ** 0.5


def test_the_last_step_adds_no_noise():
    schedule = DiscreteSchedule.from_name("linear", 100)
    x, x0_hat = torch.randn(10, 2, dtype=torch.float64), torch.randn(10, 2, dtype=torch.float64)
    for variance in ("posterior", "forward"):
        a, b = (
            ddpm_step(x, x0_hat, 0.0, 0.01, schedule, variance, generator=torch.Generator().manual_seed(seed))
            for seed in (0, 1)
        )
        assert torch.equal(a, b)
    assert torch.allclose(a, x0_hat, rtol=1e-12)  # c_x0 = 1, c_xt = 0


def test_seeded_and_following_the_dtype():
    schedule = VPSchedule()
    x = start(schedule, 5).float()
    a, b = (
        final(
            ddpm(
                ExactDenoiser(MIXTURE, schedule),
                schedule,
                x,
                time_grid(schedule, 10),
                generator=torch.Generator().manual_seed(3),
            )
        )
        for _ in range(2)
    )
    assert torch.equal(a, b) and a.dtype == torch.float32


def test_condition_reaches_the_denoiser():
    schedule, label = VPSchedule(), torch.arange(300) % 3
    x = final(
        ddim(
            ExactDenoiser(MIXTURE, schedule),
            schedule,
            start(schedule, 300),
            time_grid(schedule, 100, "karras"),
            condition={"label": label},
        )
    )
    assert torch.equal((x[:, None] - MIXTURE.means).square().sum(-1).argmin(1), label)
