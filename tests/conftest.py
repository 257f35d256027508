"""What the tests share: every schedule by name, and a seeded generator."""

from __future__ import annotations

import pytest
import torch

from diffusion_lib.schedules import (
    CosineSchedule,
    DiscreteSchedule,
    EDMSchedule,
    LinearSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
)

SCHEDULES = {
    "vp": VPSchedule(),
    "cosine": CosineSchedule(),
    "ve": VESchedule(),
    "subvp": SubVPSchedule(),
    "edm": EDMSchedule(),
    "linear": LinearSchedule(),
    "discrete-linear": DiscreteSchedule.from_name("linear"),
    "discrete-cosine": DiscreteSchedule.from_name("cosine"),
}


@pytest.fixture(params=SCHEDULES.values(), ids=SCHEDULES.keys())
def schedule(request):
    """Every schedule of the library, one at a time."""
    return request.param


SMOOTH = {name: schedule for name, schedule in SCHEDULES.items() if not name.startswith("discrete")}


@pytest.fixture(params=SMOOTH.values(), ids=SMOOTH.keys())
def smooth_schedule(request):
    """Every schedule whose f and g are continuous: beta of a discrete one jumps at its steps."""
    return request.param


@pytest.fixture
def generator():
    """A fresh CPU generator with seed 0."""
    return torch.Generator().manual_seed(0)
