"""Figures that move: ``explore`` (sliders) and ``animate`` (a play button). The only importer of ipywidgets.

In a live notebook a slider calls your drawing function. In the rendered book (``DIFFUSION_STATIC=1``), or where ipywidgets is
missing, stands its *static twin*: one piece of HTML that holds every frame, works without a kernel, by keyboard and offline,
is at rest until asked, and prints as the frame that it shows.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.util
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffusion_lib.plotting.style import Figure, shrink, to_png

MOST_BYTES = 1_500_000      # of a static twin, all frames together
FRAME_DPI = 100

Alt = str | Callable[..., str]


def explore(draw: Callable[..., Figure], *, alt: Alt, start: Mapping[str, Any] | None = None, labels: Mapping[str, str] | None = None,
            **values: Sequence[Any]) -> None:
    """Show a figure with a slider for each of one or two arguments.

    draw: called with one value of each name, in order; returns a figure (of `plotting.figure`)
    alt: what the figure shows, with the names as fields ("The latent map at beta = {beta}"), or a function of the values
    start: the values shown at first, and in print; a name left out starts in the middle
    labels: how a name is written beside its slider, e.g. {"beta": "β"}
    values: name=[its values]; one or two names. In the book every combination is drawn: keep it to some 30
    Errors: ValueError for no or more than two names, an empty list, a start that is not among the values, or a static twin over 1.5 MB.
    """
    names, start_index = _check(values, start)
    if _static():
        _display(*_twin(draw, names, values, alt, start_index, labels, None), _alt(alt, names, _at(values, start_index)))
        return
    import ipywidgets
    from IPython.display import display

    sliders = [ipywidgets.SelectionSlider(options=[(_text(v), v) for v in values[name]], index=index, description=(labels or {}).get(name, name),
                                          continuous_update=False) for name, index in zip(names, start_index, strict=True)]
    picture = ipywidgets.HTML()

    def redraw(_: Any = None) -> None:
        chosen = [slider.value for slider in sliders]
        picture.value = _image(to_png(draw(*chosen)), _alt(alt, names, chosen))

    for slider in sliders:
        slider.observe(redraw, "value")
    redraw()
    display(ipywidgets.VBox([*sliders, picture]))


def animate(draw: Callable[..., Figure], *, alt: Alt, start: Mapping[str, Any] | None = None, labels: Mapping[str, str] | None = None,
            interval: float = 0.2, **values: Sequence[Any]) -> None:
    """Show a film of ``draw(value)``, at rest until its button is pressed; a slider goes to any frame.

    Where the reader's system asks for less motion, the button goes one frame on at each press.
    interval: seconds a frame; the other arguments as in `explore`, with one name: animate(draw, t=[1.0, 0.9, ..., 0.0], alt="...")
    """
    if len(values) != 1:
        raise ValueError(f"animate was given {len(values)} lists of values ({', '.join(values)}); expected one: animate(draw, t=[...], alt=...).")
    names, start_index = _check(values, {names: v[0] for names, v in values.items() if len(v)} if start is None else start)
    _display(*_twin(draw, names, values, alt, start_index, labels, interval), _alt(alt, names, _at(values, start_index)))


def static_twin(draw: Callable[..., Figure], *, alt: Alt, start: Mapping[str, Any] | None = None, labels: Mapping[str, str] | None = None,
                interval: float | None = None, **values: Sequence[Any]) -> str:
    """The HTML of the static twin, for a page of its own; arguments as in `explore` and (with an ``interval``) `animate`."""
    names, start_index = _check(values, start)
    return _twin(draw, names, values, alt, start_index, labels, interval)[0]


def _static() -> bool:
    if os.environ.get("DIFFUSION_STATIC") == "1" or importlib.util.find_spec("ipywidgets") is None:
        return True
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is None


def _check(values: Mapping[str, Sequence[Any]], start: Mapping[str, Any] | None) -> tuple[list[str], list[int]]:
    names = list(values)
    if not 1 <= len(names) <= 2:
        raise ValueError(f"{len(names)} sliders were asked for ({', '.join(names)}); expected one or two: explore(draw, beta=[...], alt=...).")
    index = []
    for name in names:
        options = list(values[name])
        if not options:
            raise ValueError(f"{name} was given no values; expected a list of what the slider can show.")
        chosen = (start or {}).get(name, options[len(options) // 2])
        if chosen not in options:
            raise ValueError(f"start[{name!r}]={chosen!r} is not among the slider's values; expected one of {options}.")
        index.append(options.index(chosen))
    unknown = set(start or {}) - set(names)
    if unknown:
        raise ValueError(f"start names {sorted(unknown)}, which has no slider; expected names among {names}.")
    return names, index


def _at(values: Mapping[str, Sequence[Any]], index: Sequence[int]) -> list[Any]:
    return [list(options)[i] for options, i in zip(values.values(), index, strict=True)]


def _text(value: Any) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}") if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _alt(alt: Alt, names: Sequence[str], chosen: Sequence[Any]) -> str:
    text = alt(*chosen) if callable(alt) else alt.format(**dict(zip(names, map(_text, chosen), strict=True)))
    if not text.strip():
        raise ValueError("The alt text is empty; expected a sentence that says what the figure shows: pass alt='...'.")
    return text


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _image(png: bytes, alt: str) -> str:
    return (f'<img alt="{html.escape(alt)}" src="{_uri(png)}" '
            'style="display:block;margin:0 auto;max-width:100%;height:auto;background:transparent">')


def _twin(draw: Callable[..., Figure], names: list[str], values: Mapping[str, Sequence[Any]], alt: Alt, start: list[int],
          labels: Mapping[str, str] | None, interval: float | None) -> tuple[str, bytes]:
    """(HTML, PNG of the frame at rest)."""
    combinations = list(itertools.product(*(list(values[name]) for name in names)))
    frames = [to_png(draw(*chosen), dpi=FRAME_DPI) for chosen in combinations]
    for colors in (256, 128, 64, 32, 16):
        if (sum(map(len, frames)) + len(frames[0])) * 4 / 3 < 0.95 * MOST_BYTES:     # base64; the frame at rest stands there twice
            break
        frames = [shrink(frame, colors) for frame in frames]
    alts = [_alt(alt, names, chosen) for chosen in combinations]
    counts = [len(values[name]) for name in names]
    at = start[0] if len(names) == 1 else start[0] * counts[1] + start[1]
    shown = [(labels or {}).get(name, name) for name in names]
    sliders = "".join(
        f'<label style="display:inline-flex;align-items:center;gap:.6em;margin:.2em 1em">{html.escape(label)}'
        f'<input type="range" min="0" max="{count - 1}" step="1" value="{i}" aria-label="{html.escape(label)}" '
        f'aria-valuetext="{html.escape(_text(list(values[name])[i]))}" style="accent-color:#1f7fc4">'
        f'<span aria-hidden="true" style="min-width:4em;text-align:left">{html.escape(_text(list(values[name])[i]))}</span></label>'
        for name, label, count, i in zip(names, shown, counts, start, strict=True))
    button = ('<button type="button" aria-label="Play" style="min-width:5em;padding:.2em .8em;font:inherit;color:inherit;'
              'background:transparent;border:1px solid #7a7a7a;border-radius:.3em;cursor:pointer">Play</button>') if interval else ""
    key = "dl-" + hashlib.sha256(b"".join(frames) + repr((names, alts)).encode()).hexdigest()[:10]
    data = {"frames": [base64.b64encode(frame).decode("ascii") for frame in frames], "alts": alts,
            "texts": [[_text(v) for v in values[name]] for name in names], "wait": 1000 * (interval or 0)}
    script = _SCRIPT.replace("KEY", key).replace("DATA", json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/"))
    twin = (f'<div class="dl-interactive" data-dl="{key}" role="group" aria-label="Interactive figure">{_image(frames[at], alts[at])}'
            f'<div class="dl-controls" style="text-align:center">{button}{sliders}</div>'
            "<style>@media print{.dl-controls{display:none!important}}</style>"
            f"<script>{script}</script></div>")
    if len(twin) > MOST_BYTES:
        raise ValueError(f"The static twin of {len(frames)} frames is {len(twin) / 1e6:.1f} MB; expected under {MOST_BYTES / 1e6:g} MB: "
                         "give fewer values or draw a smaller figure.")
    return twin, frames[at]


def _display(twin: str, still: bytes, alt: str) -> None:
    """HTML for those who can show it; the frame at rest, as a picture, for those who cannot (GitHub, print)."""
    from IPython.display import display

    display({"text/html": twin, "image/png": base64.b64encode(still).decode("ascii"), "text/plain": alt},
            raw=True, metadata={"image/png": {"alt": alt}})


_SCRIPT = """(() => {
const data = DATA;
const still = window.matchMedia && matchMedia("(prefers-reduced-motion: reduce)").matches;
document.querySelectorAll('[data-dl="KEY"]').forEach((box) => {
  if (box.dataset.ready) return;
  box.dataset.ready = "1";
  const image = box.querySelector("img"), button = box.querySelector("button"), inputs = [...box.querySelectorAll("input")];
  let timer = null;
  const update = () => {
    let at = 0;
    inputs.forEach((input, k) => {
      const text = data.texts[k][+input.value];
      at = at * data.texts[k].length + +input.value;
      input.setAttribute("aria-valuetext", text);
      input.nextElementSibling.textContent = text;
    });
    image.src = "data:image/png;base64," + data.frames[at];
    image.alt = data.alts[at];
  };
  const stop = () => { clearInterval(timer); timer = null; name("Play"); };
  const name = (text) => { if (button) { button.textContent = text; button.setAttribute("aria-label", text); } };
  const next = () => {
    const input = inputs[0], last = +input.max;
    if (+input.value >= last) { if (timer) { stop(); return; } input.value = 0; } else input.value = +input.value + 1;
    update();
    if (timer && +input.value >= last) stop();
  };
  inputs.forEach((input) => input.addEventListener("input", () => { if (timer) stop(); update(); }));
  if (button && still) { name("Next"); button.addEventListener("click", next); }
  else if (button) button.addEventListener("click", () => {
    if (timer) { stop(); return; }
    if (+inputs[0].value >= +inputs[0].max) { inputs[0].value = 0; update(); }
    name("Pause");
    timer = setInterval(next, data.wait);
  });
});
})();"""
