"""Where the built book is, and its pages."""

from __future__ import annotations

import os
from pathlib import Path

HTML = Path(os.environ.get("BOOK_HTML", Path(__file__).resolve().parents[2] / "_build" / "html"))


def pages() -> list[str]:
    """Every page of the book, as a path below the root of the site."""
    found = (path.relative_to(HTML).as_posix() for path in sorted(HTML.rglob("*.html")))
    return [
        page
        for page in found
        if page not in {"genindex.html", "search.html", "index.html"} and not page.startswith("_")
    ]
