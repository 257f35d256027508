"""One visual language: the only importer of matplotlib. Chapters call these and set no colour of their own.

``figure`` opens a figure whose title is the finding, ``show`` displays it with its alt text. In between: ``curves`` (exact line,
learned dots, bands, slopes, labels), ``planes`` (2-D points, densities, paths) and ``pictures`` (grids of images).
"""

from __future__ import annotations

from diffusion_lib.plotting.curves import (
    band,
    exact_line,
    failure_line,
    label_line,
    learned_dots,
    legend,
    log_ticks,
    method_line,
    slope_triangle,
)
from diffusion_lib.plotting.pictures import image_grid, mosaic
from diffusion_lib.plotting.planes import density_2d, histogram, paths, scatter_2d, vector_field
from diffusion_lib.plotting.style import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILION,
    density_map,
    figure,
    show,
    style,
    time_color,
    time_map,
    to_png,
)

__all__ = [
    "BLUE", "GREEN", "GREY", "PURPLE", "VERMILION", "band", "density_2d", "density_map", "exact_line", "failure_line", "figure",
    "histogram", "image_grid", "label_line", "learned_dots", "legend", "log_ticks", "method_line", "mosaic", "paths", "scatter_2d", "show",
    "slope_triangle", "style", "time_color", "time_map", "to_png", "vector_field",
]
