"""From a master to what is handed out: the students' notebook, and the instructor's. nbgrader's own preprocessors do the cutting.

    python -m diffusion_lib.grading.release [02_ddpm ...] [--out coursework/_out] [--address OWNER/REPO/blob/main/FOLDER] [--run]

writes ``students/02_ddpm/02_ddpm.ipynb`` and ``instructor/02_ddpm.ipynb`` under --out. --address says where you publish the students' notebooks
on GitHub, all in that folder itself (FOLDER/02_ddpm.ipynb): their Colab link then opens them there. Without it the link opens Colab, where a
notebook can be uploaded. --run executes the instructor's notebooks and stores their outputs.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from pathlib import Path

import nbformat

from diffusion_lib.grading.masters import COURSEWORK, HIDDEN, SOLUTION, Master, MasterError, masters, meta, read

CODE_STUB, TEXT_STUB = "...", "*Your answer here.*"
COLAB = "https://colab.research.google.com/"


def resources(slug: str, student: str = "", db: str = "") -> dict:
    """What nbgrader's preprocessors want to know."""
    return {"nbgrader": {"assignment": slug, "notebook": slug, "student": student, "db_url": db}, "unique_key": slug, "output_files_dir": "."}


def process(notebook: nbformat.NotebookNode, kinds: list, told: dict) -> nbformat.NotebookNode:
    """Pass a notebook through nbgrader's preprocessors, in order."""
    import logging
    import warnings

    from traitlets.config import Config

    config = Config()
    config.ClearSolutions.code_stub = {"python": CODE_STUB}
    config.ClearSolutions.text_stub = TEXT_STUB
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nbgrader's database layer
        for kind in kinds:
            one = kind(config=config)
            one.log.setLevel(logging.CRITICAL)
            notebook, told = one.preprocess(notebook, told)
    return notebook


def with_link(notebook: nbformat.NotebookNode, address: str, name: str) -> nbformat.NotebookNode:
    """A copy whose first cell, the title, ends in a line about Colab."""
    notebook = copy.deepcopy(notebook)
    if address:
        line = f"[Open in Colab]({COLAB}github/{address.strip('/')}/{name}.ipynb) · then *File > Save a copy in Drive*, so that your work is kept"
    else:
        line = f"[Open Colab]({COLAB}) · then *File > Upload notebook*; or run it in Jupyter"
    notebook.cells[0].source += f"\n\n{line}"
    return notebook


def with_solutions_hidden(master: Master) -> nbformat.NotebookNode:
    """The master without its solutions, still with its hidden tests, checksums in place: what nbgrader's gradebook stores."""
    from nbgrader.preprocessors import CheckCellMetadata, ClearOutput, ClearSolutions, ComputeChecksums, LockCells

    return process(copy.deepcopy(master.notebook), [LockCells, ClearSolutions, ClearOutput, CheckCellMetadata, ComputeChecksums], resources(master.slug))


def students(master: Master, address: str = "") -> nbformat.NotebookNode:
    """The students' notebook. Errors: MasterError if a line of a solution or of a hidden test were still in it."""
    from nbgrader.preprocessors import CheckCellMetadata, ClearHiddenTests, ClearMarkScheme, ComputeChecksums

    notebook = process(with_solutions_hidden(master), [ClearHiddenTests, ClearMarkScheme, ComputeChecksums, CheckCellMetadata], resources(master.slug))
    for cell in notebook.cells:
        cell.pop("attachments", None)
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"nbgrader": meta(cell), **({"tags": tags} if tags else {}),
                                            **({"deletable": False, "editable": False} if meta(cell)["locked"] else {"deletable": False})})
        cell.source = cell.source.rstrip("\n")
    notebook = process(with_link(notebook, address, master.slug), [ComputeChecksums], resources(master.slug))
    found = leaks(master, notebook)
    if found:
        raise MasterError(f"{master.slug}: the students' notebook would show {found[0]!r}; expected no line of a solution or hidden test in it: reword it.")
    return notebook


def secrets(master: Master) -> list[str]:
    """Each telling line that students must not see: in solutions, hidden tests and marking keys (comments too), of 12 characters or more."""
    found = []
    for cell in master.notebook.cells:
        for begin, end in (SOLUTION, HIDDEN):
            for part in cell.source.split(begin)[1:]:
                found += [line.strip() for line in part.split(end)[0].split("\n") if len(line.strip()) >= 12]
    return found


def leaks(master: Master, notebook: nbformat.NotebookNode) -> list[str]:
    """Those of the master's `secrets` that the notebook contains anywhere: sources, outputs, metadata, ids."""
    import json

    text = "\n".join(_strings(json.loads(nbformat.writes(notebook))))
    shown = "\n".join(line.strip() for cell in master.notebook.cells for line in outside(cell.source).split("\n"))
    return [line for line in secrets(master) if line in text and line not in shown]


def outside(source: str) -> str:
    """A cell's text outside of solutions and hidden tests."""
    for begin, end in (SOLUTION, HIDDEN):
        pieces = source.split(begin)
        source = pieces[0] + "".join(piece.split(end, 1)[-1] for piece in pieces[1:])
    return source


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (str(key), *_strings(item))]
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []


def instructor(master: Master, address: str = "") -> nbformat.NotebookNode:
    """The instructor's notebook: solutions, hidden tests and marking keys in place."""
    from nbgrader.preprocessors import ClearOutput

    return with_link(process(copy.deepcopy(master.notebook), [ClearOutput], resources(master.slug)), address, master.slug)


def run(notebook: nbformat.NotebookNode, folder: Path, timeout: int = 300) -> None:
    """Execute a notebook in place. Errors: nbclient's CellExecutionError."""
    import os

    from nbclient import NotebookClient

    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "DIFFUSION_STATIC": "1"})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook, whole or not at all; the same notebook gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n", encoding="utf-8")
    scratch.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="assignments, such as 02_ddpm (default: all)")
    parser.add_argument("--masters", type=Path, default=COURSEWORK, help="the folder of the masters")
    parser.add_argument("--out", type=Path, help="where to write (default: _out in the folder of the masters)")
    parser.add_argument("--address", default="", help="where you publish the students' notebooks: OWNER/REPO/blob/BRANCH/FOLDER")
    parser.add_argument("--run", action="store_true", help="execute the instructor's notebooks")
    options = parser.parse_args()
    chosen = [path for path in masters(options.masters) if not options.names or any(path.stem.startswith(Path(n).stem) for n in options.names)]
    if not chosen:
        print(f"There is no master {' or '.join(options.names)} in {options.masters}; expected NN_slug.md.", file=sys.stderr)
        return 2
    if options.address and not re.fullmatch(r"[\w.-]+/[\w.-]+/blob/[\w./-]+", options.address):
        print(f"The address {options.address} was given; expected OWNER/REPO/blob/BRANCH/FOLDER, without https:// and github.com.", file=sys.stderr)
        return 2
    out = options.out or options.masters / "_out"
    for path in chosen:
        master = read(path)
        write(students(master, options.address), out / "students" / path.stem / f"{path.stem}.ipynb")
        theirs = instructor(master, options.address)
        if options.run:
            run(theirs, options.masters)
        write(theirs, out / "instructor" / f"{path.stem}.ipynb")
        points = sum(task.points for task in master.tasks)
        print(f"{path.stem}: {len(master.tasks)} tasks, {points:g} points -> {out / 'students' / path.stem}, {out / 'instructor'}")
    if options.address:
        print(f"The Colab links expect the notebooks in one folder: {options.address.strip('/')}/{chosen[0].stem}.ipynb, not in a folder each.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
