"""The coded exercises of all chapters: printed solutions pass, usual mistakes fail with a message that names them. What else a solution
must do, chapter by chapter: test_exercises_NN.py."""

from __future__ import annotations

import re

import pytest
from printed import CODED, printed_solution

from diffusion_lib.checks import check
from diffusion_lib.checks.core import WrongAnswer, exercises

CASES = [(number, wrong, piece) for number, entry in exercises().items() for wrong, piece in entry.wrong]


def chapter(number: str) -> int:
    return int(number.split(".")[0])


def test_the_coded_exercises_are_these():
    assert set(exercises()) == set(CODED)


@pytest.mark.parametrize("number", CODED)
def test_printed_solution_passes(number):
    assert check(number, printed_solution(chapter(number), CODED[number])).correct


@pytest.mark.parametrize("number", CODED)
def test_stub_is_open(number):
    verdict = check(number, lambda *_, **__: ...)
    assert not verdict.correct and "open" in repr(verdict)


@pytest.mark.parametrize(("number", "wrong", "piece"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_usual_mistake_is_named(number, wrong, piece):
    with pytest.raises(WrongAnswer, match=re.escape(piece)) as caught:
        check(number, wrong)
    assert f"{chapter(number)}." in str(caught.value).split("Read ")[-1]


@pytest.mark.parametrize("number", CODED)
def test_every_exercise_knows_three_mistakes(number):
    assert len(exercises()[number].wrong) >= 3
