"""All 25 conversions, for every schedule, to rounding."""

from __future__ import annotations

import itertools

import pytest
import torch

from diffusion_lib.exact import three_modes
from diffusion_lib.schedules import VPSchedule
from diffusion_lib.targets import TARGETS, convert, diffuse, training_target


@pytest.mark.parametrize("source, to", list(itertools.product(TARGETS, TARGETS)))
def test_any_target_to_any_other(schedule, source, to, generator):
    x0, eps = (torch.randn(64, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    t = 0.05 + 0.9 * torch.rand(64, generator=generator, dtype=torch.float64)
    x = diffuse(x0, eps, t, schedule)
    given, wanted = (training_target(x0, eps, t, schedule, name) for name in (source, to))
    error = (convert(given, x, t, schedule, source, to) - wanted).abs().max()
    scale = max(1.0, float(x.abs().max()), float(given.abs().max())) * max(1.0, float(wanted.abs().max()))
    assert float(error) < 1e-10 * scale


def test_targets_are_what_their_names_say(generator):
    schedule = VPSchedule()
    x0, eps = torch.randn(5, 2, generator=generator).double(), torch.randn(5, 2, generator=generator).double()
    t = torch.full((5,), 0.3, dtype=torch.float64)
    alpha, sigma = schedule.alpha(0.3).double(), schedule.sigma(0.3).double()
    x = diffuse(x0, eps, t, schedule)
    assert torch.allclose(x, alpha * x0 + sigma * eps, rtol=1e-6)
    assert torch.allclose(training_target(x0, eps, t, schedule, "v"), alpha * eps - sigma * x0, rtol=1e-5, atol=1e-6)
    assert torch.allclose(
        training_target(x0, eps, t, schedule, "score"), -(x - alpha * x0) / sigma**2, rtol=1e-5, atol=1e-5
    )
    step = 1e-6
    velocity = (diffuse(x0, eps, t + step, schedule) - diffuse(x0, eps, t - step, schedule)) / (2 * step)
    assert torch.allclose(training_target(x0, eps, t, schedule, "velocity"), velocity, rtol=1e-6, atol=1e-8)


def test_conversions_hold_for_conditional_means(schedule):
    """Tweedie: the exact score turned into x0 is the exact denoiser."""
    mixture = three_modes()
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for t in (0.05, 0.5, 0.9):
        denoised = convert(mixture.score(x, t, schedule), x, t, schedule, "score", "x0")
        assert torch.allclose(denoised, mixture.denoise(x, t, schedule), rtol=1e-8, atol=1e-8)
