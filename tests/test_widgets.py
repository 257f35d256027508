"""Sliders: the static twin is whole, light, accessible and deterministic; in a browser it obeys keyboard and button."""

from __future__ import annotations

import os
import re
import shutil

import pytest

from diffusion_lib import plotting as P
from diffusion_lib import widgets
from diffusion_lib.widgets import animate, explore, static_twin


def draw(*values):
    fig, ax = P.figure(height=1.0, width=2.0)
    P.exact_line(ax, [0, 1], [0, sum(float(v) for v in values)])
    ax.set_ylim(0, 10)
    return fig


def sources(twin):
    return re.findall(r'"frames":\[(.*?)\]', twin)[0].split(",")


def test_the_twin_holds_every_frame_and_rests_in_the_middle():
    twin = static_twin(draw, beta=[1, 2, 5], alt="A line to {beta}", labels={"beta": "β"})
    assert len(sources(twin)) == 3 and len(set(sources(twin))) == 3
    assert twin.count("<img") == 1 and 'alt="A line to 2"' in twin and f'base64,{sources(twin)[1].strip(chr(34))}"' in twin
    assert 'type="range"' in twin and 'aria-label="β"' in twin and 'aria-valuetext="2"' in twin and 'max="2"' in twin
    assert "A line to 5" in twin and "http" not in twin and "<button" not in twin


def test_two_sliders_make_every_combination():
    twin = static_twin(draw, a=[0, 1], b=[0, 3, 6], alt="{a} and {b}", start={"a": 0, "b": 6})
    assert len(sources(twin)) == 6 and twin.count('type="range"') == 2 and 'alt="0 and 6"' in twin


def test_ids_are_deterministic_and_distinct():
    one, again, other = (re.search(r'data-dl="([^"]+)"', static_twin(draw, b=v, alt="{b}")).group(1) for v in ([1, 2], [1, 2], [1, 3]))
    assert one == again != other


def test_alt_may_be_a_function_and_is_escaped():
    twin = static_twin(draw, b=[1], alt=lambda b: f'b < 2 & "{b}"')
    assert 'alt="b &lt; 2 &amp; &quot;1&quot;"' in twin
    assert "</script" not in static_twin(draw, b=[1], alt="</script>{b}").split("<script>")[1].replace("</script></div>", "")


@pytest.mark.parametrize(("call", "message"), [
    (lambda: static_twin(draw, alt="x"), "0 sliders"),
    (lambda: static_twin(draw, alt="x", a=[1], b=[1], c=[1]), "3 sliders"),
    (lambda: static_twin(draw, alt="x", a=[]), "no values"),
    (lambda: static_twin(draw, alt="x", a=[1], start={"a": 2}), "not among"),
    (lambda: static_twin(draw, alt="x", a=[1], start={"b": 1}), "no slider"),
    (lambda: static_twin(draw, alt=" ", a=[1]), "alt text is empty"),
    (lambda: animate(draw, alt="x", a=[1], b=[2]), "expected one"),
])
def test_wrong_calls(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_heavy_twin_loses_colours_and_then_is_refused(monkeypatch):
    import numpy as np

    def noise(seed):
        fig, ax = P.figure(height=2.0, width=3.0)
        ax.imshow(np.random.default_rng(int(seed)).random((150, 200, 3)))
        return fig

    plain = len(static_twin(noise, s=[1, 2], alt="{s}"))
    monkeypatch.setattr(widgets, "MOST_BYTES", int(0.8 * plain))
    assert len(static_twin(noise, s=[1, 2], alt="{s}")) < 0.8 * plain
    monkeypatch.setattr(widgets, "MOST_BYTES", 5000)
    with pytest.raises(ValueError, match="give fewer values"):
        static_twin(noise, s=[1, 2], alt="{s}")


def test_the_book_gets_the_twin_and_a_still(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, raw=False, metadata=None: shown.append((data, metadata)))
    monkeypatch.setenv("DIFFUSION_STATIC", "1")
    explore(draw, beta=[1, 2], alt="To {beta}")
    animate(draw, t=[1, 0], alt="At {t}")
    (slider, slider_metadata), (film, film_metadata) = shown
    assert "dl-interactive" in slider["text/html"] and slider["text/plain"] == "To 2" and slider_metadata["image/png"]["alt"] == "To 2"
    assert ">Play</button>" in film["text/html"] and film_metadata["image/png"]["alt"] == "At 1"        # at rest on its first frame


def test_a_live_kernel_gets_sliders_that_call_the_drawing_function(monkeypatch):
    ipywidgets = pytest.importorskip("ipywidgets")
    import IPython.display

    shown, drawn = [], []
    monkeypatch.setattr(IPython.display, "display", lambda box: shown.append(box))
    monkeypatch.setattr(widgets, "_static", lambda: False)

    def remember(a, b):
        drawn.append((a, b))
        return draw(a, b)

    explore(remember, a=[1, 2, 3], b=[4, 5], alt="{a}, {b}", start={"b": 4})
    first, second, picture = shown[0].children
    assert drawn == [(2, 4)] and isinstance(first, ipywidgets.SelectionSlider) and 'alt="2, 4"' in picture.value
    first.value = 3
    assert drawn[-1] == (3, 4) and 'alt="3, 4"' in picture.value
    second.value = 5
    assert drawn[-1] == (3, 5)


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[test]")
    with sync.sync_playwright() as playwright:
        program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        try:
            opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except Exception as problem:
            pytest.skip(f"no Chromium to open ({str(problem).splitlines()[0][:80]}): run `playwright install chromium` or set CHROMIUM")
        yield opened
        opened.close()


@pytest.mark.browser
def test_the_twin_obeys_keyboard_and_button(browser):
    slider = static_twin(draw, a=[0, 1], b=[0, 3, 6], alt="{a} and {b}", start={"a": 0, "b": 0})
    film = static_twin(draw, t=[0, 5, 9], alt="at {t}", start={"t": 0}, interval=0.05)
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.set_content(f"<html><body>{slider}{slider}{film}</body></html>")               # the same one twice does no harm
    boxes = page.locator(".dl-interactive")
    image, inputs = boxes.nth(0).locator("img"), boxes.nth(0).locator("input")
    before = image.get_attribute("src")
    inputs.nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert image.get_attribute("alt") == "0 and 3" and image.get_attribute("src") != before
    assert inputs.nth(1).get_attribute("aria-valuetext") == "3"
    inputs.nth(0).focus()
    page.keyboard.press("End")
    assert image.get_attribute("alt") == "1 and 3"
    assert boxes.nth(1).locator("img").get_attribute("alt") == "0 and 0"

    moving, button = boxes.nth(2).locator("img"), boxes.nth(2).locator("button")
    page.wait_for_timeout(150)
    assert moving.get_attribute("alt") == "at 0"                                        # at rest until asked
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.dl-interactive img')[2].alt === 'at 9'")
    assert button.inner_text() == "Play"
    page.emulate_media(media="print")
    assert not button.is_visible() and moving.is_visible()
    assert problems == []
    page.close()


@pytest.mark.browser
def test_less_motion_means_one_frame_a_press(browser):
    page = browser.new_page(reduced_motion="reduce")
    page.set_content(static_twin(draw, t=[0, 5, 9], alt="at {t}", start={"t": 0}, interval=0.02))
    button, image = page.locator("button"), page.locator("img")
    assert button.inner_text() == "Next"
    button.click()
    page.wait_for_timeout(120)
    assert image.get_attribute("alt") == "at 5"
    page.close()
