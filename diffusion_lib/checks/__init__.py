"""The exercise checks: ``check("2.3", answer)`` says that an answer is right, or what is wrong with it and where to read.

An answer is a function, a number or a tensor, as the exercise asks. An answer not yet written (``...``, None, or a function
that returns one of these) is reported as open, without an error, so that a chapter runs from top to bottom as it is.
"""

from __future__ import annotations

from diffusion_lib.checks.compare import (
    call,
    close_number,
    close_to_reference,
    mean_close,
    seeded,
    true_for_all,
    variance_close,
)
from diffusion_lib.checks.core import Exercise, Verdict, WrongAnswer, check, coursework, exercise, exercises, tasks

__all__ = [
    "Exercise", "Verdict", "WrongAnswer", "call", "check", "close_number", "close_to_reference", "coursework", "exercise", "exercises",
    "mean_close", "seeded", "tasks", "true_for_all", "variance_close",
]
