"""What the book's build adds to plain Markdown: anchors on equations, links from "(2.3)" to them, nothing remote.

A chapter stays portable: it says `\\tag{2.3}` and "(2.3)", which every Markdown reader shows. Here alone the tag
becomes the anchor `eq-2-3`, each code cell with a comment that cites it `code-2-3-0` and on, and the words links.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from docutils import nodes

sys.path.insert(0, str(Path(__file__).parent))
from chapters import REFERENCE, TAG, chapters, comments, equations  # noqa: E402

NO_LINKS_IN = (
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.title,
    nodes.comment,
)
REMOTE = re.compile(r"^(https?:)?//")


def anchor(number: str) -> str:
    return f"eq-{number.replace('.', '-')}"


def numbers() -> dict[str, str]:
    """Equation number -> page."""
    return {e.number: f"notebooks/{e.chapter}" for path in chapters() for e in equations(path)}


def outdated(app, env, added: set, changed: set, removed: set) -> set:
    """Every page is written anew when an equation moved to another page, came or went."""
    now, before = numbers(), getattr(env, "book_equations", None)
    env.book_equations = now
    return set() if before in (None, now) else env.found_docs - removed


def mark(app, doctree: nodes.document) -> None:
    """Anchors for equations and for the cells that cite them; TeX is handed to MathJax as it was written."""
    for block in doctree.findall(nodes.math_block):
        if block.get("nowrap") or block.get("number") or block.get("label"):
            continue
        tex = block.astext().strip()
        for number in TAG.findall(tex):
            block["ids"].append(anchor(number))
            block["classes"].append("dl-numbered")
        block["nowrap"] = True  # Sphinx would put rows into a `split`, in which a \tag is an error
        block.children = []
        block += nodes.Text(f"\\[{tex}\\]")
    if not app.env.docname.startswith("notebooks/"):
        return
    seen: dict[str, int] = {}
    for cell in doctree.findall(nodes.container):
        if "cell_input" not in cell["classes"]:
            continue
        cited = dict.fromkeys(n for _, text in comments(cell.astext()) for n in REFERENCE.findall(text))
        for number in cited:
            cell["ids"].append(f"code-{number.replace('.', '-')}-{seen.get(number, 0)}")
            seen[number] = seen.get(number, 0) + 1


def link(app, doctree: nodes.document, docname: str) -> None:
    """Each "(2.3)" in the prose becomes a link to its equation, in this chapter or another."""
    where = numbers()
    for text in list(doctree.findall(nodes.Text)):
        ancestor = text.parent
        while ancestor is not None and not isinstance(ancestor, NO_LINKS_IN):
            ancestor = ancestor.parent
        if ancestor is not None or not REFERENCE.search(text):
            continue
        pieces, at = [], 0
        for match in REFERENCE.finditer(text):
            number = match.group(1)
            if number not in where:
                continue
            pieces.append(nodes.Text(text[at : match.start()]))
            page = "" if where[number] == docname else app.builder.get_relative_uri(docname, where[number])
            pieces.append(
                nodes.reference("", match.group(0), internal=True, refuri=f"{page}#{anchor(number)}", classes=["dl-eq"])
            )
            at = match.end()
        if at:
            text.parent.replace(text, [*pieces, nodes.Text(text[at:])])


def stay_local(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Drop every script and style that a theme or an extension would fetch from another machine."""

    def local(file) -> bool:
        name = str(getattr(file, "filename", None) or "")
        body = (getattr(file, "attributes", None) or {}).get("body") or ""
        return not (REMOTE.match(name) or "thebe" in name or "thebe" in body)

    for key in ("script_files", "css_files"):
        context[key] = [file for file in context.get(key, []) if local(file)]


def theme(app, config) -> None:
    """Options of the theme that Jupyter Book's own configuration has no word for."""
    config.html_theme_options |= {
        "show_toc_level": 2,
        "pygments_light_style": "a11y-high-contrast-light",
        "pygments_dark_style": "a11y-high-contrast-dark",
    }


def setup(app) -> dict:
    app.connect("config-inited", theme)
    app.connect("env-get-outdated", outdated)
    app.connect("doctree-read", mark)
    app.connect("doctree-resolved", link)
    app.connect("html-page-context", stay_local, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
