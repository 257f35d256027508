"""What chapter 5's printed solutions must do besides passing their judge (test_exercises.py)."""

from __future__ import annotations

import pytest
import torch
from printed import printed_solution

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture, three_modes
from diffusion_lib.samplers import euler_maruyama, final, heun
from diffusion_lib.samplers.sde import euler_maruyama_coefficients
from diffusion_lib.schedules import VPSchedule, time_grid


def test_solution_of_the_reverse_process_is_the_librarys_step():
    schedule, mixture, reverse = VPSchedule(), three_modes(), printed_solution(5, "reverse_sde")
    x, h = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 0.01
    for eta in (0.0, 0.7, 1.0):
        drift, noise = reverse(schedule, x, 0.5, mixture.score(x, 0.5, schedule), eta)
        pair = torch.tensor([0.5, 0.5 - h], dtype=torch.float64)
        a, b, c = euler_maruyama_coefficients(schedule, pair, eta)[0]
        x0_hat = mixture.denoise(x, 0.5, schedule)
        assert torch.allclose(x - h * drift, a * x + b * x0_hat) and float(noise) * h**0.5 == pytest.approx(c)


def test_solution_of_heun_is_the_librarys_sampler():
    schedule, step = VPSchedule(), printed_solution(5, "heun_step")
    oracle = ExactDenoiser(three_modes(), schedule)
    start = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times, x = torch.linspace(1, 0.2, 9, dtype=torch.float64), start
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        x = step(x, t, s, oracle, schedule)
    assert torch.allclose(x, final(heun(oracle, schedule, start, times)))


def test_a_weak_score_hurts_the_ode_most():
    """The numbers of exercise 5.16b, and the closed form against a simulation with a weak score."""
    width = printed_solution(5, "width_of_a_weak_score")
    ratios = [width(eta) for eta in (0.0, 1.0, 2.0)]
    assert ratios == pytest.approx([3.14, 1.25, 1.14], abs=0.01)
    assert width(1.0, c=1.0) == pytest.approx(1.0)
    schedule = VPSchedule()
    gaussian = GaussianMixture(*(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[0.0]], [0.25])))
    oracle = ExactDenoiser(gaussian, schedule)

    def weak(x, t):
        return 0.9 * oracle(x, t) + 0.1 * x / schedule.alpha(t)[:, None]

    generator, n = torch.Generator().manual_seed(0), 4000
    start = schedule.noise((n, 1), generator, dtype=torch.float64)
    times = time_grid(schedule, 600, "log_snr", noise_min=0.02)[:-1]  # away from sigma = 0, where the last step is no SDE's
    x = final(euler_maruyama(weak, schedule, start, times, generator=generator))
    true = float(gaussian.marginal(schedule, float(times[-1])).covariance()[0, 0])
    # 4 standard errors of a sample variance, and 2 % for 600 steps
    assert float(x.var()) / true == pytest.approx(1.25, abs=4 * 1.25 * (2 / n) ** 0.5 + 0.03)


def test_weighted_particles_find_the_share_that_replacement_misses():
    """Exercise 5.16h: the mean over paths within four of its standard errors of the exact share, up to the steps' bias."""
    weighted, schedule, mixture = printed_solution(5, "weighted_inpaint"), VPSchedule(), three_modes()
    weight = mixture.weights * torch.exp(-((-0.65 - mixture.means[:, 0]) ** 2) / (2 * 0.15**2))
    exact = float((weight / weight.sum())[1])
    oracle, times = ExactDenoiser(mixture, schedule), time_grid(schedule, 100, "log_snr")
    shares = torch.stack(
        [
            (weighted(oracle, schedule, -0.65, 1000, times, torch.Generator().manual_seed(seed))[:, 1] > -0.25).double().mean()
            for seed in range(12)
        ]
    )
    assert abs(shares.mean() - exact) < 4 * shares.std() / len(shares) ** 0.5 + 0.03
    assert shares.mean() < 0.35  # replacement gives 0.6
    # what the solution says of a single path and of a dozen
    assert shares.min() < 0.015 and 0.3 < shares.max() < 0.35 and float(shares.mean()) == pytest.approx(0.147, abs=0.01)
