"""What a caption asserts, and whether a scene bears it out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from diffusion_lib.data.shapes.world import Scene, Thing

# A relation holds if the centres are this far apart along its axis, in picture widths. Captions state one only from `CLEARLY` on.
BEYOND, CLEARLY = 0.1, 0.2
RELATIONS: dict[str, Callable[[Thing, Thing], float]] = {               # name: how far the first thing lies to that side of the second
    "left of": lambda a, b: b.x - a.x,
    "right of": lambda a, b: a.x - b.x,
    "above": lambda a, b: b.y - a.y,
    "below": lambda a, b: a.y - b.y,
}
# A position holds if the depth is > 0: the distance of the centre from the line that bounds the place. Captions state it from `INSIDE` on.
LOW, HIGH, INSIDE = 3 / 8, 5 / 8, 0.04
POSITIONS: dict[str, Callable[[Thing], float]] = {
    "left": lambda t: LOW - t.x,
    "right": lambda t: t.x - HIGH,
    "top": lambda t: LOW - t.y,
    "bottom": lambda t: t.y - HIGH,
    "top left": lambda t: min(LOW - t.y, LOW - t.x),
    "top right": lambda t: min(LOW - t.y, t.x - HIGH),
    "bottom left": lambda t: min(t.y - HIGH, LOW - t.x),
    "bottom right": lambda t: min(t.y - HIGH, t.x - HIGH),
    "centre": lambda t: min(t.x - LOW, HIGH - t.x, t.y - LOW, HIGH - t.y),
}


@dataclass(frozen=True)
class Group:
    """``number`` things of which each has the attributes that are named; None: not named."""

    number: int
    colour: str | None = None
    shape: str | None = None
    size: str | None = None
    position: str | None = None

    def fits(self, thing: Thing, names: Sequence[str] = ("colour", "shape", "size", "position")) -> bool:
        """Whether the thing has those of the named attributes that are in ``names``."""
        return all(
            (POSITIONS[asked](thing) > 0 if name == "position" else getattr(thing, name) == asked)
            for name in names if (asked := getattr(self, name)) is not None
        )


@dataclass(frozen=True)
class Claim:
    """What a caption asserts: the picture holds these groups of things **and nothing else**, and the relations hold.

    groups: in the order of the caption
    relations: (i, relation, j): every thing of group i lies to that side of every thing of group j
    """

    groups: tuple[Group, ...]
    relations: tuple[tuple[int, str, int], ...] = ()

    @property
    def number(self) -> int:
        """How many things the picture must hold."""
        return sum(group.number for group in self.groups)

    @property
    def slots(self) -> list[int]:
        """The group of each thing that is asked for."""
        return [i for i, group in enumerate(self.groups) for _ in range(group.number)]

    def names(self, attribute: str) -> bool:
        """Whether any group names this attribute: "colour", "shape", "size" or "position"."""
        return any(getattr(group, attribute) is not None for group in self.groups)

    def assignments(self, scene: Scene, names: Sequence[str] = ("colour", "shape", "size", "position")) -> Iterator[tuple[Thing, ...]]:
        """The scene's things in every order that gives each slot a thing with the named attributes; none if the number differs."""
        if len(scene.things) != self.number:
            return
        slots = self.slots
        for order in itertools.permutations(scene.things):
            if all(self.groups[i].fits(thing, names) for i, thing in zip(slots, order, strict=True)):
                yield order

    def related(self, order: Sequence[Thing]) -> bool:
        """Whether the relations hold for things in the order of the slots."""
        slots = self.slots
        return all(
            RELATIONS[relation](a, b) > BEYOND
            for i, relation, j in self.relations
            for a, slot_a in zip(order, slots, strict=True) if slot_a == i
            for b, slot_b in zip(order, slots, strict=True) if slot_b == j
        )

    def holds(self, scene: Scene) -> bool:
        """Whether the scene bears the claim out: number, every named attribute of every thing, every relation."""
        return any(self.related(order) for order in self.assignments(scene))
