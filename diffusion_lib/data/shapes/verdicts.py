"""A caption against what the judge reads: which parts of it the picture bears out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffusion_lib.data.shapes.captions import parse
from diffusion_lib.data.shapes.claims import Claim
from diffusion_lib.data.shapes.judge import Reading, read

ATTRIBUTES = ("colour", "shape", "size")
PARTS = ("right", "readable", "count", *ATTRIBUTES, "binding", "position", "relation")


@dataclass(frozen=True)
class Verdict:
    """One picture judged by its caption. Each part is True, False, or None where the caption does not ask it.

    right: all of the caption holds, of a readable picture
    readable, count: the judge read it; it has as many things as asked
    colour, shape, size: the things' colours, taken on their own, are those asked for, each as often; and so on. False with the wrong count.
    binding: asked only of captions with things that differ, and only where count and each attribute on its own are right: do the
        attributes sit on the right things? False means swapped: a red square and a blue circle for a red circle and a blue square
    position, relation: asked only where the things are right: do they stand where the caption says?
    """

    claim: Claim
    reading: Reading
    right: bool
    readable: bool
    count: bool
    colour: bool | None
    shape: bool | None
    size: bool | None
    binding: bool | None
    position: bool | None
    relation: bool | None


def verdict(claim: Claim, reading: Reading) -> Verdict:
    """Judge one reading by one claim."""
    scene = reading.scene

    def fits(*names: str) -> bool:
        return scene is not None and next(claim.assignments(scene, names), None) is not None

    alone = {name: fits(name) if claim.names(name) else None for name in ATTRIBUTES}
    count, things = fits(), fits(*ATTRIBUTES)
    differ = len(set((g.colour, g.shape, g.size) for g in claim.groups)) > 1
    asked = differ and sum(claim.names(name) for name in ATTRIBUTES) > 1
    return Verdict(
        claim, reading, scene is not None and claim.holds(scene), reading.readable, count, **alone,
        binding=things if asked and count and all(good is not False for good in alone.values()) else None,
        position=fits(*ATTRIBUTES, "position") if claim.names("position") and things else None,
        relation=any(map(claim.related, claim.assignments(scene, ATTRIBUTES))) if claim.relations and things else None,
    )


def verdicts(pictures: Tensor, texts: Sequence[str]) -> list[Verdict]:
    """Judge pictures (N, 3, H, H) in [-1, 1] by their N captions.

    Errors: those of `judge.read` and `captions.parse`; ValueError for another number of captions.
    """
    if isinstance(texts, str) or len(texts) != len(pictures):
        given = "one string" if isinstance(texts, str) else f"{len(texts)} captions"
        raise ValueError(f"There are {len(pictures)} pictures and {given}; expected a list with one caption for each: repeat it, [caption] * n.")
    claims = [parse(text) for text in texts]
    return [verdict(claim, reading) for claim, reading in zip(claims, read(pictures), strict=True)]
