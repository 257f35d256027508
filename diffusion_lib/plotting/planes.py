"""Points, densities, fields and paths in the plane; histograms on the line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from diffusion_lib.plotting.style import BLUE, GREY, as_array, density_map, style, time_color

Extent = tuple[float, float, float, float]


def scatter_2d(ax: Axes, points: Any, *, color: Any = BLUE, size: float = 4.0, alpha: float = 0.6, label: str = "", values: Any = None,
               **kwargs: Any) -> Any:
    """Draw points (n, 2) as small dots on equal axes.

    values: (n,) colours them by `time_map` (0..1) in place of one ``color``
    """
    points = as_array(points)
    paint = {"c": [time_color(v) for v in as_array(values)]} if values is not None else {"color": color}
    ax.set_aspect("equal")
    return ax.scatter(points[:, 0], points[:, 1], s=size, alpha=alpha, lw=0, label=label or "_points", **paint, **kwargs)


def grid_points(extent: Extent, resolution: int) -> np.ndarray:
    """The (resolution^2, 2) cell centres of a grid over (left, right, bottom, top), rows from the bottom."""
    left, right, bottom, top = extent
    ticks = (np.arange(resolution) + 0.5) / resolution
    x, y = np.meshgrid(left + (right - left) * ticks, bottom + (top - bottom) * ticks)
    return np.stack([x.ravel(), y.ravel()], 1)


def density_2d(ax: Axes, density: Callable[[Any], Any] | Any, extent: Extent = (-3, 3, -3, 3), *, log: bool = True, vmax: float | None = None,
               color: str = BLUE, resolution: int = 120) -> AxesImage:
    """Draw a density over the plane, from transparent to ``color``.

    density: a function of points (n, 2) (a float64 tensor) -> (n,), or its values (H, W) with row 0 at the bottom
    extent: (left, right, bottom, top)
    log: the function returns the logarithm of the density (as GaussianMixture.log_prob does); values are never taken as logs
    vmax: density of full colour; give panels that are compared the same one (``image.get_clim()[1]`` of the first)
    """
    if callable(density):
        import torch

        values = as_array(density(torch.from_numpy(grid_points(extent, resolution)))).reshape(resolution, resolution)
        values = np.exp(values) if log else values
    else:
        values = as_array(density)
    ax.set_aspect("equal")
    return ax.imshow(values, origin="lower", extent=extent, cmap=density_map(color), vmin=0, vmax=vmax or float(values.max()),
                     interpolation="bilinear", zorder=0)


def vector_field(ax: Axes, field: Callable[[Any], Any], extent: Extent = (-3, 3, -3, 3), *, resolution: int = 16, color: str = GREY,
                 longest: float = 1.0) -> Any:
    """Draw a field of arrows: ``field`` takes points (n, 2) (float64 tensor) and returns vectors (n, 2).

    longest: length of the longest arrow in cells of the grid; the others are in proportion to the root of their length
    """
    import torch

    points = grid_points(extent, resolution)
    vectors = as_array(field(torch.from_numpy(points)))
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    drawn = vectors / np.sqrt(np.maximum(length, 1e-12)) / np.sqrt(length.max()) * longest * (extent[1] - extent[0]) / resolution
    ax.set_aspect("equal")
    return ax.quiver(points[:, 0], points[:, 1], drawn[:, 0], drawn[:, 1], angles="xy", scale_units="xy", scale=1, color=color, width=0.003)


def paths(ax: Axes, states: Any, times: Any = None, *, picked: int = 8, color: Any = BLUE, pick_color: Any = None) -> None:
    """Draw the paths of particles: all of them thin, the first ``picked`` thicker and with a dot at their end.

    states: (T, N) with ``times`` (T,) draws x against t; (T, N, 2) draws paths in the plane
    """
    states = as_array(states)
    planar = states.ndim == 3
    if not planar and times is None:
        raise ValueError(f"states has shape {states.shape} and no times were given; expected times of shape ({len(states)},) for paths on a line.")
    x, y = (states[..., 0], states[..., 1]) if planar else (np.broadcast_to(as_array(times)[:, None], states.shape), states)
    if planar:
        ax.set_aspect("equal")
    ax.plot(x, y, color=color, lw=0.5, alpha=0.25, marker="", zorder=1)
    ax.plot(x[:, :picked], y[:, :picked], color=pick_color or color, lw=1.2, alpha=0.95, marker="", zorder=2)
    ax.plot(x[-1, :picked], y[-1, :picked], color=pick_color or color, ls="", marker="o", ms=4, zorder=3)


def histogram(ax: Axes, samples: Any, *, bins: int | Any = 60, color: str = BLUE, label: str = "", span: tuple[float, float] | None = None) -> None:
    """Draw samples (n,) as a histogram normalised to a density, filled softly, so that an `exact_line` can lie on it."""
    with style():
        ax.hist(as_array(samples).ravel(), bins=bins, range=span, density=True, color=color, alpha=0.45, lw=0, label=label or "_samples")
