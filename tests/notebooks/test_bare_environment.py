"""A chapter runs where there is nothing but what Colab's first cell installs: the package and its core requirements."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import chapters  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.chapter]
CHAPTER = os.environ.get("BARE_CHAPTER", "01")
KERNEL = ["ipykernel"]  # what any notebook service has of its own


def closure(names: list[str]) -> dict[str, metadata.Distribution]:
    """Installed distributions that `names` need, with what they need in turn, leaving out extras."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        needed = map(Requirement, found[name].requires or [])
        waiting += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def source_tree(where: Path) -> Path:
    """A copy of what the package is built from, so that building leaves nothing in the checkout."""
    where.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, where / name)
    shutil.copytree(ROOT / "diffusion_lib", where / "diffusion_lib", ignore=shutil.ignore_patterns("__pycache__"))
    return where


def pip(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_installing_leaves_torch_alone(tmp_path):
    """With the lower bounds met, pip has nothing to do but add the package itself; offline, it could not do more."""
    said = pip("install", "--dry-run", "--no-index", "--no-build-isolation", str(source_tree(tmp_path / "source")))
    would = re.findall(r"^Would install (.*)$", said, re.M)
    assert len(would) <= 1 and all(len(line.split()) == 1 and line.startswith("diffusion") for line in would), would


def test_chapter_runs_with_the_core_alone(tmp_path):
    base, environment = Path(sys.executable), tmp_path / "environment"
    subprocess.run([base, "-m", "venv", "--without-pip", environment], check=True)
    site = next(environment.glob("lib*/python*/site-packages"))
    core = [
        Requirement(text).name
        for text in metadata.distribution("diffusion_lib").requires or []
        if "extra ==" not in text
    ]
    for distribution in closure([*core, *KERNEL]).values():
        for top in {
            Path(file).parts[0] for file in distribution.files or [] if Path(file).parts[0] not in ("..", "__pycache__")
        }:
            there = Path(distribution.locate_file(top))
            if there.exists() and not (site / top).exists():
                (site / top).symlink_to(there)
    pip(
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--target",
        str(site),
        str(source_tree(tmp_path / "source")),
    )

    python = environment / "bin" / "python"
    seen = subprocess.run(
        [
            python,
            "-c",
            "import diffusion_lib, importlib.util as u; print(diffusion_lib.__file__, u.find_spec('datasets'), "
            "u.find_spec('pytest'), u.find_spec('jupytext'))",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert seen.stdout.split() == [str(site / "diffusion_lib" / "__init__.py"), "None", "None", "None"], (
        "the environment is not bare"
    )

    kernel = tmp_path / "jupyter" / "kernels" / "bare"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        json.dumps(
            {
                "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": "bare",
                "language": "python",
                "env": {
                    "DIFFUSION_STATIC": "1",
                    "PYTHONPATH": "",
                    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
                },
            }
        )
    )
    text = next((path for path in chapters.chapters() if path.stem.startswith(CHAPTER)), None)
    assert text is not None, f"no chapter {CHAPTER}"
    work = tmp_path / "work"  # Colab has the notebook alone, not the files beside it
    work.mkdir()
    notebook: nbformat.NotebookNode = chapters.read(text)
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(tmp_path / "jupyter")
    try:
        NotebookClient(notebook, timeout=900, kernel_name="bare", resources={"metadata": {"path": str(work)}}).execute()
    finally:
        os.environ.pop("JUPYTER_PATH") if before is None else os.environ.update(JUPYTER_PATH=before)
