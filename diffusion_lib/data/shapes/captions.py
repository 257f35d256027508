"""Captions of scenes in plain English, and back: a caption states what is in the picture, and that nothing else is.

The language: things with a number, a size, a colour, a shape and a place ("a small red circle in the top left"), joined by "and" or a comma,
or by a relation, which binds the two phrases beside it ("a star left of a ring, and a cross"). Attributes may be left out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

import torch

from diffusion_lib.data.shapes.claims import CLEARLY, INSIDE, POSITIONS, RELATIONS, Claim, Group
from diffusion_lib.data.shapes.world import COLOURS, MOST, SHAPES, Scene, Thing

NUMBERS = {"a": 1, "one": 1, "two": 2, "three": 3}
SIZE_WORDS = {"small": "small", "little": "small", "large": "large", "big": "large"}
PLURALS = {shape: shape + ("es" if shape == "cross" else "s") for shape in (*SHAPES, "shape")}
SHAPE_WORDS = {word: None if shape == "shape" else shape for shape, many in PLURALS.items() for word in (shape, many)}
RELATION_WORDS = {
    "left of": ("left of", "to the left of", "on the left of"), "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"), "below": ("below", "under"),
}
POSITION_WORDS = {
    **{place: (f"in the {place}", f"in the {place} corner") for place in ("top left", "top right", "bottom left", "bottom right")},
    "left": ("on the left",), "right": ("on the right",), "top": ("at the top",), "bottom": ("at the bottom",),
    "centre": ("in the centre", "in the middle"),
}
OPENINGS = ("there is", "there are", "a picture of")
PHRASES = [*(phrase for phrases in (*RELATION_WORDS.values(), *POSITION_WORDS.values()) for phrase in phrases), *OPENINGS]
VOCABULARY: tuple[str, ...] = tuple(sorted(
    {",", "and", *NUMBERS, *SIZE_WORDS, *COLOURS, *SHAPE_WORDS} | {word for phrase in PHRASES for word in phrase.split()}))
MAX_WORDS = 24                                                          # the longest caption that is written has 22, commas counted
EXAMPLE = "'a small red circle left of a large blue square'"


def words(text: str, *, empty: bool = False) -> list[str]:
    """Split a caption into words of `VOCABULARY`: lower case, a comma is a word, a full stop at the end is dropped.

    empty: allow the empty caption, which asks for nothing; it gives []
    Errors: TypeError for no string; ValueError for an empty caption, more than `MAX_WORDS` words, or unknown words (it names the nearest).
    """
    if not isinstance(text, str):
        raise TypeError(f"The caption is a {type(text).__name__}; expected a string such as {EXAMPLE}: pass captions one by one, or use a list.")
    found = re.findall(r",|[^\s,]+", text.lower().strip().rstrip("."))
    if not found and not empty:
        raise ValueError(f"The caption is empty; expected what the picture holds, such as {EXAMPLE}: write that.")
    unknown = [word for word in dict.fromkeys(found) if word not in VOCABULARY]
    if unknown:
        nearest = [" or ".join(map(repr, difflib.get_close_matches(word, VOCABULARY, n=3, cutoff=0.0))) for word in unknown[:3]]
        hints = "; ".join(f"the nearest to {word!r} are {near}" for word, near in zip(unknown, nearest, strict=False))
        raise ValueError(f"The caption has words that are not known: {', '.join(map(repr, unknown[:3]))}; {hints}: use those, with the colours "
                         f"{', '.join(COLOURS)} and the shapes {', '.join(SHAPES)}.")
    if len(found) > MAX_WORDS:
        raise ValueError(f"The caption has {len(found)} words, commas counted; expected at most {MAX_WORDS}: say it shorter.")
    return found


def parse(text: str) -> Claim:
    """What a caption asserts. Case, "there is", "a picture of" and the order of colour and size do not matter.

    Errors: those of `words`; ValueError for words in an order that makes no sense, or more than three things.
    """
    left = words(text)

    def take(phrases: Sequence[str]) -> str | None:
        """Drop the longest of the phrases that comes next."""
        for phrase in sorted(phrases, key=len, reverse=True):
            if left[:len(phrase.split())] == phrase.split():
                del left[:len(phrase.split())]
                return phrase
        return None

    def lost(expected: str) -> ValueError:
        where = f"at {' '.join(left[:3])!r}" if left else "at its end"
        return ValueError(f"The caption {text!r} makes no sense {where}; expected {expected}: write it as in {EXAMPLE}.")

    def group() -> Group:
        number = NUMBERS[take(tuple(NUMBERS)) or "a"]                   # "red circle" is "a red circle"
        size = colour = None
        while left and left[0] in (*SIZE_WORDS, *COLOURS):
            word = left[0]
            if (size if word in SIZE_WORDS else colour) is not None:
                raise lost("one size and one colour for each thing")
            size, colour = (SIZE_WORDS[word], colour) if word in SIZE_WORDS else (size, word)
            del left[0]
        if not left or left[0] not in SHAPE_WORDS:
            raise lost("a shape (" + ", ".join((*SHAPES, "or shape")) + ")")
        if (left[0] in PLURALS.values()) != (number > 1):
            raise lost("a number that agrees with the shape (a circle, two circles)")
        shape = SHAPE_WORDS[left.pop(0)]
        if any(left[:len(phrase.split())] == phrase.split() for phrase in _RELATION_OF):
            return Group(number, colour, shape, size)          # "on the left of" is a relation, "on the left" a place
        place = take(tuple(_POSITION_OF))
        return Group(number, colour, shape, size, None if place is None else _POSITION_OF[place])

    take(OPENINGS)
    groups, relations = [group()], []
    while left:
        relation = take(tuple(_RELATION_OF))
        if relation is None and take((", and", ",", "and")) is None:
            raise lost("'and', a comma, a relation or a place")
        groups.append(group())
        if relation is not None:
            relations.append((len(groups) - 2, _RELATION_OF[relation], len(groups) - 1))
    claim = Claim(tuple(groups), tuple(relations))
    if claim.number > MOST:
        raise ValueError(f"The caption {text!r} asks for {claim.number} things; expected one to three: leave some out.")
    return claim


_RELATION_OF = {phrase: name for name, phrases in RELATION_WORDS.items() for phrase in phrases}
_POSITION_OF = {phrase: name for name, phrases in POSITION_WORDS.items() for phrase in phrases}


def caption(scene: Scene, generator: torch.Generator | None = None, *, plain: bool = False, complete: float = 1.0) -> str:
    """One caption that is true of the scene: see `captions`."""
    return captions([scene], generator, plain=plain, complete=complete)[0]


def captions(scenes: Sequence[Scene], generator: torch.Generator | None = None, *, plain: bool = False, complete: float = 0.85) -> list[str]:
    """One caption for each scene, true of it, phrased at random.

    plain: one phrasing, of every attribute and with no relation or place ("a small red circle and a large blue square"); draws nothing
    complete: share of captions that name colour, shape and size of each thing; the others leave some out ("two circles and a red star")
    generator: a CPU generator; None is torch's default one
    """
    if plain:
        return [_join([_phrase(g, iter(())) for g in _grouped([_group(thing) for thing in scene.things])], iter(())) for scene in scenes]
    u = torch.rand(len(scenes), 24, generator=generator, dtype=torch.float64).tolist()
    return [_write(scene, iter(row), complete) for scene, row in zip(scenes, u, strict=True)]


_PARTIAL = (("size",), ("size",), ("colour",), ("size", "colour"), ("shape",))      # what an incomplete caption leaves out


def _group(thing: Thing, leave_out: Sequence[str] = (), position: str | None = None) -> Group:
    named = {name: getattr(thing, name) for name in ("colour", "shape", "size") if name not in leave_out}
    return Group(1, position=position, **named)


def _grouped(groups: Sequence[Group]) -> list[Group]:
    """Equal groups become one with their number: a red circle, a red circle -> two red circles."""
    return [Group(sum(g.number for g in groups if g == one), one.colour, one.shape, one.size) for one in dict.fromkeys(groups)]


def _phrase(group: Group, u: Iterator[float]) -> str:
    """The words of a group, the usual ones where ``u`` is used up."""
    number = ("a", "two", "three")[group.number - 1]
    if group.number == 1 and next(u, 0) > 0.93:
        number = "one"
    size = {"small": "little", "large": "big"}.get(group.size) if next(u, 0) > 0.85 else group.size
    shape = group.shape or "shape"
    noun = shape if group.number == 1 else PLURALS[shape]
    place = "" if group.position is None else _pick(POSITION_WORDS[group.position], u)
    return " ".join(word for word in (number, size, group.colour, noun, place) if word)


def _pick(options: Sequence[str], u: Iterator[float]) -> str:
    """The first option in 7 of 10 cases, else one of the others."""
    draw = next(u, 0)
    return options[0] if draw < 0.7 or len(options) == 1 else options[1 + int((draw - 0.7) / 0.3 * (len(options) - 1))]


def _join(phrases: Sequence[str], u: Iterator[float]) -> str:
    if len(phrases) == 3 and next(u, 0) < 0.7:
        return f"{phrases[0]}, {phrases[1]} and {phrases[2]}"
    return " and ".join(phrases)


def _write(scene: Scene, u: Iterator[float], complete: float) -> str:
    things = [t for _, t in sorted(((next(u), i), t) for i, t in enumerate(scene.things))]      # in a random order
    leave_out = () if next(u) < complete else _PARTIAL[int(next(u) * len(_PARTIAL))]
    groups = _grouped([_group(thing, leave_out) for thing in things])
    single = [thing for thing in things if next(g for g in groups if g.fits(thing)).number == 1]
    kind, opening = next(u), next(u)
    if len(things) <= 2 and len(groups) == len(things) and kind < (0.5 if len(things) == 1 else 0.35):
        places = [[name for name, depth in POSITIONS.items() if depth(thing) > INSIDE] for thing in things]
        text = _join([_phrase(_group(thing, leave_out, p[int(next(u) * len(p))] if p else None), u)
                      for thing, p in zip(things, places, strict=True)], u)
    elif len(single) >= 2 and kind < 0.85:
        a, b = single[:2]
        true = [name for name, beyond in RELATIONS.items() if beyond(a, b) > CLEARLY]
        phrases = [_phrase(_group(thing, leave_out), u) for thing in single]
        if true:
            phrases[:2] = [f"{phrases[0]} {_pick(RELATION_WORDS[true[int(next(u) * len(true))]], u)} {phrases[1]}"]
        text = _join(phrases, u)
    else:
        text = _join([_phrase(group, u) for group in groups], u)
    if opening > 0.85:
        there = "there is " if text.startswith(("a ", "one ")) else "there are "
        text = (there if opening > 0.93 else "a picture of ") + text
    return text
