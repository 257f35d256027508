"""Exercises by number, and the one call that judges an answer."""

from __future__ import annotations

import difflib
import importlib.util
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class WrongAnswer(AssertionError):
    """An answer that is not right; the message says what is wrong, and `check` adds where to read."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence, without the lines of this package that led to it (IPython asks for this)."""
        return [str(self)]


class OpenAnswer(Exception):
    """An answer that has not been written yet (raised by the comparers, caught by `check`)."""


@dataclass(frozen=True)
class Exercise:
    """One coded exercise.

    number: "2.7c"
    title: what is asked, in a few words
    read: where the answer is derived, e.g. "section 2.3, (2.9)"
    judge: called with the reader's answer(s); raises WrongAnswer or returns None or a remark for the reader
    solution: a right answer (a tuple of them for a judge of several arguments); the tests put it through the judge
    wrong: usual wrong answers and a piece of the message that each must get; the tests hold it
    """

    number: str
    title: str
    read: str
    judge: Callable[..., str | None]
    solution: Any
    wrong: tuple[tuple[Any, str], ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What `check` returns; prints as one line."""

    number: str
    correct: bool
    remark: str

    def __repr__(self) -> str:
        return f"{_name(self.number)}: {'correct' if self.correct else 'open'}. {self.remark}".rstrip()


_REGISTRY: dict[str, Exercise] = {}


def exercise(number: str, title: str, *, read: str, solution: Any, wrong: tuple[tuple[Any, str], ...] = ()) -> Callable:
    """Register the decorated function as the judge of exercise ``number`` ("chapter.section" + letter, e.g. "2.7c").

    See `Exercise` for the arguments. Errors: ValueError if the number is taken by another judge.
    """
    def register(judge: Callable[..., str | None]) -> Callable[..., str | None]:
        taken = _REGISTRY.get(number)
        if taken is not None and (taken.judge.__module__, taken.judge.__qualname__) != (judge.__module__, judge.__qualname__):
            raise ValueError(f"Exercise {number} is judged twice, by {taken.judge.__qualname__} and {judge.__qualname__}; "
                             "expected one judge a number: renumber one of them.")
        _REGISTRY[number] = Exercise(number, title, read, judge, solution, wrong)
        return judge

    return register


def coursework(number: str, title: str, *, read: str) -> Callable:
    """Register the decorated function as the judge of coursework task ``number`` ("cw2.1"): called as ``judge(*answer, seed=...)``.

    Everything that the judge draws comes from ``seed``: the student's check and the hidden test use different ones. Its solution stands in the
    assignment's master alone. Errors: ValueError if the number is taken by another judge.
    """
    return exercise(number, title, read=read, solution=None)


def exercises(chapter: int | None = None) -> dict[str, Exercise]:
    """All exercises by number, or those of one chapter (the files ``checks/chapter_NN.py`` are imported as needed)."""
    from diffusion_lib import checks

    for module in pkgutil.iter_modules(checks.__path__):
        if module.name.startswith("chapter_") and (chapter is None or int(module.name[8:]) == chapter):
            importlib.import_module(f"{checks.__name__}.{module.name}")
    return {key: entry for key, entry in sorted(_REGISTRY.items())
            if (chapter is None and not key.startswith("cw")) or key.split(".")[0] == str(chapter)}


def tasks(chapter: int) -> dict[str, Exercise]:
    """The coursework tasks of a chapter by number (``checks/coursework_NN.py`` is imported as needed; empty if there is none)."""
    name = f"diffusion_lib.checks.coursework_{chapter:02d}"
    if importlib.util.find_spec(name) is not None:
        importlib.import_module(name)
    return {key: entry for key, entry in sorted(_REGISTRY.items()) if key.split(".")[0] == f"cw{chapter}"}


def check(number: str, *answer: Any, seed: int | None = None) -> Verdict:
    """Judge an answer.

    number: the exercise, e.g. "2.7c", or the coursework task, e.g. "cw2.1"
    answer: what the exercise asks for: a function, a number, a tensor (or several)
    seed: of a coursework task alone; None is the student's own check (seed 0). With a seed an open answer counts as wrong: so the grader calls it.
    Returns a `Verdict` that prints as one line: correct, or still open.
    Errors: WrongAnswer (an AssertionError) that says what is wrong and where to read; ValueError for an unknown number.
    """
    verdict = _judge(number, answer, seed)
    if seed is not None and not verdict.correct:
        raise WrongAnswer(f"{_name(verdict.number)}: no answer; the cell was left open, or what it defines gives None.")
    return verdict


def _judge(number: str, answer: tuple[Any, ...], seed: int | None) -> Verdict:
    chapter = str(number).split(".")[0]
    is_task = re.fullmatch(r"cw\d+", chapter) is not None
    known = tasks(int(chapter[2:])) if is_task else exercises(int(chapter)) if chapter.isdigit() else {}
    if seed is not None and not is_task:
        raise ValueError(f"seed={seed!r} was given for exercise {number!r}; expected none: only coursework tasks ('cw2.1') take a seed, leave it out.")
    if number not in known:
        near = difflib.get_close_matches(str(number), known or exercises(), n=1, cutoff=0.3)
        hint = f"did you mean {near[0]!r}?" if near else "see the exercise's heading."
        raise ValueError(f"There is no exercise {number!r} to check; expected a number such as '2.7c': {hint}")
    entry = known[number]
    title = entry.title[:1].upper() + entry.title[1:] if is_task else entry.title
    open_ = Verdict(number, False, f"{title}: write your answer and run the cell again.")
    if not answer or any(is_open(part) for part in answer):
        return open_
    message = None
    try:
        remark = entry.judge(*answer, **({"seed": seed or 0} if is_task else {}))
    except OpenAnswer:
        return open_
    except AssertionError as problem:
        message = str(problem)
    except NotImplementedError:
        return open_
    except Exception as problem:  # the reader's own code fell over: say so plainly
        message = f"Your code raised {type(problem).__name__}: {str(problem).rstrip('.')}."
    if message is not None:
        raise WrongAnswer(f"{_name(number)}: not yet. {message} Read {entry.read}.")
    return Verdict(number, True, remark or "")


def _name(number: str) -> str:
    return f"{'Task' if number.startswith('cw') else 'Exercise'} {number}"


def is_open(answer: Any) -> bool:
    """True for an answer that has not been written yet."""
    return answer is None or answer is Ellipsis
