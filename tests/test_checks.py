"""The exercise checks: right answers pass, usual mistakes are named, open answers are no error, and every exercise is tested."""

from __future__ import annotations

import pytest
import torch

from diffusion_lib.checks import core
from diffusion_lib.checks.compare import (
    call,
    close_number,
    close_to_reference,
    mean_close,
    seeded,
    true_for_all,
    variance_close,
)
from diffusion_lib.checks.core import WrongAnswer, check, exercise, exercises


def scaled(x, a):
    return a**0.5 * x


@pytest.fixture
def toy_exercise(monkeypatch):
    monkeypatch.setattr(core, "_REGISTRY", dict(core._REGISTRY))

    @exercise("99.1a", "scale the signal", read="section 99.1, eq. 7", solution=scaled)
    def judge(answer):
        x = torch.randn(5, generator=seeded(1), dtype=torch.float64)
        close_to_reference(answer, scaled, [(x, a) for a in (0.9, 0.3)], name="scaled", mistakes={
            "the square root is missing": lambda x, a: a * x,
            "alpha and one minus alpha are swapped": lambda x, a: (1 - a) ** 0.5 * x})
        return "The variance is a."


def test_a_right_answer_prints_one_line(toy_exercise):
    verdict = check("99.1a", scaled)
    assert verdict.correct and repr(verdict) == "Exercise 99.1a: correct. The variance is a."
    assert check("99.1a", lambda x, a: (a * x.square()).sqrt() * x.sign()).correct      # another way to the same answer
    assert check("99.1a", lambda x, a: scaled(x.float(), a)).correct                    # in float32 too


@pytest.mark.parametrize(("answer", "message"), [
    (lambda x, a: a * x, "It looks as if the square root is missing."),
    (lambda x, a: (1 - a) ** 0.5 * x, "It looks as if alpha and one minus alpha are swapped."),
    (lambda x, a: -scaled(x, a), "wrong sign"),
    (lambda x, a: scaled(x, a) ** 2, "square of the right answer"),
    (lambda x, a: 1 / scaled(x, a), "reciprocal"),
    (lambda x, a: 2 * scaled(x, a), "twice"),
    (lambda x, a: scaled(x, a) + 0.125, r"scaled\(a tensor of shape \(5,\), 0.9\) is .* in entry \d of 5; expected"),
    (lambda x, a: scaled(x, a).sum(), r"has shape \(\); expected \(5,\)"),
    (lambda x, a: (scaled(x, a), 1.0), "returned 2 values; expected one value"),
    (lambda x, a: x / 0, "NaN or infinity"),
    (lambda x, a: 1 / 0, "Your code raised ZeroDivisionError"),
    (lambda x: x, "Your code raised TypeError"),
    (lambda x, a: "text", "gave a str; expected a number or a tensor"),
    (0.5, "expected a function: pass its name without brackets"),
])
def test_a_wrong_answer_says_what_is_wrong_and_where_to_read(toy_exercise, answer, message):
    with pytest.raises(WrongAnswer, match=message) as problem:
        check("99.1a", answer)
    text = str(problem.value)
    assert text.startswith("Exercise 99.1a: not yet. ") and text.endswith(" Read section 99.1, eq. 7.") and isinstance(problem.value, AssertionError)


def unwritten(x, a):
    raise NotImplementedError


@pytest.mark.parametrize("answer", [..., None, lambda x, a: None, lambda x, a: ..., unwritten])
def test_an_open_answer_is_no_error(toy_exercise, answer):
    verdict = check("99.1a", answer)
    assert not verdict.correct and "open" in repr(verdict)


def test_no_answer_at_all_is_open(toy_exercise):
    assert not check("99.1a").correct


def test_an_answer_may_work_in_place(toy_exercise):
    assert check("99.1a", lambda x, a: x.mul_(a**0.5)).correct


def test_unknown_and_doubled_numbers_are_refused(toy_exercise):
    with pytest.raises(ValueError, match="did you mean '99.1a'"):
        check("99.1b", scaled)
    with pytest.raises(ValueError, match="There is no exercise"):
        check("nonsense", scaled)
    with pytest.raises(ValueError, match="judged twice"):
        @exercise("99.1a", "again", read="", solution=None)
        def another(answer):
            return None


def test_numbers():
    close_number(torch.tensor([0.7071]), 0.5**0.5)
    with pytest.raises(WrongAnswer, match="you forgot the prior"):
        close_number(2.0, 3.0, mistakes={"you forgot the prior": 2.0})
    with pytest.raises(WrongAnswer, match="your number is 2.5; expected 3"):
        close_number(2.5, 3.0)


def test_statistics_use_the_standard_error():
    samples = 2 * torch.randn(20_000, 3, generator=seeded(0)) + 1
    mean_close(samples, [1.0, 1.0, 1.0])
    variance_close(samples, 4.0)
    mean_close(samples[:50], [1.5, 1.5, 1.5])                                           # with few samples a half is within the error
    with pytest.raises(WrongAnswer, match="standard error"):
        mean_close(samples, 1.5)
    with pytest.raises(WrongAnswer, match="multiply the noise by the variance"):
        variance_close(samples * 2, 4.0)
    with pytest.raises(WrongAnswer, match="one square root too many"):
        variance_close(samples / 2**0.5, 4.0)
    with pytest.raises(WrongAnswer, match="factor in front of the noise"):
        variance_close(samples, 5.0)
    with pytest.raises(WrongAnswer, match="at least 2 samples"):
        mean_close(3.0, 3.0)


def test_small_pieces():
    true_for_all(torch.tensor([True, True]), "never")
    with pytest.raises(WrongAnswer, match="it must fall"):
        true_for_all([True, False], "it must fall")
    assert call(scaled, 2.0, a=4.0) == 4.0
    with pytest.raises(core.OpenAnswer):
        call(lambda: None)


EVERY = exercises()


@pytest.mark.parametrize("number", EVERY)
def test_every_solution_passes_its_judge(number):
    entry = EVERY[number]
    solution = entry.solution if isinstance(entry.solution, tuple) else (entry.solution,)
    assert entry.title and entry.read, f"exercise {number} needs a title and where to read"
    assert check(number, *solution).correct
    assert repr(check(number, *solution)) == repr(check(number, *solution))             # seeded: the same verdict each time


@pytest.mark.parametrize(("number", "index"), [(number, i) for number, entry in EVERY.items() for i in range(len(entry.wrong))])
def test_every_usual_mistake_is_named(number, index):
    answer, message = EVERY[number].wrong[index]
    with pytest.raises(WrongAnswer) as problem:
        check(number, *(answer if isinstance(answer, tuple) else (answer,)))
    assert message in str(problem.value)
