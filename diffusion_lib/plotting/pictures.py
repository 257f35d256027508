"""Rows of pictures on one grid with a thin gap, each with its nearest training picture beneath it where copying is in question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffusion_lib.plotting.style import WIDTH, as_array, figure, style


def mosaic(images: Any, columns: int, *, gap: int = 1, zoom: int = 1) -> np.ndarray:
    """Lay pictures out on one grid: (N, C, H, W) in [-1, 1] -> (rows, columns, 4) uint8 RGBA; gaps and empty places are transparent.

    columns: pictures in a row; gap: pixels between them; zoom: each pixel becomes zoom x zoom pixels
    """
    images = as_array(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images has shape {images.shape}; expected (N, C, H, W) with C = 1 or 3: add the channel with images[:, None].")
    n, _, h, w = images.shape
    colours = np.clip((images.astype(np.float64) + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    colours = np.broadcast_to(colours, (n, h, w, 3)).repeat(zoom, 1).repeat(zoom, 2)
    h, w, rows = h * zoom, w * zoom, math.ceil(n / columns)
    sheet = np.zeros((rows * (h + gap) - gap, columns * (w + gap) - gap, 4), dtype=np.uint8)
    for i, picture in enumerate(colours):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        sheet[top:top + h, left:left + w, :3], sheet[top:top + h, left:left + w, 3] = picture, 255
    return sheet


def image_grid(images: Any, title: str = "", *, columns: int | None = None, neighbours: Any = None, row_labels: Sequence[str] = (),
               column_labels: Sequence[str] = (), width: float = WIDTH, labels: tuple[str, str] = ("samples", "nearest\ntraining")) -> Figure:
    """A figure of pictures on one grid.

    images: (N, C, H, W) in [-1, 1] (values outside are clipped)
    title: the finding
    columns: pictures in a row; None chooses up to 16
    neighbours: (N, C, H, W) the nearest training pictures; each row of samples then has its neighbours right beneath, named by ``labels``
    row_labels, column_labels: text beside each row and above each column
    width: of the figure in inches
    Errors: ValueError for another shape, or where neighbours and images differ in shape.
    """
    images = as_array(images)
    columns = columns or min(len(images), 16)
    if neighbours is not None:
        neighbours = as_array(neighbours)
        if neighbours.shape != images.shape:
            raise ValueError(f"neighbours has shape {neighbours.shape} and images {images.shape}; expected equal shapes: one neighbour a sample.")
        split = range(columns, len(images), columns)
        pairs = zip(np.split(images, split), np.split(neighbours, split), strict=True)
        blank = np.full((columns, *images.shape[1:]), np.nan)
        rows = [np.concatenate([part, blank[len(part):]]) for pair in pairs for part in pair]
        images, row_labels = np.concatenate(rows), labels * (len(rows) // 2)
    hidden = np.isnan(images).all(axis=(1, 2, 3))
    sheet = mosaic(np.nan_to_num(images), columns)
    h, w = images.shape[2] + 1, images.shape[3] + 1
    for i in np.flatnonzero(hidden):
        sheet[i // columns * h:(i // columns + 1) * h, i % columns * w:(i % columns + 1) * w] = 0
    usable = width - (0.9 if row_labels else 0.1)
    height = usable * sheet.shape[0] / sheet.shape[1] + (0.35 if title else 0.05) + (0.25 if column_labels else 0)
    fig, ax = figure(title, width=width, height=max(height, 0.6))
    with style():
        ax.imshow(sheet, interpolation="nearest")
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set_xticks([i * w + (w - 2) / 2 for i in range(len(column_labels))], column_labels)
        ax.set_yticks([i * h + (h - 2) / 2 for i in range(len(row_labels))], row_labels)
        ax.tick_params(length=0, labeltop=True, labelbottom=False)
    return fig
