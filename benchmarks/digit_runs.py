"""What the studies on digits share: networks that are trained once and kept, the same noise for every method, and the metrics.

Not a benchmark of its own: digits_guidance.py, digits_edm.py and digits_networks.py import it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from study_runs import rounded, say
from torch import Tensor, nn

from diffusion_lib import metrics
from diffusion_lib.checkpoints import load, save
from diffusion_lib.data.digits import digits
from diffusion_lib.denoisers import Denoiser
from diffusion_lib.features import digit_features, digit_scores
from diffusion_lib.training import Batches, train

SIZE = 355  # pictures in a group: as many as are held out, with their labels
ONE_GREY = 1.125  # a digit's grey levels are 1/8 apart: beyond this a pixel is more than one level out of range


def kept(cache: Path, name: str, make: Callable[[], nn.Module], loss: Callable, *, steps: int, seed: int, lr: float = 4e-3,
         batch_size: int = 64, ema: float = 0.999, weight_decay: float = 0.0) -> tuple[nn.Module, float]:
    """(the network ``name``, the processor seconds its training took): read from ``cache``, or trained on the digits and written there.

    ``seed`` is that of the first weights, of the order of the pictures and of the noise. The recipe is that of the command line:
    warm-up over 50 steps, cool-down over the second half; what is kept is the moving average.
    """
    if (cache / f"{name}.json").exists():
        net, card = load(cache / name)
        if (card["steps"], card["seed"]) == (steps, seed):
            return net, card["seconds"]
    torch.manual_seed(seed)
    net = make()
    x, y = digits("train")
    begun = time.process_time()
    done = train(net, loss, Batches(x, y, batch_size=batch_size, seed=seed), steps=steps, lr=lr, ema=ema, warmup=50, cooldown=0.5,
                 seed=seed, device="cpu", precision="fp32", progress=False, weight_decay=weight_decay)
    seconds = round(time.process_time() - begun, 1)
    save(cache / name, done.ema, {"steps": steps, "seed": seed, "seconds": seconds})
    say(f"trained {name}: {steps} steps in {seconds:.0f} s, last loss {float(done.losses[-steps // 10:].mean()):.4f}")
    return done.ema.eval(), seconds


def asked() -> Tensor:
    """The labels of one group, (355,): those of the held-out digits."""
    return digits("test")[1]


def start(seed: int) -> Tensor:
    """The unit noise that every method begins with at this sampling seed: (355, 1, 8, 8)."""
    return torch.randn((SIZE, 1, 8, 8), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def in_parts(walk: Callable[[Tensor, Tensor], Tensor], noise: Tensor, labels: Tensor, batch: int = SIZE) -> Tensor:
    """walk(noise, labels) over parts of the batch, joined."""
    return torch.cat([walk(x, y) for x, y in zip(noise.split(batch), labels.split(batch), strict=True)])


def measured(groups: list[Tensor]) -> dict[str, float]:
    """The metrics of samples that were asked for ``asked()``, one group (355, 1, 8, 8) for each sampling seed, not yet clamped.

    Each number is the mean over groups; "*_se" is one standard error of that mean, over the groups (sampling seeds).
    frechet: to the training digits; precision, recall: against the held-out ones; accuracy: the shipped classifier sees the class.
    spread: the standard deviation of a picture's pixels, mean over pictures; outside: share of pixels with |x| > 1; far: > 1.125.
    """
    real, unseen = digit_features(digits("train")[0]), digit_features(digits("test")[0])
    each: dict[str, list[float]] = {}
    for x in groups:
        pictures = x.clamp(-1, 1)
        features = digit_features(pictures)
        precision, recall = metrics.precision_recall(unseen, features)
        values = {
            "frechet": metrics.frechet_distance(features, real),
            "accuracy": float((digit_scores(pictures).argmax(1) == asked()).double().mean()),
            "precision": precision, "recall": recall, "spread": float(x.flatten(1).std(1, unbiased=False).mean()),
            "outside": float((x.abs() > 1).double().mean()), "far": float((x.abs() > ONE_GREY).double().mean()),
        }
        for name, value in values.items():
            each.setdefault(name, []).append(value)
    row = {name: statistics.mean(values) for name, values in each.items()}
    if len(groups) > 1:
        row |= {f"{name}_se": statistics.stdev(each[name]) / len(groups) ** 0.5 for name in ("frechet", "accuracy", "precision", "recall")}
    return row


def real_pictures(splits: int = 40) -> dict[str, float]:
    """What real digits get: the held-out ones against the training ones, and the floor over random stratified splits."""
    from diffusion_lib.commands.evaluate import split_floor

    (x, y), (train_x, train_y) = digits("test"), digits("train")
    unseen, real = digit_features(x), digit_features(train_x)
    usual, sd = split_floor(torch.cat([unseen, real]), torch.cat([y, train_y]), len(unseen), 0, splits)
    one = measured([x])
    return rounded({"frechet_floor": one["frechet"], "frechet_floor_random_splits": usual, "frechet_floor_random_splits_sd": sd,
                    "accuracy": one["accuracy"], "spread": one["spread"], "pixel_std": float(train_x.std())})


def held_out_noise(repeats: int = 4, seed: int = 12345) -> list[tuple[Tensor, Tensor]]:
    """Fixed (unit, eps) for each held-out digit, ``repeats`` times: unit (355,) in (0, 1) says where on the path, the same for every net."""
    generator = torch.Generator().manual_seed(seed)
    return [((torch.randperm(SIZE, generator=generator) + torch.rand(SIZE, generator=generator)) / SIZE,
             torch.randn((SIZE, 1, 8, 8), generator=generator)) for _ in range(repeats)]


@torch.no_grad()
def held_out_error(denoiser: Denoiser, low: float, high: float, sigma_data: float, repeats: int = 4) -> float:
    """Error of x0_hat on held-out digits at noise levels log-uniform in [low, high], paired noise, over its size for pictures of which
    only the variance sigma_data^2 is known, s^2 sigma_data^2 / (s^2 + sigma_data^2). So 1 is what the best linear denoiser of white data gets.
    """
    x, labels = digits("test")
    schedule, total = denoiser.schedule, 0.0
    for unit, eps in held_out_noise(repeats):
        level = low * (high / low) ** unit.double()
        t = schedule.time_of_log_snr(-level.log())
        x_t = schedule.alpha(t).float()[:, None, None, None] * x + schedule.sigma(t).float()[:, None, None, None] * eps
        error = (denoiser(x_t, t.float(), label=labels) - x).square().flatten(1).mean(1)
        total += float((error * (level**2 + sigma_data**2) / (level * sigma_data) ** 2).mean()) / repeats
    return total
