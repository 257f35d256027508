"""Schedules: how much signal and noise there is at each time, and the grids on which samplers walk.

base.py the interface · variance_preserving.py VP, sub-VP, cosine · other.py VE, EDM, linear · discrete.py DDPM's betas ·
grids.py time grids · levels.py NCSN's noise levels.
"""

from __future__ import annotations

import torch

from diffusion_lib.schedules.base import Schedule, derivative, expand
from diffusion_lib.schedules.discrete import DiscreteSchedule
from diffusion_lib.schedules.grids import GRIDS, time_grid
from diffusion_lib.schedules.levels import (
    annealed_step_size,
    geometric_levels,
    largest_distance,
    level_count,
    level_overlap,
    level_ratio,
    level_times,
    variance_after_steps,
)
from diffusion_lib.schedules.other import EDMSchedule, LinearSchedule, VESchedule
from diffusion_lib.schedules.variance_preserving import CosineSchedule, SubVPSchedule, VPSchedule
from diffusion_lib.validate import check_choice

__all__ = [
    "GRIDS",
    "CosineSchedule",
    "DiscreteSchedule",
    "EDMSchedule",
    "LinearSchedule",
    "Schedule",
    "SubVPSchedule",
    "VESchedule",
    "VPSchedule",
    "annealed_step_size",
    "derivative",
    "expand",
    "geometric_levels",
    "largest_distance",
    "level_count",
    "level_overlap",
    "level_ratio",
    "level_times",
    "schedule_from_config",
    "time_grid",
    "variance_after_steps",
]

SCHEDULES = {
    cls.__name__: cls
    for cls in (VPSchedule, CosineSchedule, VESchedule, SubVPSchedule, EDMSchedule, LinearSchedule, DiscreteSchedule)
}


def schedule_from_config(config: dict) -> Schedule:
    """The schedule that wrote ``config`` (its ``.config``): {"name": class name, ...its numbers}. ValueError for an unknown name."""
    numbers = dict(config)
    cls = SCHEDULES[check_choice("schedule name", numbers.pop("name", None), SCHEDULES)]
    if cls is DiscreteSchedule:
        if "from_name" in numbers:
            return DiscreteSchedule.from_name(numbers["from_name"], numbers["T"])
        return DiscreteSchedule(torch.tensor(numbers["betas"], dtype=torch.float64))
    return cls(**numbers)
