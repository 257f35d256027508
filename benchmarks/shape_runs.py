"""What the studies on captioned shapes share: latents, a captioned network that learns them by the command's recipe, and the judge's numbers.

Not a benchmark of its own: shapes_autoencoders.py, shapes_captions.py and shapes_pixels.py import it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from study_runs import say
from torch import Tensor, nn

from diffusion_lib import metrics
from diffusion_lib.checkpoints import denoiser_of, load, save
from diffusion_lib.commands.latent import LatentModel, draw, training_set
from diffusion_lib.data.shapes import MAX_WORDS, VOCABULARY, parse, sample_scenes, shapes
from diffusion_lib.data.shapes import draw as draw_scenes
from diffusion_lib.data.shapes.claims import CLEARLY, RELATIONS
from diffusion_lib.latents import LatentSpace
from diffusion_lib.losses import DenoisingLoss, LogNormalLevels, UniformTimes
from diffusion_lib.nets import CaptionedUNet
from diffusion_lib.schedules import CosineSchedule
from diffusion_lib.training import Batches, train

PICTURES, BATCH, LR = 60_000, 32, 1.5e-3
LEVELS = (1.1, 1.0)  # mean and standard deviation of log(sigma / alpha) in training: train-latent's default
ASKED = 1000  # captions of a measurement
CHUNK = 2048
REVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


class Recipe(NamedTuple):
    """One row: what is changed in the network, in its latents, or in where it trains. The rest is train-latent's recipe."""

    net: dict = {}
    scaled: bool = True
    shifted: bool = True
    levels: tuple[float, float] | None = LEVELS  # None: t uniform


def space_of(autoencoder: nn.Module, recipe: Recipe) -> LatentSpace:
    """The latents' scale and shift, measured on 8192 training pictures; or none."""
    if not recipe.scaled:
        return LatentSpace(autoencoder, 1.0)
    scenes = training_set(0, PICTURES, (1, 2, 3))[0][:4 * CHUNK]
    return LatentSpace.measured(autoencoder, parts(scenes), shift=recipe.shifted)


def parts(scenes: list):
    """The scenes' pictures, a chunk at a time."""
    return (draw_scenes(scenes[i:i + CHUNK]) for i in range(0, len(scenes), CHUNK))


def card_of(net: CaptionedUNet, shape: tuple[int, ...], schedule: CosineSchedule) -> dict:
    """What `draw` asks of a card."""
    return {"architecture": "CaptionedUNet", "config": net.config, "shape": list(shape), "schedule": schedule.config, "target": "v",
            "clip": None, "guidance": 2.0, "data": {"size": 32, "pictures": PICTURES, "counts": [1, 2, 3]}, "seed": 0}


def learned(cache: Path, name: str, autoencoder: nn.Module, recipe: Recipe, steps: int, pictures: int = PICTURES,
            on_look: Callable[[LatentModel, int, float], None] | None = None, look_every: int = 0) -> tuple[LatentModel, float, float]:
    """(the model ``name``, the seconds of its training, its last loss): from ``cache``, or trained on the latents and written there.

    on_look(model, step, seconds): called every ``look_every`` steps with the raw weights; its own time does not count.
    """
    space, schedule = space_of(autoencoder, recipe), CosineSchedule()
    if on_look is None and (cache / f"{name}.json").exists():
        net, card = load(cache / name)
        if card["steps"] == steps:
            return LatentModel(net.eval(), card, space), card["seconds"], card["loss"]
    scenes, texts = training_set(0, pictures, (1, 2, 3))
    with torch.no_grad():
        z = torch.cat([space.encode(x) for x in parts(scenes)])
    torch.manual_seed(0)
    net = CaptionedUNet(VOCABULARY, MAX_WORDS + 1, **({"channels": z.shape[1]} | recipe.net))
    card = card_of(net, z.shape[1:], schedule)
    spent, begun = 0.0, time.perf_counter()

    def look(step: int, loss: Tensor) -> None:
        nonlocal spent, begun
        if look_every and step % look_every == 0:
            spent += time.perf_counter() - begun
            on_look(LatentModel(net.eval(), card, space), step, spent)
            net.train()
            begun = time.perf_counter()

    times = UniformTimes(t_max=schedule.t_max, stratified=True) if recipe.levels is None else LogNormalLevels(schedule, *recipe.levels, stratified=True)
    done = train(net, DenoisingLoss(schedule, "v", times=times, label_dropout=0.1), Batches(z, batch_size=BATCH, seed=0, tokens=net.tokenizer(texts)),
                 steps=steps, lr=LR, ema=0.999, warmup=100, cooldown=0.5, device="cpu", precision="fp32", progress=False, on_step=look)
    spent = round(spent + time.perf_counter() - begun, 1)
    last = round(float(done.losses[-max(1, steps // 10):].mean()), 5)
    save(cache / name, done.ema, card | {"steps": steps, "seconds": spent, "loss": last})
    say(f"trained {name}: {steps} steps in {spent:.0f} s, last loss {last:.4f}")
    return LatentModel(done.ema.eval(), card, space), spent, last


def counts(texts: list[str]) -> Tensor:
    """How many things each caption asks for, (n,)."""
    return torch.tensor([parse(text).number for text in texts])


@torch.no_grad()
def told_apart(model: LatentModel, level: float = 0.95, scenes: int = 600) -> float:
    """Share of scenes of two things whose noisy latent, at t = ``level``, a true relation explains with less error than its reverse.

    Half is chance. It shows what the network knows of places long before its pictures are sharp enough for the judge.
    """
    said = []
    for scene in sample_scenes(scenes, counts=(2,), generator=torch.Generator().manual_seed(77)):
        a, b = scene.things
        true = [name for name, beyond in RELATIONS.items() if beyond(a, b) > CLEARLY]
        if true and a.combination != b.combination:
            said.append((scene, *(f"a {a} {to} a {b}" for to in (true[0], REVERSE[true[0]]))))
    pairs, *both = zip(*said, strict=True)
    z = model.space.encode(draw_scenes(list(pairs)))
    denoiser = denoiser_of(model.net, model.card)
    t = torch.full((len(z),), level)
    eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(5))
    z_t = denoiser.schedule.alpha(t)[:, None, None, None] * z + denoiser.schedule.sigma(t)[:, None, None, None] * eps
    right, wrong = ((denoiser(z_t, t, tokens=model.net.tokenizer(list(texts))) - z).square().flatten(1).mean(1) for texts in both)
    return float((right < wrong).float().mean())


def judged(model: LatentModel, asked: int = ASKED, seed: int = 0, **walk) -> dict[str, float]:
    """The judge's numbers on ``asked`` test captions and half as many with a combination never shown; "*_se": one standard error.

    walk: as for `diffusion_lib.commands.drawing.Walk`: guidance, steps, sampler.
    """
    texts, strange = shapes("test")[1][:asked], shapes("unseen")[1][:asked // 2]
    x = draw(model, texts, seed=seed, **walk)
    right = metrics.caption_accuracy(x, texts)
    row = {"caption_accuracy": right.value, "caption_accuracy_se": right.se}
    for number, word in enumerate(("one", "two", "three"), 1):
        at = (counts(texts) == number).nonzero()[:, 0].tolist()
        row[word] = metrics.caption_accuracy(x[at], [texts[i] for i in at]).value
    row |= {name: value.value for name, value in metrics.attribute_accuracies(x, texts).items() if name != "right"}
    never = metrics.caption_accuracy(draw(model, strange, seed=seed + 1, **walk), strange)
    return row | {"unseen": never.value, "unseen_se": never.se, "relations_told_apart": told_apart(model)}
