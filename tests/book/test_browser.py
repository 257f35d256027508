"""What a reader of the rendered book meets: no errors, no network, mathematics, links, figures, phone, dark, print."""

from __future__ import annotations

import functools
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from built import HTML, pages

pytestmark = pytest.mark.browser
HERE = Path(__file__).parent
SCRIPTS = (HERE / "reading.js").read_text(encoding="utf-8")
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


class Visit:
    """A page opened once, with all that was seen while it loaded."""

    def __init__(self, browser, site: str, page: str, viewport: dict, scheme: str = "light"):
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(60_000)
        self.problems: list[str] = []
        self.foreign: list[str] = []
        self.tab.on("console", lambda m: self.problems.append(m.text) if m.type == "error" else None)
        self.tab.on("pageerror", lambda e: self.problems.append(str(e)))
        self.tab.on("requestfailed", lambda r: self.problems.append(f"failed: {r.url}"))
        self.tab.on("response", lambda r: self.problems.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        self.tab.on(
            "request", lambda r: self.foreign.append(r.url) if not r.url.startswith((site, "data:", "blob:")) else None
        )
        self.tab.goto(site + page, wait_until="load")
        self.tab.evaluate("() => window.MathJax?.startup?.promise")
        self.tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.tab.evaluate(SCRIPTS)

    def close(self) -> None:
        self.context.close()


@pytest.fixture(scope="session")
def report(browser, site):
    """page -> what stands on it, on a wide screen; each page is loaded once."""

    @functools.cache
    def of(page: str) -> dict:
        visit = Visit(browser, site, page, WIDE)
        try:
            return {
                **visit.tab.evaluate("() => reading.report()"),
                "problems": visit.problems,
                "foreign": visit.foreign,
                "url": site + page,
            }
        finally:
            visit.close()

    return of


def test_no_errors_and_nothing_from_the_network(page, report):
    seen = report(page)
    assert not seen["problems"]
    assert not seen["foreign"], "the page fetches from another machine"


def test_mathematics_is_typeset(page, report):
    seen = report(page)
    assert seen["formulas"] == seen["typeset"], f"{seen['formulas']} formulas, {seen['typeset']} typeset"
    assert not seen["mathErrors"]
    assert not seen["rawTex"], "TeX is left in the text"


def test_links_lead_somewhere(page, report, site):
    seen = report(page)
    broken = []
    for link in seen["links"]:
        url, fragment = urldefrag(urljoin(seen["url"], link))
        if not url.startswith(site):
            continue
        path = unquote(url[len(site) :].split("?")[0]) or "index.html"
        if not (HTML / path).is_file():
            broken.append(link)
        elif fragment and path in pages() and unquote(fragment) not in report(path)["ids"]:
            broken.append(link)
    assert not broken


def test_ids_are_unique_and_headings_in_order(page, report):
    seen = report(page)
    assert not seen["doubleIds"]
    assert seen["headings"].count(1) == 1, "a page has one title"
    jumps = [(a, b) for a, b in zip(seen["headings"], seen["headings"][1:], strict=False) if b > a + 1]
    assert not jumps, "a heading level is skipped"


def test_images_load_and_say_what_they_show(page, report):
    images = report(page)["images"]
    assert [i["src"] for i in images if not i["loaded"]] == []
    assert [i["src"] for i in images if not i["alt"].strip()] == [], "images without alt text"


def test_phone_and_sliders(page, browser, site):
    """390 px wide: nothing sticks out. Each slider of a figure changes its picture when moved by keyboard."""
    visit = Visit(browser, site, page, PHONE)
    try:
        wide = visit.tab.evaluate("() => reading.tooWide()")
        assert not wide, "these stick out of the phone's screen"
        cut = visit.tab.evaluate("() => reading.cutOff()")
        assert not cut, "the left part of these cannot be scrolled to"
        idle = []
        sliders = visit.tab.locator(".bd-article input[type=range]")
        for k in range(sliders.count()):
            slider = sliders.nth(k)
            slider.evaluate(
                "(e) => { for (let d = e.closest('details'); d; d = d.parentElement.closest('details')) d.open = true }"
            )
            slider.focus()
            before = slider.evaluate("(e) => reading.picture(reading.figure(e))")
            for key in ("Home", "End", "PageDown", "ArrowLeft"):
                slider.press(key)
                visit.tab.wait_for_timeout(60)
                if slider.evaluate("(e) => reading.picture(reading.figure(e))") != before:
                    break
            else:
                idle.append(k)
            assert slider.evaluate("(e) => e.getAttribute('aria-label') || e.labels.length"), f"slider {k} has no label"
        assert not idle, "these sliders change no picture"
        assert not visit.problems
    finally:
        visit.close()


def test_dark_mode(page, browser, site):
    visit = Visit(browser, site, page, WIDE, scheme="dark")
    try:
        assert visit.tab.evaluate("() => document.documentElement.dataset.theme") == "dark"
        faint = visit.tab.evaluate("() => reading.faint(4.5)")
        assert not faint, "text below a contrast of 4.5:1"
        boxed = visit.tab.evaluate("() => reading.boxed()")
        assert not boxed, "figures on a box of another colour than the page"
    finally:
        visit.close()


def test_light_mode_contrast(page, report):
    assert not report(page)["faint"], "text below a contrast of 4.5:1"


def test_paper(browser, site):
    """In print the solutions are open and the controls gone."""
    page = next((p for p in pages() if p.startswith("notebooks/")), pages()[0])
    visit = Visit(browser, site, page, WIDE)
    try:
        visit.tab.emulate_media(media="print")
        visit.tab.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
        assert visit.tab.evaluate("() => document.querySelectorAll('.bd-article details:not([open])').length") == 0
        assert (
            visit.tab.evaluate("() => reading.visible('.bd-sidebar-primary, .header-article, .dl-interactive input')")
            == []
        )
        visit.tab.evaluate("() => window.dispatchEvent(new Event('afterprint'))")
    finally:
        visit.close()


def test_search_finds(browser, site):
    visit = Visit(browser, site, "search.html?q=denoising", WIDE)
    try:
        visit.tab.wait_for_selector("#search-results li", timeout=20_000)
        assert not visit.foreign
    finally:
        visit.close()


def test_one_top_bar(browser, site):
    visit = Visit(browser, site, pages()[0], PHONE)
    try:
        assert len(visit.tab.evaluate("() => reading.visible('.bd-header, .header-article')")) <= 1
    finally:
        visit.close()
