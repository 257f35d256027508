"""What people read: one page for each student, by nbgrader's template, and a picture of the class."""

from __future__ import annotations

import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import nbformat

from diffusion_lib.grading.masters import meta, task_of
from diffusion_lib.grading.submissions import Found, without_hidden

UNMARKED = -1.0  # the score that stands for none in nbgrader's template
STYLE = "<style>th, td { padding: 0.3em 0.8em; text-align: left; vertical-align: top; } tr { border-bottom: 1px solid #ddd; }</style>"
TOTALS = ("student", "assignment", "points", "max", "machine", "machine_max", "hand", "hand_max", "not_yet_marked")


def write_all(folder: Path, state: Path, found: list[Found], results: dict[Found, dict], lines: list[dict], enforced: str) -> None:
    """One page a student, ``folder/STUDENT.html``; a page whose contents are the same is not written again."""
    from tqdm.auto import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    for student in tqdm(sorted({one.student for one in found}), desc="feedback", unit="page", leave=False):
        mine = [line for line in lines if line["student"] == student]
        notebooks = [(one.assignment, results[one]["notebook"]) for one in found if one.student == student]
        key = hashlib.sha256(json.dumps([mine, notebooks, enforced]).encode()).hexdigest()
        mark, page = state / f"{student}.feedback", folder / f"{student}.html"
        if page.exists() and mark.exists() and mark.read_text() == key:
            continue
        scratch = page.with_suffix(".tmp")
        scratch.write_text(page_of(student, mine, notebooks, enforced), encoding="utf-8")
        scratch.replace(page)
        mark.write_text(key)


def page_of(student: str, lines: list[dict], notebooks: list[tuple[str, str | None]], enforced: str) -> str:
    """A student's page as HTML: the tables of points, then what was handed in, executed. Hidden tests are not shown."""
    together = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(table(lines, enforced), id="summary")])
    names: dict[str, str] = {}
    for assignment, text in notebooks:
        if text is None:
            continue
        mine = {line["task"]: line for line in lines if line["assignment"] == assignment}
        for number, cell in enumerate(nbformat.reads(text, as_version=4).cells):
            data = meta(cell)
            cell["id"] = f"{assignment[:20]}-{number}"
            if data.get("grade") and cell.cell_type == "code":
                cell.source = without_hidden(cell.source)
            if not data.get("locked") and cell.cell_type != "code":
                cell.source = html.escape(cell.source, quote=False)
            if data.get("grade"):
                line = mine[task_of(data["grade_id"])]
                data["grade_id"] = f"{assignment}--{data['grade_id']}"
                names[data["grade_id"]] = _name(line)
                if data.get("solution"):
                    data["score"], data["comment"] = float(line["points"] or UNMARKED), "\n".join(line["said"])
            together.cells.append(cell)
    page = _export(together, {"notebook": student, "score": 0, "max_score": 0, "late_penalty": 0})
    page = re.sub(r"(<h4>.*?) \(Score: [^)]*\)</h4>\s*<div id=\"toc\">.*?</div>", r"\1</h4>", page, count=1, flags=re.S)
    page = re.sub(rf'(<span class="pull-right">\s*)Score: {UNMARKED} / ([\d.]+)', r"\1Not yet marked, of \2", page)
    page = page.replace("</head>", STYLE + "</head>", 1)
    return re.sub(r"Grade cell: <code>([^<]*)</code>", lambda found: f"Test of {names.get(found[1], found[1])}", page)


def _name(line: dict) -> str:
    """A task as the student knows it, and its name in the file: "Task 5a (`start`)"."""
    return f"{line['number']} ({line['task']})" if line["number"] else line["task"]


def table(lines: list[dict], enforced: str) -> str:
    """The points by task in Markdown: a table and a total for each assignment."""
    said = []
    for total in totals(lines):
        said += [f"# Points: {total['assignment']}", "", f"**{in_words(total)}**", "", "| task | points | of | reason |", "|---|---|---|---|"]
        for line in lines:
            if line["assignment"] == total["assignment"]:
                reason = "<br>".join(map(_text, line["said"])) or ("Passed." if line["points"] == line["max"] else "")
                said.append(f"| {_text(_name(line))} | {line['points'] or 'not yet marked'} | {line['max']} | {reason} |")
        said.append("")
    return "\n".join([*said, f"<small>{html.escape(enforced)}</small>"])


def totals(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each student and assignment: points by machine, by hand, and those not yet marked, which count in no total."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        row = found.setdefault((line["student"], line["assignment"]),
                               {"student": line["student"], "assignment": line["assignment"], **dict.fromkeys(TOTALS[2:], 0.0)})
        kind = "hand" if line["manual"] else "machine"
        row["max"] += float(line["max"])
        row[f"{kind}_max"] += float(line["max"])
        for key in ("not_yet_marked",) if line["points"] == "" else ("points", kind):
            row[key] += float(line["points"] or line["max"])
    return [{key: f"{value:g}" if isinstance(value, float) else value for key, value in row.items()} for row in found.values()]


def in_words(total: dict[str, str]) -> str:
    """A row of `totals` as a sentence: "39 of 39 by machine; 9 by hand, not yet marked."."""
    missing = total["not_yet_marked"]
    if total["hand_max"] == "0":
        return f"{total['machine']} of {total['machine_max']} points." if missing == "0" else f"{missing} points could not be graded yet."
    hand = f"{total['hand']} of {total['hand_max']} by hand" if missing == "0" else (
        f"{missing} by hand, not yet marked" if missing == total["hand_max"] else
        f"{total['hand']} of {total['hand_max']} by hand so far, {missing} of them not yet marked")
    whole = f"; {total['points']} of {total['max']} points in all" if missing == "0" else ""
    return f"{total['machine']} of {total['machine_max']} by machine; {hand}{whole}."


def _text(reason: str) -> str:
    """A student's words in a table of Markdown, as words."""
    for mark, plain in (("|", "\\|"), ("`", "'"), ("[", "\\["), ("*", "\\*"), ("_", "\\_")):
        reason = reason.replace(mark, plain)
    return html.escape(reason, quote=False)


def _export(notebook: nbformat.NotebookNode, told: dict[str, Any]) -> str:
    """nbgrader's feedback template."""
    import nbgrader
    from nbconvert.exporters import HTMLExporter
    from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
    from traitlets.config import Config

    root = Path(nbgrader.__file__).parent / "server_extensions" / "formgrader"
    config = Config()
    config.HTMLExporter.template_name = "feedback"
    config.HTMLExporter.extra_template_basedirs = [str(root / "templates")]
    config.HTMLExporter.extra_template_paths = [str(root / "static" / "node_modules" / "bootstrap" / "dist" / "css")]
    exporter = HTMLExporter(config=config)
    exporter.register_preprocessor(CSSHTMLHeaderPreprocessor, enabled=True)
    return exporter.from_notebook_node(notebook, resources={"nbgrader": told})[0]


def picture(path: Path, lines: list[dict]) -> None:
    """The class in one picture, a row for each assignment: the totals, and each task's share of its points. Tasks that wait for a mark are left out."""
    from diffusion_lib import plotting

    graded = [line for line in lines if line["task"]]
    if not graded:
        return
    assignments = sorted({line["assignment"] for line in graded})
    heights = [1.4 + 0.45 * max(4, len({line["task"] for line in graded if line["assignment"] == one})) for one in assignments]
    fig, axes = plotting.figure(rows=len(assignments), columns=2, height=sum(heights), squeeze=False, height_ratios=heights)
    for (left, right), assignment in zip(axes, assignments, strict=True):
        here = [line for line in graded if line["assignment"] == assignment]
        share = shares(here)
        totals: dict[str, float] = {}
        for line in here:
            if share[line["task"]] is not None:
                totals[line["student"]] = totals.get(line["student"], 0.0) + float(line["points"])
        most = sum({line["task"]: float(line["max"]) for line in here if share[line["task"]] is not None}.values()) or 1.0
        left.hist(list(totals.values()), bins=[most * i / 10 for i in range(11)], color=plotting.BLUE)
        left.set_title(title(here), loc="left")
        left.yaxis.get_major_locator().set_params(integer=True)
        left.set(xlabel=f"{assignment}: points of {most:g}", ylabel="students", xlim=(0, most))
        names = {line["task"]: f"{line['number']}\n{line['task']}".strip() for line in here}
        right.barh(range(len(share)), [value or 0.0 for value in share.values()], color=plotting.GREEN)
        right.set_yticks(range(len(share)), [names[task] for task in share], fontsize=9)
        for at, value in enumerate(share.values()):
            if value is None:
                right.text(0.02, at, "not yet marked", va="center", fontsize=9)
        right.invert_yaxis()
        right.set(xlabel="mean share of the points", xlim=(0, 1))
    scratch = path.with_suffix(".png.tmp")
    scratch.write_bytes(plotting.to_png(fig))
    scratch.replace(path)


def shares(lines: list[dict]) -> dict[str, float | None]:
    """Each task's mean share of its points; None where someone's answer is not yet marked (the empty ones, already 0, say nothing)."""
    found: dict[str, list[float | None]] = {}
    for line in lines:
        found.setdefault(line["task"], []).append(None if line["points"] == "" else float(line["points"]) / float(line["max"]))
    return {task: None if None in values else sum(values) / len(values) for task, values in found.items()}


def title(lines: list[dict]) -> str:
    """The finding of one assignment: the mean, and the task that cost most."""
    share = {task: value for task, value in shares(lines).items() if value is not None}
    counted = [line for line in lines if line["task"] in share]
    students = len({line["student"] for line in lines})
    if not counted:
        return f"{lines[0]['assignment']}: {students} students, nothing marked yet"
    mean = sum(float(line["points"]) for line in counted) / students
    most = sum({line["task"]: float(line["max"]) for line in counted}.values())
    hardest = min(share, key=share.get)
    name = next(_name(line) for line in counted if line["task"] == hardest)
    hard = f"\nhardest: {name}" if list(share.values()).count(share[hardest]) == 1 and len(share) > 1 else ""
    return f"{lines[0]['assignment']}: {students} students, {mean:.1f} of {most:g} in the mean{hard}"
