"""What every tool knows about the book: where the chapters are, how to read them, what a reference looks like."""

from __future__ import annotations

import hashlib
import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
LIBRARY = ROOT / "diffusion_lib"

REFERENCE = re.compile(r"\((\d+\.\d+)\)")  # (2.3)
TAG = re.compile(r"\\tag\{(\d+\.\d+)\}")  # \tag{2.3}
BLOCK = re.compile(r"\$\$(.+?)\$\$", re.S)
FENCE = re.compile(r"^ {0,3}(```+|~~~+).*?^ {0,3}\1", re.S | re.M)


@dataclass
class Equation:
    number: str  # "2.3"
    tex: str  # without its tag
    chapter: str  # "02_ddpm"
    heading: str  # the heading it stands under


@dataclass
class CodeCell:
    chapter: str
    index: int  # among the chapter's code cells, from 0
    source: str
    heading: str


def chapters() -> list[Path]:
    """The text masters of the chapters, in order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.md"))


def masters() -> list[Path]:
    """Every text master that has a paired notebook: the chapters, then the pages without a number (and without equations)."""
    return [*chapters(), *sorted(NOTEBOOKS.glob("[a-z]*.md"))]


def select(names: list[str]) -> list[Path]:
    """The masters whose file name starts with one of `names`; all of them if there are none."""
    found = [path for path in masters() if not names or any(path.stem.startswith(Path(n).stem) for n in names)]
    if not found:
        raise SystemExit(f"no chapter is called {' or '.join(names)}; there are {[p.stem for p in masters()]}")
    return found


def read(path: Path) -> nbformat.NotebookNode:
    """A chapter's text as a notebook without outputs, its cells named after their content."""
    notebook = jupytext.read(path)
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        name = hashlib.sha1(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:10]
        seen[name] = seen.get(name, 0) + 1
        cell["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def fingerprint(notebook: nbformat.NotebookNode) -> str:
    """Of the code that makes outputs. The setup cell makes none (it holds the book's address)."""
    code = [c.source for c in notebook.cells if c.cell_type == "code" and "setup" not in c.metadata.get("tags", [])]
    return hashlib.sha256("\n\0\n".join(code).encode()).hexdigest()[:16]


def plain(markdown: str) -> str:
    """Markdown without code, mathematics and link targets: what a reference in prose may stand in."""
    text = FENCE.sub(" ", markdown)
    text = BLOCK.sub(" ", text)
    text = re.sub(r"`[^`\n]*`", " ", text)
    text = re.sub(r"(?<![\\$])\$(?!\$)[^$]+?(?<!\\)\$", " ", text)
    return re.sub(r"\]\([^)]*\)", "]", text)


def headings(text: str) -> list[str]:
    return re.findall(r"^#{1,6} +(.+?) *$", FENCE.sub("", text), re.M)


def equations(path: Path) -> list[Equation]:
    """The numbered equations of one chapter, in order."""
    found, heading = [], ""
    for cell in read(path).cells:
        if cell.cell_type != "markdown":
            continue
        for piece in re.split(r"(\$\$.+?\$\$)", cell.source, flags=re.S):
            if not piece.startswith("$$"):
                heading = (headings(piece) or [heading])[-1]
                continue
            tags = TAG.findall(piece)
            if len(tags) > 1:
                raise ValueError(f"{path.name}: one block of TeX carries the tags {tags}; give each its own block")
            if tags:
                tex = TAG.sub("", piece.strip("$")).strip()
                found.append(Equation(tags[0], tex, path.stem, heading))
    return found


def code_cells(path: Path) -> list[CodeCell]:
    found, heading = [], ""
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            heading = (headings(cell.source) or [heading])[-1]
        elif cell.cell_type == "code":
            found.append(CodeCell(path.stem, len(found), cell.source, heading))
    return found


def without_magics(source: str) -> str:
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)


def comments(source: str) -> list[tuple[int, str]]:
    """The comments of a code cell: (line from 1, text)."""
    tokens = tokenize.generate_tokens(io.StringIO(without_magics(source)).readline)
    try:
        return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
    except (tokenize.TokenError, IndentationError) as problem:
        raise ValueError(f"a code cell does not read as Python ({problem}):\n{source}") from problem


def config() -> dict:
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
