"""What chapter 2's printed solutions must do besides passing their judge (test_exercises.py)."""

from __future__ import annotations

import pytest
import torch
from printed import printed_solution

from diffusion_lib.schedules import DiscreteSchedule, VPSchedule
from diffusion_lib.transitions import reverse_kernel


def test_solution_of_the_step_is_the_librarys_step():
    schedule, step = DiscreteSchedule.from_name("linear", 100), printed_solution(2, "ancestral_step")
    x, eps, z = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in (2, 50, 100):
        t = schedule.time(k)
        x0_hat = (x - schedule.sigma(t) * eps) / schedule.alpha(t)
        mean, log_var = reverse_kernel(x0_hat, x, schedule.time(k - 1), t, schedule, "forward")
        assert torch.allclose(step(x, eps, k, schedule.betas, z), mean + torch.exp(0.5 * log_var) * z)


def test_solution_of_the_betas_is_the_librarys_schedule():
    assert torch.allclose(printed_solution(2, "cosine_betas")(300), DiscreteSchedule.from_name("cosine", 300).betas)


def test_repaired_schedule_ends_in_noise():
    before = DiscreteSchedule(torch.linspace(1e-4, 0.02, 150, dtype=torch.float64)).alphas_bar
    after = printed_solution(2, "zero_terminal_snr")(before)
    assert after[0] == 1 and after[-1] == 0 and bool((after[1:] < after[:-1]).all())


def test_best_grid_beats_uniform_steps_and_is_even_in_log_variance():
    times, best = printed_solution(2, "best_grid")(10)
    path = VPSchedule()
    variance = lambda t: path.alpha(t) ** 2 * 0.25 + path.sigma(t) ** 2  # noqa: E731
    uniform = torch.linspace(1, 0, 11, dtype=torch.float64)

    def cost(t):
        r = variance(t[1:]) / variance(t[:-1])
        return float((r - 1 - r.log()).sum() / 2)

    assert len(times) == 11 and cost(times) == pytest.approx(best) and best < 0.8 * cost(uniform)
    gaps = variance(times).log().diff()
    assert gaps.std() < 0.1 * gaps.abs().mean()
