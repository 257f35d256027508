"""Execute submissions: the trusted process beside the student's. Reads jobs as lines of JSON, answers each by one.

The student's cells run in a confined process (`sandbox.Student`), the tests here (`checker.Checker`). A test cell that did not run to its end
is given an error, and an error earns nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import nbformat

from diffusion_lib.grading import kernel
from diffusion_lib.grading.carry import Answers, forward
from diffusion_lib.grading.checker import SKIP, Checker, Outcome
from diffusion_lib.grading.gate import Client, Stopped
from diffusion_lib.grading.masters import meta, read
from diffusion_lib.grading.sandbox import RUNNING, Limits, Student

LONGEST = 100_000  # characters of one output
LATER = ", before the turn of this cell."


def execute(notebook: nbformat.NotebookNode, work: Path, limits: Limits, hidden: list[Path],
            answers: Answers) -> tuple[dict[str, str], dict[str, Outcome], list[str]]:
    """Run a restored notebook in place: the student's cells there, the tests here. Returns what confined it, the outcomes, and the tasks that
    passed only with the master's ``answers`` to earlier ones."""
    carried: list[str] = []
    outcomes: dict[str, Outcome] = {}
    held: dict[str, str] = {}
    student: Student | None = None
    dead = ""
    try:
        student = Student(work, limits, hidden)
        held = student.held
    except Stopped as problem:
        dead = str(problem)

    def exchange(request: dict, buffers: list[bytes]) -> tuple[Any, list[bytes]]:
        if dead:
            raise Stopped(dead)
        return student.exchange(request, buffers)

    checker = Checker(Client(exchange))
    try:
        for cell in notebook.cells:
            if cell.cell_type != "code":
                continue
            data = meta(cell)
            try:
                if data.get("grade"):
                    outcomes[data["grade_id"]] = outcome = checker.test(cell.source)
                    cell.outputs = _shown(outcome)
                    continue
                if dead:
                    continue
                cell.outputs = clean(student.cell(cell.source).get("outputs"))
                if data.get("locked") and SKIP not in cell.metadata.get("tags", []):
                    with contextlib.suppress(Exception):
                        checker.run(cell.source)
            except Stopped as problem:
                cell.outputs = _shown(Outcome(False, dead or str(problem)))
                dead = dead or str(problem).replace(RUNNING, LATER)
            if student is not None and student.process.poll() is not None and not dead:
                dead = student.why.replace(RUNNING, LATER) or "The notebook's process ended."
        if not dead:
            with contextlib.suppress(Stopped):
                carried = forward(notebook, answers, student, checker, outcomes)
            for cell in notebook.cells:
                if meta(cell).get("grade_id") in outcomes:
                    cell.outputs = _shown(outcomes[meta(cell)["grade_id"]])
    finally:
        if student is not None:
            student.end()
    return held, outcomes, carried


def clean(outputs: Any) -> list:
    """What a student's process sent as outputs, rebuilt: plain text, PNG pictures, errors; no HTML and no script can be among them."""
    found = []
    for one in outputs[:100] if isinstance(outputs, list) else []:
        if not isinstance(one, dict):
            continue
        text = lambda key, one=one: str(one.get(key, ""))[:LONGEST]  # noqa: E731
        if one.get("output_type") == "stream":
            found.append(nbformat.v4.new_output("stream", name="stderr" if one.get("name") == "stderr" else "stdout", text=text("text")))
        elif one.get("output_type") == "error":
            lines = one.get("traceback")
            trace = [str(line)[:LONGEST] for line in lines[:50]] if isinstance(lines, list) else []
            found.append(nbformat.v4.new_output("error", ename=text("ename"), evalue=text("evalue"), traceback=trace))
        elif isinstance(one.get("data"), dict):
            plain, png = one["data"].get("text/plain"), one["data"].get("image/png")
            data = {"text/plain": plain[:LONGEST]} if isinstance(plain, str) else {}
            if isinstance(png, str) and len(png) < 2**22 and re.fullmatch(r"[A-Za-z0-9+/=\s]+", png):
                data["image/png"] = png
            found.append(nbformat.v4.new_output("display_data", data=data))
    return found


def _shown(outcome: Outcome) -> list:
    shown = [nbformat.v4.new_output("stream", name="stdout", text=outcome.printed)] if outcome.printed else []
    if not outcome.passed:
        shown.append(nbformat.v4.new_output("error", ename="NotYet", evalue=outcome.reason, traceback=[outcome.reason]))
    return shown


def main() -> int:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        notebook = nbformat.reads(job["notebook"], as_version=4)
        limits, hidden = Limits(**job["limits"]), [Path(folder) for folder in job["hidden"]]
        held, outcomes, carried = execute(notebook, Path(job["work"]), limits, hidden, Answers(read(job["master"])))
        reasons = {name: "" if outcome.passed else outcome.reason for name, outcome in outcomes.items()}
        reply = {"notebook": nbformat.writes(notebook), "held": held, "carried": carried, "reasons": reasons}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
