"""Measure a model's samples against real pictures, training and held out.

python -m diffusion_lib evaluate digits-ddpm --json
python -m diffusion_lib evaluate shapes-latent --json

Fréchet distance on named features, beside the floor that unseen real pictures reach at the same size; precision and recall;
the nearest-neighbour check for memorisation; for the digits, how often a classifier sees the class that was asked for;
for captions of shapes, how often the judge finds all that was asked for, combinations of training and never seen ones apart.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import Tensor

from diffusion_lib import metrics
from diffusion_lib.commands import drawing, latent
from diffusion_lib.commands.common import Data, open_data, open_model
from diffusion_lib.features import digit_features, digit_scores

COMPONENTS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``evaluate``."""
    parser.add_argument("model", help="a shipped model (see info) or the path of your own")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    parser.add_argument("--groups", type=int, default=8, help="samples, in units of the held-out set's size (default 8)")
    parser.add_argument("--most", type=int, default=2000, help="most held-out pictures to use (default 2000)")
    drawing.add_arguments(parser)
    parser.add_argument("--data", help="the data set to compare with (default: the card's)")
    parser.add_argument("--device", help="cpu, cuda, ... (default cpu)")


def run(options: argparse.Namespace) -> None:
    """Draw, measure, print."""
    net, card = open_model(options.model, options.device)
    if latent.is_latent(card):
        model = latent.open_latent(options.model, options.device)
        return show(latent.measure(model, most=options.most, seed=options.seed, **drawing.walk_of(options)._asdict()), options.json)
    name = options.data or card.get("data", {}).get("name")
    if name is None:
        raise ValueError(f"The card of {options.model} names no data set; expected one to compare with: pass --data.")
    shape = card.get("shape", [None] * 3)
    is_folder = name not in ("digits", "mnist", "fashion-mnist", "cifar10")
    data = open_data(name, shape[1] if is_folder else None, shape[0] if is_folder else None)
    walk = drawing.walk_of(options)
    show(measure(net, card, data, name, groups=options.groups, most=options.most, seed=options.seed, **walk._asdict()), options.json)


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print the metrics."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for key, value in result.items():
        print(f"{key:24} {value}")


def measure(net: torch.nn.Module, card: dict[str, Any], data: Data, name: str, *, groups: int = 8, most: int = 2000, seed: int = 0,
            **options: Any) -> dict[str, Any]:
    """The metrics as JSON values; each "*_se" is one standard error. options: those of ``drawing.Walk``.

    ``groups`` sets of samples are drawn, each as large as the held-out set and with its labels, so that samples and held-out
    pictures are at the same distance of the training set by sample size alone.
    """
    held_out, labels = data.held_out[:most], data.held_out_labels[:most]
    if len(held_out) < 8:
        raise ValueError(f"{name} has {len(held_out)} held-out pictures; expected at least 8 to measure against: "
                         "use 40 pictures or more, of which every fifth is held out.")
    asked = labels.repeat(groups) if card["config"].get("classes") else None
    walk = drawing.Walk(**options)
    samples = drawing.draw(net, card, len(held_out) * groups, seed=seed, label=asked, **options)
    title, features = extractor(name, data.train, len(held_out))
    real, unseen, drawn = features(data.train), features(held_out), features(samples).split(len(held_out))
    distances = torch.tensor([metrics.frechet_distance(group, real) for group in drawn], dtype=torch.float64)
    floor = metrics.frechet_distance(unseen, real)
    usual, spread = split_floor(torch.cat([unseen, real]), torch.cat([labels, data.labels]), len(unseen), seed)
    pairs = torch.tensor([metrics.precision_recall(unseen, group) for group in drawn], dtype=torch.float64)
    copies = metrics.memorisation_ratio(samples, data.train, held_out, generator=torch.Generator().manual_seed(seed))
    result = {
        "samples": len(samples), "groups": groups, "real_train": len(real), "real_held_out": len(unseen),
        **how(walk, card), "seed": seed, "features": title,
        "frechet": float(distances.mean()), "frechet_se": _se(distances), "frechet_floor": floor,
        "frechet_ratio": float(distances.mean()) / floor if floor else None,
        "frechet_floor_random_splits": usual, "frechet_floor_random_splits_sd": spread,
        "frechet_ratio_random_splits": float(distances.mean()) / usual if usual else None,
        "precision": float(pairs[:, 0].mean()), "precision_se": _se(pairs[:, 0]),
        "recall": float(pairs[:, 1].mean()), "recall_se": _se(pairs[:, 1]),
        "nearest_neighbour_ratio": copies.value, "nearest_neighbour_ratio_se": copies.se,
        "memorises": bool(copies.value + 3 * copies.se < 0.8),
    }
    if name == "digits" and asked is not None:
        seen = metrics.accuracy(digit_scores(samples), asked)
        result |= {"accuracy": seen.value, "accuracy_se": seen.se, "accuracy_on_real": metrics.accuracy(digit_scores(held_out), labels).value}
    return {key: round(value, 5) if isinstance(value, float) else value for key, value in result.items()}


def how(walk: drawing.Walk, card: dict[str, Any]) -> dict[str, Any]:
    """What of a walk the result names: sampler and evaluations, and all that is not as usual."""
    usual = drawing.Walk(walk.sampler, walk.steps)
    unusual = {f: getattr(walk, f) for f in walk._fields if getattr(walk, f) != getattr(usual, f)}
    return {"sampler": walk.sampler, "network_evaluations": drawing.evaluations(walk, card), **unusual}


def split_floor(features: Tensor, labels: Tensor, held_out: int, seed: int, splits: int = 40) -> tuple[float, float]:
    """(mean, standard deviation) of the floor over random stratified splits of all real pictures, held out first in ``features``.

    The one split that training used is a draw from this: where the spread is wide, its floor alone can be lucky or unlucky.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = [(labels == c).nonzero()[:, 0] for c in labels.unique()]
    counts = [int((row < held_out).sum()) for row in rows]
    drawn = []
    for _ in range(splits):
        out = torch.zeros(len(labels), dtype=torch.bool)
        for row, count in zip(rows, counts, strict=True):
            out[row[torch.randperm(len(row), generator=generator)[:count]]] = True
        drawn.append(metrics.frechet_distance(features[out], features[~out]))
    values = torch.tensor(drawn, dtype=torch.float64)
    return float(values.mean()), float(values.std())


def extractor(name: str, train: Tensor, held_out: int) -> tuple[str, Any]:
    """(name of the features, pictures -> features): a classifier's for the digits, else principal components of the training pixels."""
    if name == "digits":
        return "digits-classifier: 32 numbers before its last layer", digit_features
    flat = train.flatten(1).double()
    mean = flat.mean(0)
    count = min(COMPONENTS, held_out // 2, flat.shape[1])
    axes = torch.linalg.eigh(torch.cov(flat.T)).eigenvectors[:, -count:]                # (C H W, count)
    return f"the first {count} principal components of the training pixels", lambda x: (x.flatten(1).double() - mean) @ axes


def _se(values: Tensor) -> float | None:
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
