"""The world of shapes: areas against closed forms, laws of the draws, combinations held out, splits, streams and clips."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

from diffusion_lib.commands.common import open_data
from diffusion_lib.data import load
from diffusion_lib.data.shapes import (
    AREA,
    COLOURS,
    COMBINATIONS,
    SHAPES,
    SIZES,
    CaptionedBatches,
    Scene,
    Thing,
    draw,
    draw_clips,
    held_out,
    is_seen,
    parse,
    read,
    sample_clips,
    sample_scenes,
)
from diffusion_lib.data.shapes.clips import CLIP_VOCABULARY, MOTIONS, WAY
from diffusion_lib.data.shapes.draw import coverage
from diffusion_lib.data.shapes.world import GAP, MARGIN, TWINS

K = 5  # standard errors


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def grid(size, x=0.0, y=0.0):
    """Pixel centres relative to (x, y), which is given in pixels from the middle."""
    ticks = torch.arange(size, dtype=torch.float64) + 0.5 - size / 2
    return torch.broadcast_tensors(ticks - x, ticks[:, None] - y)


# --- drawing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_area_tends_to_the_closed_form_as_resolution_grows(shape):
    """Root mean square over 60 places and radii. A straight outline errs at its corners, each by O(h²). A round one errs by O(h²) from its bend
    and O(h^1.5) from where it is parallel to the lattice (the exponent of lattice points in a disc, smoothed by a pixel): between the two."""
    draws = torch.rand(60, 3, generator=seeded(), dtype=torch.float64)
    sizes, errors = (32, 64, 128, 256), []
    for size in sizes:
        radii = size * (0.2 + 0.2 * draws[:, 2])
        areas = torch.stack([coverage(shape, *grid(size, x, y), radius).sum() for (x, y, _), radius in zip(draws, radii, strict=True)])
        errors.append((areas / (AREA[shape] * radii**2) - 1).square().mean().sqrt())
    x, y = torch.tensor(sizes).double().log(), torch.stack(errors).log()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    assert (-2.1 < slope < -1.35) if shape in ("circle", "ring") else (-2.15 < slope < -1.85), slope
    assert errors[-1] < 2e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_the_set_it_is_said_to_be(shape):
    """Coverage against an independent test of points: each shape as inequalities or a polygon's winding number."""
    def inside(x, y):                                                   # radius 1, y downwards
        r = math.hypot(x, y)
        if shape in ("circle", "ring"):
            return r <= 1 and (shape == "circle" or r >= 0.55)
        if shape == "square":
            return max(abs(x), abs(y)) <= math.sqrt(0.5)
        if shape == "cross":
            return max(abs(x), abs(y)) <= math.sqrt(1 - 0.34**2) and min(abs(x), abs(y)) <= 0.34
        count = 3 if shape == "triangle" else 10
        radii = [1.0] * 3 if shape == "triangle" else [1.0, 0.45] * 5
        corners = [(q * math.sin(2 * math.pi * k / count), -q * math.cos(2 * math.pi * k / count)) for k, q in enumerate(radii)]
        angles = [math.atan2(b - y, a - x) for a, b in corners]
        turns = sum((b - a + math.pi) % (2 * math.pi) - math.pi for a, b in zip(angles, angles[1:] + angles[:1], strict=True))
        return abs(turns) > math.pi
    size, radius = 64, 24.3
    x, y = grid(size, 0.37, -0.21)
    covered = coverage(shape, x, y, torch.tensor(radius, dtype=torch.float64))
    truth = torch.tensor([[inside(a / radius, b / radius) for a, b in zip(p, q, strict=True)] for p, q in zip(x.tolist(), y.tolist(), strict=True)])
    assert torch.equal(covered > 0.5, truth)
    assert covered.min() == 0 and covered.max() == 1


def test_pictures_hold_the_named_colours_on_grey_where_they_are_said_to_be():
    for (colour, rgb), size in itertools.product(COLOURS.items(), (16, 32, 65)):
        picture = draw(Scene((Thing(colour, "square", "large", 0.7, 0.3),)), size)[0]
        assert picture.shape == (3, size, size) and picture.dtype == torch.float32
        assert picture[:, int(0.3 * size), int(0.7 * size)].tolist() == pytest.approx(rgb)          # y from the top, x from the left
        assert (picture[:, int(0.7 * size), :int(0.4 * size)] == 0).all()


def test_colours_are_far_apart_seen_from_grey():
    for a, b in itertools.combinations(COLOURS.values(), 2):
        cosine = sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
        assert cosine < math.cos(math.radians(55)) and math.dist(a, b) > 1.29


def test_drawing_is_linear_in_coverage_and_draws_a_batch_like_single_scenes():
    scenes = sample_scenes(20, split="all", generator=seeded())
    together = draw(scenes)
    assert torch.equal(together, torch.cat([draw(scene) for scene in scenes]))
    assert torch.equal(together, draw(scenes)) and together.abs().max() <= 1
    alone = [sum(draw(Scene((thing,)))[0] for thing in scene.things) for scene in scenes]           # circles keep apart, so nothing is over another
    assert torch.allclose(together, torch.stack(alone), atol=1e-6)


# --- the law of the draws --------------------------------------------------------------------------------------------


def test_things_keep_their_distance_from_each_other_and_from_the_border():
    for scene in sample_scenes(2000, split="all", generator=seeded()):
        for thing in scene.things:
            assert thing.radius + MARGIN <= min(thing.x, thing.y, 1 - thing.x, 1 - thing.y) + 1e-12
        for a, b in itertools.combinations(scene.things, 2):
            assert math.dist((a.x, a.y), (b.x, b.y)) >= a.radius + b.radius + GAP - 1e-12


def test_counts_and_combinations_are_uniform_and_twins_have_their_share():
    n = 9_000
    scenes = sample_scenes(n, generator=seeded())
    counts = Counter(len(scene.things) for scene in scenes)
    assert all(abs(counts[k] - n / 3) < K * math.sqrt(n * 2 / 9) for k in (1, 2, 3))
    first = Counter(scene.things[0].combination for scene in scenes)
    share = 1 / len(COMBINATIONS["seen"])
    assert set(first) == set(COMBINATIONS["seen"])
    assert all(abs(k - n * share) < K * math.sqrt(n * share) for k in first.values())
    several = [scene.things for scene in scenes if len(scene.things) > 1]
    equal = sum(things[0].combination == things[1].combination for things in several) / len(several)
    expected = TWINS + (1 - TWINS) * share                              # on purpose, or by chance
    assert abs(equal - expected) < K * math.sqrt(expected * (1 - expected) / len(several))


def test_a_single_thing_is_uniform_over_its_places():
    x = torch.tensor([(s.things[0].x, s.things[0].y) for s in sample_scenes(4000, counts=(1,), generator=seeded()) if s.things[0].size == "small"])
    low = SIZES["small"] + MARGIN
    u = ((x - low) / (1 - 2 * low)).double()                            # uniform in [0, 1]²
    assert ((u.mean(0) - 0.5).abs() < K * math.sqrt(1 / 12 / len(u))).all()
    assert ((u.square().mean(0) - 1 / 3).abs() < K * math.sqrt(4 / 45 / len(u))).all()
    assert abs((u[:, 0] * u[:, 1]).mean() - 0.25) < K * math.sqrt(7 / 144 / len(u))


def test_the_generator_decides_all():
    assert sample_scenes(50, generator=seeded(3)) == sample_scenes(50, generator=seeded(3)) != sample_scenes(50, generator=seeded(4))


# --- what is held out ------------------------------------------------------------------------------------------------


def test_held_out_combinations_are_as_stated():
    everything = set(itertools.product(COLOURS, SHAPES, SIZES))
    pair, size, seen = (set(COMBINATIONS[k]) for k in ("unseen_pair", "unseen_size", "seen"))
    assert (len(pair), len(size), len(seen)) == (12, 6, 78)
    assert pair | size | seen == everything and not pair & size and not (pair | size) & seen
    assert all((c, s, z) in pair for c, s, _ in pair for z in SIZES)                    # a pair is held out in every size
    assert all(sum((c, s, z) in seen for z in SIZES) == 1 for c, s, _ in size)          # its other size is trained on
    for part, names in enumerate((COLOURS, SHAPES, SIZES)):
        assert {combination[part] for combination in seen} == set(names)                # each attribute is seen on its own
    assert held_out("red", "circle", "small") == held_out("red", "circle", "large") == "unseen_pair"


def test_held_out_combinations_are_never_in_what_is_trained_on():
    batches = CaptionedBatches(300, seed=7)
    scenes = sample_scenes(3000, generator=seeded())
    assert all(is_seen(thing) for scene in scenes for thing in scene.things)
    for _ in range(2):                                                  # of the stream only pictures and captions come out: read them
        pictures, condition = next(batches)
        assert all(is_seen(thing) for reading in read(pictures) for thing in reading.scene.things)
        for group in (group for text in condition["caption"] for group in parse(text).groups):
            assert None in (group.colour, group.shape, group.size) or held_out(group.colour, group.shape, group.size) is None


@pytest.mark.parametrize("split", ["unseen", "unseen_pair", "unseen_size"])
def test_every_unseen_scene_has_a_thing_that_was_held_out(split):
    kinds = Counter()
    for scene in sample_scenes(1000, split=split, generator=seeded()):
        found = {held_out(*thing.combination) for thing in scene.things} - {None}
        assert len(found) == 1
        kinds |= Counter(found)
    assert set(kinds) == ({"unseen_pair", "unseen_size"} if split == "unseen" else {split})


# --- splits, streams, clips ------------------------------------------------------------------------------------------


def test_the_data_set_has_fixed_disjoint_splits():
    x, texts = load("shapes", "test", size=8)
    assert x.shape == (2000, 3, 8, 8) and x.dtype == torch.float32 and x.abs().max() <= 1 and len(texts) == 2000
    again, same = load("shapes", "test", size=8)
    assert torch.equal(x, again) and texts == same
    assert all(None not in (g.colour, g.shape, g.size) for text in texts for g in parse(text).groups)
    train, _ = load("shapes", "train", size=8)
    assert not {p.numpy().tobytes() for p in x} & {p.numpy().tobytes() for p in train}
    unseen, names = load("shapes", "unseen", size=8)
    assert len(unseen) == len(names) == 2000
    assert all(any(held_out(g.colour, g.shape, g.size) for g in parse(text).groups) for text in names)


def test_the_command_line_knows_the_data_set():
    """`train` learns the pictures alone; captions are for `train-latent`."""
    data = open_data("shapes", size=8)
    assert data.train.shape == (10_000, 3, 8, 8) and data.held_out.shape == (2000, 3, 8, 8) and data.classes == 1
    assert len(data.labels) == 10_000 and not data.labels.any()


def test_the_stream_never_repeats_and_resumes_exactly():
    encode = lambda texts: torch.tensor([[len(text)] for text in texts])  # noqa: E731
    batches, other = (CaptionedBatches(8, seed=1, encode=encode) for _ in range(2))
    drawn = [next(batches) for _ in range(4)]
    assert not torch.equal(drawn[0][0], drawn[1][0]) and drawn[0][1]["tokens"].shape == (8, 1)
    other.skip(2)
    assert torch.equal(next(other)[0], drawn[2][0])
    third = CaptionedBatches(8, seed=1, encode=encode)
    third.load_state_dict(other.state_dict())
    x, condition = next(third)
    assert torch.equal(x, drawn[3][0]) and torch.equal(condition["tokens"], drawn[3][1]["tokens"])
    assert next(CaptionedBatches(4, pictures_only=True, size=16))[0].shape == (4, 3, 16, 16)
    with pytest.raises(ValueError, match="seed=1 and now seed=2"):
        CaptionedBatches(8, seed=2).load_state_dict(other.state_dict())


def test_streams_of_different_seeds_share_no_batch():
    """Nor does a later batch of one come early in another: the numbers that seed their generators are all different."""
    drawn = [next(batches)[0] for batches in [CaptionedBatches(2, seed=seed, size=8) for seed in range(4)] for _ in range(4)]
    assert len({pictures.numpy().tobytes() for pictures in drawn}) == 16


def test_up_is_towards_the_first_row():
    """Of a thing that its caption says moves up or down: the mean row of its pixels."""
    seen = set()
    for clip in sample_clips(60, frames=2, generator=seeded()):
        if len(clip.motions) == 1 and clip.motions[0] in ("up", "down"):
            rows = draw_clips([clip])[0].abs().sum((1, 3))                                          # (T, H)
            first, last = (rows * torch.arange(32.0)).sum(1) / rows.sum(1)
            word = clip.caption.split()[-1]
            assert (last < first) if word == "up" else (last > first)
            seen.add(word)
    assert seen == {"up", "down"}


def test_clips_move_as_their_captions_say():
    clips = sample_clips(60, frames=5, generator=seeded())
    pictures = draw_clips(clips)
    assert pictures.shape == (60, 5, 3, 32, 32)
    readings = read(pictures.flatten(0, 1))
    assert sum(r.readable for r in readings) == 300
    for clip, first, last in zip(clips, readings[0::5], readings[4::5], strict=True):
        assert set(clip.caption.split()) <= set(CLIP_VOCABULARY)
        for thing, motion in zip(clip.scenes[0].things, clip.motions, strict=True):
            goal = (thing.x + WAY * MOTIONS[motion][0], thing.y + WAY * MOTIONS[motion][1])
            assert min(math.dist((t.x, t.y), (thing.x, thing.y)) for t in first.scene.things if t.combination == thing.combination) < 0.01
            assert min(math.dist((t.x, t.y), goal) for t in last.scene.things if t.combination == thing.combination) < 0.01
            assert f"{thing.shape} " + ("standing still" if motion == "nowhere" else f"moving {motion}") in clip.caption
    assert {motion for clip in clips for motion in clip.motions} == set(MOTIONS)


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: Thing("rde", "circle", "small", 0.5, 0.5), r"colour='rde' is unknown.*did you mean 'red'"),
    (lambda: Thing("red", "circle", "huge", 0.5, 0.5), r"size='huge' is unknown"),
    (lambda: Thing("red", "circle", "small", 1.5, 0.5), r"x=1.5 was given; expected a place in \[0, 1\]"),
    (lambda: Scene(()), r"has 0 things; expected one to three"),
    (lambda: sample_scenes(0), r"n=0 was given; expected an integer >= 1"),
    (lambda: sample_scenes(1, split="sene"), r"did you mean 'seen'"),
    (lambda: sample_scenes(1, counts=(4,)), r"counts=\(4,\) was given; expected some of 1, 2, 3"),
    (lambda: draw([]), r"No scene was given"),
    (lambda: draw(sample_scenes(1), 4), r"size=4 was given; expected an integer >= 8"),
    (lambda: load("shapes", "val"), r"split='val' is unknown"),
    (lambda: load("shapes", channels=1), r"have 3 \(RGB\)"),
    (lambda: draw_clips([]), r"no frames; expected at least one clip"),
])
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
