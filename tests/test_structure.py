"""The parts of the book are in step: pairs, outputs, contents, equations, address, versions, and a chapter's rules."""

from __future__ import annotations

import ast
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import address  # noqa: E402
import chapters  # noqa: E402
import equations  # noqa: E402
import execute  # noqa: E402
import pair  # noqa: E402

from diffusion_lib import __version__  # noqa: E402

MASTERS = chapters.masters()
each_chapter = pytest.mark.parametrize("text", MASTERS, ids=lambda p: p.stem)
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/svg+xml")


def notebook(text: Path) -> nbformat.NotebookNode:
    return nbformat.read(text.with_suffix(".ipynb"), as_version=4)


def outputs(text: Path):
    for number, cell in enumerate(notebook(text).cells):
        for output in cell.get("outputs", []):
            yield number, cell, output


# --- pairs and outputs -----------------------------------------------------------------------------------------------


def test_there_are_chapters():
    assert MASTERS


@each_chapter
def test_pair_is_in_step(text):
    assert pair.difference(text) is None


@each_chapter
def test_outputs_were_made_by_this_code(text):
    assert not execute.stale(text), f"run: python tools/execute.py {text.stem}"


@each_chapter
def test_cell_ids_are_unique(text):
    ids = [cell.id for cell in notebook(text).cells]
    assert len(ids) == len(set(ids))


@each_chapter
def test_outputs_are_clean_and_light(text):
    for number, cell, output in outputs(text):
        assert output.output_type != "error" or "raises-exception" in cell.metadata.get("tags", []), (
            f"cell {number} ends in an error"
        )
        assert output.get("name") != "stderr", f"cell {number} stores stderr"
        for mime, content in output.get("data", {}).items():
            assert len(str(content)) < 1.5e6, f"cell {number} stores {len(str(content)) / 1e6:.1f} MB of {mime}"
            assert "widget" not in mime, f"cell {number} stores a live widget, which a page cannot show"
    assert text.with_suffix(".ipynb").stat().st_size < 8e6, "the notebook is over 8 MB: lighter figures, please"


@each_chapter
def test_images_have_alt_text(text):
    for number, cell, output in outputs(text):
        for mime in set(IMAGES) & set(output.get("data", {})):
            alt = output.metadata.get(mime, {}).get("alt") or cell.metadata.get("mystnb", {}).get("image", {}).get(
                "alt"
            )
            assert alt and alt.strip(), f"an image of cell {number} has no alt text:\n{cell.source[:200]}"
        html = "".join(output.get("data", {}).get("text/html", ""))
        for tag in re.findall(r"<img\b[^>]*>", html):
            assert re.search(r"alt=[\"'][^\"']", tag), f"an <img> of cell {number} has no alt text"
        assert not re.search(r"(src|href)=[\"'](https?:)?//", html), (
            f"the HTML of cell {number} fetches from the network"
        )


# --- the rules of a chapter -------------------------------------------------------------------------------------------


@each_chapter
def test_code_cells_are_short(text):
    """Lines with something on them; the first cell installs, and exercises are the reader's. A page without a number is shorter."""
    cells = chapters.code_cells(text)[1:]
    lengths = [sum(bool(line.strip()) for line in cell.source.split("\n")) for cell in cells]
    taught = [cell for cell in cells if not re.search("exercise", cell.heading, re.I)]
    if text in chapters.chapters():
        assert 18 <= len(taught) <= 45, f"{len(taught)} code cells before the exercises; a chapter has 20 to 30, give or take"
        assert statistics.median(lengths) <= 12, f"the median code cell has {statistics.median(lengths)} lines"
    assert max(lengths) <= 40, f"code cell {lengths.index(max(lengths)) + 2} has {max(lengths)} lines"


@each_chapter
def test_markdown_is_portable(text):
    """No MyST directives or roles, no HTML beyond details and a: it reads well in Jupyter, Colab and on GitHub."""
    for cell in chapters.read(text).cells:
        if cell.cell_type != "markdown":
            continue
        for what, pattern in {
            "a directive": r"^ *(```+|~~~+|:::+) *\{",
            "a role": r"\{[a-z:]+\}`",
            "a target": r"^\([\w-]+\)=\s*$",
            "a comment": r"^% ",
        }.items():
            assert not re.search(pattern, cell.source, re.M), f"{what} of MyST in:\n{cell.source[:300]}"
        prose = chapters.BLOCK.sub(" ", chapters.FENCE.sub(" ", cell.source))
        prose = re.sub(r"`[^`\n]*`|(?<!\\)\$[^$\n]+\$", " ", prose)
        tags = set(re.findall(r"</?([a-zA-Z][a-zA-Z0-9]*)[\s>/]", prose)) - {
            "details",
            "summary",
            "a",
            "sub",
            "sup",
            "br",
            "kbd",
        }
        assert not tags, f"HTML {tags} in:\n{cell.source[:300]}"
        assert cell.source.count("<details") == cell.source.count("</details>"), (
            "a solution is closed in the cell that opens it"
        )


@each_chapter
def test_code_reads_as_python(text):
    for cell in chapters.code_cells(text):
        ast.parse(chapters.without_magics(cell.source))


def test_table_of_contents():
    """Every chapter is in it, and all that is in it exists."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = [toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])]
    assert len(listed) == len(set(listed))
    for name in listed:
        assert (ROOT / f"{name}.md").exists(), f"_toc.yml lists {name}, which does not exist"
    assert {f"notebooks/{path.stem}" for path in MASTERS} <= set(listed)
    written = {f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")}
    assert written <= set(listed), f"_toc.yml lacks {written - set(listed)}"


# --- equations and address --------------------------------------------------------------------------------------------


def test_equations_and_code_agree():
    assert equations.wrong() == []


@each_chapter
def test_equations_named_in_outputs_exist(text):
    """A table that a cell prints refers to equations as the prose does."""
    tags = {equation.number for path in chapters.chapters() for equation in chapters.equations(path)}
    for number, _, output in outputs(text):
        words = chapters.plain("".join(output.get("data", {}).get("text/markdown", "")))
        missing = set(chapters.REFERENCE.findall(words)) - tags
        assert not missing, f"the output of cell {number} refers to {missing}, which no equation carries"


def test_equation_index_is_up_to_date():
    assert equations.PAGE.read_text(encoding="utf-8") == equations.page(), "run: python tools/equations.py"


def test_one_address():
    assert address.wrong() == [], "run: python tools/address.py"


def test_setting_another_address_reaches_every_place():
    """On the texts alone, nothing is written."""
    old, new = address.address(), "someone-else/another.book"
    for path in address.places():
        assert old not in address.stamped(path.read_text(encoding="utf-8"), new), (
            f"{path.name} names {old} where tools/address.py does not look"
        )


# --- versions --------------------------------------------------------------------------------------------------------


def test_environment_files_agree():
    """pyproject.toml, constraints.txt, environment.yml, Makefile, CITATION.cff, Colab cell: the same versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        canonicalize_name(r.name): r.specifier
        for r in map(Requirement, (x for x in lines if x and not x.startswith("#")))
    }
    assert all(len(specifier) == 1 and str(specifier).startswith("==") for specifier in pins.values()), (
        "constraints.txt pins exactly"
    )
    pinned = {name: Version(str(specifier)[2:]) for name, specifier in pins.items()}

    core = [Requirement(text) for text in project["dependencies"]]
    extras = [Requirement(text) for group in project["optional-dependencies"].values() for text in group]
    for requirement in core + [r for r in extras if canonicalize_name(r.name) != "diffusion-lib"]:
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"constraints.txt does not pin {name}"
        assert requirement.specifier.contains(pinned[name]), (
            f"constraints.txt pins {name} {pinned[name]}, pyproject.toml wants {requirement}"
        )
    for requirement in core:
        assert re.fullmatch(r">=[\d.]+", str(requirement.specifier)), (
            f"{requirement}: the core has lower bounds only, so that Colab keeps its own"
        )

    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    conda = dict((entry.split("=", 1) + [""])[:2] for entry in environment if isinstance(entry, str))
    assert project["requires-python"] == f">={conda['python']}"
    assert Version(conda["pytorch-cpu"]) == pinned["torch"]
    through_pip = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    assert through_pip == ["-c constraints.txt", "-e .[dev]"]

    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert '-c constraints.txt -e ".[dev]"' in make
    assert f"version_info < ({conda['python'].replace('.', ', ')})" in make
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__

    for text in MASTERS:
        first = chapters.code_cells(text)[0].source
        installed = re.findall(r"^ *[%!]\s*pip\b(.*)$", first, re.M)
        assert installed == [f' install -q "diffusion_lib @ git+https://github.com/{address.address()}"'], (
            f"{text.name}: {installed}"
        )
        assert all(not re.search(r"[%!]\s*pip\b", cell.source) for cell in chapters.code_cells(text)[1:])


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "diffusion_lib").rglob("*.py")), ids=lambda p: p.name)
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_nothing_names_the_machine_it_was_made_on():
    """No absolute path of this checkout or of the home folder in what is published."""
    names = {str(ROOT), str(Path.home())} - {"/", "/root"}
    files = [
        path
        for folder in ("book", "notebooks", "coursework", "diffusion_lib", "benchmarks", "tools")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".md", ".ipynb", ".py", ".json", ".yml", ".js", ".css", ".bib"}
    ]
    files += [path for path in ROOT.iterdir() if path.suffix in {".md", ".toml", ".yml", ".cff", ".txt"}]
    for path in files:
        text = path.read_text(encoding="utf-8")
        found = [name for name in names if f"{name}/" in text]
        assert not found, f"{path.relative_to(ROOT)} names {found}"


def test_code_is_clean():
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed; run: make install")
    done = subprocess.run([ruff, "check", "--quiet", str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
