"""The visual language: palette and contrast, transparent small PNGs, alt text that travels, and each helper draws what it says."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from diffusion_lib import plotting as P
from diffusion_lib.plotting.style import LEAST_SIZE, WIDTH, _oklab, finish, shrink


def luminance(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
    """WCAG 2 contrast ratio."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
def test_hues_are_seen_on_both_pages(page):
    for color in (P.BLUE, P.VERMILION, P.GREEN, P.PURPLE):
        assert contrast(color, page) >= 3
    assert contrast(P.GREY, page) >= 4


def test_the_time_map_runs_evenly_from_data_blue_to_light_grey():
    assert np.allclose(P.time_color(0.0)[:3], to_rgb(P.BLUE), atol=1e-6)
    lab = np.array([_oklab(P.time_color(t)) for t in np.linspace(0, 1, 11)])
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert (np.diff(lab[:, 0]) > 0).all()                                               # dark at t = 0
    assert steps.max() < 1.1 * steps.min()
    assert abs(P.time_color(1.0)[0] - P.time_color(1.0)[2]) < 0.01                      # grey at t = 1


def example():
    fig, ax = P.figure("Dots lie on the line", xlabel="noise level", ylabel="loss")
    x = np.linspace(0.1, 1, 20)
    P.exact_line(ax, x, 1 - x, "exact")
    P.learned_dots(ax, torch.from_numpy(x).requires_grad_(), 1 - x, se=0.01 * x, label="network")
    P.band(ax, x, 1 - x, 0.01 * x)
    P.method_line(ax, x, x, 2, "second")
    P.label_line(P.failure_line(ax, x, 0 * x, "stuck"))
    P.legend(ax)
    return fig, ax


def test_a_figure_has_the_pages_width_and_is_transparent():
    fig, _ = example()
    picture = Image.open(io.BytesIO(P.to_png(fig, colors=None)))
    assert fig.get_figwidth() == WIDTH and picture.size[0] == int(WIDTH * 120)
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    assert alpha[0, 0] == 0 and (alpha == 0).mean() > 0.5 and alpha.max() == 255


def test_no_black_text_and_none_below_eight_points():
    from matplotlib.legend import Legend
    from matplotlib.text import Text

    fig, ax = example()
    ax.text(0.5, 0.5, "tiny", fontsize=5)
    ax.legend(frameon=True)
    finish(fig)
    for text in fig.findobj(Text):
        assert to_rgb(text.get_color()) != (0, 0, 0) and text.get_fontsize() >= LEAST_SIZE
    assert not any(legend.get_frame().get_visible() for legend in fig.findobj(Legend))


def test_the_exact_line_is_grey_and_beneath_the_learned_dots():
    fig, ax = P.figure()
    line, dots = P.exact_line(ax, [0, 1], [0, 1]), P.learned_dots(ax, [0, 1], [0, 1])
    assert line.get_color() == P.GREY and line.get_linewidth() == 2.5 and line.get_linestyle() == "-"
    assert dots.get_color() == P.VERMILION and dots.get_linestyle() == "None" and dots.get_zorder() > line.get_zorder()


def test_methods_differ_by_more_than_colour():
    fig, ax = P.figure()
    lines = [P.method_line(ax, [0, 1], [0, k], k) for k in (1, 2, 3)]
    assert len({line.get_marker() for line in lines}) == 3 and len({line.get_color() for line in lines}) == 3


def test_a_band_is_two_standard_errors_and_named():
    fig, ax = P.figure()
    drawn = P.band(ax, np.array([0.0, 1.0]), np.array([1.0, 1.0]), np.array([0.1, 0.1]))
    heights = drawn.get_paths()[0].vertices[:, 1]
    assert np.isclose(heights.min(), 0.8) and np.isclose(heights.max(), 1.2)
    assert "2 standard errors" in drawn.get_label()


def test_a_slope_triangle_has_its_slope_on_log_axes():
    fig, ax = P.figure()
    P.log_ticks(ax, x=[10, 20, 50], y=[0.01, 0.1])
    P.slope_triangle(ax, -2, at=(10, 0.1), width=3)
    x, y = ax.lines[0].get_data()
    assert np.isclose(np.log(y[1] / y[0]) / np.log(x[1] / x[0]), -2)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["10", "20", "50"]


def test_labels_stand_at_their_line():
    fig, ax = P.figure()
    line = P.exact_line(ax, [0.0, 1.0, 2.0], [5.0, 6.0, 7.0], "truth")
    for at, point in (("end", (2, 7)), ("start", (0, 5)), (1.1, (1, 6))):
        P.label_line(line, at=at)
        assert ax.texts[-1].xy == point and ax.texts[-1].get_text() == "truth" and ax.texts[-1].get_color() == P.GREY


def test_a_density_is_evaluated_where_it_is_drawn():
    fig, ax = P.figure()
    image = P.density_2d(ax, lambda x: -((x - torch.tensor([1.0, -2.0])) ** 2).sum(1), (-3, 3, -3, 3), resolution=60)
    values = image.get_array()
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert abs(-3 + 6 * (column + 0.5) / 60 - 1) <= 0.1 and abs(-3 + 6 * (row + 0.5) / 60 + 2) <= 0.1
    other = P.density_2d(ax, np.full((4, 4), 0.5), vmax=image.get_clim()[1])
    assert other.get_clim() == image.get_clim()


def test_paths_fields_points_and_histograms_draw():
    fig, (left, right) = P.figure(columns=2)
    states = torch.randn(5, 20, 2, generator=torch.Generator().manual_seed(0))
    P.paths(left, states, picked=3)
    assert len(left.lines) == 20 + 3 + 1                                                   # all, the picked ones, their ends
    P.paths(right, states[..., 0], torch.linspace(1, 0, 5))
    with pytest.raises(ValueError, match="no times were given"):
        P.paths(right, states[..., 0])
    P.scatter_2d(left, states[0], values=torch.linspace(0, 1, 20))
    P.vector_field(left, lambda x: -x)
    P.histogram(right, states)
    assert len(P.to_png(fig)) > 1000


def test_a_mosaic_places_pictures_with_transparent_gaps():
    images = torch.stack([torch.full((1, 2, 3), v) for v in (-1.0, 0.0, 1.0)])
    sheet = P.mosaic(images, columns=2, gap=1)
    assert sheet.shape == (5, 7, 4)
    assert sheet[0, 0].tolist() == [0, 0, 0, 255] and sheet[0, 4, 0] == 128 and sheet[3, 0].tolist() == [255] * 4
    assert (sheet[2, :, 3] == 0).all() and (sheet[:, 3, 3] == 0).all() and (sheet[3:, 4:, 3] == 0).all()
    assert P.mosaic(images, columns=3, zoom=4).shape == (8, 3 * 13 - 1, 4)
    with pytest.raises(ValueError, match="expected .N, C, H, W."):
        P.mosaic(images[:, 0], 2)


def test_neighbours_stand_beneath_their_samples():
    images = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 4, 4)
    fig = P.image_grid(images, "Copies?", columns=3, neighbours=-images)
    sheet = fig.axes[0].images[0].get_array()
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["samples", "nearest\ntraining"] * 2
    assert sheet[0, 0, 0] == 0 and sheet[5, 0, 0] == 255                                # first sample, and its neighbour beneath
    assert (sheet[10:, 10:, 3] == 0).all()                                              # the last row is two long
    with pytest.raises(ValueError, match="one neighbour a sample"):
        P.image_grid(images, neighbours=images[:2])


def test_a_palette_makes_the_file_smaller_and_keeps_the_picture():
    fig, axes = P.figure("Density", columns=2)
    P.density_2d(axes[0], lambda x: -x.square().sum(1))
    P.density_2d(axes[1], lambda x: -x.square().sum(1), color=P.VERMILION)
    full = P.to_png(fig, colors=None)
    light = shrink(full)
    assert len(light) < 0.6 * len(full)
    a, b = (np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"), dtype=float) for png in (full, light))
    on_white = [p[..., :3] * p[..., 3:] / 255 + 255 - p[..., 3:] for p in (a, b)]
    assert np.abs(on_white[0] - on_white[1]).mean() < 1 and np.abs(on_white[0] - on_white[1]).max() < 40    # of 255
    few = Image.new("RGBA", (9, 9), (1, 2, 3, 255))
    buffer = io.BytesIO()
    few.save(buffer, "PNG")
    assert np.asarray(Image.open(io.BytesIO(shrink(buffer.getvalue()))).convert("RGBA"))[0, 0].tolist() == [1, 2, 3, 255]


def test_alt_text_travels_with_the_picture(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, raw, metadata=None: shown.append((data, metadata)))
    P.show(example()[0], alt="Dots on a line.", caption="Look at the dots.")
    (data, metadata), (text, _) = shown
    assert metadata == {"image/png": {"alt": "Dots on a line."}} and data["text/plain"] == "Dots on a line."
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG") and text["text/markdown"] == "*Look at the dots.*"
    with pytest.raises(ValueError, match="empty alt text"):
        P.show(example()[0], alt=" ")
