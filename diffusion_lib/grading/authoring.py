"""What an author runs while writing: the master, every right answer, every wrong one, in one process.

    python -m diffusion_lib.grading.authoring coursework/02_ddpm.md [--task posterior] [--verbose]

The master must pass its own tests. Each answer of ``coursework/answers/02_ddpm.py`` takes the place of the task's solution cell and goes through
the gate and the checker that grade. A right one must pass, visible and hidden; a wrong one must fail, and say the word. The stub must run and fail.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusion_lib.grading.checker import SKIP, Checker, Outcome, plain, reason
from diffusion_lib.grading.gate import local
from diffusion_lib.grading.masters import HIDDEN, SOLUTION, Master, advice, meta, read

LEAST_RIGHT, LEAST_WRONG = 3, 5


@dataclass
class Stage:
    """The state just before a task's solution cell, and the cells from there to the task's last test."""

    student: dict[str, Any]
    checker: Checker
    cells: list[Any] = field(default_factory=list)


def answers(path: Path) -> tuple[dict, dict]:
    """RIGHT and WRONG of a master's answers file; empty if there is none yet."""
    file = path.parent / "answers" / f"{path.stem}.py"
    if not file.exists():
        return {}, {}
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RIGHT, module.WRONG


def execute(source: str, names: dict[str, Any]) -> BaseException | None:
    """Run a cell as the student's process would; what it raised, or None."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(plain(source), "<cell>", "exec"), names)  # noqa: S102
    except Exception as problem:
        return problem
    return None


def stub(source: str) -> str:
    """A solution cell as the student gets it."""
    lines, inside = [], False
    for line in source.split("\n"):
        if SOLUTION[0] in line:
            inside = True
            lines.append(line[: len(line) - len(line.lstrip())] + "...")
        elif SOLUTION[1] in line:
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def stages(master: Master) -> tuple[dict[str, Stage], dict[str, Outcome], list[str]]:
    """Run the master once: the stage of each coded task, the outcome of each test, and what failed on the way."""
    student: dict[str, Any] = {"__name__": "__main__"}
    checker = Checker(local(student))
    found: dict[str, Stage] = {}
    outcomes: dict[str, Outcome] = {}
    said: list[str] = []
    waiting: set[str] = set()
    tests = {task.name: set(task.tests) for task in master.tasks if not task.manual}
    for cell in master.notebook.cells:
        if cell.cell_type != "code":
            continue
        data = meta(cell)
        name = data["grade_id"]
        if name in tests:
            found[name] = Stage(dict(student), Checker(checker.client, checker.names))
            found[name].checker.own = set(checker.own)
            waiting.add(name)
        for task in list(waiting):
            found[task].cells.append(cell)
            tests[task].discard(name)
            if not tests[task]:
                waiting.discard(task)
        if data["grade"]:
            outcomes[name] = checker.test(cell.source)
            if not outcomes[name].passed:
                said.append(f"the master fails its own test {name}: {outcomes[name].reason}")
            problem = execute(cell.source.split(HIDDEN[0])[0], dict(student))  # the grader never runs it there
        else:
            problem = execute(cell.source, student)
            if not data["solution"] and SKIP not in cell.metadata.get("tags", []):
                try:
                    checker.run(cell.source)
                except Exception as error:
                    said.append(f"the checker cannot run the read-only cell {name}: {reason(error)}")
        if problem is not None:
            said.append(f"the master's cell {name} fails: {reason(problem)}\n{''.join(traceback.format_exception(problem))[-600:]}")
    return found, outcomes, said


def judge(stage: Stage, task: str, answer: str) -> dict[str, Outcome]:
    """The outcome of each of the task's tests when ``answer`` is its solution cell."""
    student = dict(stage.student)
    checker = Checker(local(student), stage.checker.names)
    checker.own = set(stage.checker.own)
    found: dict[str, Outcome] = {}
    for cell in stage.cells:
        data = meta(cell)
        if data["grade"] and data["grade_id"].startswith(f"{task}-test"):
            found[data["grade_id"]] = checker.test(cell.source)
        elif not data["grade"]:
            execute(answer if data["grade_id"] == task else cell.source, student)
            if not data["solution"] and SKIP not in cell.metadata.get("tags", []):
                with contextlib.suppress(Exception):
                    checker.run(cell.source)
    return found


def verify(path: Path, only: str | None = None, verbose: bool = False) -> list[str]:
    """All that is wrong with a master and its answers, one sentence each."""
    master = read(path)
    said = [f"advice: {line}" for line in advice(master)]
    found, outcomes, problems = stages(master)
    said += problems
    right, wrong = answers(path)
    said += [f"answers name the task {name!r}, which {path.name} does not have" for name in {*right, *wrong} - set(found)]
    for task, stage in found.items():
        if only is not None and task != only:
            continue
        if len(right.get(task, ())) < LEAST_RIGHT or len(wrong.get(task, ())) < LEAST_WRONG:
            said.append(f"{task}: {len(right.get(task, ()))} right and {len(wrong.get(task, ()))} wrong answers; "
                        f"expected at least {LEAST_RIGHT} and {LEAST_WRONG}")
        if all(outcome.passed for outcome in judge(stage, task, stub(master.cell(task).source)).values()):
            said.append(f"{task}: the stub that the student gets passes a test")
        for name, code in right.get(task, ()):
            begun = time.perf_counter()
            for test, outcome in judge(stage, task, code).items():
                if not outcome.passed:
                    said.append(f"{task}, right answer {name!r}, fails {test}: {outcome.reason}")
            if verbose:
                print(f"  right  {task}: {name} ({time.perf_counter() - begun:.1f} s)")
        for name, code, word in wrong.get(task, ()):
            reasons = [outcome.reason for outcome in judge(stage, task, code).values() if not outcome.passed]
            if not reasons:
                said.append(f"{task}, wrong answer {name!r}, passes")
            elif not any(word in text for text in reasons):
                said.append(f"{task}, wrong answer {name!r}: expected {word!r} in its reason, which is: {' / '.join(reasons)}")
            if verbose:
                print(f"  wrong  {task}: {name}\n         {' / '.join(reasons)}")
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masters", nargs="+", type=Path, help="coursework/NN_slug.md")
    parser.add_argument("--task", help="this task's answers alone")
    parser.add_argument("--verbose", action="store_true", help="print every answer and its reason")
    options = parser.parse_args()
    failed = False
    for path in options.masters:
        begun = time.perf_counter()
        said = verify(path, options.task, options.verbose)
        print("\n".join(said) if said else f"{path.name}: all answers get what they should", f"({time.perf_counter() - begun:.1f} s)")
        failed |= any(not line.startswith("advice") for line in said)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
