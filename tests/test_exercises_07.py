"""What chapter 7's printed solutions must do besides passing their judge (test_exercises.py)."""

from __future__ import annotations

import pytest
import torch
from printed import printed_solution

from diffusion_lib.denoisers import EDMDenoiser, ExactDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.samplers import dpmpp, final, heun
from diffusion_lib.samplers.heun import heun_steps
from diffusion_lib.schedules import CosineSchedule, EDMSchedule, VPSchedule, time_grid


def test_solution_of_preconditioning_is_the_librarys():
    level = torch.logspace(-3, 2, 9, dtype=torch.float64)
    c_skip, c_out, c_in, _ = EDMDenoiser(None, 0.4).coefficients(level)
    for ours, theirs in zip(printed_solution(7, "coefficients")(level, 0.4), (c_skip, c_out, c_in), strict=True):
        assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("schedule", [VPSchedule(), CosineSchedule()], ids=["vp", "cosine"])
def test_solution_of_the_third_order_step_is_the_librarys_sampler(schedule):
    """The library's walk, from its third step on, is made of the printed steps."""
    step, oracle = printed_solution(7, "third_order_step"), ExactDenoiser(three_modes(), schedule)
    lam = torch.tensor([-2.0, -1.3, -0.9, -0.2, 0.3, 1.2], dtype=torch.float64)
    times = schedule.time_of_log_snr(lam)
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    states = list(dpmpp(oracle, schedule, x, times, order=3))
    alpha, sigma = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    guesses = [oracle(state, float(t)) for state, t in zip(states, times, strict=True)]
    for k in (2, 3, 4):  # the state after step 0 is yielded before its correction, which enters only step 1
        lams = [float(lam[k - j]) for j in range(3)] + [float(lam[k + 1])]
        found = step(states[k], guesses[k - 2 : k + 1][::-1], lams, sigma[k], alpha[k + 1], sigma[k + 1])
        assert torch.allclose(found, states[k + 1], atol=1e-10)


def test_solution_of_churn_raises_as_the_library_does():
    raise_noise, schedule = printed_solution(7, "raise_noise"), VPSchedule()
    times = time_grid(schedule, 8, "karras", noise_max=20.0)
    step = heun_steps(schedule, times, churn=1.6)[3]
    x, z = (torch.randn(5, 2, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in (0, 1))
    up, t = raise_noise(x, step.start[0], 0.2, schedule, z)
    assert float(t) == pytest.approx(step.begin[0])
    assert torch.allclose(up, step.begin[1] * (x / step.start[1] + step.added * z))


def test_the_numbers_of_the_wrong_shares():
    """Exercise 7.17c: shares of the first cloud for churn at different levels, within 4 standard errors and half a unit of what it prints."""
    schedule, mixture, n = EDMSchedule(), three_modes(), 4000
    right = ExactDenoiser(mixture, schedule)
    wrong = ExactDenoiser(type(mixture)(torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), mixture.means, mixture.covariances), schedule)

    def deluded(x, t):
        return torch.where((schedule.noise_level(t) > 1.0)[:, None], wrong(x, t), right(x, t))

    found = []
    for interval in ((0.0, 0.3), (0.3, 1.0), (0.5, 1.5)):
        generator = torch.Generator().manual_seed(1)
        x = schedule.noise((n, 2), generator, dtype=torch.float64)
        grid = time_grid(schedule, 40, "karras")
        end = final(heun(deluded, schedule, x, grid, churn=16.5, churn_interval=interval, generator=generator))
        found.append(float((torch.cdist(end, mixture.means).argmin(1) == 0).double().mean()))
    error = 4 * (0.3 * 0.7 / n) ** 0.5 + 0.005
    assert found == pytest.approx([0.26, 0.29, 0.30], abs=error)
    assert max(found) < 0.5 - 5 * error  # far from right, whatever the churn
