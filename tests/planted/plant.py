"""Plant one bug at a time in a copy of the library, and show that the tests catch it.

    python tests/planted/plant.py [-j 2] [--only NAME ...] [--all-tests]

The bugs are data: planted/bugs.toml. First the clean copy must pass the tests that the bugs name; then each bug must make one of *its*
tests fail, by an assertion of that test: a crash, an import error or a time-out does not count. Prints a table, and ends with
status 1 if a bug survives, 2 if there was nothing to judge. ``make bugs`` runs it; ``make test`` does not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUGS = Path(__file__).with_name("bugs.toml")
SECONDS = 300  # for the tests of one bug: one that makes them run for ever is not caught. With --all-tests, and for the clean copy:
SECONDS_FOR_ALL = 3600
PASSED = "all tests passed"


@dataclass(frozen=True)
class Bug:
    """One line of the library, as it is and as it is often written. file: below diffusion_lib/; tests: pytest ids below tests/."""

    name: str
    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...]

    def plant(self, root: Path) -> None:
        """Put ``new`` for ``old`` in the tree at ``root``. ValueError unless ``old`` is there exactly once."""
        path = root / "diffusion_lib" / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.name}: its old text is {text.count(self.old)} times in {self.file}; expected once: bring bugs.toml in step."
            )
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True)
class Verdict:
    """caught: by the claim of a test. how: that test, or what happened instead. seconds: how long it took to see."""

    caught: bool
    how: str
    seconds: float


def read_bugs(path: Path = BUGS) -> list[Bug]:
    """All bugs of the file, in its order. TypeError for an entry that lacks a field or has one more."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["bug"]
    return [Bug(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def copy_tree(root: Path, folder: Path) -> None:
    """The library, its tests and pytest's settings, without what was compiled."""
    for name in ("diffusion_lib", "tests"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", folder)


def run(root: Path, tests: list[str], bug: Bug | None = None, limit: float = SECONDS) -> Verdict:
    """Run ``tests`` in a fresh copy of the tree at ``root`` with ``bug`` planted in it, up to the first claim that fails."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        folder = Path(name).resolve()
        copy_tree(root, folder)
        if bug is not None:
            bug.plant(folder)
        report = folder / "report.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "witness"]
        # No compiled files: one that was written in the same second and has the same length would hide the bug.
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (folder, Path(__file__).parent))), "PLANTED_REPORT": str(report),
            "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }  # fmt: skip
        try:
            ran = subprocess.run(
                command + [f"tests/{test}" for test in tests], cwd=folder, env=environment, timeout=limit,
                capture_output=True, text=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Verdict(False, f"no verdict after {limit} s", time.perf_counter() - begun)
        seen = json.loads(report.read_text()) if report.exists() else None
    seconds = time.perf_counter() - begun
    if ran.returncode == 0:
        return Verdict(False, PASSED, seconds)
    if seen is None:
        return Verdict(False, f"pytest ended with status {ran.returncode}: {(ran.stderr or ran.stdout).strip()[-300:]}", seconds)
    test = seen["test"].removeprefix("tests/")
    return Verdict(seen["claim"], test if seen["claim"] else f"no claim: {test}: {seen['message']}", seconds)


def all_tests(root: Path) -> list[str]:
    """Every test of the library: not those of the book, nor those that read the repository around it."""
    files = sorted((root / "tests").glob("test_*.py"))
    return [path.name for path in files if "parents[1]" not in path.read_text(encoding="utf-8")]


def clean(root: Path, tests: list[str], jobs: int) -> list[Verdict]:
    """Run the tests without a bug, in ``jobs`` heaps of whole files; any verdict but PASSED makes the rest meaningless."""
    files = sorted({test.split("::")[0] for test in tests})
    heaps = [[test for test in tests if test.split("::")[0] in files[k::jobs]] for k in range(jobs)]
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda heap: run(root, heap, limit=SECONDS_FOR_ALL), [heap for heap in heaps if heap]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-j", "--jobs", type=int, default=2, help="bugs judged at a time (default 2)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only bugs whose name holds one of these words")
    parser.add_argument("--all-tests", action="store_true", help="judge by all tests of the library, not only those that the bug names")
    options = parser.parse_args()
    bugs = [bug for bug in read_bugs() if not options.only or any(word in bug.name for word in options.only)]
    if not bugs:
        print(f"no bug is called {' or '.join(options.only)}; the names are: {', '.join(bug.name for bug in read_bugs())}")
        return 2
    begun = time.perf_counter()
    everything = all_tests(ROOT)
    named = everything if options.all_tests else sorted({test for bug in bugs for test in bug.tests})
    wrong = [verdict for verdict in clean(ROOT, named, options.jobs) if verdict.how != PASSED]
    if wrong:
        print("the library fails its tests before any bug is planted:", *(verdict.how for verdict in wrong), sep="\n  ")
        return 2
    print(f"The clean copy passes ({time.perf_counter() - begun:.0f} s). Planting {len(bugs)} bugs:\n", flush=True)
    width = max(len(bug.name) for bug in bugs)
    print(f"| {'bug':{width}} | s    | caught by\n|{'-' * (width + 2)}|------|{'-' * 40}")
    survived = 0

    def judge(bug: Bug) -> Verdict:
        return run(ROOT, everything, bug, SECONDS_FOR_ALL) if options.all_tests else run(ROOT, list(bug.tests), bug)

    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = pool.map(judge, bugs)
        for bug, verdict in zip(bugs, verdicts, strict=True):
            survived += not verdict.caught
            how = verdict.how if verdict.caught else f"NOT CAUGHT ({verdict.how}): {bug.why}"
            print(f"| {bug.name:{width}} | {verdict.seconds:4.0f} | {how}", flush=True)
    print(f"\n{len(bugs) - survived} of {len(bugs)} bugs were caught, in {(time.perf_counter() - begun) / 60:.1f} minutes.")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
