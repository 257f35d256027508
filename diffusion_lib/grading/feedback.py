"""What people read: one page for each student, by nbgrader's template, and a picture of the class."""

from __future__ import annotations

import hashlib
import html
import json
from pathlib import Path
from typing import Any

import nbformat

from diffusion_lib.grading.masters import meta
from diffusion_lib.grading.submissions import Found, without_hidden


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
    """A student's page as HTML: the table of points, then what was handed in, executed. Hidden tests are not shown."""
    together = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(table(lines, enforced), id="summary")])
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
            if data.get("grade") and data.get("solution"):
                line = mine[data["grade_id"]]
                data["score"], data["comment"] = float(line["points"] or 0), line["reason"]
            together.cells.append(cell)
    score, most = (sum(float(line[key] or 0) for line in lines) for key in ("points", "max"))
    return _export(together, {"notebook": student, "score": score, "max_score": most, "late_penalty": 0})


def table(lines: list[dict], enforced: str) -> str:
    """The points by task as a Markdown table."""
    said = ["# Points", "", "| assignment | task | points | of | reason |", "|---|---|---|---|---|"]
    for line in lines:
        reason = html.escape(line["reason"], quote=False).replace("|", "\\|").replace("`", "'").replace("[", "\\[").replace("*", "\\*").replace("_", "\\_")
        said.append(f"| {line['assignment']} | {line['task']} | {line['points'] or '–'} | {line['max']} | {reason or 'Passed.'} |")
    return "\n".join([*said, "", f"<small>{html.escape(enforced)}</small>"])


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
    """The class in one picture: for each assignment the totals, and each task's share of its points."""
    from diffusion_lib import plotting

    graded = [line for line in lines if line["task"]]
    if not graded:
        return
    assignments = sorted({line["assignment"] for line in graded})
    fig, axes = plotting.figure(title(graded), rows=len(assignments), columns=2, height=0.6 + 3.0 * len(assignments), squeeze=False)
    for (left, right), assignment in zip(axes, assignments, strict=True):
        here = [line for line in graded if line["assignment"] == assignment]
        totals: dict[str, float] = {}
        for line in here:
            totals[line["student"]] = totals.get(line["student"], 0.0) + float(line["points"] or 0)
        most = sum({line["task"]: float(line["max"]) for line in here}.values())
        left.hist(list(totals.values()), bins=[most * i / 10 for i in range(11)], color=plotting.BLUE)
        left.set(xlabel=f"{assignment}: points of {most:g}", ylabel="students", xlim=(0, most))
        tasks = list(dict.fromkeys(line["task"] for line in here))
        marked = [[float(line["points"]) / float(line["max"]) for line in here if line["task"] == task and line["points"] != ""] for task in tasks]
        share = [sum(values) / len(values) if values else 0.0 for values in marked]
        right.barh(range(len(tasks)), share, color=plotting.GREEN)
        right.set_yticks(range(len(tasks)), [task if values else f"{task} (not marked)" for task, values in zip(tasks, marked, strict=True)])
        right.invert_yaxis()
        right.set(xlabel="mean share of the points", xlim=(0, 1))
    scratch = path.with_suffix(".png.tmp")
    scratch.write_bytes(plotting.to_png(fig))
    scratch.replace(path)


def title(lines: list[dict]) -> str:
    """The finding: the mean, and the task that cost most."""
    students = {(line["student"], line["assignment"]) for line in lines}
    mean = sum(float(line["points"] or 0) for line in lines) / len(students)
    shares: dict[str, list[float]] = {}
    for line in lines:
        if line["points"] != "":
            shares.setdefault(line["task"], []).append(float(line["points"]) / float(line["max"]))
    hardest = min(shares, key=lambda task: sum(shares[task]) / len(shares[task]), default="")
    return f"{len(students)} submissions, {mean:.1f} points in the mean; '{hardest}' was the hardest task"
