"""A class of honest, broken and hostile students through the whole of the grading, with a small assignment."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("nbgrader", reason="grading needs the extra `teach`")
import nbformat  # noqa: E402
from grading_cases import RIGHT, answered, hand_in, make_master  # noqa: E402

from diffusion_lib.grading import feedback, marking, masters, submissions  # noqa: E402
from diffusion_lib.grading import grade as grading  # noqa: E402
from diffusion_lib.grading.carry import BEHIND, REFUSED, forward  # noqa: E402
from diffusion_lib.grading.checker import Outcome  # noqa: E402
from diffusion_lib.grading.sandbox import GIB, Limits  # noqa: E402

pytestmark = pytest.mark.slow
LIMITS = Limits(time=14, cell=3, memory=2 * GIB)
BOTH = {"double": 5.0, "triple": 7.0}
ESCAPE = "import os, sys, builtins\n"


def changed(master, edit):
    """The right answers, in a notebook that ``edit`` works on as JSON."""
    raw = json.loads(nbformat.writes(answered(master, RIGHT)))
    edit(raw["cells"])
    return json.dumps(raw)


def find(cells, name):
    return next(i for i, cell in enumerate(cells) if cell["metadata"]["nbgrader"]["grade_id"] == name)


def loosen(cells):
    cells[find(cells, "double")]["source"] = "def double(x): return 0"
    cells[find(cells, "double-test")]["source"] = "pass  # passes"
    cells[find(cells, "double-test")]["metadata"]["nbgrader"]["points"] = 500


def students(master, folder):
    """name -> (points of double and triple, a piece of the reason of the first task that fails)."""
    wants = {}

    def student(name, notebook, points, piece="", file="99_small.ipynb"):
        hand_in(folder, name, notebook, file)
        wants[name] = (points, piece)

    first = lambda code, **more: answered(master, {**RIGHT, "double": code, **more})  # noqa: E731
    student("anna", answered(master, {**RIGHT, "conclude": "Because."}), BOTH)
    student("ben", answered(master, RIGHT), BOTH, file="99_small/99_small.ipynb")                          # as nbgrader collects
    student("changed-tests", changed(master, loosen), {"double": 0, "triple": 7}, "test cell was changed")
    student("checker", first(ESCAPE + "builtins.AssertionError = ZeroDivisionError\nimport torch\ntorch.allclose = lambda *a, **k: True\n"
                             "builtins.abs = len\nclass Yes:\n    def __eq__(self, o): return True\n    def __call__(self, x): return Yes()\ndouble = Yes()"),
            {"double": 0, "triple": 7}, "double")
    student("doubled", changed(master, lambda cells: cells.insert(3, json.loads(json.dumps(cells[find(cells, "double")])))), BOTH)
    student("exits", first(RIGHT["double"], triple="import os\nos._exit(0)"), {"double": 5, "triple": 0}, "ended itself")
    student("gigantic", first("import torch\ndef double(x): return torch.zeros(50 * 2**30 // 4)"), {"double": 0, "triple": 7}, "memory")
    student("leaves", first(ESCAPE + "def double(x): sys.exit(0)"), {"double": 0, "triple": 7}, "SystemExit")
    student("linked", "{}", {"double": 0, "triple": 0}, "link")
    (folder / "linked" / "99_small.ipynb").unlink()
    (folder / "linked" / "99_small.ipynb").symlink_to(folder / "anna" / "99_small.ipynb")
    student("loops", first("def double(x):\n    while True: pass"), {"double": 0, "triple": 7}, "longer than")
    student("missing", changed(master, lambda cells: [cells.pop(find(cells, n)) for n in ("triple-test", "double", "double-test")]),
            {"double": 0, "triple": 7}, "answer is missing")
    student("no-json", "this is no { JSON", {"double": 0, "triple": 0}, "no JSON")
    student("renamed", answered(master, RIGHT), BOTH, file="homework (final).ipynb")
    student("stub", answered(master, {}), {"double": 0, "triple": 0}, "double(1)")
    hand_in(folder, "unknown", '{"cells": []}', "thesis.ipynb")
    (folder / "zero").mkdir()
    (folder / "stray.ipynb").write_text("{}")                                 # beside the students: nobody's
    return wants


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    root = tmp_path_factory.mktemp("school")
    master = make_master(root / "masters")
    wants = students(master, root / "in")
    run = grading.Run(root / "in", root / "out" / "grades.csv", root / "out" / "feedback", masters=root / "masters", limits=LIMITS, jobs=2)
    said: list[str] = []
    lines = grading.grade(run, said.append)
    return run, wants, lines, said


def rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return {(line["student"], line["task"]): line for line in csv.DictReader(file)}


def test_each_gets_its_points_and_its_reason(school):
    run, wants, _, said = school
    table = rows(run.out)
    for name, (points, piece) in wants.items():
        for task, value in points.items():
            assert float(table[name, task]["points"]) == value, (name, task, table[name, task])
        reasons = " ".join(table[name, task]["reason"] for task in points).strip()
        assert piece in reasons, (name, reasons)
        assert piece or name in ("doubled", "renamed") or not reasons
    assert "twice" in table["doubled", "double"]["reason"] and "Handed in as" in table["renamed", "double"]["reason"]
    assert "no assignment's name" in table["unknown", ""]["reason"] and "Nothing was handed in" in table["zero", ""]["reason"]
    assert table["anna", "conclude"]["points"] == "" and "by hand" in table["anna", "conclude"]["reason"]
    assert table["ben", "conclude"]["points"] == "0"
    assert any("stray.ipynb" in line for line in said)
    assert said[0].startswith("Enforced: ") and "limits" in table["anna", "double"]["enforced"]


def test_an_error_is_carried_forward_and_only_an_error(school):
    """`sextuple` calls `double` and `triple`: right by itself, it keeps its points where they are wrong; and gets none where nothing is left to call."""
    table = rows(school[0].out)
    for name, points in {"anna": 6, "changed-tests": 6, "loops": 6, "missing": 6, "checker": 6, "stub": 0, "exits": 0, "no-json": 0}.items():
        assert float(table[name, "sextuple"]["points"]) == points, (name, table[name, "sextuple"])
    assert table["anna", "sextuple"]["reason"] == "" and "master's answers to earlier tasks" in table["loops", "sextuple"]["reason"]


def test_pages_show_points_and_no_hidden_test(school):
    run = school[0]
    assert {p.stem for p in run.feedback.glob("*.html")} == {p.name for p in run.folder.iterdir() if p.is_dir()}
    for page in run.feedback.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "hidden_cases" not in text and "very_secret_factor" not in text and "marking key" not in text
        assert "Enforced: " in text
    assert "test cell was changed" in (run.feedback / "changed-tests.html").read_text(encoding="utf-8")
    assert run.out.with_suffix(".png").stat().st_size > 5000


def test_what_waits_for_a_mark_is_no_zero(school):
    """Neither on the page, nor in a total, nor in the picture; and the tasks have the names that students know."""
    run, _, lines, _ = school
    page = (run.feedback / "anna.html").read_text(encoding="utf-8")
    assert "18 of 18 by machine; 4 by hand, not yet marked." in page and "Not yet marked, of 4.0" in page and "Test cell" not in page
    assert "Task 4, by hand (conclude)" in page and "Score: -1" not in page and rows(run.out)["anna", "conclude"]["number"] == "Task 4, by hand"
    assert "18 of 18 by machine; 0 of 4 by hand; 18 of 22 points in all." in (run.feedback / "ben.html").read_text(encoding="utf-8")
    with open(run.totals, newline="", encoding="utf-8") as file:
        table = {line["student"]: line for line in csv.DictReader(file)}
    assert [table["anna"][key] for key in ("points", "max", "machine", "hand", "not_yet_marked")] == ["18", "22", "18", "0", "4"]
    assert feedback.shares([line for line in lines if line["task"]])["conclude"] is None
    assert "conclude" not in feedback.title([line for line in lines if line["task"]])


def test_nbgrader_finds_its_tools_where_the_environment_is_not_activated(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    submissions.gradebook(make_master(tmp_path), tmp_path / "book.db")
    assert (tmp_path / "book.db").stat().st_size > 0


def test_tasks_have_the_numbers_of_their_checks():
    tasks = {task.name: task.label for task in masters.read(masters.COURSEWORK / "05_sde.md").tasks}
    assert tasks["proportion"] == "Task 1a, 1b, 1c" and tasks["positive"] == "Task 2" and tasks["strength-why"] == "Task 4, by hand"


def test_reasons_stand_on_lines_of_their_own():
    task = masters.Task("double", 5, tests=["double-test", "double-test-2"])
    master = masters.Master("99_small", nbformat.v4.new_notebook(), [task], Path())
    row = marking.rows(master, {}, {"double-test": "First.", "double-test-2": "Second."}, {})[0]
    assert row["reason"] == "First.\nSecond."
    lines = grading._lines([submissions.Found("anna", "99_small", Path("99_small.ipynb"))],
                           {submissions.Found("anna", "99_small", Path("99_small.ipynb")): {"rows": [row], "held": {}}}, {}, {"99_small": master})
    assert lines[0]["reason"] == "First. // Second." and "First.<br>Second." in feedback.table(lines, "")


def test_a_second_run_grades_nothing_and_says_the_same(school, monkeypatch):
    run = school[0]
    before, page = run.out.read_bytes(), (run.feedback / "anna.html").stat().st_mtime_ns
    monkeypatch.setattr(grading.marking, "mark", lambda *a, **k: pytest.fail("graded again"))
    grading.grade(run, lambda _: None)
    assert run.out.read_bytes() == before and (run.feedback / "anna.html").stat().st_mtime_ns == page


def test_points_by_hand_are_kept_and_used(school):
    run = school[0]
    assert run.by_hand.name == "grades.manual.csv"                            # named after --out: two classes in one folder do not share it
    text = run.by_hand.read_text(encoding="utf-8")
    assert "anna,99_small,conclude,," in text
    run.by_hand.write_text(text.replace("anna,99_small,conclude,,", "anna,99_small,conclude,3.5,well argued"), encoding="utf-8")
    try:
        for _ in range(2):
            grading.grade(run, lambda _: None)
            line = rows(run.out)["anna", "conclude"]
            assert line["points"] == "3.5" and "well argued" in line["reason"]
            assert "3.5" in run.by_hand.read_text(encoding="utf-8")
        assert "well argued" in (run.feedback / "anna.html").read_text(encoding="utf-8")
        page = (run.feedback / "anna.html").read_text(encoding="utf-8")
        assert "18 of 18 by machine; 3.5 of 4 by hand; 21.5 of 22 points in all." in page
        run.by_hand.write_text(f"{text}zoe,99_small,conclude,1,\nstub,99_small,double,2,close\n", encoding="utf-8")
        said: list[str] = []
        grading.grade(run, said.append)
        assert any("no student 'zoe'" in line for line in said)
        assert rows(run.out)["stub", "double"]["reason"] == "Changed by hand. close"
        run.by_hand.write_text(text.replace("anna,99_small,conclude,,", "anna,99_small,conclude,40,"), encoding="utf-8")
        with pytest.raises(ValueError, match="line 2.*from 0 to 4"):
            grading.grade(run, lambda _: None)
    finally:
        run.by_hand.write_text(text, encoding="utf-8")
        grading.grade(run, lambda _: None)


def test_killed_half_way_it_goes_on_and_gives_the_same_points(school, tmp_path):
    run, _, _, _ = school
    few = tmp_path / "in"
    few.mkdir()
    for name in ("anna", "ben", "changed-tests", "stub"):
        (few / name).symlink_to(run.folder / name)                            # a link to a student's folder is not followed …
    with pytest.raises(ValueError, match="holds no student"):
        submissions.find(few, {})
    for name in ("anna", "ben", "changed-tests", "stub"):                     # … so the folders themselves
        (few / name).unlink()
        for path in (run.folder / name).rglob("*.ipynb"):
            hand_in(few, name, path.read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "diffusion_lib", "grade", str(few), "--out", str(tmp_path / "grades.csv"), "--masters", str(run.masters),
               "--jobs", "1", "--time", "30"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state, until = tmp_path / "grades.state", time.monotonic() + 240
    while not list(state.glob("*.json")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in state.glob("*.json")}
    assert 1 <= len(done) < 4 and not (tmp_path / "grades.csv").exists()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert all(path.stat().st_mtime_ns == then for path, then in done.items())
    table, whole = rows(tmp_path / "grades.csv"), rows(run.out)
    assert len(table) == 16 and {k: v for k, v in table.items() if k[1] != "conclude"}.items() <= whole.items()


@pytest.mark.parametrize(("arguments", "piece"), [
    (["nowhere"], "There is no folder nowhere"), ([".", "--memory", "lots"], "expected a number and a unit"), ([".", "--jobs", "0"], "--jobs 0"),
    ([".", "--masters", "nowhere"], "There is no master"),
])
def test_bad_calls_get_a_sentence(tmp_path, monkeypatch, capsys, arguments, piece):
    from diffusion_lib.commands import main

    monkeypatch.chdir(tmp_path)
    assert main(["grade", *arguments]) == 2
    assert piece in capsys.readouterr().err


def test_a_second_fault_behind_a_first_one_gets_its_own_reason():
    """`marginal` is wrong; `posterior` calls it and has a fault of its own: the student reads of that one, not of what the first caused."""
    cells = [nbformat.v4.new_code_cell(f"# {name}", metadata={"nbgrader": {"grade_id": name}})
             for name in ("marginal", "marginal-test", "posterior", "posterior-test")]
    tasks = [SimpleNamespace(name=name, tests=[f"{name}-test"]) for name in ("marginal", "posterior")]
    answers = SimpleNamespace(master=SimpleNamespace(tasks=tasks), answer=None, stand_ins=lambda names: ({}, []), defined_by=lambda task: [task])
    student = SimpleNamespace(exchange=lambda request, buffers: None, cell=lambda source: None)
    for second, expected in ((Outcome(False, "a variance is asked."), "a variance is asked." + BEHIND), (Outcome(False, REFUSED), "it is NaN."),
                             (Outcome(False, "it is NaN."), "it is NaN."), (Outcome(True, ""), "")):
        outcomes = {"marginal-test": Outcome(False, "the sign."), "posterior-test": Outcome(False, "it is NaN.")}
        passed = forward(nbformat.v4.new_notebook(cells=cells), answers, student, SimpleNamespace(test=lambda source, second=second: second), outcomes)
        assert outcomes["posterior-test"].reason == expected and outcomes["marginal-test"].reason == "the sign."
        assert passed == (["posterior"] if second.passed else [])
