"""The same noise through diffusers' schedulers gives the same sample. diffusers is an optional extra; CI installs it."""

from __future__ import annotations

import pytest
import torch

from diffusion_lib.denoisers import NetDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.samplers import ddim, ddpm, final
from diffusion_lib.schedules import DiscreteSchedule
from diffusion_lib.targets import convert

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[test]")
pytestmark = pytest.mark.peers

SCHEDULE = DiscreteSchedule.from_name("linear")
MIXTURE = three_modes()


def eps_net(x, t):
    """A perfect eps-network on the mixture, in float64."""
    return convert(MIXTURE.denoise(x, t, SCHEDULE), x, t, SCHEDULE, "x0", "eps")


def start(n=32):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def their_samples(scheduler, steps, **step_options):
    """Run their loop. Their integer timestep k - 1 is our step k."""
    generator, x = torch.Generator().manual_seed(1), start()
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps:
        k = int(timestep) + 1
        output = eps_net(x, torch.full((len(x),), k / 1000, dtype=torch.float64))
        x = scheduler.step(output, int(timestep), x, generator=generator, **step_options).prev_sample
    return x, [int(timestep) + 1 for timestep in scheduler.timesteps]


def our_samples(sampler, ks, **options):
    times = SCHEDULE.time(torch.tensor([*ks, 0]))
    states = sampler(
        NetDenoiser(eps_net, SCHEDULE), SCHEDULE, start(), times, generator=torch.Generator().manual_seed(1), **options
    )
    return final(states)


def test_alphas_bar_agree():
    theirs = diffusers.DDPMScheduler().alphas_cumprod.double()
    assert torch.allclose(SCHEDULE.alphas_bar[1:], theirs, rtol=1e-4)  # theirs is a float32 product of 1000 factors


@pytest.mark.parametrize(
    "steps, variance, theirs",
    [(1000, "posterior", "fixed_small"), (1000, "forward", "fixed_large"), (100, "posterior", "fixed_small")],
)
def test_ddpm_agrees(steps, variance, theirs):
    scheduler = diffusers.DDPMScheduler(variance_type=theirs, clip_sample=False, timestep_spacing="leading")
    expected, ks = their_samples(scheduler, steps)
    assert (
        float((our_samples(ddpm, ks, variance=variance) - expected).abs().max()) < 2e-3
    )  # float32 coefficients over many steps


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_agrees(eta, steps):
    scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading")
    expected, ks = their_samples(scheduler, steps, eta=eta)
    assert float((our_samples(ddim, ks, eta=eta) - expected).abs().max()) < 1e-4
