"""The index from each numbered equation to the code that is it: book/equations.md, generated.

    python tools/equations.py [--check]

An equation is a block with \\tag{2.3} in a chapter. Code is it where a comment of a code cell says (2.3), or the
docstring of a library function says "Book (2.3)". `--check` demands that the page is up to date, that tags count up,
that every reference resolves, and that no numbered equation is without code.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from chapters import (  # noqa: E402
    LIBRARY,
    REFERENCE,
    ROOT,
    CodeCell,
    chapters,
    code_cells,
    comments,
    equations,
    masters,
    plain,
    read,
)

PAGE = ROOT / "book" / "equations.md"
CITED = re.compile(r"Book,?\s+((?:\(\d+\.\d+\)(?:\s*(?:,\s*and|,|;|and|or|to|–|-)\s*(?=\())?)+)")


@dataclass
class Definition:
    module: str  # diffusion_lib/samplers/ddim.py
    name: str  # ddim, or Schedule.alpha
    line: int
    numbers: list[str]


def library() -> list[Definition]:
    """Every function, class and module of the library whose docstring cites an equation of the book."""
    found = []
    for path in sorted(LIBRARY.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))

        def visit(node: ast.AST, prefix: str, path: Path = path) -> None:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    name = f"{prefix}{child.name}"
                    cite(child, name, child.lineno)
                    visit(child, f"{name}.")

        def cite(node: ast.AST, name: str, line: int, path: Path = path) -> None:
            numbers = [n for group in CITED.findall(ast.get_docstring(node) or "") for n in REFERENCE.findall(group)]
            if numbers:
                found.append(Definition(path.relative_to(ROOT).as_posix(), name, line, list(dict.fromkeys(numbers))))

        cite(tree, path.stem, 1)
        visit(tree, "")
    return found


def cell_citations(cell: CodeCell) -> list[str]:
    return list(dict.fromkeys(n for _, text in comments(cell.source) for n in REFERENCE.findall(text)))


def order(number: str) -> tuple[int, int]:
    chapter, position = number.split(".")
    return int(chapter), int(position)


def wrong() -> list[str]:
    """Every broken rule as one sentence."""
    problems, tags = [], {}
    for path in chapters():
        expected = [f"{int(path.stem[:2])}.{k}" for k in range(1, 1 + len(equations(path)))]
        numbers = [equation.number for equation in equations(path)]
        if numbers != expected:
            at = next(i for i, (a, b) in enumerate(zip(numbers, expected, strict=True)) if a != b)
            problems.append(
                f"{path.name}: equation {at + 1} is tagged {numbers[at]}, not {expected[at]} (tags count up from 1)"
            )
        tags.update(dict.fromkeys(numbers, path.name))
    cited, numbered = set(), chapters()
    for path in masters():
        if path not in numbered and equations(path):
            problems.append(f"{path.name}: tags an equation, and has no chapter number to count it by")
        for cell in code_cells(path):
            for number in cell_citations(cell):
                if path in numbered:  # the index leads to chapters alone
                    cited.add(number)
                if number not in tags:
                    problems.append(
                        f"{path.name}: a comment in code cell {cell.index + 1} cites ({number}), which does not exist"
                    )
    for definition in library():
        for number in definition.numbers:
            cited.add(number)
            if number not in tags:
                problems.append(
                    f"{definition.module}: the docstring of {definition.name} cites ({number}), which does not exist"
                )
    pages = [(p.name, c.source) for p in masters() for c in read(p).cells if c.cell_type == "markdown"]
    pages += [(p.name, p.read_text(encoding="utf-8")) for p in sorted((ROOT / "book").glob("*.md")) if p != PAGE]
    for name, text in pages:
        for number in REFERENCE.findall(plain(text)):
            if number not in tags:
                problems.append(f"{name}: the text refers to ({number}), which no equation carries")
    for number in sorted(set(tags) - cited, key=order):
        problems.append(
            f"{tags[number]}: ({number}) is in no code: cite it in a comment or a library docstring, or unnumber it"
        )
    return list(dict.fromkeys(problems))


def page() -> str:
    """The text of book/equations.md."""
    definitions = library()
    lines = [
        "# From equation to code",
        "",
        "Each numbered equation of the book, where it stands, and the code that is it: cells of the chapter that "
        "compute or test it, and the functions of `diffusion_lib` whose docstring names it.",
        "",
        "<!-- written by tools/equations.py: change the chapters and docstrings, then run `make notebooks` -->",
        "",
    ]
    for path in chapters():
        title = next(iter(re.findall(r"^# (.+)$", path.read_text(encoding="utf-8"), re.M)), path.stem)
        lines += [f"## {title}", ""]
        cells = [(cell, cell_citations(cell)) for cell in code_cells(path)]
        for equation in equations(path):
            number = equation.number
            anchor = number.replace(".", "-")
            lines += [f"({number}) in *{equation.heading}*:", "", "$$", equation.tex, "$$", ""]
            seen, items = 0, []
            for cell, numbers in cells:
                if number in numbers:
                    line = next(
                        text
                        for n, text in enumerate(cell.source.split("\n"), 1)
                        if any(n == at and f"({number})" in comment for at, comment in comments(cell.source))
                    )
                    link = f"../notebooks/{path.stem}.html#code-{anchor}-{seen}"
                    seen += 1
                    items.append(
                        f'<li><a href="{link}">{escape(cell.heading)}</a> <code>{escape(shorten(line))}</code></li>'
                    )
            for definition in definitions:
                if number in definition.numbers:
                    items.append(
                        f"<li><code>{escape(dotted(definition))}</code> in <code>{definition.module}</code></li>"
                    )
            lines += ['<ul class="dl-code-of">', *items, "</ul>", ""] if items else []
    return "\n".join(lines)


def dotted(definition: Definition) -> str:
    module = definition.module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return module if definition.name == Path(definition.module).stem else f"{module}.{definition.name}"


def shorten(line: str, width: int = 90) -> str:
    line = re.sub(r"\s+", " ", line.strip())
    return line if len(line) <= width else line[: width - 1] + "…"


def escape(text: str) -> str:
    text = re.sub(r"\$([^$]*)\$", r"\1", text)
    for plain_character, entity in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("_", "&#95;"),
        ("*", "&#42;"),
        ("$", "&#36;"),
    ):
        text = text.replace(plain_character, entity)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; say what is wrong")
    arguments = parser.parse_args()
    problems = wrong()
    if not arguments.check:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        problems.append("book/equations.md is not up to date; mend it with: python tools/equations.py")
    if problems:
        print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
