"""Palette, page style, and how a figure leaves the library: a small transparent PNG with alt text."""

from __future__ import annotations

import base64
import io
import textwrap
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap, to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.legend import Legend
from matplotlib.text import Text

GREY = "#7a7a7a"            # exact, closed form; also text and axes
BLUE = "#1f7fc4"            # data, x_0
VERMILION = "#d55e00"       # learned by a network
GREEN = "#009e73"           # a second method
PURPLE = "#b0609a"          # a third method
LIGHT = "#c6c6c6"           # t = 1 in the time map
WIDTH = 6.4                 # inches
DPI = 120
LEAST_SIZE = 8.0            # points

FONTS = ("Segoe UI", "Roboto", "Helvetica Neue", "Arial", "Noto Sans", "Liberation Sans", "DejaVu Sans")   # the page's own stack


@cache
def _settings() -> dict[str, Any]:
    installed = {entry.name for entry in fontManager.ttflist}
    return {
        "font.family": [name for name in FONTS if name in installed] or ["sans-serif"], "font.size": 11.0, "mathtext.fontset": "dejavusans",
        "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "axes.titlecolor": GREY,
        "xtick.color": GREY, "ytick.color": GREY, "xtick.labelsize": 10.0, "ytick.labelsize": 10.0, "axes.labelsize": 11.0,
        "axes.titlesize": 12.0, "axes.titlelocation": "left", "figure.titlesize": 12.0,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "axes.unicode_minus": True,
        "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "savefig.transparent": True,
        "figure.dpi": DPI, "savefig.dpi": DPI, "figure.figsize": (WIDTH, 3.4), "lines.linewidth": 1.8, "lines.markersize": 5.0,
        "legend.frameon": False, "legend.fontsize": 10.0, "legend.labelcolor": GREY,
        "axes.prop_cycle": mpl.cycler(color=[BLUE, VERMILION, GREEN, PURPLE]),
        "image.cmap": "gray", "image.interpolation": "nearest",
    }


def style() -> AbstractContextManager:
    """The page's matplotlib settings as a context: transparent, text and axes in `GREY`. `figure` applies it by itself."""
    return mpl.rc_context(_settings())


def figure(title: str = "", *, rows: int = 1, columns: int = 1, height: float = 3.4, width: float = WIDTH,
           xlabel: str = "", ylabel: str = "", **subplots: Any) -> tuple[Figure, Any]:
    """Open a figure: ``(fig, ax)``, or ``(fig, axes)`` with an array of axes where there are several panels.

    title: the finding, as a sentence; wrapped to the width
    rows, columns: panels (at most two side by side, so that a phone can show them)
    height, width: of the whole, in inches
    xlabel, ylabel: given to every panel; name the unit
    subplots: passed to matplotlib's Figure.subplots, e.g. sharey=True, width_ratios=(2, 1), subplot_kw={"aspect": "equal"}
    """
    with style():
        fig = Figure(figsize=(width, height), dpi=DPI, layout="constrained")    # no pyplot: nothing is shown twice or kept open
        FigureCanvasAgg(fig)
        axes = fig.subplots(rows, columns, **subplots)
        if title:
            fig.suptitle("\n".join(textwrap.wrap(title, int(width * 11.7))), x=0.01, ha="left")
        for ax in np.ravel(axes):
            ax.set_xlabel(xlabel)
            ax.set_ylabel(ylabel)
    return fig, axes


def finish(fig: Figure) -> Figure:
    """Hold the page's rules on a figure made by any means: no black text, none under 8 pt, no opaque legend or background."""
    fig.patch.set_alpha(0.0)
    for ax in fig.axes:
        ax.patch.set_alpha(0.0)
    for legend in fig.findobj(Legend):
        legend.get_frame().set_visible(False)
    for text in fig.findobj(Text):
        if to_rgb(text.get_color()) == (0.0, 0.0, 0.0):
            text.set_color(GREY)
        if text.get_fontfamily() in (["sans-serif"], ["DejaVu Sans"]):
            text.set_fontfamily(_settings()["font.family"])
        if text.get_fontsize() < LEAST_SIZE:
            text.set_fontsize(LEAST_SIZE)
    return fig


def to_png(fig: Figure, *, colors: int | None = 256, dpi: float = DPI) -> bytes:
    """The figure as PNG bytes, transparent.

    colors: size of the palette (2..256) that keeps the file small; None keeps full colour (photographs)
    dpi: pixels per inch
    """
    buffer = io.BytesIO()
    with style():
        finish(fig).savefig(buffer, format="png", dpi=dpi, transparent=True, metadata={"Software": None})
    return buffer.getvalue() if colors is None else shrink(buffer.getvalue(), colors)


def shrink(png: bytes, colors: int = 256) -> bytes:
    """The same PNG with a palette of at most ``colors`` RGBA colours; returned as it is where a palette does not make it smaller."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).copy()
    pixels[pixels[..., 3] == 0] = 0
    found, index, count = np.unique(pixels.reshape(-1, 4).view(np.uint32)[:, 0], return_inverse=True, return_counts=True)
    palette, member = _median_cut(found.view(np.uint8).reshape(-1, 4), count, colors)
    paletted = Image.fromarray(member[index].reshape(pixels.shape[:2]).astype(np.uint8))
    paletted.putpalette(palette.tobytes(), "RGBA")
    buffer = io.BytesIO()
    paletted.save(buffer, "PNG", optimize=True)
    return min(png, buffer.getvalue(), key=len)


def _median_cut(colours: np.ndarray, count: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most ``most`` colours for the (N, 4) uint8 given: ``(palette (P, 4), member (N,))``; the box of largest error is cut at its mean."""
    if len(colours) <= most:
        return colours, np.arange(len(colours))
    weight = np.sqrt(count.astype(np.float64))                  # by the root, so that a thin line survives
    point = colours * np.where(colours[:, 3:] < 255, np.maximum(colours[:, 3:], 16) / 255, 1.0)     # faint ones matter less
    point[:, 3] = colours[:, 3]

    def error(box: np.ndarray) -> tuple[float, int, float]:
        w, x = weight[box], point[box]
        mean = (w[:, None] * x).sum(0) / w.sum()
        spread = (w[:, None] * (x - mean) ** 2).sum(0)
        axis = int(spread.argmax())
        return float(spread[axis]), axis, float(mean[axis])

    boxes = [np.arange(len(colours))]
    errors = [error(boxes[0])]
    while len(boxes) < most:
        widest = max(range(len(boxes)), key=lambda i: errors[i][0])
        _, axis, mean = errors[widest]
        box = boxes[widest]
        low = point[box, axis] <= mean
        if low.all() or not low.any():
            break
        boxes[widest], errors[widest] = box[low], error(box[low])
        boxes.append(box[~low])
        errors.append(error(box[~low]))
    member, palette = np.empty(len(colours), dtype=np.int64), np.empty((len(boxes), 4), dtype=np.uint8)
    for i, box in enumerate(boxes):
        member[box] = i
        palette[i] = np.round(np.average(colours[box], axis=0, weights=count[box]))
    return palette, member


def show(fig: Figure, alt: str, caption: str = "", *, colors: int | None = 256) -> None:
    """Display a figure in a notebook: a PNG whose alt text travels with it into JupyterLab, Colab, GitHub and the book.

    alt: what a reader who does not see the picture should know: what is drawn and what it shows, one or two sentences
    caption: what to look at, shown beneath in italics
    colors: see `to_png`
    Errors: ValueError for an empty alt text.
    """
    if not alt.strip():
        raise ValueError("show was given an empty alt text; expected a sentence that says what the figure shows: pass alt='...'.")
    from IPython.display import display

    picture = base64.b64encode(to_png(fig, colors=colors)).decode("ascii")
    display({"image/png": picture, "text/plain": alt}, raw=True, metadata={"image/png": {"alt": alt}})
    if caption:
        display({"text/markdown": f"*{caption.strip()}*", "text/plain": caption}, raw=True)


def _oklab(color: str) -> np.ndarray:
    """A colour in Oklab (Ottosson 2020), where equal steps look equal."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return _TO_LAB @ np.cbrt(_TO_CONES @ linear)


def _from_oklab(lab: np.ndarray) -> np.ndarray:
    linear = np.linalg.solve(_TO_CONES, np.linalg.solve(_TO_LAB, lab.T) ** 3).T
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.clip(linear, 0, None) ** (1 / 2.4) - 0.055)
    return np.clip(rgb, 0, 1)


_TO_CONES = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                      [0.0883024619, 0.2817188376, 0.6299787005]])
_TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                    [0.0259040371, 0.7827717662, -0.8086757660]])


@cache
def time_map() -> Colormap:
    """Noise level or time as colour: data-blue (dark) at t = 0 to light grey at t = 1, even steps in Oklab."""
    mix = np.linspace(0, 1, 256)[:, None]
    return ListedColormap(_from_oklab((1 - mix) * _oklab(BLUE) + mix * _oklab(LIGHT)), "time")


def time_color(t: float) -> tuple[float, float, float, float]:
    """The colour of time ``t`` in [0, 1] in `time_map`."""
    return time_map()(float(t))


@cache
def density_map(color: str = BLUE) -> Colormap:
    """A density as colour: from transparent to ``color``, so that it lies on a light page and on a dark one."""
    ramp = np.tile(to_rgba(color), (256, 1))
    ramp[:, 3] = np.linspace(0, 1, 256) ** 0.8
    return ListedColormap(ramp, f"density{color}")


def as_array(value: Any) -> np.ndarray:
    """A tensor (any device, with or without gradient), list or array as a numpy array."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


__all__ = ["BLUE", "DPI", "GREEN", "GREY", "LIGHT", "PURPLE", "VERMILION", "WIDTH", "Axes", "Figure", "as_array", "density_map", "figure",
           "finish", "show", "shrink", "style", "time_color", "time_map", "to_png"]
