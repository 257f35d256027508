"""The coded exercises of each chapter, and their solutions as the pages print them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch

from diffusion_lib.schedules import CosineSchedule, VESchedule, VPSchedule
from diffusion_lib.transitions import forward_kernel, reverse_kernel

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
CODED = {  # exercise: the function that its printed solution defines
    "1.13e": "kl_to_prior",
    "1.13f": "importance_weighted",
    "1.13g": "leave_one_out",
    "2.13c": "ancestral_step",
    "2.13d": "cosine_betas",
    "2.13e": "zero_terminal_snr",
    "3.14e": "ddim_step",
    "3.14f": "invert_step",
    "3.14g": "interpolate",
    "3.14h": "noise_used",
    "4.15e": "posterior_moments",
    "4.15f": "mala_step",
    "4.15g": "quiet_denoising",
    "5.16e": "reverse_sde",
    "5.16f": "heun_step",
    "5.16g": "divergence",
    "6.14e": "guide",
    "6.14f": "guided_law",
    "6.14g": "threshold",
    "7.17f": "coefficients",
    "7.17g": "third_order_step",
    "7.17h": "raise_noise",
    "8.15e": "measure_scale",
    "8.15f": "quantise",
    "8.15g": "cross_attend",
}
BEFORE = {  # what a chapter has defined by the time its solutions are read
    2: {"path": VPSchedule()},
    3: {"path": CosineSchedule()},
    4: {"ve": VESchedule()},
    5: {"VPSchedule": VPSchedule, "forward_kernel": forward_kernel, "reverse_kernel": reverse_kernel},
}


def page(chapter: int) -> str:
    """The text of a chapter."""
    (path,) = NOTEBOOKS.glob(f"{chapter:02d}_*.md")
    return path.read_text(encoding="utf-8")


def printed_solution(chapter: int, name: str):
    """The function ``name`` from a chapter's solutions (blocks marked python, which the notebook does not run)."""
    for block in re.findall(r"^```python\n(.*?)^```", page(chapter), re.S | re.M):
        if f"def {name}(" in block:
            namespace = {"torch": torch, "math": math, **BEFORE.get(chapter, {})}
            exec(block.split("\n\n\nfor ")[0], namespace)  # noqa: S102
            return namespace[name]
    raise AssertionError(f"chapter {chapter} prints no solution that defines {name}")
