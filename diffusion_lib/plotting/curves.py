"""Curves: the exact one first, in grey; what was learned or measured as dots on top; uncertainty as a named band."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from diffusion_lib.plotting.style import BLUE, GREEN, GREY, PURPLE, VERMILION, as_array, style

METHODS = {1: (BLUE, "-", "D"), 2: (GREEN, "-", "s"), 3: (PURPLE, "-.", "^")}


def exact_line(ax: Axes, x: Any, y: Any, label: str = "", **line: Any) -> Line2D:
    """Draw the exact, closed-form curve: grey, solid, 2.5 pt, beneath everything else."""
    return ax.plot(as_array(x), as_array(y), **{"color": GREY, "lw": 2.5, "zorder": 1, "marker": "", "label": label or "_exact", **line})[0]


def learned_dots(ax: Axes, x: Any, y: Any, se: Any = None, label: str = "", **line: Any) -> Line2D:
    """Draw what a network learned: vermilion dots, with bars of ± 2 standard errors where ``se`` is given (name them in the label)."""
    x, y = as_array(x), as_array(y)
    if se is not None:
        ax.errorbar(x, y, 2 * as_array(se), fmt="none", ecolor=line.get("color", VERMILION), elinewidth=1, zorder=2.5)
    return ax.plot(x, y, **{"color": VERMILION, "ls": "", "marker": "o", "ms": 5, "zorder": 3, "label": label or "_learned", **line})[0]


def method_line(ax: Axes, x: Any, y: Any, which: int, label: str = "", **line: Any) -> Line2D:
    """Draw one of several methods, told apart by colour, dash and marker: which = 1 (blue, diamonds), 2 (green, squares) or 3 (purple, triangles)."""
    color, dash, marker = METHODS[which]
    return ax.plot(as_array(x), as_array(y), **{"color": color, "ls": dash, "marker": marker, "zorder": 2, "label": label or "_method", **line})[0]


def failure_line(ax: Axes, x: Any, y: Any, label: str, **line: Any) -> Line2D:
    """Draw what goes wrong: dashed vermilion, and named (``label`` is required)."""
    return ax.plot(as_array(x), as_array(y), **{"color": VERMILION, "ls": (0, (4, 2)), "marker": "", "zorder": 2, "label": label, **line})[0]


def band(ax: Axes, x: Any, mean: Any, se: Any, label: str = "± 2 standard errors", color: str = VERMILION) -> PolyCollection:
    """Draw a band of ± 2 standard errors around ``mean``; it is always named."""
    mean, se = as_array(mean), as_array(se)
    return ax.fill_between(as_array(x), mean - 2 * se, mean + 2 * se, color=color, alpha=0.25, lw=0, label=label, zorder=1.5)


def label_line(line: Line2D, text: str = "", *, at: str | float = "end", offset: tuple[float, float] = (6, 0), **kwargs: Any) -> None:
    """Write a label beside its line, in its colour.

    text: the label; empty takes the line's own
    at: "end" or "start" of the line, or an x: the label stands at the nearest drawn point
    offset: from that point, in points (1/72 in)
    """
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    if at in ("end", "start"):
        index, side = (-1, "left") if at == "end" else (0, "right")
        offset = offset if at == "end" else (-offset[0], offset[1])
    else:
        index, side = int(np.abs(x - float(at)).argmin()), "left"
    with style():
        line.axes.annotate(text or line.get_label(), (x[index], y[index]), xytext=offset, textcoords="offset points",
                           **{"color": line.get_color(), "va": "center", "ha": side, "fontsize": 10, "annotation_clip": False, **kwargs})


def legend(ax: Axes, **kwargs: Any) -> Legend:
    """A frameless legend, for where labels cannot stand beside their lines."""
    with style():
        return ax.legend(**kwargs)


def log_ticks(ax: Axes, x: Any = None, y: Any = None) -> None:
    """Make an axis logarithmic with these ticks, written as plain numbers (10, 20, 50), not as powers of ten.

    x, y: the ticks of each axis; None leaves that axis as it is
    """
    for ticks, set_scale, axis in ((x, ax.set_xscale, ax.xaxis), (y, ax.set_yscale, ax.yaxis)):
        if ticks is not None:
            set_scale("log")
            axis.set_ticks(as_array(ticks), labels=[f"{value:g}" for value in as_array(ticks)])
            axis.set_minor_locator(NullLocator())


def slope_triangle(ax: Axes, slope: float, at: tuple[float, float], width: float = 2.0, label: str = "") -> None:
    """Draw a triangle of the given slope on log-log axes (error against cost: slope = -order).

    at: (x, y) of its left corner, in data coordinates
    width: the factor in x that it spans
    label: empty writes "slope -1"
    """
    (x, y), far = at, at[0] * width
    low = y * width**slope
    with style():
        ax.plot([x, far, x, x], [y, low, low, y], color=GREY, lw=1, zorder=1, marker="", label="_slope")
        middle = (x * far) ** 0.5
        ax.annotate(label or f"slope {slope:g}".replace("-", "\N{MINUS SIGN}"), (middle, min(y, low)), xytext=(0, -3),
                    textcoords="offset points", ha="center", va="top", fontsize=10, color=GREY)
