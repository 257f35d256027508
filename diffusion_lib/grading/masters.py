"""Read an assignment's master, and refuse one that would not work.

A master is ``coursework/NN_slug.md``: jupytext's MyST Markdown with nbgrader's metadata in the headers of its cells. Cells without any are
read-only for the student. A task ``name`` is a solution cell ``name`` and one or more test cells ``name-test``, ``name-test-2``, after it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

COURSEWORK = Path(__file__).resolve().parents[2] / "coursework"
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
          "language_info": {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"}}
KEYS = {"grade", "grade_id", "locked", "schema_version", "solution", "task"}
SOLUTION = ("### BEGIN SOLUTION", "### END SOLUTION")
HIDDEN = ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")


class MasterError(ValueError):
    """A master that would not work; the message says which cell and how to mend it."""


@dataclass
class Task:
    """One task: a solution cell and its tests, or an answer marked by hand (then ``tests`` is empty).

    label: its number as the student knows it, "Task 5a" (of the check) or "Task 6, by hand" (of the heading); empty where there is none
    """

    name: str
    points: float = 0.0
    manual: bool = False
    tests: list[str] = field(default_factory=list)
    label: str = ""


@dataclass
class Master:
    """A master as a notebook, every cell with nbgrader's metadata and an id that is its grade_id."""

    slug: str
    notebook: nbformat.NotebookNode
    tasks: list[Task]
    path: Path

    @property
    def chapter(self) -> int:
        return int(self.slug[:2])

    def cell(self, name: str) -> nbformat.NotebookNode:
        """The cell whose grade_id is ``name``."""
        return next(cell for cell in self.notebook.cells if meta(cell)["grade_id"] == name)


def meta(cell: nbformat.NotebookNode) -> dict[str, Any]:
    """nbgrader's metadata of a cell; empty where a student's cell has none, or none that makes sense."""
    found = cell.get("metadata", {}).get("nbgrader")
    return found if isinstance(found, dict) else {}


def masters(folder: Path = COURSEWORK) -> list[Path]:
    """The masters in a folder, in order."""
    return sorted(Path(folder).glob("[0-9][0-9]_*.md"))


def task_of(test: str) -> str:
    """The task that a test cell belongs to: "posterior-test-2" -> "posterior"."""
    return re.sub(r"-test(-\d+)?$", "", test)


def read(path: str | Path) -> Master:
    """A master from its file. Errors: MasterError, FileNotFoundError."""
    import jupytext

    path = Path(path)
    if not path.exists():
        known = ", ".join(p.stem for p in masters(path.parent)) or "none"
        raise FileNotFoundError(f"There is no master {path}; expected one of this folder ({known}).")
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict(KERNEL)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    before, count = "start", 0
    for cell in notebook.cells:
        if "nbgrader" not in cell.metadata:
            count += 1
            cell.metadata["nbgrader"] = {"grade": False, "grade_id": f"{before}-text-{count}", "locked": True, "schema_version": 3,
                                         "solution": False, "task": False}
        else:
            before, count = str(meta(cell).get("grade_id")), 0
        cell["id"] = str(meta(cell).get("grade_id"))
    return Master(path.stem, notebook, _tasks(path.stem, notebook), path.resolve())


def _tasks(slug: str, notebook: nbformat.NotebookNode) -> list[Task]:
    found: dict[str, Task] = {}
    seen: set[str] = set()
    heading, numbers = "", dict[str, list[str]]()
    for cell in notebook.cells:
        data, source = meta(cell), cell.source
        name = data.get("grade_id")
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ +(Task \d+[a-z]?)\b", source, re.M) or [heading])[-1]
        where = f"{slug}.md, cell {name!r}"
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name) or name in seen:
            raise MasterError(f"{where}: the grade_id is missing, taken, or no slug; expected another one in [a-z0-9-], at most 63 characters.")
        seen.add(name)
        if not KEYS <= set(data) or data["schema_version"] != 3 or data["task"]:
            raise MasterError(f"{where}: its nbgrader metadata are {sorted(data)}; expected {sorted(KEYS)} with schema_version 3 and task false.")
        solution, grade = data["solution"], data["grade"]
        if data["locked"] == solution:
            raise MasterError(f"{where}: locked is {data['locked']} and solution {solution}; expected one of the two: a student edits it or not.")
        if grade and not (isinstance(data.get("points"), (int, float)) and data["points"] > 0):
            raise MasterError(f"{where}: points={data.get('points')!r} was given; expected a number > 0 in a cell that is graded.")
        if (SOLUTION[0] in source) != solution or source.count(SOLUTION[0]) != source.count(SOLUTION[1]):
            raise MasterError(f"{where}: expected {' … '.join(SOLUTION)} in solution cells, and there alone.")
        test = grade and not solution
        if (HIDDEN[0] in source) != test or source.count(HIDDEN[0]) != source.count(HIDDEN[1]):
            raise MasterError(f"{where}: expected {' … '.join(HIDDEN)} in test cells, and there alone: without them nothing is tested anew.")
        if test:
            task = found.get(task_of(name))
            if task is None or task.manual or task_of(name) == name or cell.cell_type != "code":
                raise MasterError(f"{where}: a test belongs to a code cell before it; expected the grade_id TASK-test, with TASK the solution's grade_id.")
            task.tests.append(name)
            numbers.setdefault(task.name, []).extend(re.findall(r"""check\(["']cw\d+\.(\w+)["']""", source))
            if numbers[task.name]:
                task.label = f"Task {', '.join(dict.fromkeys(numbers[task.name]))}"
            task.points += data["points"]
        elif solution:
            if grade == (cell.cell_type == "code"):
                raise MasterError(f"{where}: expected grade false in a code cell to be solved, and grade true in a Markdown cell marked by hand.")
            found[name] = Task(name, float(data.get("points", 0)), manual=grade, label=f"{heading}, by hand".removeprefix(", ") if grade else heading)
    for task in found.values():
        if not task.manual and not task.tests:
            raise MasterError(f"{slug}.md: the task {task.name!r} has no test; expected a cell {task.name + '-test'!r} after it.")
    return list(found.values())


def advice(master: Master) -> list[str]:
    """What the rules of the coursework ask beyond what works: points, number of tasks, seeds, long lines."""
    said = []
    machine = sum(t.points for t in master.tasks if not t.manual)
    by_hand = sum(t.points for t in master.tasks if t.manual)
    numbered = sum(len(re.findall(r"^## Task \d+\.", cell.source, re.M)) for cell in master.notebook.cells if cell.cell_type == "markdown")
    if not 30 <= machine <= 40 or by_hand > 10:
        said.append(f"{machine:g} points by machine and {by_hand:g} by hand; expected 30 to 40, and at most 10")
    if not 4 <= numbered <= 7:
        said.append(f"{numbered} headings '## Task N.'; expected 4 to 6 (a conclusion marked by hand may be one more)")
    for task in master.tasks:
        for name in task.tests:
            shown, hidden = master.cell(name).source.split(HIDDEN[0], 1)
            seeds = re.findall(r"seed=(\d+)", hidden)
            if re.search(r"seed=", shown) or set(seeds) & {"0"}:
                said.append(f"{name}: the visible check must leave its seed out, and the hidden one must have another than 0")
            if "check(" not in shown:
                said.append(f"{name}: expected a visible check(...) before the hidden tests")
    for cell in master.notebook.cells:
        longest = max(map(len, cell.source.split("\n")), default=0)
        if cell.cell_type == "code" and longest > 95 and "setup" not in cell.metadata.get("tags", []):
            said.append(f"{cell.id}: a line of {longest} characters; expected at most 95")
    return said
