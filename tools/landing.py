"""What the landing page and README.md show: one moving picture, one still, one picture a chapter.

    python tools/landing.py [--check]

Writes into book/_static/: landing.html (the animation, self-contained), readme.png, chain_NN.png (the first figure of each executed
chapter). Every point of the animation is computed by the library: DDIM with the exact denoiser of a three-mode mixture.
--check writes nothing and says what is out of date.
"""

# ruff: noqa: E501  (lines of HTML)
from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from pathlib import Path

import numpy as np
import torch

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.plotting import BLUE, GREY, figure, time_color, to_png
from diffusion_lib.plotting.style import LIGHT
from diffusion_lib.samplers import ddim
from diffusion_lib.schedules import VPSchedule, time_grid

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "book" / "_static"
POINTS, STEPS, UNIT = 300, 60, 100.0  # UNIT: drawing units per unit of data
DATA, EXACT, NOISE = BLUE, GREY, LIGHT
PICKED = 3  # paths drawn whole, in each cloud


def schedule_and_times():
    schedule = VPSchedule()
    return schedule, time_grid(schedule, STEPS, "quadratic")  # more steps where more happens


def trajectories() -> torch.Tensor:
    """The states of DDIM from noise to data, (STEPS + 1, POINTS, 2), float64, always the same."""
    schedule, times = schedule_and_times()
    start = schedule.noise((POINTS, 2), torch.Generator().manual_seed(7), dtype=torch.float64)
    return torch.stack(list(ddim(ExactDenoiser(three_modes(), schedule), schedule, start, times)))


def quantise(states: torch.Tensor) -> np.ndarray:
    """In tenths of a drawing unit, finer than a screen shows: int16, with y pointing down as in SVG."""
    flipped = states * torch.tensor([UNIT, -UNIT], dtype=states.dtype)
    return (10 * flipped).round().numpy().astype("<i2")


def fragment(states: torch.Tensor) -> str:
    """The animation as one piece of HTML: an SVG at rest at t = 0, a button, a slider, and the script that moves them."""
    schedule, times = schedule_and_times()
    mixture = three_modes()
    paths = quantise(states)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    spread = float(mixture.covariances[0]) ** 0.5
    scales = [
        [round(float(a), 5), round(float(s), 5), round(float(t), 4)]
        for a, s, t in zip(alpha, sigma, times, strict=True)
    ]
    nearest = torch.cdist(states[-1], mixture.means).argmin(1)
    counts = torch.bincount(nearest, minlength=len(mixture.weights)).tolist()
    last = paths[-1] / 10

    trails = []
    picked = [int(i) for k in range(len(counts)) for i in (nearest == k).nonzero()[:PICKED, 0]]
    for i in picked:
        points = " ".join(f"{x / 10:.1f},{y / 10:.1f}" for x, y in paths[:, i])
        trails.append(f'<polyline points="{points}"/>')
    circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in last)
    rings, labels = [], []
    for (x, y), weight, count in zip(mixture.means.tolist(), mixture.weights.tolist(), counts, strict=True):
        rings.append(f'<circle cx="{x * UNIT:.1f}" cy="{-y * UNIT:.1f}" r="{2 * spread * UNIT:.1f}"/>')
        labels.append(
            f'<text x="{x * UNIT:.0f}" y="{-y * UNIT + (58 if y < 0.5 else -44):.0f}">weight {weight:g}: {count} of {POINTS}</text>'
        )
    settings = json.dumps(
        {"scales": scales, "means": mixture.means.tolist(), "spread": spread, "unit": UNIT, "points": POINTS}
    )
    return TEMPLATE.format(
        paths=base64.b64encode(paths.tobytes()).decode(),
        settings=settings.replace('"', "&quot;"),
        steps=STEPS,
        points=POINTS,
        picked=len(picked),
        trails="".join(trails),
        circles=circles,
        rings="".join(rings),
        labels="".join(labels),
        data=DATA,
        exact=EXACT,
        noise=NOISE,
    )


TEMPLATE = """<!-- Made by tools/landing.py. Do not edit. -->
<figure class="moving" id="moving" data-paths="{paths}" data-settings="{settings}">
<style>
.moving {{ margin: 1rem 0; max-width: 40rem; }}
.moving svg {{ width: 100%; height: auto; display: block; }}
.moving .rings circle {{ fill: none; stroke: {exact}; stroke-width: 2.5; }}
.moving .cloud {{ fill: {data}; }}
.moving .trails polyline {{ fill: none; stroke: {data}; stroke-width: 1.2; opacity: .75; }}
.moving text {{ fill: {exact}; font-size: 17px; text-anchor: middle; font-family: inherit; }}
.moving .controls {{ display: flex; gap: .8rem; align-items: center; flex-wrap: wrap; }}
.moving button {{ font: inherit; min-width: 5.5rem; padding: .3rem .9rem; border: 1px solid {exact}; border-radius: 4px; background: transparent; color: inherit; cursor: pointer; }}
.moving button:focus-visible, .moving input:focus-visible {{ outline: 3px solid {data}; outline-offset: 2px; }}
.moving input {{ flex: 1 1 12rem; accent-color: {data}; }}
.moving output {{ font-variant-numeric: tabular-nums; min-width: 11rem; }}
.moving figcaption {{ color: inherit; text-align: left; font-size: .9rem; font-weight: normal; line-height: 1.5; margin: .6rem 0 0; }}
@media print {{ .moving .controls {{ display: none; }} }}
</style>
<svg viewBox="-320 -270 640 530" role="img" aria-label="Points drawn from noise move along smooth paths and gather in three clouds; three grey circles show where the exact distribution is at the same time.">
<g class="rings">{rings}</g>
<g class="trails">{trails}</g>
<g class="cloud">{circles}</g>
<g class="labels">{labels}</g>
</svg>
<div class="controls" hidden>
<button type="button" aria-label="Play from noise to data">Play</button>
<input type="range" min="0" max="{steps}" value="{steps}" step="1" aria-label="DDIM step, from noise at 0 to data at {steps}">
<output aria-live="off">t = 0.00</output>
</div>
<figcaption>{points} points of pure noise become data in {steps} DDIM steps. The denoiser here is not learned: it is the exact average of all data that could lie under the noise.
The grey circles are exact: at each time, two standard deviations around the mean of each component. The thin lines are the whole paths of {picked} points.</figcaption>
<script>
(() => {{
  const figure = document.getElementById("moving"), settings = JSON.parse(figure.dataset.settings);
  const bytes = Uint8Array.from(atob(figure.dataset.paths), c => c.charCodeAt(0)), view = new DataView(bytes.buffer);
  const dots = figure.querySelectorAll(".cloud circle"), rings = figure.querySelectorAll(".rings circle");
  const cloud = figure.querySelector(".cloud"), labels = figure.querySelector(".labels");
  const button = figure.querySelector("button"), slider = figure.querySelector("input"), output = figure.querySelector("output");
  const last = settings.scales.length - 1, rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
  const from = rgb("{data}"), to = rgb("{noise}");
  let timer = null;
  function draw(frame) {{
    const [alpha, sigma, t] = settings.scales[frame], base = frame * settings.points * 4;
    dots.forEach((dot, i) => {{
      dot.setAttribute("cx", view.getInt16(base + 4 * i, true) / 10);
      dot.setAttribute("cy", view.getInt16(base + 4 * i + 2, true) / 10);
    }});
    const radius = 2 * settings.unit * Math.hypot(alpha * settings.spread, sigma);
    rings.forEach((ring, k) => {{
      ring.setAttribute("cx", alpha * settings.means[k][0] * settings.unit);
      ring.setAttribute("cy", -alpha * settings.means[k][1] * settings.unit);
      ring.setAttribute("r", radius);
    }});
    cloud.style.fill = "rgb(" + from.map((c, i) => Math.round(c + t * (to[i] - c))).join(",") + ")";
    labels.style.opacity = frame === last ? 1 : 0;
    const text = "t = " + t.toFixed(2) + ", noise level " + (sigma / alpha).toPrecision(2);
    output.textContent = text;
    slider.setAttribute("aria-valuetext", text);
  }}
  function stop() {{ clearInterval(timer); timer = null; button.textContent = "Play"; button.setAttribute("aria-label", "Play from noise to data"); }}
  function play() {{
    if (+slider.value === last) slider.value = 0;
    draw(+slider.value);
    button.textContent = "Pause"; button.setAttribute("aria-label", "Pause");
    timer = setInterval(() => {{
      slider.value = +slider.value + 1;
      draw(+slider.value);
      if (+slider.value >= last) stop();
    }}, 60);
  }}
  button.addEventListener("click", () => timer === null ? play() : stop());
  slider.addEventListener("input", () => {{ stop(); draw(+slider.value); }});
  window.addEventListener("beforeprint", () => {{ stop(); slider.value = last; draw(last); }});
  figure.querySelector(".controls").hidden = false;
  draw(last);
}})();
</script>
</figure>
"""


def still(states: torch.Tensor, path: Path) -> None:
    """README's picture: five moments of the same walk, transparent, legible on white and on black."""
    from matplotlib.patches import Circle

    schedule, times = schedule_and_times()
    mixture = three_modes()
    fig, axes = figure(columns=5, width=10, height=2.3)
    for axis, frame in zip(axes, (0, 23, 31, 39, STEPS), strict=True):
        t = times[frame]
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        for mean in mixture.means.tolist():
            radius = 2 * (alpha**2 * float(mixture.covariances[0]) + sigma**2) ** 0.5
            axis.add_patch(Circle([alpha * m for m in mean], radius, fill=False, color=EXACT, lw=1.5))
        axis.scatter(*states[frame].T, s=4, color=time_color(float(t)), lw=0, zorder=2)
        axis.set(xlim=(-2.9, 2.9), ylim=(-2.6, 2.6), aspect="equal", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_title(f"t = {float(t):.2f}", loc="center")
    path.write_bytes(to_png(fig))


def first_figure(notebook: Path) -> bytes | None:
    """The first PNG among a notebook's outputs, or None."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            image = output.get("data", {}).get("image/png")
            if image:
                return base64.b64decode("".join(image))
    return None


def chapter_pictures() -> dict[Path, bytes]:
    """{book/_static/chain_NN.png: its bytes} for each chapter that has been executed."""
    found = {}
    for notebook in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        picture = first_figure(notebook)
        if picture is not None:
            found[STATIC / f"chain_{re.match(r'[0-9]+', notebook.stem)[0]}.png"] = picture
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; say which pictures are out of date")
    arguments = parser.parse_args()
    STATIC.mkdir(parents=True, exist_ok=True)
    pictures = chapter_pictures()
    if arguments.check:  # the animation itself is compared number by number in tests/test_prose.py
        old = [path.name for path, content in pictures.items() if not path.exists() or path.read_bytes() != content]
        old += [name for name in ("landing.html", "readme.png") if not (STATIC / name).exists()]
        if old:
            print(f"out of date: {', '.join(old)}\n  mend it with: python tools/landing.py")
        return 1 if old else 0
    states = trajectories()
    (STATIC / "landing.html").write_text(fragment(states), encoding="utf-8")
    still(states, STATIC / "readme.png")
    for path, content in pictures.items():
        path.write_bytes(content)
    names = ["landing.html", "readme.png", *(path.name for path in pictures)]
    print("\n".join(f"wrote book/_static/{name}, {(STATIC / name).stat().st_size / 1024:.0f} KB" for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
