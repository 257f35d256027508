"""Every assignment: its master works, right answers pass and wrong ones fail with their reason, and what students get shows nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbgrader", reason="releasing needs the extra `teach`")
import nbformat  # noqa: E402
from grading_cases import make_master  # noqa: E402

from diffusion_lib.grading import authoring, masters, release  # noqa: E402
from diffusion_lib.grading.checker import reset  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PATHS = masters.masters(ROOT / "coursework")
SMALL = "99_small"


@pytest.fixture(params=[*(path.stem for path in PATHS), SMALL])
def master(request, tmp_path):
    return make_master(tmp_path) if request.param == SMALL else masters.read(ROOT / "coursework" / f"{request.param}.md")


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_right_answers_pass_and_wrong_ones_fail(path):
    """By the checker that grades, through the gate, on visible and hidden seeds; and the rules on points, seeds and line lengths."""
    assert authoring.verify(path) == []
    reset()


def everything(value) -> list[str]:
    """Every string of a notebook: sources, outputs, keys and values of metadata, ids."""
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (str(key), *everything(item))]
    return [text for item in value for text in everything(item)] if isinstance(value, list) else [str(value)]


def test_students_version_shows_nothing(master):
    notebook = release.students(master)
    nbformat.validate(notebook)
    raw = json.loads(nbformat.writes(notebook))
    text = "\n".join(everything(raw))
    assert release.secrets(master) and not [line for line in release.secrets(master) if line in text and line not in _shown(master)]
    for marker in ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS", "arking key"):
        assert marker not in text
    assert set(raw["metadata"]) == {"kernelspec", "language_info"} and release.leaks(master, notebook) == []
    for cell, original in zip(raw["cells"], master.notebook.cells, strict=True):
        assert not cell.get("outputs") and not cell.get("attachments") and cell.get("execution_count") is None
        assert cell["id"] == original.metadata.nbgrader["grade_id"]                           # an id says nothing of what was cut
        assert set(cell["metadata"]) <= {"nbgrader", "tags", "deletable", "editable"}
        assert (cell["metadata"].get("editable") is False) == original.metadata.nbgrader["locked"]


def _shown(master) -> str:
    return "\n".join(line.strip() for cell in master.notebook.cells for line in release.outside(cell.source).split("\n"))


def test_a_leak_is_noticed_wherever_it_is(tmp_path):
    small = make_master(tmp_path)
    line = "very_secret_factor = 2  # a telling comment in the solution"
    for spoil in (lambda nb: nb.cells[2].metadata.update(note=line), lambda nb: nb.metadata.update(note={"deep": [line]}),
                  lambda nb: nb.cells[3].update(id=line), lambda nb: nb.cells[1].outputs.append(nbformat.v4.new_output("stream", text=line))):
        notebook = release.students(small)
        spoil(notebook)
        assert release.leaks(small, notebook) == [line]


def test_the_checksum_does_not_tell_of_hidden_tests(master):
    """A checksum over the hidden tests would let students try guesses at them: it is taken after they are cut."""
    from nbgrader.utils import compute_checksum

    for cell in release.students(master).cells:
        assert cell.metadata.nbgrader["checksum"] == compute_checksum(cell)


def test_release_is_the_same_each_time_and_both_have_the_link(master):
    for make in (release.students, release.instructor):
        first, second = (nbformat.writes(make(master, "someone/course/blob/main/week2")) for _ in range(2))
        assert first == second
        assert f"colab.research.google.com/github/someone/course/blob/main/week2/{master.slug}.ipynb" in first
    whole = nbformat.writes(release.instructor(master))
    assert "BEGIN SOLUTION" in whole and "BEGIN HIDDEN TESTS" in whole


def test_students_version_runs_from_top_to_bottom(master):
    """Unanswered, with the checks saying that a task is open; in this process, without a kernel."""
    names: dict = {"__name__": "__main__"}
    for cell in release.students(master).cells:
        if cell.cell_type == "code" and (master.slug != SMALL or not cell.metadata.nbgrader["grade"]):
            problem = authoring.execute(cell.source, names)
            assert problem is None, (cell.id, problem)
    reset()


@pytest.mark.parametrize(("old", "new", "piece"), [
    ("    ### BEGIN SOLUTION\n    very_secret_factor = 3", "    very_secret_factor = 3", "in solution cells"),
    ("### BEGIN HIDDEN TESTS\nhidden_cases = torch.linspace(3, 17, 5)  # nobody may see these\nassert torch.allclose(double",
     "assert torch.allclose(double", "in test cells"),
    ('"grade_id": "triple"', '"grade_id": "double"', "taken"), ('"grade_id": "triple-test"', '"grade_id": "other-test"', "belongs to a code cell"),
    ('"points": 7', '"points": 0', "number > 0"), ('"locked": false, "points": 4', '"locked": true, "points": 4', "a student edits it or not"),
])
def test_a_master_that_would_not_work_is_refused(tmp_path, old, new, piece):
    make_master(tmp_path)
    path = tmp_path / f"{SMALL}.md"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(masters.MasterError, match=piece):
        masters.read(path)


def test_command_writes_both(tmp_path):
    make_master(tmp_path)
    subprocess.run([sys.executable, "-m", "diffusion_lib.grading.release", "--masters", str(tmp_path)], check=True, cwd=ROOT, capture_output=True)
    assert (tmp_path / "_out" / "students" / SMALL / f"{SMALL}.ipynb").exists() and (tmp_path / "_out" / "instructor" / f"{SMALL}.ipynb").exists()


def test_an_address_that_gives_no_link_is_refused(tmp_path):
    make_master(tmp_path)
    call = [sys.executable, "-m", "diffusion_lib.grading.release", "--masters", str(tmp_path), "--address"]
    bad = subprocess.run([*call, "https://github.com/someone/course"], cwd=ROOT, capture_output=True, text=True)
    assert bad.returncode == 2 and "expected OWNER/REPO/blob/BRANCH/FOLDER" in bad.stderr and not (tmp_path / "_out").exists()
    good = subprocess.run([*call, "someone/course/blob/main/week2"], check=True, cwd=ROOT, capture_output=True, text=True)
    assert f"week2/{SMALL}.ipynb, not in a folder each" in good.stdout


def test_an_open_task_and_a_wrong_one_are_one_line_each():
    from diffusion_lib.checks.core import WrongAnswer, check

    assert repr(check("cw2.1")) == "Task cw2.1: open. Many steps at once: write your answer and run the cell again."
    with pytest.raises(WrongAnswer, match="no answer") as problem:
        check("cw2.1", None, seed=3)
    assert "run the cell again" not in str(problem.value) and problem.value._render_traceback_() == [str(problem.value)]
