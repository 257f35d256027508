"""Mark one notebook: restore it from the master, have it executed, let nbgrader determine the points, say why."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat

from diffusion_lib.grading import submissions
from diffusion_lib.grading.masters import Master
from diffusion_lib.grading.release import process, resources
from diffusion_lib.grading.sandbox import Limits, environment, prepare

CARRIED = "Tested with the master's answers to earlier tasks, where the student's were wrong."


class Worker:
    """A process that executes submissions one after the other (`worker`), started when needed and again if it was lost."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None

    def ask(self, job: dict, seconds: float) -> dict | None:
        """The answer to a job, or None if there was none in this time."""
        if self.process is None or self.process.poll() is not None:
            told = {**os.environ, **{k: v for k, v in environment(Path.cwd()).items() if k.endswith("THREADS") or k in ("PYTHONPATH", "PYTHONHASHSEED")}}
            self.process = subprocess.Popen([sys.executable, "-P", "-m", "diffusion_lib.grading.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            text=True, encoding="utf-8", env=told)
        process = self.process
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())
        except (OSError, ValueError):
            self.end()
            return None
        finally:
            timer.cancel()

    def end(self) -> None:
        """End the process."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
        self.process = None


def mark(path: Path, master: Master, book: Path, student: str, limits: Limits, hidden: list[Path], worker: Worker) -> dict[str, Any]:
    """The result of one notebook: rows by task, the executed notebook, what was enforced; with "again" one that the next run should not keep.

    path: the student's notebook; its folder is copied for the run
    book: an nbgrader gradebook that holds the master (`submissions.gradebook`); a copy of it is used
    hidden: folders that the student's process must not see
    """
    with tempfile.TemporaryDirectory(prefix="grading-") as scratch, tempfile.TemporaryDirectory(prefix="submission-") as work:
        try:
            notebook = submissions.load(path)
        except submissions.Unreadable as problem:
            return {"rows": zeros(master, str(problem)), "notebook": None, "held": {}}
        copied = Path(scratch) / "gradebook.db"
        copied.write_bytes(book.read_bytes())
        db = f"sqlite:///{copied}"
        notebook, remarks = submissions.restore(notebook, master, db, student)
        prepare(Path(work), path.parent)
        job = {"notebook": nbformat.writes(notebook), "work": work, "master": str(master.path), "limits": asdict(limits),
               "hidden": [str(folder) for folder in [*hidden, scratch]]}
        reply = worker.ask(job, seconds=2 * limits.wall + 120)
        if reply is None:
            return {"rows": unknown(master, "The tests did not come to an end: the grading process was stopped. Grade again."),
                    "notebook": None, "held": {}, "again": True}
        notebook = nbformat.reads(reply["notebook"], as_version=4)
        scores = determine(notebook, master, db, student)
    remarks |= dict.fromkeys(reply["carried"], CARRIED)
    return {"rows": rows(master, scores, reply["reasons"], remarks), "notebook": nbformat.writes(notebook), "held": reply["held"]}


def determine(notebook: nbformat.NotebookNode, master: Master, db: str, student: str) -> dict[str, float | None]:
    """nbgrader's verdict on each graded cell: points, or None where a person must look."""
    from nbgrader.api import Gradebook
    from nbgrader.preprocessors import GetGrades, SaveAutoGrades

    told = resources(master.slug, student, db)
    process(notebook, [SaveAutoGrades, GetGrades], told)
    with Gradebook(db) as book:
        return {grade.name: grade.auto_score for grade in book.find_submission_notebook(master.slug, master.slug, student).grades}


def rows(master: Master, scores: dict[str, float | None], reasons: dict[str, str],
         remarks: dict[str, str]) -> list[dict[str, Any]]:
    """One row a task, with its reason."""
    found = []
    for task in master.tasks:
        remark = remarks.get(task.name, "")
        if task.manual:
            score = scores.get(task.name)
            text = "To be marked by hand." if score is None else "Nothing was written."
            found.append({"task": task.name, "points": score, "max": task.points, "reason": f"{text} {remark}".strip(), "manual": True})
            continue
        told = list(dict.fromkeys(reasons.get(test, "The test was not reached.") for test in task.tests if not scores.get(test)))
        points = sum(scores.get(test) or 0.0 for test in task.tests)
        found.append({"task": task.name, "points": points, "max": task.points, "reason": "\n".join([*([remark] if remark else []), *told]), "manual": False})
    return found


def zeros(master: Master, reason: str) -> list[dict[str, Any]]:
    """Rows without a point, each with this reason."""
    return [{"task": task.name, "points": 0.0, "max": task.points, "reason": reason, "manual": False} for task in master.tasks]


def unknown(master: Master, reason: str) -> list[dict[str, Any]]:
    """Rows without points, for what the grading itself could not do: neither marks nor zeros."""
    return [{**row, "points": None} for row in zeros(master, reason)]
