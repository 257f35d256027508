"""How many pictures of the world S show what their captions say: the judge's verdicts as shares with standard errors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffusion_lib.data.shapes.verdicts import PARTS, Verdict, verdicts
from diffusion_lib.metrics.estimates import Estimate


def share(answers: Sequence[bool]) -> Estimate:
    """k of n as k/n. Its standard error is taken at (k + 1)/(n + 2), so that 300 right of 300 are not 1 ± 0. Errors: ValueError for none."""
    n, k = len(answers), sum(answers)
    if not n:
        raise ValueError("No answer was given; expected at least one to take a share of: judge some pictures.")
    p = (k + 1) / (n + 2)
    return Estimate(k / n, (p * (1 - p) / (n + 2)) ** 0.5)


def shares(judged: Sequence[Verdict]) -> dict[str, Estimate]:
    """The share of True in each part of the verdicts, over those where it is asked; parts that none asks are left out."""
    answers = {part: [getattr(v, part) for v in judged if getattr(v, part) is not None] for part in PARTS}
    return {part: share(given) for part, given in answers.items() if given}


def caption_accuracy(pictures: Tensor, texts: Sequence[str]) -> Estimate:
    """The share of pictures (N, 3, H, H) in [-1, 1] that bear out their caption: number, every attribute of every thing, every relation.

    A picture that the judge cannot read counts as wrong. Errors: those of `data.shapes.verdicts`.
    """
    return share([v.right for v in verdicts(pictures, texts)])


def attribute_accuracies(pictures: Tensor, texts: Sequence[str]) -> dict[str, Estimate]:
    """`caption_accuracy` ("right") taken apart: "readable", "count", "colour", "shape", "size", "binding", "position", "relation".

    Each is a share of the pictures of which it is asked (see `data.shapes.Verdict`); what no caption asks is left out.
    """
    return shares(verdicts(pictures, texts))
