"""Chapter 2's exercises: the solutions printed in the chapter pass, the usual mistakes fail with a message that names them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from diffusion_lib.checks import check
from diffusion_lib.checks.core import WrongAnswer, exercises
from diffusion_lib.schedules import DiscreteSchedule, VPSchedule
from diffusion_lib.transitions import reverse_kernel

CHAPTER = Path(__file__).resolve().parents[1] / "notebooks" / "02_ddpm.md"
CODED = {"2.13c": "ancestral_step", "2.13d": "cosine_betas", "2.13e": "zero_terminal_snr"}
CASES = [(number, wrong, piece) for number, entry in exercises(2).items() for wrong, piece in entry.wrong]


def printed_solution(name: str):
    """The function ``name`` from the chapter's solutions (blocks marked python, which the notebook does not run)."""
    for block in re.findall(r"^```python\n(.*?)^```", CHAPTER.read_text(encoding="utf-8"), re.S | re.M):
        if f"def {name}(" in block:
            namespace = {"torch": torch, "math": math, "path": VPSchedule()}
            exec(block, namespace)  # noqa: S102
            return namespace[name]
    raise AssertionError(f"the chapter prints no solution of {name}")


def test_the_coded_exercises_are_these():
    assert set(exercises(2)) == set(CODED)


@pytest.mark.parametrize("number", CODED)
def test_printed_solution_passes(number):
    assert check(number, printed_solution(CODED[number])).correct


@pytest.mark.parametrize("number", CODED)
def test_stub_is_open(number):
    verdict = check(number, lambda *_, **__: ...)
    assert not verdict.correct and "open" in repr(verdict)


@pytest.mark.parametrize(("number", "wrong", "piece"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_usual_mistake_is_named(number, wrong, piece):
    with pytest.raises(WrongAnswer, match=re.escape(piece)) as caught:
        check(number, wrong)
    assert "Read section 2." in str(caught.value)


def test_every_exercise_knows_three_mistakes():
    assert all(sum(case[0] == number for case in CASES) >= 3 for number in CODED)


def test_solution_of_the_step_is_the_librarys_step():
    schedule, step = DiscreteSchedule.from_name("linear", 100), printed_solution("ancestral_step")
    x, eps, z = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in (2, 50, 100):
        t = schedule.time(k)
        x0_hat = (x - schedule.sigma(t) * eps) / schedule.alpha(t)
        mean, log_var = reverse_kernel(x0_hat, x, schedule.time(k - 1), t, schedule, "forward")
        assert torch.allclose(step(x, eps, k, schedule.betas, z), mean + torch.exp(0.5 * log_var) * z)


def test_solution_of_the_betas_is_the_librarys_schedule():
    assert torch.allclose(printed_solution("cosine_betas")(300), DiscreteSchedule.from_name("cosine", 300).betas)


def test_repaired_schedule_ends_in_noise():
    before = DiscreteSchedule(torch.linspace(1e-4, 0.02, 150, dtype=torch.float64)).alphas_bar
    after = printed_solution("zero_terminal_snr")(before)
    assert after[0] == 1 and after[-1] == 0 and bool((after[1:] < after[:-1]).all())


def test_best_grid_beats_uniform_steps_and_is_even_in_log_variance():
    times, best = printed_solution("best_grid")(10)
    path = VPSchedule()
    variance = lambda t: path.alpha(t) ** 2 * 0.25 + path.sigma(t) ** 2  # noqa: E731
    uniform = torch.linspace(1, 0, 11, dtype=torch.float64)

    def cost(t):
        r = variance(t[1:]) / variance(t[:-1])
        return float((r - 1 - r.log()).sum() / 2)

    assert len(times) == 11 and cost(times) == pytest.approx(best) and best < 0.8 * cost(uniform)
    gaps = variance(times).log().diff()
    assert gaps.std() < 0.1 * gaps.abs().mean()
