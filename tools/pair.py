"""Bring each chapter's .ipynb in step with its .md (the master). Outputs of unchanged cells are kept.

    python tools/pair.py [02_ddpm ...] [--check]

What counts is the contents, never the time of a file. Cell ids come from the contents: a diff shows what changed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat
from jupytext.compare import NotebookDifference, compare_notebooks

sys.path.insert(0, str(Path(__file__).parent))
from chapters import read, select  # noqa: E402


def difference(text: Path) -> str | None:
    """None if the pair says the same, else the first difference."""
    paired = text.with_suffix(".ipynb")
    if not paired.exists():
        return f"{paired.name} is missing"
    master, notebook = read(text), nbformat.read(paired, as_version=4)
    try:
        compare_notebooks(notebook, master, fmt="md:myst", raise_on_first_difference=True)
    except NotebookDifference as problem:
        return f"{paired.name} differs from {text.name}: {problem}"
    if [cell.id for cell in notebook.cells] != [cell.id for cell in master.cells]:
        return f"{paired.name} has other cell ids than {text.name} gives"
    return None


def pair(text: Path) -> nbformat.NotebookNode:
    """The notebook of `text`, carrying over outputs of cells whose code is the same."""
    notebook, paired = read(text), text.with_suffix(".ipynb")
    if paired.exists():
        before = nbformat.read(paired, as_version=4)
        kept = {cell.id: cell for cell in before.cells if cell.cell_type == "code"}
        for cell in notebook.cells:
            if cell.cell_type == "code" and cell.id in kept:
                cell.outputs, cell.execution_count = kept[cell.id].outputs, kept[cell.id].execution_count
        if "book" in before.metadata:
            notebook.metadata["book"] = before.metadata["book"]
    return notebook


def write(notebook: nbformat.NotebookNode, path: Path) -> bool:
    """Write only what is new, whole or not at all; True if it wrote."""
    content = nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == content:
        return False
    scratch = path.with_suffix(".ipynb.tmp")
    scratch.write_text(content, encoding="utf-8")
    scratch.replace(path)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="chapters, such as 02_ddpm (default: all)")
    parser.add_argument("--check", action="store_true", help="change nothing; say what is out of step")
    arguments = parser.parse_args()
    problems = 0
    for text in select(arguments.names):
        if arguments.check:
            problem = difference(text)
            if problem:
                problems += 1
                print(f"{problem}\n  mend it with: python tools/pair.py {text.stem}")
        elif write(pair(text), text.with_suffix(".ipynb")):
            print(f"paired {text.stem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
