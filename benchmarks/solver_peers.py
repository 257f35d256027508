"""diffusers' schedulers on any grid of noise levels: what ``solvers.py`` and ``sampler_overhead.py`` share.

Their schedulers make their grids from a table of 1000 betas, in float32. Here the grid is put in after ``set_timesteps``, in float64, so that each
method can be given any grid and begins at the same noise as ours. The arithmetic of a step stays theirs.
"""

from __future__ import annotations

import warnings

import torch

# name: settings to choose from. Theirs by default comes first; a final level of 0 makes 2M and 3M end with a step of order 1.
VARIANTS = {
    "DDIM": [{}],
    "Euler": [{}],
    "Heun": [{}],
    "LMS 4": [{}],
    "DPM-Solver++ 2M": [{"solver_order": 2, "solver_type": kind} for kind in ("midpoint", "heun")],
    "DPM-Solver++ 3M": [{"solver_order": 3, "lower_order_final": late} for late in (True, False)],
    "UniPC 2": [{"solver_order": 2, "solver_type": kind} for kind in ("bh2", "bh1")],
    "UniPC 3": [{"solver_order": 3, "solver_type": kind} for kind in ("bh2", "bh1")],
    "DEIS 3": [{"solver_order": 3, "lower_order_final": late} for late in (True, False)],
}
PRESERVING = ("DDIM", "DPM-Solver++ 2M", "DPM-Solver++ 3M", "UniPC 2", "UniPC 3", "DEIS 3")  # their state is x / sqrt(1 + level^2)


def make(name, levels, options):
    """A fresh scheduler whose grid is ``levels`` (N + 1,), decreasing, in units of sigma/alpha."""
    import diffusers

    steps, levels = len(levels) - 1, levels.double()
    if name == "DDIM":
        scheduler = diffusers.DDIMScheduler(steps, clip_sample=False, prediction_type="sample", set_alpha_to_one=True)
        scheduler.alphas_cumprod = (1 / (1 + levels[:-1] ** 2)).flip(0)
        scheduler.set_timesteps(steps)
        return scheduler
    cls = {
        "Euler": diffusers.EulerDiscreteScheduler,
        "Heun": diffusers.HeunDiscreteScheduler,
        "LMS 4": diffusers.LMSDiscreteScheduler,
        "DPM-Solver++ 2M": diffusers.DPMSolverMultistepScheduler,
        "DPM-Solver++ 3M": diffusers.DPMSolverMultistepScheduler,
        "UniPC 2": diffusers.UniPCMultistepScheduler,
        "UniPC 3": diffusers.UniPCMultistepScheduler,
        "DEIS 3": diffusers.DEISMultistepScheduler,
    }[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = cls(prediction_type="sample", **options)
        scheduler.set_timesteps(steps)
    scheduler.sigmas = levels.clone()
    if name == "Heun":  # asked at the start of each step and, but for the last, at its end
        scheduler.sigmas = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
    scheduler.timesteps = torch.arange(len(scheduler.sigmas) - 1, 0, -1, dtype=torch.float64)  # names of the steps, no more
    scheduler.set_begin_index(0)
    if hasattr(scheduler, "is_scale_input_called"):
        scheduler.is_scale_input_called = True
    return scheduler


def run(name, levels, options, x, denoise):
    """(x_0, evaluations) from x = x_0 + levels[0] noise; ``denoise(x, level) -> x0_hat`` in the variable x/alpha."""
    scheduler, preserving = make(name, levels, options), name in PRESERVING
    places = (levels if name == "DDIM" else scheduler.sigmas)[:-1].tolist()
    x = x / (1 + float(levels[0]) ** 2) ** 0.5 if preserving else x
    for timestep, level in zip(scheduler.timesteps, places, strict=True):
        x0_hat = denoise(x * (1 + level**2) ** 0.5 if preserving else x, level)
        x = scheduler.step(x0_hat, int(timestep) if name == "DDIM" else timestep, x).prev_sample
    return (x * (1 + float(levels[-1]) ** 2) ** 0.5 if preserving else x), len(places)
