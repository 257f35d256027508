"""The judge of shapes: right on clean pictures, silent on what shows no scene, exact about places; verdicts and accuracies by hand."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch

from diffusion_lib.data.shapes import (
    COLOURS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    caption,
    captions,
    draw,
    parse,
    read,
    sample_scenes,
    verdicts,
)
from diffusion_lib.data.shapes.draw import AREA, BACKGROUND
from diffusion_lib.data.shapes.judge import by_colour
from diffusion_lib.data.shapes.study import NOT_SCENES, blurred, cropped, judge_table, outcome, same_scene
from diffusion_lib.data.shapes.world import GAP
from diffusion_lib.metrics import attribute_accuracies, caption_accuracy, shares
from diffusion_lib.metrics.captions import share

K = 5  # standard errors


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


RED, BLUE = Thing("red", "circle", "small", 0.25, 0.3), Thing("blue", "square", "large", 0.7, 0.65)
PAIR = Scene((RED, BLUE))


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("things", [1, 2, 3])
@pytest.mark.parametrize("size", [30, 32, 50])
def test_clean_pictures_are_read_right(size, things):
    """At least 99.5 % (issue): if the true rate were lower, 400 right of 400 would come with a chance below 0.14. The stored study has 2000."""
    scenes = sample_scenes(400 if size <= 32 else 100, split="all", counts=(things,), generator=seeded(things))
    found = outcome(read(draw(scenes, size)), scenes)
    assert found["right"] >= 0.995 and found["wrong"] == 0


def test_the_stored_study_holds_what_is_promised():
    rows = judge_table()
    clean = [row for row in rows if row["kind"] == "clean" and row["size"] == 32]
    assert [row["things"] for row in clean] == [1, 2, 3] and all(row["pictures"] >= 2000 for row in clean)
    assert all(row["right"] >= 0.995 for row in clean) and all(row["per_second"] >= 200 for row in clean)
    for row in rows:
        assert row["right"] + row["wrong"] + row["refused"] == pytest.approx(1)
        assert row["wrong"] <= 0.01, row                                # it rather refuses than guesses
    assert {row["kind"] for row in rows} >= {"clean", "blurred", "noisy", "cropped, all inside"}


def test_the_stored_rates_are_those_of_this_judge():
    """A fresh draw agrees with the stored rate within K standard errors of the difference (p taken at (k + 1)/(n + 2))."""
    rows = {(row["kind"], row["level"], row["things"]): row for row in judge_table() if row["size"] == 32}
    scenes = sample_scenes(300, split="all", counts=(2,), generator=seeded(11))
    clean = draw(scenes)
    for kind, level, pictures in (("blurred", 1.0, blurred(clean, 1.0)), ("noisy", 0.2, clean + 0.2 * torch.randn(clean.shape, generator=seeded(12)))):
        row, found = rows[kind, level, 2], outcome(read(pictures), scenes)
        p = (row["right"] * row["pictures"] + 1) / (row["pictures"] + 2)
        assert abs(found["right"] - row["right"]) < K * math.sqrt(p * (1 - p) * (1 / 300 + 1 / row["pictures"])) + 1 / 300


@pytest.mark.parametrize("kind", NOT_SCENES, ids=lambda f: f.__name__)
def test_what_is_no_scene_is_not_readable(kind):
    pictures = kind(200, seeded(5)).clamp(-1, 1)
    readings = read(pictures)
    assert sum(r.readable for r in readings) <= 4                       # 2 %
    assert all(r.reason and "\n" not in r.reason for r in readings if not r.readable)


def test_places_are_measured_to_a_fraction_of_a_pixel():
    scenes = sample_scenes(200, split="all", counts=(1,), generator=seeded(2))
    readings = read(draw(scenes))
    off = torch.tensor([math.dist((r.scene.things[0].x, r.scene.things[0].y), (s.things[0].x, s.things[0].y)) for r, s in zip(readings, scenes, strict=True)])
    assert off.median() < 0.01 / 32 and off.max() < 0.3 / 32            # in pixels: a hundredth, and a third at worst


def test_every_combination_is_read_right():
    scenes = [Scene((Thing(c, s, z, 0.43, 0.56),)) for c in COLOURS for s in SHAPES for z in SIZES]
    assert [r.scene.things[0].combination for r in read(draw(scenes))] == [scene.things[0].combination for scene in scenes]


def test_an_edge_of_one_colour_is_no_other_colour():
    """All of a picture's coverage belongs to its one colour, at every edge pixel too, and adds up to the area."""
    for k, name in enumerate(COLOURS):
        cover = by_colour(draw(Scene((Thing(name, "circle", "large", 0.51, 0.47),)), 64))[0]
        others = cover[[j for j in range(len(COLOURS)) if j != k]]
        assert others.abs().max() < 1e-6
        assert float(cover[k].sum()) == pytest.approx(AREA["circle"] * (SIZES["large"] * 64) ** 2, rel=2e-3)


def test_slightly_paler_or_stronger_colours_are_still_read():
    scenes = sample_scenes(100, split="all", counts=(2,), generator=seeded(10))
    for strength in (0.92, 1.05):
        assert outcome(read(strength * draw(scenes)), scenes)["right"] == 1


def test_a_soft_small_cross_is_no_diamond():
    """Blurred by a pixel, one in seven of these crosses fits a square on its tip a little better than a cross."""
    places = 0.3 + 0.4 * torch.rand(40, 2, generator=seeded(1))
    scenes = [Scene((Thing(list(COLOURS)[i % 8], "cross", "small", x, y),)) for i, (x, y) in enumerate(places.tolist())]
    readings = read(blurred(draw(scenes), 1.0))
    assert not any("diamond" in (r.reason or "") for r in readings) and outcome(readings, scenes)["right"] >= 0.8


def test_touching_neighbours_of_one_colour_stay_apart():
    """Two equal things at the least distance a scene allows."""
    things = [Scene((Thing("green", s, "small", 0.3, 0.5), Thing("green", s, "small", 0.3 + 2 * SIZES["small"] + GAP, 0.5))) for s in SHAPES]
    assert outcome(read(draw(things)), things)["right"] == 1


def test_reasons_name_what_is_wrong():
    grey = torch.full((1, 3, 32, 32), BACKGROUND)
    four = draw([Scene((Thing("red", "circle", "small", x, y),)) for x, y in ((0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8))]).sum(0, keepdim=True)
    middle = draw(Scene((replace(RED, size="small"),)), 39)[..., :32, :32]              # 0.14 * 39 / 32 = 0.171: between the sizes
    pale = 0.62 * draw(Scene((BLUE,)))
    cut = torch.roll(draw(Scene((BLUE,))), 6, 3)
    cut[..., :6] = 0
    speck = draw(Scene((BLUE,)))
    speck[..., 3:5, 3:5] = 0.9
    orange = draw(Scene((RED,))) + 0.75 * (draw(Scene((RED,)))[:, :1] / 0.85) * torch.tensor([0, 1.0, 0]).view(3, 1, 1)
    for picture, reason in ((grey, "nothing in it"), (four, "4 patches of colour"), (middle, "neither small nor large"), (pale, "like no shape"),
                            (cut, "reaches over the border|like no shape"), (speck, "drawn again, differs"), (orange, "away from that colour")):
        reading = read(picture)[0]
        assert not reading.readable and re.search(reason, reading.reason), (reason, reading)


def test_a_cut_thing_is_refused_and_one_that_is_whole_is_read():
    scenes = sample_scenes(400, split="all", counts=(1,), generator=seeded(3))
    pictures, inside, truth = cropped(scenes, seeded(4))
    readings = read(pictures)
    cut = [not r.readable for r, shown in zip(readings, inside, strict=True) if 0.1 <= shown[0] < 0.9]
    whole = [r.readable and same_scene(r.scene, t) for r, shown, t in zip(readings, inside, truth, strict=True) if shown[0] > 1 - 1e-6]
    assert len(cut) > 30 and sum(cut) >= len(cut) - 1 and len(whole) > 200 and sum(whole) >= 0.97 * len(whole)


def test_the_judge_is_deterministic_and_does_not_depend_on_the_batch():
    pictures = draw(sample_scenes(60, generator=seeded(6))) + 0.1 * torch.randn(60, 3, 32, 32, generator=seeded(7))
    together, apart = read(pictures), [read(picture[None])[0] for picture in pictures]
    for a, b in zip(together, apart, strict=True):
        assert a.readable == b.readable and (not a.readable or same_scene(a.scene, b.scene, within=1e-4))
    assert read(pictures) == together and read(pictures, batch=7)[0].scene is not None


# --- verdicts --------------------------------------------------------------------------------------------------------


def judged(scene, text):
    return verdicts(draw(scene), [text])[0]


def test_a_right_picture_has_every_part():
    v = judged(PAIR, "a small red circle left of a large blue square")
    assert (v.right, v.readable, v.count, v.colour, v.shape, v.size, v.binding, v.relation, v.position) == (True,) * 8 + (None,)
    v = judged(Scene((RED,)), "a circle in the top left")
    assert v.right and v.position and v.colour is None and v.size is None and v.binding is None and v.relation is None


@pytest.mark.parametrize(("text", "wrong"), [
    ("a small blue circle and a large red square", {"binding"}),                        # swapped colours
    ("a large red circle and a small blue square", {"binding"}),                        # swapped sizes
    ("a small red square and a large blue circle", {"binding"}),
    ("a small red star and a large blue square", {"shape"}),
    ("a small green circle and a large blue square", {"colour"}),
    ("a large red circle and a large blue square", {"size"}),
    ("a small red circle right of a large blue square", {"relation"}),
    ("a small red circle in the bottom right and a large blue square", {"position"}),
    ("a small red circle", {"count", "colour", "shape", "size"}),
    ("two small red circles and a large blue square", {"count", "colour", "shape", "size"}),
])
def test_each_mistake_is_named(text, wrong):
    v = judged(PAIR, text)
    parts = ("readable", "count", "colour", "shape", "size", "binding", "position", "relation")
    assert not v.right and {part for part in parts if getattr(v, part) is False} == wrong


def test_an_unreadable_picture_is_wrong_in_all_that_is_asked():
    v = verdicts(torch.zeros(1, 3, 32, 32), ["a red circle"])[0]
    assert (v.right, v.readable, v.count, v.colour, v.shape) == (False,) * 5 and v.size is None and v.binding is None


def test_verdicts_agree_with_claims_on_the_true_scene():
    """Reading a clean picture and knowing its scene give the same answer, for right and for shuffled captions."""
    scenes = sample_scenes(300, split="all", generator=seeded(8))
    texts = captions(scenes, seeded(9))
    for order in (texts, texts[1:] + texts[:1]):
        truth = [parse(text).holds(scene) for scene, text in zip(scenes, order, strict=True)]
        assert [v.right for v in verdicts(draw(scenes), order)] == truth
    assert caption_accuracy(draw(scenes), texts).value == 1


def test_accuracies_are_counted_by_hand():
    scenes = [PAIR] * 5
    texts = ["a red circle and a blue square", "a red circle left of a blue square", "a blue circle and a red square", "a red star and a blue square",
             "a red circle right of a blue square"]
    found = attribute_accuracies(draw(scenes), texts)
    assert {part: estimate.value for part, estimate in found.items()} == {
        "right": 2 / 5, "readable": 1, "count": 1, "colour": 1, "shape": 4 / 5, "binding": 3 / 4, "relation": 1 / 2}
    assert found["right"] == caption_accuracy(draw(scenes), texts) == shares(verdicts(draw(scenes), texts))["right"]


def test_a_picture_that_cannot_be_read_counts_as_wrong():
    pictures, texts = torch.cat([draw([PAIR]), torch.zeros(3, 3, 32, 32)]), ["a red circle and a blue square"] * 4
    assert caption_accuracy(pictures, texts).value == 1 / 4
    found = attribute_accuracies(pictures, texts)
    assert {part: found[part].value for part in ("right", "readable", "count", "colour", "binding")} == {
        "right": 1 / 4, "readable": 1 / 4, "count": 1 / 4, "colour": 1 / 4, "binding": 1}           # binding is asked of the readable one alone


def test_the_standard_error_of_a_share_covers():
    """Not 0 where all are right, and near the binomial one elsewhere: over 4000 experiments the mean square error is its square."""
    assert share([True] * 300).se == pytest.approx(1 / 302, rel=0.01) and share([True] * 300).value == 1
    p, n = 0.9, 200
    k = torch.binomial(torch.full((4000,), float(n)), torch.tensor(p), generator=seeded(1)).long().tolist()
    by_count = {j: share([True] * j + [False] * (n - j)) for j in set(k)}
    errors = torch.tensor([(by_count[j].value - p) ** 2 for j in k]).double()
    stated = torch.tensor([by_count[j].se ** 2 for j in k]).double()
    difference = errors.mean() - stated.mean()
    assert abs(difference) < K * errors.std() / math.sqrt(len(k)) + 3 / n**2            # (k + 1)/(n + 2) shifts it by O(1/n²)
    with pytest.raises(ValueError, match="No answer was given"):
        share([])


def test_twins_and_counts():
    three = Scene(tuple(Thing("red", "star", "small", x, 0.5) for x in (0.2, 0.5, 0.8)))
    assert judged(three, "three red stars").right and judged(three, "three small shapes").right
    assert not judged(three, "two red stars").count and judged(three, "two red stars and a small star").right
    assert judged(three, "three large red stars").size is False


def test_all_pictures_of_the_stream_are_right():
    from diffusion_lib.data.shapes import CaptionedBatches

    pictures, condition = next(CaptionedBatches(200, seed=3, split="all"))
    kinds = Counter(len(r.scene.things) for r in read(pictures))
    assert caption_accuracy(pictures, condition["caption"]).value == 1 and set(kinds) == {1, 2, 3}
    assert caption_accuracy(draw([PAIR]), [caption(PAIR, plain=True)]).value == 1


@pytest.mark.parametrize(("call", "error", "sentence"), [
    (lambda: read(torch.zeros(3, 32, 32)), ValueError, r"has shape \(3, 32, 32\); expected 4 dimensions"),
    (lambda: read(torch.zeros(1, 1, 32, 32)), ValueError, r"expected \(N, 3, H, H\) with H >= 30"),
    (lambda: read(torch.zeros(1, 3, 16, 16)), ValueError, r"expected \(N, 3, H, H\) with H >= 30"),
    (lambda: read(torch.full((1, 3, 32, 32), math.nan)), ValueError, r"NaN or infinite"),
    (lambda: read(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)), TypeError, r"dtype torch.uint8"),
    (lambda: verdicts(torch.zeros(2, 3, 32, 32), ["a star"]), ValueError, r"2 pictures and 1 captions; expected a list with one caption for each"),
    (lambda: verdicts(torch.zeros(2, 3, 32, 32), "a star"), ValueError, r"2 pictures and one string"),
    (lambda: caption_accuracy(torch.zeros(1, 3, 32, 32), ["a stra"]), ValueError, r"nearest to 'stra' are 'star'"),
])
def test_bad_input_gets_one_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
