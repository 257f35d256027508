"""Errors carried forward: a task that failed where an earlier answer was wrong is tested again on the master's earlier answers.

The student's process gets none of the master's code. It gets stand-ins (`gate.StandIn`), which ask this side for the value: a student's function
that calls their own wrong ``marginal`` then calls the right one, over here.
"""

from __future__ import annotations

import ast
import contextlib
import io
from dataclasses import replace
from typing import Any

import nbformat

from diffusion_lib.grading.checker import Checker, Outcome, plain
from diffusion_lib.grading.masters import Master, meta
from diffusion_lib.grading.sandbox import Student
from diffusion_lib.grading.wire import WireError, pack, unpack

LARGEST, MOST = 2**22, 20_000  # bytes of one call's arguments, calls in all
REFUSED = "only numbers, tensors and lists of them can be handed to an earlier task's answer here."
BEHIND = " (Tested with right answers to the earlier tasks.)"


class Answers:
    """The master's own answers, made when the first of them is needed.

    master: the master, with its solutions
    """

    def __init__(self, master: Master) -> None:
        self.master, self.calls = master, 0
        self._names: dict[str, Any] | None = None

    def defined_by(self, task: str) -> list[str]:
        """The names that a task's solution cell defines."""
        found: list[str] = []
        for node in ast.parse(plain(self.master.cell(task).source)).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.append(node.name)
            elif isinstance(node, ast.Assign):
                found += [part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)]
        return list(dict.fromkeys(found))

    def value(self, name: str) -> Any:
        """What the master has under this name. Errors: KeyError."""
        if self._names is None:
            self._names = {"__name__": "__main__"}
            for cell in self.master.notebook.cells:
                if cell.cell_type == "code" and not meta(cell)["grade"]:
                    with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
                        exec(compile(plain(cell.source), "<master>", "exec"), self._names)  # noqa: S102
        return self._names[name]

    def answer(self, request: dict, buffers: list[bytes]) -> tuple[dict, list[bytes]]:
        """The reply to a stand-in's call."""
        out: list[bytes] = []
        self.calls += 1
        try:
            if self.calls > MOST or sum(map(len, buffers)) > LARGEST:
                raise WireError("too many calls of an earlier task's answer, or too large ones")
            args, kwargs = unpack(request["arguments"], buffers, _refuse)
            return {"value": pack(self.value(str(request["callback"]))(*args, **kwargs), out, _refuse)}, out
        except Exception as problem:
            return {"error": type(problem).__name__, "text": str(problem)[:200]}, []

    def stand_ins(self, names: list[str]) -> tuple[dict[str, Any], list[bytes]]:
        """What to put in the student's variables: a packed value, or {"$": "stand-in"} for a function."""
        found: dict[str, Any] = {}
        buffers: list[bytes] = []
        for name in names:
            with contextlib.suppress(WireError, KeyError):
                value = self.value(name)
                found[name] = {"$": "stand-in"} if callable(value) else pack(value, buffers, _refuse)
        return found, buffers


def _refuse(value: Any, buffers: list[bytes]) -> Any:
    raise WireError(REFUSED)


def forward(notebook: nbformat.NotebookNode, answers: Answers, student: Student, checker: Checker, outcomes: dict[str, Outcome]) -> list[str]:
    """Test again what failed behind a wrong answer; ``outcomes`` is changed. Returns the tasks that passed so. Errors: Stopped.

    A task that fails again gets the reason of the second test: that fault is its own, and not the earlier task's.
    """
    sources = {meta(cell).get("grade_id"): cell.source for cell in notebook.cells if cell.cell_type == "code"}
    wrong: list[str] = []
    passed: list[str] = []
    student.on_callback = answers.answer
    for task in answers.master.tasks:
        failed = [test for test in task.tests if test in outcomes and not outcomes[test].passed]
        if failed and wrong and task.name in sources:
            names, buffers = answers.stand_ins(wrong)
            student.exchange({"do": "replace", "names": names}, buffers)
            student.cell(sources[task.name])
            again = {test: checker.test(sources[test]) for test in failed}
            outcomes |= {test: outcome if outcome.passed else replace(outcome, reason=outcome.reason + BEHIND) for test, outcome in again.items()
                         if outcome.passed or (outcome.reason != outcomes[test].reason and REFUSED not in outcome.reason)}
            passed += [task.name] if any(outcome.passed for outcome in again.values()) else []
        if failed:
            wrong += answers.defined_by(task.name)
    return passed
