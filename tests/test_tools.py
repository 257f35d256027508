"""The tools find what they are there to find: each rule is broken once on a small book of one chapter."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import address  # noqa: E402
import chapters  # noqa: E402
import equations  # noqa: E402
import execute  # noqa: E402
import pair  # noqa: E402

CHAPTER = r"""---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# 1. A chapter

By (1.1) and `(9.9)`, and the same again for $f(8.8)$:

$$
a = b
\tag{1.1}
$$

```{code-cell} ipython3
:tags: [setup]

import os
```

```{code-cell} ipython3
a = b = (2.5)  # (1.1)
print(a)
```
"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book in a folder of its own; returns what rewrites its one chapter."""
    for name in ("notebooks", "book", "library"):
        (tmp_path / name).mkdir()
    for module in (chapters, equations):
        monkeypatch.setattr(module, "ROOT", tmp_path)
        monkeypatch.setattr(module, "LIBRARY", tmp_path / "library")
    monkeypatch.setattr(chapters, "NOTEBOOKS", tmp_path / "notebooks")
    text = tmp_path / "notebooks" / "01_one.md"

    def write(*changes: tuple[str, str]) -> Path:
        content = CHAPTER
        for old, new in changes:
            assert old in content
            content = content.replace(old, new)
        text.write_text(content, encoding="utf-8")
        return text

    write()
    return write


def test_a_sound_chapter_passes(book):
    assert equations.wrong() == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ((r"\tag{1.1}", r"\tag{1.2}"), "tagged 1.2, not 1.1"),
        (("# (1.1)", "# (1.7)"), "a comment in code cell 2 cites (1.7)"),
        (("By (1.1)", "By (1.4)"), "the text refers to (1.4)"),
        (("# (1.1)", "# no number"), "(1.1) is in no code"),
    ],
)
def test_broken_references_are_named(book, change, complaint):
    book(change)
    assert any(complaint in problem for problem in equations.wrong()), equations.wrong()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("", ""), "page.md: tags an equation"),
        (("\n\\tag{1.1}", ""), None),
        (("# (1.1)", "# (1.7)"), "page.md: a comment in code cell 2 cites (1.7)"),
        (("By (1.1)", "By (1.4)"), "page.md: the text refers to (1.4)"),
    ],
)
def test_a_page_without_a_number_refers_and_tags_nothing(book, change, complaint):
    text = book()
    page = text.with_name("page.md")
    page.write_text(CHAPTER.replace(*change), encoding="utf-8")
    assert chapters.chapters() == [text] and chapters.masters() == [text, page]
    problems = [problem for problem in equations.wrong() if problem.startswith("page.md")]
    assert any(complaint in problem for problem in problems) if complaint else not problems


def test_docstrings_cite_equations(book, tmp_path):
    book(("# (1.1)", ""))
    source = 'def f(x):\n    """Twice x, {}. Ho et al. 2020, eq. 7."""\n    return 2 * x\n'
    (tmp_path / "library" / "a.py").write_text(source.format("Book (1.1)"))
    assert equations.wrong() == []
    assert "library.a.f" in equations.page()
    (tmp_path / "library" / "a.py").write_text(source.format("Book (1.1) and (3.4)"))
    assert equations.wrong() == ["library/a.py: the docstring of f cites (3.4), which does not exist"]


def test_pairing_keeps_outputs_of_unchanged_cells(book):
    text = book()
    assert "missing" in pair.difference(text)
    notebook = pair.pair(text)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="2.5\n")]
    pair.write(notebook, text.with_suffix(".ipynb"))
    assert pair.difference(text) is None
    assert not pair.write(pair.pair(text), text.with_suffix(".ipynb")), "pairing twice writes once"

    book(("By (1.1)", "So by (1.1)"))
    assert "differs" in pair.difference(text)
    assert pair.pair(text).cells[-1].outputs, "prose changed, the code did not"
    book(("print(a)", "print(b)"))
    assert not pair.pair(text).cells[-1].outputs, "the code changed"


def test_execution_follows_the_code_and_not_the_prose(book):
    text = book()
    assert execute.stale(text)
    notebook = pair.pair(text)
    notebook.metadata["book"] = {"executed": chapters.fingerprint(notebook)}
    pair.write(notebook, text.with_suffix(".ipynb"))
    book(("By (1.1)", "So by (1.1)"), ("import os", "import sys"))     # prose, and the cell that installs
    assert not execute.stale(text)
    book(("print(a)", "print(b)"))
    assert execute.stale(text)


def test_stored_outputs_are_tidied():
    output = nbformat.v4.new_output
    cell = nbformat.v4.new_code_cell("x", outputs=[
        output("stream", name="stderr", text="warning"), output("stream", name="stdout", text=" 1%\r 99%\rdone\n"),
        output("display_data", data={execute.WIDGET: {}, "text/plain": "bar"}),
        output("execute_result", data={"text/plain": "<f at 0x7f00aa>"}),
    ])  # fmt: skip
    execute.tidy(nbformat.v4.new_notebook(cells=[cell]))
    assert [o.get("text") or o.data["text/plain"] for o in cell.outputs] == ["done\n", "<f>"]


@pytest.mark.parametrize("before", ["me/book", "me_too/my.book"])
def test_address_is_stamped_everywhere(before):
    text = (
        f"[a](https://colab.research.google.com/github/{before}/blob/main/notebooks/01_one.ipynb) "
        f'https://github.com/{before}/raw/main/notebooks/01_one.ipynb\n%pip install -q "lib @ git+https://github.com/{before}"\n'
        f'git clone https://github.com/{before}.git\nRepository = "https://github.com/{before}"\n'
    )
    assert address.stamped(text, "you/other").count("you/other") == 5
    assert before not in address.stamped(text, "you/other")
    other = "see https://github.com/openai/guided-diffusion and https://github.com/someone/else/raw/main/data.csv"
    assert address.stamped(other, "you/other") == other
