"""Guidance on digits: what the scale buys and what it costs, for seven ways to guide. Writes diffusion_lib/studies/digits-guidance.json.

    OMP_NUM_THREADS=1 python benchmarks/digits_guidance.py

Three strong networks (the shipped digits-ddpm is training seed 0; seeds 1 and 2 are trained here by the same recipe), each with its own
classifier of noisy digits and its own weak network; the same starting noise for every method. Printed beside each other: class
accuracy, recall, Fréchet distance. Error bars are over the training seeds; each row's own "*_se" is over its three sampling seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from digit_runs import SIZE, asked, kept, measured, real_pictures, start
from study_runs import Store, mean_se, options, rounded, say
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lib.checkpoints import denoiser_of, pretrained
from diffusion_lib.data.digits import digits
from diffusion_lib.denoisers import NetDenoiser
from diffusion_lib.guidance import autoguided, classifier_free_guided, classifier_guided, thresholded
from diffusion_lib.losses import DenoisingLoss
from diffusion_lib.losses.denoising import SampledLoss
from diffusion_lib.losses.times import UniformTimes
from diffusion_lib.nets import NoisyClassifier, UNet
from diffusion_lib.samplers import dpmpp, final
from diffusion_lib.schedules import CosineSchedule, time_grid
from diffusion_lib.studies import write_study
from diffusion_lib.targets import diffuse

SCHEDULE = CosineSchedule()
TRAINING_SEEDS, SAMPLING_SEEDS, SCAN_SEEDS = (0, 1, 2), (0, 1, 2), (100, 101)
STEPS = 16
SCALES = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
LARGE = (4.0, 8.0)
RESCALE = 0.7
INTERVALS = [(0.0, 1.0), (0.0, 3.0), (0.3, 1.0), (0.3, 3.0), (0.3, float("inf")), (1.0, 3.0), (1.0, float("inf"))]
WEAK = {"width 16, 250 steps": (16, 250), "width 16, 1000 steps": (16, 1000), "width 32, 250 steps": (32, 250)}
CACHED = "guidance"


class NoisyCrossEntropy(SampledLoss):
    """-log p(class | x_t) of a classifier of noisy pictures, at random times. Dhariwal & Nichol 2021, Sec. 4.1."""

    def per_sample(self, net: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, *, label: Tensor) -> Tensor:
        return F.cross_entropy(net(diffuse(x0, eps, t, self.schedule), t), label, reduction="none")


def uniform() -> UniformTimes:
    """The times of digits-ddpm's training."""
    return UniformTimes(t_max=SCHEDULE.t_max, stratified=True)


def denoising_net(cache: Path, width: int, steps: int, seed: int) -> nn.Module:
    """A conditional U-Net by digits-ddpm's recipe, wide ``width``, trained for ``steps``."""
    loss = DenoisingLoss(SCHEDULE, "v", "simple", uniform(), label_dropout=0.1)
    return kept(cache, f"{CACHED}-{width}-{steps}-{seed}", lambda: UNet(1, width, (1, 2), classes=10), loss, steps=steps, seed=seed)[0]


def classifier(cache: Path, seed: int) -> nn.Module:
    """A classifier of noisy digits."""
    loss = NoisyCrossEntropy(SCHEDULE, uniform())
    return kept(cache, f"{CACHED}-classifier-{seed}", lambda: NoisyClassifier(1, 8, 10, width=16), loss, steps=CLASSIFIER_STEPS, seed=seed,
                lr=2e-3, weight_decay=1e-2)[0]


CLASSIFIER_STEPS, HIGHEST_GUIDED = 1500, 30.0


@torch.no_grad()
def classifier_accuracy(net: nn.Module, t: float) -> float:
    """Share of held-out digits that the noisy classifier names at time t, over four draws of noise."""
    x, y = digits("test")
    generator, right = torch.Generator().manual_seed(7), []
    for _ in range(4):
        x_t = diffuse(x, torch.randn(x.shape, generator=generator), torch.full((SIZE,), t), SCHEDULE)
        right.append(float((net(x_t, torch.full((SIZE,), t)).argmax(1) == y).double().mean()))
    return statistics.mean(right)


def gradient_worth(team: Team, level: float) -> dict[str, float]:
    """Root mean square over pixels of the classifier's gradient on held-out digits at a noise level, and what it is worth in x0_hat."""
    t = torch.full((SIZE,), float(SCHEDULE.time_of_log_snr(torch.tensor(level, dtype=torch.float64).log().neg())))
    x_t = diffuse(digits("test")[0], start(7), t, SCHEDULE).requires_grad_()
    size = float(torch.autograd.grad(team.log_prob(x_t, t).sum(), x_t)[0].square().mean().sqrt())
    return {"level": level, "gradient": round(size, 5), "in_x0": round(size * float((SCHEDULE.sigma(t) ** 2 / SCHEDULE.alpha(t))[0]), 4)}


class Team:
    """One training seed: the strong network, its classifier, the weak ones, an under-trained one."""

    def __init__(self, cache: Path, seed: int):
        self.cache, self.seed = cache, seed
        if seed == 0:
            net, card = pretrained("digits-ddpm")
            self.strong = denoiser_of(net, card)
        else:
            self.strong = self.denoiser(32, 4000)
        self.classifier = classifier(cache, seed).requires_grad_(False)

    def denoiser(self, width: int, steps: int) -> NetDenoiser:
        return NetDenoiser(denoising_net(self.cache, width, steps, self.seed), SCHEDULE, "v")

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """log p(the class asked for | x_t), (B,)."""
        return F.log_softmax(self.classifier(x, t), 1)[torch.arange(len(x)), asked()[: len(x)]]

    def log_prob_below(self, x: Tensor, t: Tensor) -> Tensor:
        """The same, without gradient at noise levels above HIGHEST_GUIDED, where the learned gradient no longer falls as the true one does."""
        return self.log_prob(x, t) * (SCHEDULE.noise_level(t) <= HIGHEST_GUIDED)


class Fixed:
    """A denoiser with its condition already given, as guidance takes and returns them."""

    def __init__(self, denoiser: NetDenoiser, label: Tensor | None):
        self.denoiser, self.label, self.schedule = denoiser, label, denoiser.schedule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.denoiser(x, t) if self.label is None else self.denoiser(x, t, label=self.label)


def guided(team: Team, method: str, scale: float, weak: tuple[int, int], interval: tuple[float, float]) -> Callable:
    """The denoiser of one row. ``scale`` is the book's w: 1 is the conditional model, so a classifier on top of it gets w - 1."""
    free = {"label": asked()}
    if method == "classifier":
        return classifier_guided(Fixed(team.strong, None), SCHEDULE, team.log_prob_below, scale)
    if method == "classifier, all levels":
        return classifier_guided(Fixed(team.strong, None), SCHEDULE, team.log_prob, scale)
    if method == "classifier on conditional":
        return classifier_guided(Fixed(team.strong, asked()), SCHEDULE, team.log_prob_below, scale - 1)
    if method == "classifier-free":
        return classifier_free_guided(team.strong, free, scale)
    if method == "classifier-free, interval":
        return classifier_free_guided(team.strong, free, scale, interval=interval)
    if method == "classifier-free, rescaled":
        return classifier_free_guided(team.strong, free, scale, rescale=RESCALE)
    if method == "classifier-free, clamped":
        inner = classifier_free_guided(team.strong, free, scale)
        return lambda x, t: inner(x, t).clamp(-1, 1)
    if method == "classifier-free, thresholded":
        return thresholded(classifier_free_guided(team.strong, free, scale))
    if method == "classifier-free, thresholded at 0.9":
        return thresholded(classifier_free_guided(team.strong, free, scale), share=0.9)
    if method == "autoguidance":
        return autoguided(Fixed(team.strong, asked()), Fixed(team.denoiser(*weak), asked()), scale)
    if method == "classifier-free, under-trained":
        return classifier_free_guided(team.denoiser(*UNDER_TRAINED), free, scale)
    raise ValueError(f"method={method!r} is unknown; expected one of {', '.join(METHODS)}.")


UNDER_TRAINED = (32, 250)
METHODS = {
    "classifier-free": SCALES,
    "classifier": (1.0, 2.0, 4.0, 8.0, 16.0),
    "classifier-free, interval": (1.5, 2.0, 3.0, 4.0, 8.0),
    "autoguidance": (1.25, 1.5, 2.0, 3.0, 4.0),
    "classifier-free, rescaled": LARGE,
    "classifier-free, thresholded": LARGE,
    "classifier-free, clamped": LARGE,
    "classifier-free, under-trained": (1.0, 1.5, 2.0, 3.0, 4.0),
    "classifier on conditional": (1.5, 2.0, 4.0, 8.0),
    "classifier, all levels": (1.0, 1.5, 2.0, 4.0, 8.0),
    "classifier-free, thresholded at 0.9": LARGE,
}


def sample(denoiser: Callable, seed: int, steps: int = STEPS) -> Tensor:
    """One group of pictures, (355, 1, 8, 8), not clamped."""
    return final(dpmpp(denoiser, SCHEDULE, SCHEDULE.prior_std * start(seed), time_grid(SCHEDULE, steps), order=2))


def scan(store: Store, team: Team) -> tuple[dict, tuple[float, float], tuple[int, int]]:
    """Choose the interval and the weak network by the Fréchet distance at w = 2, with sampling seeds that no row reports."""
    tried = {"no guidance (w = 1)": store.row("scan none", lambda: measured(
        [sample(guided(team, "classifier-free", 1.0, (0, 0), (0.0, 1.0)), seed) for seed in SCAN_SEEDS]))["frechet"]}
    for interval in INTERVALS:
        name = f"interval {interval[0]:g} to {interval[1]:g}"
        tried[name] = store.row(f"scan {name}", lambda i=interval: measured(
            [sample(guided(team, "classifier-free, interval", 2.0, (0, 0), i), seed) for seed in SCAN_SEEDS]))["frechet"]
    for name, weak in WEAK.items():
        tried[f"weak {name}"] = store.row(f"scan weak {name}", lambda w=weak: measured(
            [sample(guided(team, "autoguidance", 2.0, w, (0.0, 1.0)), seed) for seed in SCAN_SEEDS]))["frechet"]
    interval = min(INTERVALS, key=lambda i: tried[f"interval {i[0]:g} to {i[1]:g}"])
    weak = WEAK[min(WEAK, key=lambda n: tried[f"weak {n}"])]
    return tried, interval, weak


def main() -> None:
    """Train, scan, sample, write, print."""
    torch.set_num_threads(1)
    choice = options(__doc__)
    store = Store(choice.cache, CACHED)
    teams = [Team(choice.cache, seed) for seed in TRAINING_SEEDS]
    for team in teams:
        for weak in {*WEAK.values(), UNDER_TRAINED} if team.seed == 0 else {UNDER_TRAINED}:
            team.denoiser(*weak)
    if choice.only_train:
        return
    tried, interval, weak = scan(store, teams[0])
    say(f"interval {interval}, weak {weak}")
    rows = []
    for method, scales in METHODS.items():
        for scale in scales:
            for team in teams:
                def make(method=method, scale=scale, team=team) -> dict:
                    return measured([sample(guided(team, method, scale, weak, interval), seed) for seed in SAMPLING_SEEDS])
                rows.append({"method": method, "scale": scale, "seed": team.seed} | store.row(f"{method} {scale} {team.seed}", make))
    fine = {}
    for scale in (1.0, 8.0):
        row = store.row(f"80 steps {scale}", lambda s=scale: measured(
            [sample(guided(teams[0], "classifier-free", s, weak, interval), seed, 80) for seed in SAMPLING_SEEDS]))
        fine[f"{scale:g}"] = {name: row[name] for name in ("frechet", "accuracy", "recall", "far")}
    settings = {
        "data": "digits, 1442 for training, 355 held out", "sampler": f"dpmpp, order 2, {STEPS} steps, uniform grid, cosine schedule",
        "samples": f"{SIZE} with the held-out labels for each sampling seed; a row is the mean over sampling seeds, *_se over them",
        "strong": "training seed 0: pretrained('digits-ddpm'); seeds 1, 2: the same recipe (width 32, 4000 steps)",
        "weak": f"width {weak[0]}, {weak[1]} steps", "under_trained": f"width {UNDER_TRAINED[0]}, {UNDER_TRAINED[1]} steps",
        "interval": [interval[0], interval[1] if interval[1] < float("inf") else "inf"], "rescale": RESCALE, "threshold_share": 0.995,
        "chosen_by": f"Fréchet distance at w = 2, training seed 0, sampling seeds {', '.join(map(str, SCAN_SEEDS))}", "scan": tried,
        "scale": "w: 1 is the conditional model; on the conditional network the classifier's own scale is w - 1",
        "classifier": f"NoisyClassifier, width 16, {CLASSIFIER_STEPS} steps",
        "classifier_accuracy_held_out": {f"t={t:g}": round(statistics.mean(classifier_accuracy(team.classifier, t) for team in teams), 4)
                                         for t in (0.02, 0.25, 0.5, 0.75, 0.9)},
        "classifier_guides_below_level": HIGHEST_GUIDED,
        "classifier_gradient_seed_0": [gradient_worth(teams[0], level) for level in (0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 600.0)],
        "real": real_pictures(), "classifier_free_seed_0_with_80_steps": fine,
    }
    write_study(
        "digits-guidance", question="What does the guidance scale buy on digits, what does it cost, and which kind of guidance costs least?",
        command="OMP_NUM_THREADS=1 python benchmarks/digits_guidance.py", seconds=store.seconds + training_seconds(choice.cache),
        seeds={"training": list(TRAINING_SEEDS), "sampling": list(SAMPLING_SEEDS), "scan": list(SCAN_SEEDS),
               "error_bars": "between rows of different seed: over training; *_se inside a row: over sampling"},
        settings=settings, rows=[rounded(row) for row in rows])
    table(rows)


def training_seconds(cache: Path) -> float:
    """What the networks of this study took to train."""
    import json

    return sum(json.loads(path.read_text())["seconds"] for path in cache.glob(f"{CACHED}-*.json"))


def table(rows: list[dict]) -> None:
    """Means over training seeds, with their standard errors."""
    print("| method | w | accuracy | precision | recall | Fréchet | spread | pixels over 1.125 |\n|---|---|---|---|---|---|---|---|")
    for method, scales in METHODS.items():
        for scale in scales:
            mine = [row for row in rows if row["method"] == method and row["scale"] == scale]
            cell = {name: mean_se([row[name] for row in mine]) for name in ("accuracy", "precision", "recall", "frechet", "spread", "far")}
            print(f"| {method} | {scale:g} | " + " | ".join(f"{m:.3f} ± {se:.3f}" for m, se in cell.values()) + " |")


if __name__ == "__main__":
    main()
