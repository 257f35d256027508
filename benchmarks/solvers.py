"""Error of the probability-flow ODE's solvers at 10, 16, 32 and 64 network evaluations: ours beside diffusers', on exact problems.

    OMP_NUM_THREADS=1 python benchmarks/solvers.py --save

prints Markdown tables and, with --save, writes the study "solvers". An error is the median over 512 starts 80 z of the distance of the last state
to the exact solution of the ODE from the same start, divided by sqrt(E |x_0|^2), the data's root mean square times sqrt(D). Grids and options
are chosen on other mixtures and other starts (``for_tuning``), for each method and each budget by itself; only the recommended setting is one for all.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time

import torch
from solver_peers import VARIANTS, run
from solver_problems import HIGHEST, SCHEDULE, Problem, five_clouds, gaussian, random_clouds, random_ring

from diffusion_lib.samplers import ddim, deis, dpmpp, final, heun, unipc
from diffusion_lib.schedules import time_grid

BUDGETS = (10, 16, 32, 64)
SEED, TUNING_SEED, MORE_SEEDS = 1, 1001, range(2, 22)
COMMAND = "OMP_NUM_THREADS=1 python benchmarks/solvers.py --save"
BEST_PEERS = {  # the best of k-diffusion, diffusers, azula, DPM-Solver's own code and EDM's, measured elsewhere before this comparison
    "mixture": (6.4e-3, 2.1e-3, 5.6e-4, 4.2e-5),
    "gaussian": (2.2e-2, 3.0e-3, 4.9e-4, 2.9e-5),
}
AIMS = {name: [figure / (1 if n < 32 else 5) for n, figure in zip(BUDGETS, best, strict=True)] for name, best in BEST_PEERS.items()}

RECOMMENDED = "deis 5, recommended"
OURS = {
    "ddim": (ddim, {}),
    "heun": (heun, {}),
    "dpmpp 2": (dpmpp, {"order": 2}),
    "dpmpp 3": (dpmpp, {"order": 3}),
    "unipc 2": (unipc, {"order": 2}),
    "unipc 3": (unipc, {"order": 3}),
    "deis 3": (deis, {"order": 3}),
    "deis 5": (deis, {"order": 5}),
    "deis 3, detail 0.05": (deis, {"order": 3, "detail": 0.05}),
    "deis 4, detail 0.05": (deis, {"order": 4, "detail": 0.05}),
}
USUAL = [(kind, lowest) for kind in ("karras", "log_snr") for lowest in (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08)]
ASINH = [("asinh", detail) for detail in (0.01, 0.02, 0.028, 0.04, 0.06)]


def grid(steps: int, kind: str, number: float) -> torch.Tensor:
    """Times; ``number`` is noise_min (karras with rho = 7, log_snr) or detail (asinh)."""
    return time_grid(SCHEDULE, steps, kind, **{"detail" if kind == "asinh" else "noise_min": number})


def steps_for(name: str, budget: int) -> int:
    """Heun's method spends 2N - 1 evaluations on N steps."""
    return (budget + 1) // 2 if name.lower() == "heun" else budget


def ours(name, problem, budget, kind, number, **more):
    """(distances, evaluations)"""
    sampler, options = OURS[name]
    options = options | more
    asked = 0

    def counting(x, t):
        nonlocal asked
        asked += 1
        return problem.denoiser(x, t)

    times = grid(steps_for(name, budget), kind, number)
    return problem.distances(final(sampler(counting, SCHEDULE, problem.start, times, **options))), asked


def theirs(name, problem, budget, kind, number, options):
    """(distances, evaluations). Their DEIS cannot step to level 0: it ends at noise_min, or at 0.001 on our grid."""
    steps = steps_for(name, budget)
    if name == "DEIS 3" and kind != "asinh":
        levels = HIGHEST * grid(steps + 1, kind, number)[:-1]
    else:
        levels = HIGHEST * grid(steps, kind, number)
        levels[-1] = 1e-3 if name == "DEIS 3" else 0.0
    found, asked = run(name, levels, options, problem.start, problem.denoise)
    return problem.distances(found), asked


def recommended(problem, budget):
    """(distances, evaluations) of deis and the asinh grid, both at their defaults: order 5, detail 0.15; detail 0.028."""
    times = time_grid(SCHEDULE, budget, "asinh")
    return problem.distances(final(deis(problem.denoiser, SCHEDULE, problem.start, times))), budget


def neighbours(tuning) -> list[dict]:
    """What other details would give on the tuning problems: errors relative to the recommended setting, geometric means over problems."""
    rows = []
    for kind in ("mixture", "gaussian"):
        chosen = [p for p in tuning if (p.mixture.dim == 2) == (kind == "mixture")]
        for detail, of_grid in itertools.product((0.1, 0.15, 0.2), (0.02, 0.028, 0.04)):
            for budget in BUDGETS:
                logs = [
                    math.log(float(ours("deis 5", p, budget, "asinh", of_grid, detail=detail)[0].median() / recommended(p, budget)[0].median()))
                    for p in chosen
                ]
                ratio = math.exp(sum(logs) / len(logs))
                rows.append({"problems": f"{kind} for tuning", "detail": detail, "grid_detail": of_grid, "budget": budget, "ratio": six_digits(ratio)})
    return rows


def for_tuning() -> list[Problem]:
    """Problems of the same kind, none of them among those reported."""
    mixtures = [random_ring(4, 200), random_ring(6, 201), random_ring(7, 202), random_clouds(100), random_clouds(101)]
    problems = [Problem(f"tuning {k}", mixture, TUNING_SEED + k, 256) for k, mixture in enumerate(mixtures)]
    return problems + [Problem(f"tuning gaussian {power}", gaussian(power, 0.0), TUNING_SEED, 256) for power in (1.0, 2.0)]


def best_setting(method, name, problems, budget, settings):
    """The setting whose median errors on ``problems`` have the smallest product."""

    def score(setting):
        return sum(math.log(float(method(name, problem, budget, *setting)[0].median())) for problem in problems)

    return min(settings, key=score)


def six_digits(value) -> float:
    """``value`` as it is stored."""
    return float(f"{float(value):.6g}")


def row(problem, library, name, setting, found, asked, budget):
    """``low`` to ``high``: the median's 95 % interval over starts, by order statistics."""
    ordered, half = found.sort().values, math.ceil(0.98 * math.sqrt(len(found)))
    middle = len(found) // 2
    return {
        "problem": problem.name,
        "library": library,
        "sampler": name,
        "grid": " ".join(str(part) for part in setting if not isinstance(part, dict)),
        "options": " ".join(f"{k}={v}" for part in setting if isinstance(part, dict) for k, v in part.items()),
        "budget": budget,
        "evaluations": asked,
        "error": six_digits(found.median()),
        "low": six_digits(ordered[middle - half]),
        "high": six_digits(ordered[middle + half]),
    }


def measure(problems, tuning, only=()) -> list[dict]:
    """Rows of all samplers, or of ``only`` some of ours."""
    rows = []
    for name in only or OURS:
        for budget in BUDGETS:
            setting = best_setting(ours, name, tuning, budget, USUAL + ASINH)
            rows += [row(p, "ours", name, setting, *ours(name, p, budget, *setting), budget) for p in problems]
    if only:
        return rows
    for budget in BUDGETS:
        rows += [row(p, "ours", RECOMMENDED, ("asinh", 0.028), *recommended(p, budget), budget) for p in problems]
    for name, variants in VARIANTS.items():
        for label, grids in ((name, USUAL), (name + ", on our grid", ASINH)):
            for budget in BUDGETS:
                settings = [(kind, number, options) for kind, number in grids for options in variants]
                setting = best_setting(theirs, name, tuning, budget, settings)
                rows += [row(p, "diffusers", label, setting, *theirs(name, p, budget, *setting), budget) for p in problems]
    for p in problems:
        for budget, figure in zip(BUDGETS, BEST_PEERS[p.name], strict=True):
            fixed = {"grid": "", "options": "", "budget": budget, "evaluations": budget, "error": figure, "low": figure, "high": figure}
            rows.append({"problem": p.name, "library": "five libraries", "sampler": "best figure, given", **fixed})
    return rows


def table(rows, problem) -> str:
    """A Markdown table, one line a sampler."""
    lines = [f"| {problem} | " + " | ".join(f"{n}" for n in BUDGETS) + " | grids |", "|---" * (len(BUDGETS) + 2) + "|"]
    mine = [r for r in rows if r["problem"] == problem]
    for library, name in dict.fromkeys((r["library"], r["sampler"]) for r in mine):
        cells = [r for r in mine if (r["library"], r["sampler"]) == (library, name)]
        grids = " / ".join(dict.fromkeys(r["grid"] for r in cells))
        lines.append(f"| {library}: {name} | " + " | ".join(f"{r['error']:.1e}" for r in cells) + f" | {grids} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="write diffusion_lib/studies/solvers.json")
    parser.add_argument("--only", nargs="+", choices=list(OURS), help="measure these of ours and print them; nothing is saved")
    options = parser.parse_args()
    begun = time.perf_counter()
    problems = [Problem("mixture", five_clouds(), SEED), Problem("gaussian", gaussian(), SEED)]
    tuning = for_tuning()
    if options.only:
        rows = measure(problems, tuning[::2], options.only)
        return print("\n\n".join(table(rows, p.name) for p in problems))
    gap = problems[0].distances(problems[0].fixed(4000))
    print(f"The mixture's reference: two integrators differ by at most {float(gap.max()):.1e}, median {float(gap.median()):.1e}.\n")
    assert float(gap.max()) < 1e-10
    rows = measure(problems, tuning[::2])  # two rings, one set of clouds, one Gaussian
    for p in problems:
        print(table(rows, p.name) + "\n")
    met = {p.name: [0] * 4 for p in problems}
    for seed in MORE_SEEDS:
        for p in (Problem("mixture", five_clouds(), seed), Problem("gaussian", gaussian(), seed)):
            for k, budget in enumerate(BUDGETS):
                met[p.name][k] += float(recommended(p, budget)[0].median()) < AIMS[p.name][k]
    print(f"Recommended setting, {len(MORE_SEEDS)} more seeds: the aims at 10 / 16 / 32 / 64 are met in {met}.")
    around = neighbours(tuning)
    print("\n| relative to the recommended | detail | grid's detail | 10 | 16 | 32 | 64 |\n|---|---|---|---|---|---|---|")
    for (kind, detail, of_grid), cells in itertools.groupby(around, key=lambda r: (r["problems"], r["detail"], r["grid_detail"])):
        print(f"| {kind} | {detail} | {of_grid} | " + " | ".join(f"{r['ratio']:.2f}" for r in cells) + " |")
    seconds = time.perf_counter() - begun
    print(f"{seconds:.0f} s")
    if options.save:
        from diffusion_lib.studies import write_study

        write_study(
            "solvers",
            question="How far from the exact end of the probability-flow ODE is a sample after 10, 16, 32 or 64 evaluations?",
            command=COMMAND,
            seconds=seconds,
            seeds={"starts": SEED, "tuning": TUNING_SEED, "more": [MORE_SEEDS.start, MORE_SEEDS.stop - 1]},
            settings={
                "starts": 512,
                "highest level": HIGHEST,
                "reference error": float(gap.max()),
                "recommended": "deis, order 5, detail 0.15, on time_grid(kind='asinh', detail=0.028)",
                "aims": AIMS,
                "aims met over more seeds": met,
            },
            rows=rows,
        )
        write_study(
            "solver-settings",
            question="Would another detail of deis (order 5) or of its asinh grid do better, on problems that are not those reported?",
            command=COMMAND,
            seconds=seconds,
            seeds={"tuning": TUNING_SEED},
            settings={"ratio": "error over that of detail 0.15 on grid detail 0.028, geometric mean over the tuning problems"},
            rows=around,
        )


if __name__ == "__main__":
    main()
