"""Grade a class: every submission by itself, its result stored at once, so that a stop loses nothing and the next run goes on."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
import queue
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from diffusion_lib.grading import feedback, marking, submissions
from diffusion_lib.grading.masters import COURSEWORK, Master, masters, read
from diffusion_lib.grading.sandbox import Limits, Student, enforced

COLUMNS = ("student", "assignment", "task", "number", "points", "max", "reason", "enforced")
BY_HAND = ("student", "assignment", "task", "points", "comment")


@dataclass
class Run:
    """What to grade, and where to: see ``python -m diffusion_lib grade --help``."""

    folder: Path
    out: Path
    feedback: Path | None = None
    manual: Path | None = None
    masters: Path = COURSEWORK
    jobs: int = 2
    limits: Limits = field(default_factory=Limits)
    fresh: bool = False
    student: str | None = None

    @property
    def state(self) -> Path:
        return self.out.with_suffix(".state")

    @property
    def by_hand(self) -> Path:
        return self.manual or self.out.with_suffix(".manual.csv")

    @property
    def totals(self) -> Path:
        return self.out.with_suffix(".totals.csv")


def grade(run: Run, say: Any = print) -> list[dict[str, Any]]:
    """Grade, and write the CSV, the picture and the pages. Returns the rows of the CSV. Errors: ValueError, FileNotFoundError."""
    from tqdm.auto import tqdm

    known = {path.stem: read(path) for path in masters(run.masters)}
    if not known:
        raise FileNotFoundError(f"There is no master in {run.masters}; expected NN_slug.md: say where with --masters.")
    found = submissions.find(run.folder, known, run.student)
    entered = read_by_hand(run.by_hand, known)
    run.state.mkdir(parents=True, exist_ok=True)
    held = probe(run.limits)
    say(enforced(held))
    results: dict[submissions.Found, dict[str, Any]] = {}
    waiting = []
    for one in found:
        stored = None if one.path is None or one.problem else _stored(run, one, known[one.assignment])
        if one.path is None:
            results[one] = {"rows": [{"task": "", "points": 0.0, "max": 0.0, "reason": one.problem, "manual": False}], "notebook": None, "held": {}}
        elif one.problem:
            results[one] = {"rows": marking.zeros(known[one.assignment], one.problem), "notebook": None, "held": {}}
        elif stored is not None:
            results[one] = stored
        else:
            waiting.append(one)
    if len(found) > len(waiting):
        say(f"{len(found)} submissions, {len(found) - len(waiting)} of them already graded or without a notebook to run.")
    with tqdm(total=len(waiting), desc="grading", unit="notebook", disable=not waiting, leave=False) as bar:
        for one, result in _all(run, waiting, known):
            results[one] = result
            bar.update()
    for sentence in strangers(run, found, entered):
        say(sentence)
    lines = _lines(found, results, entered, known)
    write_csv(run.out, COLUMNS, lines)
    write_csv(run.totals, feedback.TOTALS, feedback.totals(lines))
    missing = [line for line in lines if line["points"] == ""]
    remember_by_hand(run.by_hand, missing)
    if run.feedback is not None:
        feedback.write_all(run.feedback, run.state, found, results, lines, enforced(held))
    feedback.picture(run.out.with_suffix(".png"), lines)
    beside = sorted(entry.name for entry in os.scandir(run.folder) if entry.name.endswith(".ipynb"))
    if beside:
        say(f"Not graded, since it lies in no student's folder: {', '.join(beside)} in {run.folder}; expected STUDENT/NN_slug.ipynb.")
    say(f"{len({line['student'] for line in lines})} students -> {run.out}, {run.totals}, {run.out.with_suffix('.png')}"
        + (f", {run.feedback}" if run.feedback else "") + (f"; answers that wait to be marked in {run.by_hand}: {len(missing)}" if missing else ""))
    return lines


def probe(limits: Limits) -> dict[str, str]:
    """What confines a student's process here, by starting one."""
    with tempfile.TemporaryDirectory(prefix="submission-") as work:
        student = Student(Path(work), limits)
        student.end()
    return student.held


def _all(run: Run, waiting: list[submissions.Found], known: dict[str, Master]) -> Any:
    """(submission, result) of each, as they come; each result is on disk before it is given."""
    hidden = [run.masters, run.folder, run.state, *([run.feedback] if run.feedback else [])]
    workers: queue.SimpleQueue[marking.Worker] = queue.SimpleQueue()
    all_workers = [marking.Worker() for _ in range(min(run.jobs, len(waiting)) or 1)]
    for worker in all_workers:
        workers.put(worker)
    with tempfile.TemporaryDirectory(prefix="gradebooks-") as books:
        for slug in {one.assignment for one in waiting}:
            submissions.gradebook(known[slug], Path(books) / f"{slug}.db")

        def mark(one: submissions.Found) -> tuple[submissions.Found, dict[str, Any]]:
            worker, master = workers.get(), known[one.assignment]
            try:
                result = marking.mark(one.path, master, Path(books) / f"{one.assignment}.db", one.student, run.limits, [*hidden, Path(books)], worker)
            except Exception as problem:  # one broken notebook must not end the others' grading
                result = {"rows": marking.unknown(master, f"It could not be graded ({type(problem).__name__}: {problem}): look at it by hand."),
                          "notebook": None, "held": {}, "again": True}
            finally:
                workers.put(worker)
            if not result.get("again"):
                write_json(_place(run, one), {**result, "key": _key(run, one, master)})
            return one, result

        with ThreadPoolExecutor(len(all_workers)) as pool:
            try:
                yield from pool.map(mark, waiting)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in all_workers:
                    worker.end()


def _place(run: Run, one: submissions.Found) -> Path:
    return run.state / f"{one.student}--{one.assignment}.json"


def _stored(run: Run, one: submissions.Found, master: Master) -> dict[str, Any] | None:
    """The result of an earlier run, if submission, master, library and limits are the same."""
    if run.fresh:
        return None
    try:
        stored = json.loads(_place(run, one).read_text(encoding="utf-8"))
        return stored if stored["key"] == _key(run, one, master) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _key(run: Run, one: submissions.Found, master: Master) -> str:
    digest = hashlib.sha256(_library().encode())
    digest.update(json.dumps([asdict(run.limits), one.student, one.path.name]).encode())
    digest.update((run.masters / f"{master.slug}.md").read_bytes())
    for where, folders, files in os.walk(one.path.parent):
        folders[:] = sorted(name for name in folders if not os.path.islink(os.path.join(where, name)))
        for name in sorted(files):
            path = Path(where, name)
            if path.is_file() and not path.is_symlink() and (path.suffix != ".ipynb" or path == one.path):
                digest.update(f"\0{path.relative_to(one.path.parent)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _library() -> str:
    """A fingerprint of the library's code and of the packages that decide."""
    import diffusion_lib

    digest = hashlib.sha256(" ".join(metadata.version(name) for name in ("torch", "numpy", "nbgrader")).encode())
    for path in sorted(Path(diffusion_lib.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def strangers(run: Run, found: list[submissions.Found], entered: dict) -> list[str]:
    """A sentence for each entry by hand that belongs to nobody's submission."""
    everyone = {entry.name for entry in os.scandir(run.folder) if entry.is_dir()}
    handed_in = {(one.student, one.assignment) for one in found}
    said = [f"{run.by_hand}: no student {student!r} in {run.folder}; these points count for nobody: mend the name."
            for student in sorted({key[0] for key in entered} - everyone)]
    return said + [f"{run.by_hand}: {student} handed in no {slug}; these points count for nothing."
                   for student, slug in sorted({key[:2] for key in entered} - handed_in) if student in everyone and run.student is None]


def _lines(found: list[submissions.Found], results: dict, entered: dict, known: dict[str, Master]) -> list[dict[str, Any]]:
    lines = []
    labels = {(slug, task.name): task.label for slug, master in known.items() for task in master.tasks}
    for one in found:
        result = results[one]
        for row in result["rows"]:
            points, reason = row["points"], row["reason"]
            by_hand = entered.get((one.student, one.assignment, row["task"]))
            if by_hand is not None:
                points = by_hand[0]
                reason = f"{'Marked' if row['manual'] else 'Changed'} by hand. {by_hand[1]}".strip()
            if one.path is not None and one.path.stem != one.assignment:
                reason = f"Handed in as {one.path.name}.\n{reason}".strip()
            said = [safe for part in reason.split("\n") if (safe := _safe(part))]
            lines.append({"student": one.student, "assignment": one.assignment, "task": row["task"],
                          "number": labels.get((one.assignment, row["task"]), ""), "points": "" if points is None else f"{points:g}",
                          "max": f"{row['max']:g}", "reason": " // ".join(said), "said": said, "enforced": " ".join(result["held"]), "manual": row["manual"]})
    return lines


def _safe(text: str) -> str:
    """One line that no spreadsheet takes for a formula."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def read_by_hand(path: Path, known: dict[str, Master]) -> dict[tuple[str, str, str], tuple[float, str]]:
    """Points entered by hand, (student, assignment, task) -> (points, comment). Errors: ValueError that names the line."""
    if not path.exists():
        return {}
    most = {(slug, task.name): task.points for slug, master in known.items() for task in master.tasks}
    found = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not set(BY_HAND[:4]) <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} has the columns {reader.fieldnames}; expected {', '.join(BY_HAND)}.")
        for number, line in enumerate(reader, 2):
            text = (line["points"] or "").strip().replace(",", ".")
            if not text:
                continue
            limit = most.get((line["assignment"], line["task"]))
            try:
                points = float(text)
            except ValueError:
                points = float("nan")
            if limit is None or not 0 <= points <= limit:
                raise ValueError(f"{path}, line {number}: {text!r} points for {line['assignment']}/{line['task']}; expected "
                                 + ("a task of this coursework." if limit is None else f"a number from 0 to {limit:g}."))
            found[line["student"], line["assignment"], line["task"]] = (points, (line.get("comment") or "").strip())
    return found


def remember_by_hand(path: Path, missing: list[dict[str, Any]]) -> None:
    """Add an empty line to the file of points by hand for each answer that waits; what stands there is kept."""
    old: list[dict[str, str]] = []
    if path.exists():
        with open(path, newline="", encoding="utf-8-sig") as file:
            old = list(csv.DictReader(file))
    there = {(line["student"], line["assignment"], line["task"]) for line in old}
    new = [line for line in missing if (line["student"], line["assignment"], line["task"]) not in there]
    if new:
        write_csv(path, BY_HAND, [*old, *({**line, "points": "", "comment": ""} for line in new)])


def write_csv(path: Path, columns: tuple[str, ...], lines: list[dict[str, Any]]) -> None:
    """Write a CSV whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    with open(scratch, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    scratch.replace(path)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON whole or not at all, and onto the disk."""
    scratch = path.with_name(path.name + ".tmp")
    with open(scratch, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
