"""Chapter 1's exercises: the model solution passes, and each usual mistake is named."""

import pytest

from diffusion_lib.checks import WrongAnswer, check, exercises
from diffusion_lib.checks import chapter_01 as c1

SOLUTIONS = {"1.13e": c1._kl, "1.13f": c1._iwae, "1.13g": c1._leave_one_out}


@pytest.mark.parametrize("number", SOLUTIONS)
def test_model_solution_passes(number):
    assert "correct" in str(check(number, SOLUTIONS[number])).lower()


@pytest.mark.parametrize("number", SOLUTIONS)
def test_open_answer_is_reported_and_raises_nothing(number):
    def stub(*args):
        ...

    assert "open" in str(check(number, stub)).lower()


WRONG = [(number, wrong, piece) for number in SOLUTIONS for wrong, piece in exercises()[number].wrong]


@pytest.mark.parametrize("number, wrong, piece", WRONG)
def test_usual_mistake_is_named(number, wrong, piece):
    with pytest.raises(WrongAnswer) as caught:
        check(number, wrong)
    assert piece in str(caught.value)


def test_each_exercise_knows_three_mistakes():
    for number in SOLUTIONS:
        assert len(exercises()[number].wrong) >= 3
