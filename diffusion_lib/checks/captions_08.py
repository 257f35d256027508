"""Chapter 8's coursework, tasks 5 and 6: what a bag of words knows, and which of two models is better. Imported by ``coursework_08``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks.compare import call, close_number, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer, coursework
from diffusion_lib.checks.typed import parts, tensor
from diffusion_lib.data.shapes import held_out, parse, words

DOUBLE = torch.float64

# --- 5. what a bag of words knows ------------------------------------------------------------------------------------

COUNTED = (  # captions and the number of their readings, counted once, by brute force
    ("a small white star", 1), ("three large cyan circles", 1), ("a large white star and a small white star", 1),
    ("a small yellow circle and a small cyan cross", 2), ("a small blue star and a large green triangle", 3),
    ("a small black triangle and a large yellow circle", 4), ("two large red stars and a large blue circle", 1),
    ("two small cyan crosses and a large purple square", 2), ("two small blue squares and a large red triangle", 3),
    ("two small cyan circles and a large black circle", 4), ("a large yellow star, a small yellow star and a small blue square", 2),
    ("a large cyan circle, a large cyan ring and a small green ring", 4), ("a small white star, a small purple ring and a large green star", 5),
    ("a small green cross, a large cyan square and a small red square", 8), ("a small black circle, a large yellow star and a large blue cross", 18),
)


@coursework("cw8.5", "what a caption can mean to a bag of words", read="section 8.11, (8.13), and section 8.2 for what is held out")
def readings(answer, *, seed):
    """Every reading must be one, no two the same, and all there; the numbers were counted once."""
    order = torch.randperm(len(COUNTED), generator=seeded(seed)).tolist()
    for text, number in sorted((COUNTED[i] for i in order), key=lambda row: row[1]):
        judge_readings(call(answer, text), text, number)
    return "The mean of 1 / readings is what no model of this kind can exceed, whatever its size."


def judge_readings(found: Any, text: str, number: int) -> None:
    """Hold a reader's list of readings of ``text`` against what a reading is, and their number."""
    if not isinstance(found, (list, tuple, set)) or not all(isinstance(one, str) for one in found):
        raise WrongAnswer(f"readings({text!r}) is a {type(found).__name__}; expected a list of captions (strings).")
    bag, meanings = sorted(words(text)), []
    for one in found:
        if sorted(words(one)) != bag:
            raise WrongAnswer(f"{one!r} has not the words of {text!r}: a bag keeps every word and every comma, only not their order.")
        groups = parse(one).groups
        kinds = [(g.colour, g.shape, g.size) for g in groups]
        if any(None in kind for kind in kinds):
            raise WrongAnswer(f"{one!r} does not name size, colour and shape of each thing, as plain captions do.")
        if any(held_out(*kind) for kind in kinds):
            raise WrongAnswer(f"{one!r} has a combination that was held out of training: the model has learned that it does not occur.")
        if len(set(kinds)) < len(kinds):
            raise WrongAnswer(f"{one!r} names equal things twice: the captions of the training set would have said it with a number.")
        meanings.append(frozenset((g.number, *kind) for g, kind in zip(groups, kinds, strict=True)))
    if len(set(meanings)) < len(meanings):
        raise WrongAnswer(f"Two readings of {text!r} mean the same things: the order in which things are named makes no difference in world S.")
    own = frozenset((g.number, g.colour, g.shape, g.size) for g in parse(text).groups)
    true_for_all(own in meanings, f"What {text!r} itself says is missing among its readings.")
    true_for_all(len(meanings) == number, f"readings({text!r}) has {len(meanings)} entries, all of them good; expected {number}: what else may change places?")


# --- 6. two models, the same captions --------------------------------------------------------------------------------


def _verdicts(generator: torch.Generator, experiments: int, captions: int, draws: int) -> tuple[Tensor, Tensor]:
    """(E, N, M) 0 or 1 for two models: captions are hard for both, and each has some that it alone finds hard."""
    shared, first, second = (torch.randn(experiments, captions, 1, generator=generator, dtype=DOUBLE) for _ in range(3))
    chance = [torch.sigmoid(3 * shared + 2 * own + shift) for own, shift in ((first, 0.8), (second, 0.2))]
    a, b = ((torch.rand(experiments, captions, draws, generator=generator, dtype=DOUBLE) < p).to(DOUBLE) for p in chance)
    return a, b


@coursework("cw8.6a", "the error of a difference", read="section 8.10, and what a standard error is of: the things that were drawn independently")
def paired(answer, *, seed, experiments=1000):
    """The difference itself; then: over many experiments the mean of se^2 is the variance of the difference, within 5 standard errors."""
    a, b = _verdicts(seeded(seed), experiments, 40, 6)
    names = "difference, se, captions"
    one = float(tensor(parts(answer, 3, names, a[0], b[0], 0.05)[0], (), "difference"))
    close_number(one, float(a[0].mean() - b[0].mean()), rtol=1e-6, atol=1e-9, name="difference")
    errors = [float(tensor(parts(answer, 3, names, x, y, 0.05)[1], (), "se")) for x, y in zip(a, b, strict=True)]
    stated = torch.tensor(errors, dtype=DOUBLE).square()
    truth = (a - b).mean((1, 2)).var()
    ratio, tolerance = float((stated.mean() / truth) ** 0.5), 2.5 * (2 / experiments + float(stated.var() / stated.mean() ** 2) / experiments) ** 0.5
    shown = (f"In {experiments} experiments of 40 captions, 6 pictures each, your standard error is {ratio:.2f} times the true spread of the difference "
             f"({1 - tolerance:.2f} to {1 + tolerance:.2f} is accepted)")
    true_for_all(ratio > 1 - tolerance, f"{shown}, too small: pictures of one caption are not independent, captions are.")
    true_for_all(ratio < 1 + tolerance, f"{shown}, too large: both models were given the same captions, and what is hard for both takes no part in the "
                                        "difference.")
    return "The unit is the caption."


@coursework("cw8.6b", "how many captions it takes", read="section 8.10, and remember that a standard error falls as one over a root")
def planned(answer, *, seed):
    """With so many captions the error is a third of the gap: the number from a large pilot, and how it scales."""
    a, b = (v[0] for v in _verdicts(seeded(seed), 1, 300, 4))
    for part, gap in ((slice(0, 300), 0.05), (slice(0, 120), 0.02)):
        _, se, captions = parts(answer, 3, "difference, se, captions", a[part], b[part], gap)
        n, captions = len(a[part]), float(tensor(captions, (), "captions"))
        error = float(tensor(se, (), "se")) * (n / captions) ** 0.5 if captions > 0 else math.inf
        true_for_all(abs(3 * error / gap - 1) < 0.01, f"From {n} captions with an error of {float(se):.4f} you ask for {captions:.0f} to see a gap of {gap}; "
                     f"with so many the error would be {error:.4f}; the gap is then {gap / error:.2f} of these errors, and 3 was asked.")
        true_for_all(captions == math.ceil(captions), f"captions is {captions}; expected a whole number, rounded up.")
    return "Half the difference takes four times the captions."
