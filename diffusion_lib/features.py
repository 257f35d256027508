"""The named features that distances between digits are measured on: the 32 numbers before the last layer of a small classifier.

    python -m diffusion_lib.features [--out FOLDER]

trains the classifier on the digits' train split (a minute on one CPU core) and writes ``digits-classifier.safetensors`` and its card.
"""

from __future__ import annotations

import argparse
import time
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion_lib import checkpoints
from diffusion_lib.data.digits import CLASSES, SHAPE, digits
from diffusion_lib.nets.classifier import DigitClassifier
from diffusion_lib.validate import check_tensor

NAME = "digits-classifier"


@cache
def digit_classifier(device: str = "cpu") -> DigitClassifier:
    """The classifier that ships with the package, in eval mode (its card: ``checkpoints.pretrained("digits-classifier")[1]``)."""
    return checkpoints.pretrained(NAME, torch.device(device))[0].requires_grad_(False)


def _check_digits(images: Tensor) -> Tensor:
    check_tensor("images", images, 4)
    if tuple(images.shape[1:]) != SHAPE:
        raise ValueError(f"images has shape {tuple(images.shape)}; expected digits (N, 1, 8, 8): "
                         "these features are of a classifier of 8 x 8 digits.")
    return images


@torch.no_grad()
def digit_scores(images: Tensor) -> Tensor:
    """Class scores (logits) of digits: (N, 1, 8, 8) in [-1, 1] -> (N, 10). Errors: ValueError for another shape."""
    _check_digits(images)
    return digit_classifier(str(images.device))(images.float())


@torch.no_grad()
def digit_features(images: Tensor) -> Tensor:
    """Features of digits for `metrics.frechet_distance` and `metrics.precision_recall`: (N, 1, 8, 8) in [-1, 1] -> (N, 32) float32.

    Errors: ValueError for another shape.
    """
    _check_digits(images)
    return digit_classifier(str(images.device)).features(images.float())


def digit_accuracy(images: Tensor, labels: Tensor) -> float:
    """The share of digits (N, 1, 8, 8) that the classifier takes for the class asked for, ``labels`` (N,): a number in [0, 1].

    On real held-out digits it is the card's "accuracy"; generated digits cannot be expected to pass it.
    """
    return float((digit_scores(images).argmax(1) == labels.to(images.device)).float().mean())


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture moved by up to one pixel each way (background enters), with a little noise: (B, 1, 8, 8)."""
    padded = nn.functional.pad(images, (1, 1, 1, 1), value=-1.0)                        # (B, 1, 10, 10)
    down, right = torch.randint(0, 3, (2, len(images), 1), generator=generator)
    offsets = torch.arange(8)
    rows, columns = (down + offsets)[:, None, :, None], (right + offsets)[:, None, None, :]
    moved = padded[torch.arange(len(images))[:, None, None, None], 0, rows, columns]
    return moved + 0.1 * torch.randn(moved.shape, generator=generator)


def train_digit_classifier(seed: int = 0, epochs: int = 60, batch_size: int = 64) -> tuple[DigitClassifier, float]:
    """Train on the train split; return ``(classifier in eval mode, accuracy on the held-out split)``."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits("train")
    net = DigitClassifier()
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    steps = epochs * (len(images) // batch_size)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for batch in order[:len(order) // batch_size * batch_size].split(batch_size):
            loss = nn.functional.cross_entropy(net(_shifted(images[batch], generator)), labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
            average.update_parameters(net)
    best = average.module.eval()
    with torch.no_grad():
        held_out, truth = digits("test")
        accuracy = float((best(held_out).argmax(1) == truth).float().mean())
    return best, accuracy


def main() -> None:
    """Train, report, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=checkpoints.WEIGHTS, help="folder of the result (default: the package's weights)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    net, accuracy = train_digit_classifier(arguments.seed, arguments.epochs)
    seconds = time.perf_counter() - begun
    held_out = len(digits("test")[1])
    card = {
        "name": NAME, "task": "classifier", "data": "scikit-learn digits, train split (1442 pictures), moved by up to a pixel",
        "shape": list(SHAPE), "classes": CLASSES, "steps": arguments.epochs * (1442 // 64), "seconds": round(seconds, 1),
        "hardware": checkpoints.hardware(), "metrics": {"accuracy": round(accuracy, 4), "held_out": held_out},
        "command": f"python -m diffusion_lib.features --seed {arguments.seed} --epochs {arguments.epochs}",
    }
    path = checkpoints.save(arguments.out / NAME, net, card)
    print(f"accuracy {accuracy:.4f} on {held_out} held-out digits, {seconds:.0f} s, {path.name} {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
