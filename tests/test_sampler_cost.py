"""What a sampler does beside asking its denoiser: coefficients come from the grid once, and the loop is the method's arithmetic."""

from __future__ import annotations

import pytest
import torch
from laws import SAMPLERS, start

from diffusion_lib.schedules import VPSchedule, time_grid


class Watched(VPSchedule):
    """VP that counts how often it is asked for alpha or sigma."""

    asked = 0

    def _alpha(self, t):
        type(self).asked += 1
        return super()._alpha(t)

    def _sigma(self, t):
        type(self).asked += 1
        return super()._sigma(t)


class Half:
    """x -> x / 2, with a variance."""

    def __call__(self, x, t):
        return 0.5 * x

    def variance(self, x, t):
        return torch.full_like(x, 0.1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_schedule_is_not_asked_inside_the_loop(name):
    """After the first step, no sampler asks the schedule again: its coefficients are floats, made from the grid at the start."""
    sampler, options, *_ = SAMPLERS[name]
    schedule = Watched()
    states = sampler(Half(), schedule, start(schedule, 2), time_grid(schedule, 12), generator=torch.Generator().manual_seed(0), **options)
    next(states), next(states)
    asked = Watched.asked
    assert asked > 0 and len(list(states)) == 11
    assert Watched.asked == asked
