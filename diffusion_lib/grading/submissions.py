"""Find what was handed in, and put a master's cells back into it: what a student changed in a locked cell counts for nothing."""

from __future__ import annotations

import copy
import json
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import nbformat

from diffusion_lib.grading.masters import HIDDEN, Master, meta, task_of
from diffusion_lib.grading.release import process, resources, students, with_solutions_hidden

LARGEST = 20 * 2**20
MOST_CELLS = 1000


class Unreadable(ValueError):
    """A file that is no notebook; the message is its reason in the CSV."""


@dataclass(frozen=True)
class Found:
    """One notebook of one student, or (``path`` None) what is wrong instead."""

    student: str
    assignment: str
    path: Path | None
    problem: str = ""


def find(folder: Path, masters: dict[str, Master], student: str | None = None) -> list[Found]:
    """The notebooks in ``folder/STUDENT/NN_slug.ipynb`` and ``folder/STUDENT/ASSIGNMENT/NN_slug.ipynb``.

    Errors: FileNotFoundError if there is no such folder, ValueError if it holds no student.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; expected one with a folder for each student.")
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False) and not entry.name.startswith((".", "_")))
    names = [name for name in names if student is None or name == student]
    if not names:
        raise ValueError(f"{folder} holds no student's folder{f' {student!r}' if student else ''}; expected {folder}/STUDENT/NN_slug.ipynb.")
    found: list[Found] = []
    for name in names:
        mine: dict[str, Found] = {}
        odd: list[Path] = []
        for path in _notebooks(folder / name):
            if path.stem in masters and path.stem not in mine:
                mine[path.stem] = Found(name, path.stem, path, "The notebook is a link; expected the file itself." if path.is_symlink() else "")
            else:
                odd.append(path)
        for path in odd:
            slug = None if path.is_symlink() else recognise(path, masters)
            where = path.relative_to(folder / name).as_posix()
            if slug is not None and slug not in mine:
                mine[slug] = Found(name, slug, path)
            elif path.stem not in mine and slug is None:
                known = ", ".join(f"{slug}.ipynb" for slug in masters)
                mine[where] = Found(name, where, None, f"{where} is no assignment's name; expected one of {known}: rename it.")
        found += [mine[key] for key in sorted(mine)] or [Found(name, "", None, "Nothing was handed in: no notebook in the folder.")]
    return found


def _notebooks(folder: Path) -> list[Path]:
    """The .ipynb files of a student's folder and of the folders in it, those of the folder itself first."""
    entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_dir(follow_symlinks=False), entry.name))
    found = [Path(entry.path) for entry in entries if entry.name.endswith(".ipynb") and not entry.is_dir(follow_symlinks=False)]
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith((".", "__")):
            found += sorted(Path(entry.path).glob("*.ipynb"))
    return found


def recognise(path: Path, masters: dict[str, Master]) -> str | None:
    """The assignment that a notebook of another name is: most of its tests are in it."""
    try:
        ids = {meta(cell).get("grade_id") for cell in load(path).cells}
    except Unreadable:
        return None
    for slug, master in masters.items():
        tests = [test for task in master.tasks for test in task.tests]
        if sum(test in ids for test in tests) > len(tests) / 2:
            return slug
    return None


def load(path: Path) -> nbformat.NotebookNode:
    """A notebook reduced to sources, kinds of cell and grade_ids. Errors: Unreadable."""
    if path.is_symlink() or not path.is_file():
        raise Unreadable("The notebook is a link or no file; expected the file itself.")
    if path.stat().st_size > LARGEST:
        raise Unreadable(f"The file has {path.stat().st_size / 2**20:.0f} MiB; expected at most {LARGEST // 2**20}: clear the outputs and hand it in again.")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as problem:
        raise Unreadable(f"The file is no notebook: it is no JSON ({type(problem).__name__}); expected one saved by Jupyter or Colab.") from None
    cells = raw.get("cells") if isinstance(raw, dict) else None
    if not isinstance(cells, list) or len(cells) > MOST_CELLS:
        raise Unreadable(f"The file is no notebook: expected a list of at most {MOST_CELLS} cells, in the format of Jupyter 4.")
    notebook = nbformat.v4.new_notebook()
    for number, cell in enumerate(cells):
        source = cell.get("source", "") if isinstance(cell, dict) else None
        source = "".join(source) if isinstance(source, list) and all(isinstance(line, str) for line in source) else source
        if not isinstance(source, str) or cell.get("cell_type") not in ("code", "markdown", "raw"):
            raise Unreadable(f"The file is no notebook: cell {number + 1} has no source or no type.")
        make = nbformat.v4.new_code_cell if cell["cell_type"] == "code" else nbformat.v4.new_markdown_cell
        data = cell.get("metadata", {}).get("nbgrader") if isinstance(cell.get("metadata"), dict) else None
        name = data.get("grade_id") if isinstance(data, dict) else None
        kept = {"nbgrader": {"grade_id": name}} if isinstance(name, str) else {}
        notebook.cells.append(make(source, id=f"s{number}", metadata=kept))
    return notebook


def tools_on_path() -> None:
    """nbgrader starts `alembic` by its name: it lies beside this Python, whether or not the environment is activated."""
    beside, path = os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)
    if beside not in path.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([beside, path])


def gradebook(master: Master, path: Path) -> str:
    """A new nbgrader gradebook with the master's cells in it; its address."""
    tools_on_path()
    from nbgrader.api import Gradebook
    from nbgrader.preprocessors import SaveCells

    address = f"sqlite:///{path}"
    with Gradebook(address) as book:
        book.add_assignment(master.slug)
    process(with_solutions_hidden(master), [SaveCells], resources(master.slug, db=address))
    return address


def restore(notebook: nbformat.NotebookNode, master: Master, db: str, student: str) -> tuple[nbformat.NotebookNode, dict[str, str]]:
    """The notebook to grade, in the master's order, and remarks by task.

    nbgrader settles doubled ids (the last counts) and puts the master's text into locked cells; cells that are missing come back from the
    master, except answers; cells of the student's own stay behind the cell that they followed.
    """
    from nbgrader.api import Gradebook
    from nbgrader.preprocessors import DeduplicateIds, OverwriteCells

    reference = {meta(cell)["grade_id"]: cell for cell in with_solutions_hidden(master).cells}
    released = {meta(cell)["grade_id"]: cell.source for cell in students(master).cells}
    remarks: dict[str, str] = {}
    names = [meta(cell).get("grade_id") for cell in notebook.cells]
    for cell in notebook.cells:
        name = meta(cell).get("grade_id")
        cell.metadata = nbformat.from_dict({"nbgrader": copy.deepcopy(meta(reference[name]))} if name in reference else {})
        is_test = name in reference and meta(reference[name])["grade"] and meta(reference[name])["locked"]
        if is_test and not _same(cell.source, released[name], reference[name].source):
            remarks[task_of(name)] = "The test cell was changed; the original was used."
        if name in reference and names.count(name) > 1:
            remarks[task_of(name)] = "A cell appears twice; the last one counts."
    with warnings.catch_warnings(), Gradebook(db) as book:
        warnings.simplefilter("ignore")
        book.update_or_create_student(student)
        book.update_or_create_submission(master.slug, student)
    notebook = process(notebook, [DeduplicateIds, OverwriteCells], resources(master.slug, student, db))
    mine: dict[str, nbformat.NotebookNode] = {}
    after: dict[str, list] = {"": []}
    last = ""
    for cell in notebook.cells:
        name = meta(cell).get("grade_id")
        if name in reference:
            mine[name], last = cell, name
            after.setdefault(last, [])
        else:
            cell.metadata = nbformat.from_dict({})
            after[last].append(cell)
    ordered = list(after[""])
    for name, cell in reference.items():
        data = meta(cell)
        if name in mine:
            ordered += [mine[name], *after[name]]
        elif data["solution"]:
            remarks[name] = "The cell for the answer is missing."
            if data["grade"]:
                ordered.append(copy.deepcopy(cell))
        else:
            ordered.append(copy.deepcopy(cell))
            if data["grade"]:
                remarks.setdefault(task_of(name), "The test cell was missing; it was put back.")
    notebook.cells = ordered
    return notebook, remarks


def _same(source: str, released: str, original: str) -> bool:
    strip = lambda text: "\n".join(line.rstrip() for line in text.strip().split("\n"))  # noqa: E731
    return strip(source) in (strip(released), strip(original))


def without_hidden(source: str) -> str:
    """A test cell as the student knows it."""
    return source.split(HIDDEN[0])[0].rstrip()
