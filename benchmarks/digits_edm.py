"""EDM's choices on digits, one change a row, from DDPM's end and from EDM's. Writes digits-edm, digits-edm-long and digits-edm-samplers.

    OMP_NUM_THREADS=1 python benchmarks/digits_edm.py

Training rows: the same U-Net, the same steps, the same pictures in the same order; only target, preconditioning, weight or the levels that
training looks at differ, and all are sampled alike. Sampler rows: one network, the shipped digits-edm; only sampler and grid differ, and besides the
metrics they report how far each picture is from the solution of the ODE that starts at the same noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from digit_runs import SIZE, asked, held_out_error, kept, measured, real_pictures, start
from study_runs import Store, mean_se, options, rounded, say
from torch import Tensor, nn

from diffusion_lib.checkpoints import available, denoiser_of, pretrained
from diffusion_lib.data.digits import digits
from diffusion_lib.denoisers import Denoiser, EDMDenoiser, NetDenoiser
from diffusion_lib.losses import DenoisingLoss, EDMLoss, SampledLoss
from diffusion_lib.losses.times import LogNormalLevels, UniformTimes
from diffusion_lib.losses.weights import ON_X0
from diffusion_lib.nets import C_NOISE_RANGE, UNet
from diffusion_lib.samplers import ddim, deis, dpmpp, final, heun
from diffusion_lib.schedules import CosineSchedule, EDMSchedule, Schedule, time_grid
from diffusion_lib.studies import write_study
from diffusion_lib.targets import conversion_coefficients

CACHED = "edm"
TRAINING_SEEDS, SAMPLING_SEEDS = (0, 1, 2), (0, 1, 2)
TRAINING_STEPS, LONG_STEPS, EVALUATIONS = 400, 1200, 20
WIDTH = 32
PATH = CosineSchedule()
HIGHEST = EDMSchedule().sigma_max  # every row starts at this noise level
SIGMA_DATA = round(float(digits("train")[0].double().std()), 4)
BANDS = {"fine": (0.02, 0.2), "middle": (0.2, 2.0), "coarse": (2.0, 20.0)}


def time_of_level(schedule: Schedule, level: float) -> float:
    """The time at which sigma/alpha is ``level``."""
    return float(schedule.time_of_log_snr(torch.tensor(-math.log(level), dtype=torch.float64)))


class Recipe(NamedTuple):
    """One row: what the net predicts ("F" is EDM's preconditioned target), the weight of the error of x0_hat, and where training looks."""

    end: str
    target: str
    weight: str
    levels: str
    clamp: bool = False


RECIPES = {
    "DDPM": Recipe("ddpm", "eps", "SNR", "uniform t"),
    "DDPM, x0_hat clamped": Recipe("ddpm", "eps", "SNR", "uniform t", True),
    "DDPM with target x0": Recipe("ddpm", "x0", "1", "uniform t"),
    "DDPM with target v": Recipe("ddpm", "v", "SNR + 1", "uniform t"),
    "DDPM with EDM's levels": Recipe("ddpm", "eps", "SNR", "log-normal"),
    "DDPM with EDM's preconditioning": Recipe("ddpm", "F", "EDM", "uniform t"),
    "EDM": Recipe("edm", "F", "EDM", "log-normal"),
    "EDM with target eps": Recipe("edm", "eps", "EDM", "log-normal"),
    "EDM with target x0": Recipe("edm", "x0", "EDM", "log-normal"),
    "EDM with weight SNR": Recipe("edm", "F", "SNR", "log-normal"),
    "EDM with weight 1": Recipe("edm", "F", "1", "log-normal"),
}
LONG = ("DDPM", "DDPM with target x0", "DDPM with target v", "EDM")
ON_ERROR = {  # weights of the squared error of x0_hat
    "1": lambda schedule, t: torch.ones_like(t),
    "SNR": ON_X0["eps"],
    "SNR + 1": lambda schedule, t: ON_X0["eps"](schedule, t) + 1,
    "EDM": lambda schedule, t: ON_X0["eps"](schedule, t) + 1 / SIGMA_DATA**2,  # (s^2 + sigma_data^2) / (s sigma_data)^2
}


class WeighedEDMLoss(EDMLoss):
    """EDM's loss with another weight of the error of x0_hat."""

    weight: Callable[[Schedule, Tensor], Tensor]

    def per_sample(self, net: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, **condition: Tensor) -> Tensor:
        c_out = self.denoiser.coefficients(self.schedule.noise_level(t))[1]
        return super().per_sample(net, x0, t, eps, **condition) * c_out**2 * self.weight(self.schedule, t)


def times_of(recipe: Recipe, schedule: Schedule) -> UniformTimes | LogNormalLevels:
    """Where training looks. "uniform t" is uniform in the time of the cosine schedule, up to the level at which sampling starts."""
    if recipe.levels == "uniform t":
        return UniformTimes(t_max=time_of_level(schedule, HIGHEST))
    return LogNormalLevels(schedule)


def loss_of(recipe: Recipe) -> SampledLoss:
    """The loss of a row, on the cosine path: the path is no choice, since each denoiser divides by alpha or knows t."""
    times = times_of(recipe, PATH)
    if recipe.target == "F":
        loss = WeighedEDMLoss(EDMDenoiser(None, SIGMA_DATA, PATH), times, label_dropout=0.1)
        loss.weight = ON_ERROR[recipe.weight]
        return loss

    def in_target_space(schedule: Schedule, t: Tensor) -> Tensor:
        return ON_ERROR[recipe.weight](schedule, t) * conversion_coefficients(t, schedule, recipe.target, "x0")[1] ** 2

    return DenoisingLoss(PATH, recipe.target, in_target_space, times, label_dropout=0.1)


def denoiser_for(recipe: Recipe, net: nn.Module) -> Denoiser:
    """The trained net as a denoiser."""
    if recipe.target == "F":
        return EDMDenoiser(net, SIGMA_DATA, PATH)
    return NetDenoiser(net, PATH, recipe.target, clip=1.0 if recipe.clamp else None)


def trained(cache, name: str, seed: int, steps: int) -> tuple[Denoiser, float]:
    """(the denoiser of a row, seconds of its training); the clamped row shares the network of the one before it."""
    recipe = RECIPES[name]
    same = recipe._replace(end="", clamp=False)
    file = "-".join([CACHED, same.target, same.weight, same.levels, str(seed)] + [f"{steps}"] * (steps != TRAINING_STEPS))
    file = "".join(c if c.isalnum() or c == "-" else "_" for c in file)
    span = C_NOISE_RANGE if recipe.target == "F" else (0.0, 1.0)
    net, seconds = kept(cache, file, lambda: UNet(1, WIDTH, (1, 2), classes=10, time_range=span), loss_of(recipe),
                        steps=steps, seed=seed)
    return denoiser_for(recipe, net), seconds


def sample(walk: Callable, denoiser: Denoiser, times: Tensor, seed: int, **choices) -> Tensor:
    """One group of pictures from the level HIGHEST, (355, 1, 8, 8), not clamped."""
    schedule = denoiser.schedule
    x = schedule.sigma(times[0]).float() * start(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    return final(walk(denoiser, schedule, x, times, condition={"label": asked()}, generator=generator, **choices))


def training_row(cache, name: str, seed: int, steps: int) -> dict:
    """Train, and measure the net by its held-out error and its samples."""
    denoiser, seconds = trained(cache, name, seed, steps)
    times = time_grid(denoiser.schedule, EVALUATIONS, "karras", noise_max=HIGHEST)
    errors = {f"error_{band}": held_out_error(denoiser, low, high, SIGMA_DATA) for band, (low, high) in BANDS.items()}
    return errors | measured([sample(partial(dpmpp, order=2), denoiser, times, s) for s in SAMPLING_SEEDS]) | {"training_seconds": seconds}


# Samplers -------------------------------------------------------------------------------------------------------------------------------

BUDGET = 16


def uniform_in_t(steps: int) -> Tensor:
    """DDPM's grid, uniform in the time of the cosine schedule, as times of EDM's path."""
    times = time_grid(PATH, steps, "uniform", noise_max=HIGHEST)
    return torch.cat([EDMSchedule().time_of_log_snr(PATH.log_snr(times[:-1])), times.new_zeros(1)])


GRIDS = {"uniform t": uniform_in_t} | {
    kind: partial(lambda kind, steps: time_grid(EDMSchedule(), steps, kind), kind) for kind in ("karras", "log_snr", "asinh")}
SAMPLERS = {"ddim": ddim, "heun": heun, "dpmpp 2M": partial(dpmpp, order=2), "deis 3": partial(deis, order=3), "deis 5": deis}
CONVERGED = {"heun, 40 steps": (heun, 40, {}), "heun, 40 steps, churn 5": (heun, 40, {"churn": 5.0}),
             "heun, 40 steps, churn 16": (heun, 40, {"churn": 16.0})}


def steps_for(sampler: str, evaluations: int) -> int:
    """Steps that spend at most so many evaluations: Heun has two in each but the last."""
    return (evaluations + 1) // 2 if sampler.startswith("heun") else evaluations


def sampler_rows(store: Store) -> tuple[list[dict], str]:
    """(one row for each sampler, grid and sampling seed, the name of the network)."""
    name = "digits-edm"
    denoiser = denoiser_of(*pretrained(name))
    reference = {seed: sample(deis, denoiser, time_grid(EDMSchedule(), 160, "asinh"), seed) for seed in SAMPLING_SEEDS}

    def judged(x: Tensor, seed: int) -> dict:
        distance = (x - reference[seed]).flatten(1).square().mean(1).sqrt()
        return {"path_error": float(distance.median())} | {k: v for k, v in measured([x]).items() if k not in ("outside", "far", "spread")}

    rows = []
    for seed in SAMPLING_SEEDS:
        head = {"sampler": "reference: deis 5, 160 steps", "grid": "asinh", "evaluations": 160, "seed": seed}
        rows.append(head | store.row(f"sampler reference {seed}", lambda s=seed: judged(reference[s], s)))
        for title, grid in GRIDS.items():
            for sampler, walk in SAMPLERS.items():
                steps = steps_for(sampler, BUDGET)
                spent = 2 * steps - 1 if sampler == "heun" else steps
                rows.append({"sampler": sampler, "grid": title, "evaluations": spent, "seed": seed} | store.row(
                    f"sampler {sampler} {title} {seed}",
                    lambda w=walk, g=grid, n=steps, s=seed: judged(sample(w, denoiser, g(n), s), s)))
        for title, (walk, steps, choices) in CONVERGED.items():
            rows.append({"sampler": title, "grid": "karras", "evaluations": 2 * steps - 1, "seed": seed} | store.row(
                f"sampler {title} {seed}",
                lambda w=walk, n=steps, c=choices, s=seed: judged(sample(w, denoiser, GRIDS["karras"](n), s, **c), s)))
    return rows, name


def main() -> None:
    """Train, sample, write, print."""
    torch.set_num_threads(1)
    choice = options(__doc__)
    store = Store(choice.cache, CACHED)
    command = "OMP_NUM_THREADS=1 python benchmarks/digits_edm.py"
    if not choice.parts or "samplers" in choice.parts:
        if "digits-edm" not in available():
            say("digits-edm is not there; the sampler rows need it")
        else:
            write_samplers(store, command)
    if not choice.parts or "training" in choice.parts:
        write_training(
            "digits-edm", "Which of EDM's training choices pays on digits, changed one at a time from DDPM's end and from EDM's?", store,
            choice, list(RECIPES), TRAINING_STEPS, command + " --parts training")
    if not choice.parts or "long" in choice.parts:
        write_training(
            "digits-edm-long", "Does the order of DDPM's targets and EDM's recipe hold after three times as much training?", store,
            choice, list(LONG), LONG_STEPS, command + " --parts long")


def write_training(name: str, question: str, store: Store, choice, methods: list[str], steps: int, command: str) -> None:
    """Train the rows of a study, measure, write, print."""
    rows, head = [], "training" if steps == TRAINING_STEPS else f"{steps} steps"
    for seed in TRAINING_SEEDS:
        for method in methods:
            if choice.only_train:
                trained(choice.cache, method, seed, steps)
                continue
            rows.append({"method": method, **RECIPES[method]._asdict(), "seed": seed} | store.row(
                f"{head} {method} {seed}", lambda m=method, s=seed: training_row(choice.cache, m, s, steps)))
    if choice.only_train:
        return
    settings = {
        "data": "digits, 1442 for training, 355 held out", "network": f"UNet, width {WIDTH}, multipliers (1, 2), 1 block, label dropout 0.1",
        "steps": steps,
        "training": f"{steps} steps of 64 pictures, AdamW, lr 4e-3, cool-down over the second half, average 0.999; no dropout",
        "sigma_data": SIGMA_DATA, "levels": "log-normal: log level ~ N(-1.2, 1.2^2); uniform t: of the cosine schedule up to level 80",
        "weight": "of the squared error of x0_hat; EDM: SNR + 1 / sigma_data^2",
        "sampler": f"dpmpp, order 2, {EVALUATIONS} evaluations, karras grid from level {HIGHEST:g}, the same noise for all",
        "samples": f"{SIZE} with the held-out labels for each of {len(SAMPLING_SEEDS)} sampling seeds; *_se over them",
        "error": "mean squared error of x0_hat on held-out digits, paired noise, over s^2 sigma_data^2 / (s^2 + sigma_data^2); "
                 + ", ".join(f"{band}: levels {low:g} to {high:g}" for band, (low, high) in BANDS.items()),
        "real": real_pictures(),
    }
    write_study(
        name, question=question, command=command, seconds=sum(line["seconds"] for key, line in store.known.items() if key.startswith(head)),
        seeds={"training": list(TRAINING_SEEDS), "sampling": list(SAMPLING_SEEDS),
               "error_bars": "between rows of different seed: over training; *_se inside a row: over sampling"},
        settings=settings, rows=[rounded(row) for row in rows])
    table(rows, "method", ("error_fine", "error_middle", "error_coarse", "frechet", "accuracy", "precision", "recall"))
    paired(rows)


def write_samplers(store: Store, command: str) -> None:
    """The second study, and its table."""
    rows, name = sampler_rows(store)
    write_study(
        "digits-edm-samplers", question="With one network and 16 evaluations, which sampler and grid get nearest to the ODE's solution, and does it show?",
        command=f"{command} --parts samplers", seconds=sum(line["seconds"] for key, line in store.known.items() if key.startswith("sampler")),
        seeds={"training": [0], "sampling": list(SAMPLING_SEEDS), "error_bars": "between rows of different seed: over sampling; one network"},
        settings={"network": f"pretrained('{name}')", "evaluations": f"{BUDGET}, of which Heun can spend {BUDGET - 1}", "start": f"level {HIGHEST:g}",
                  "samples": f"{SIZE} with the held-out labels for each sampling seed",
                  "path_error": "root mean square over pixels of the distance to the reference from the same noise, median over pictures",
                  "real": real_pictures()},
        rows=[rounded(row) for row in rows])
    table([row | {"method": f"{row['sampler']} · {row['grid']}"} for row in rows], "method", ("path_error", "frechet", "accuracy", "precision", "recall"))


def table(rows: list[dict], key: str, columns: tuple[str, ...]) -> None:
    """Means over seeds, with their standard errors."""
    print(f"| {key} | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name in dict.fromkeys(row[key] for row in rows):
        mine = [mean_se([row[column] for row in rows if row[key] == name]) for column in columns]
        print(f"| {name} | " + " | ".join(f"{m:.4f} ± {se:.4f}" if m < 1 else f"{m:.3f} ± {se:.3f}" for m, se in mine) + " |")


def paired(rows: list[dict]) -> None:
    """The difference of each row to its end's baseline, seed by seed."""
    print("\n| change | Fréchet, difference | recall, difference |\n|---|---|---|")
    for name in dict.fromkeys(row["method"] for row in rows):
        recipe = RECIPES[name]
        base = "DDPM" if recipe.end == "ddpm" else "EDM"
        if name == base:
            continue
        cells = []
        for column in ("frechet", "recall"):
            of = {(row["method"], row["seed"]): row[column] for row in rows}
            cells.append("{:+.3f} ± {:.3f}".format(*mean_se([of[name, seed] - of[base, seed] for seed in TRAINING_SEEDS])))
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
