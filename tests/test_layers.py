"""Imports only go down (the picture in CONTRIBUTING.md), and importing the library is light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "diffusion_lib"

# From the bottom up. A module may import from its own layer (never in a circle) and from those below it.
LAYERS = [
    {"__init__", "validate", "noise", "profile", "schedules", "exact", "nets"},
    {"transitions", "targets"},
    {"denoisers", "losses", "latents"},
    {"samplers", "likelihood", "guidance"},
    {"training", "metrics", "features", "data", "checkpoints", "studies"},
    {"plotting", "widgets", "checks"},
    {"grading"},
    {"commands", "__main__"},
]
ONLY_IN = {
    "matplotlib": {"plotting"},
    "plotly": {"plotting"},
    "ipywidgets": {"widgets"},
    "IPython": {"plotting", "widgets", "grading"},
    "nbgrader": {"grading"},
}
INSIDE_FUNCTIONS = {"sklearn", "scipy", "datasets", "accelerate", "tqdm", "diffusers", "pandas", "nbgrader"}
HEAVY = {"matplotlib", "plotly", "ipywidgets", "IPython", "sklearn", "datasets", "accelerate", "pandas", "diffusers"}


def layer(name: str) -> int:
    return next((k for k, names in enumerate(LAYERS) if name in names), -1)


def part(path: Path) -> str:
    """The name right below diffusion_lib: samplers/ddim.py -> samplers."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every module that a file imports, in full, and whether it does so on being imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(outer)
    }
    for outer in ast.walk(tree):
        if isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test):
            late |= set(ast.walk(outer))
    found = []
    package = ["diffusion_lib", *path.relative_to(LIBRARY).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node not in late) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level + 1], node.module or ""]).rstrip(".")
                if node.level
                else node.module
            )
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "diffusion_lib" else [base]
            found += [(name, node not in late) for name in names]
    return found


FILES = sorted(LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(LIBRARY).as_posix())
def test_imports_go_down(path):
    own = part(path)
    assert layer(own) >= 0, f"{own} has no layer: add it to LAYERS in {Path(__file__).name}"
    for name, on_import in imports(path):
        top = name.split(".")[0]
        if top == "diffusion_lib":
            below = name.split(".")[1] if "." in name else "__init__"
            below = "__init__" if below.startswith("__version") else below
            assert 0 <= layer(below) <= layer(own), f"{own} imports {below}, which lies above it"
        assert own in ONLY_IN.get(top, {own}), f"{own} imports {top}, which only {ONLY_IN[top]} may"
        assert not (top in INSIDE_FUNCTIONS and on_import and layer(own) < layer("plotting")), (
            f"{own} imports {top} on being imported; do it inside the function that needs it"
        )


def test_no_circles():
    """Between the parts of the library, over all imports, late ones too."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        for name, _ in imports(path):
            if (
                name.startswith("diffusion_lib.")
                and name.split(".")[1] != part(path)
                and layer(name.split(".")[1]) >= 0
            ):
                graph.setdefault(part(path), set()).add(name.split(".")[1])
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"imports go in a circle: {' -> '.join([*path, name])}"
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def modules() -> list[str]:
    """Every importable module below plotting and widgets."""
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in FILES]
    return [name for name in names if layer((name.split(".") + ["__init__"])[1]) < layer("plotting")]


def test_the_library_pulls_in_nothing_heavy():
    """Measured against what torch brings along by itself."""
    code = (
        f"import sys, torch; before = set(sys.modules)\nimport {', '.join(modules())}\n"
        f"print(*sorted({HEAVY!r} & ({{m.split('.')[0] for m in set(sys.modules) - before}})))"
    )
    assert run(code) == ""


def test_import_is_fast():
    """`import diffusion_lib` takes under 0.2 s beyond torch, and so does the core. Best of three."""
    code = "import time, torch; begun = time.perf_counter(); import {}; print(time.perf_counter() - begun)"
    parts = ("schedules", "exact", "denoisers", "samplers", "losses")
    core = ", ".join(["diffusion_lib", *(f"diffusion_lib.{name}" for name in parts)])
    for names in ("diffusion_lib", core):
        assert min(float(run(code.format(names))) for _ in range(3)) < 0.2
