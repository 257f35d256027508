"""diffusers' schedulers in the variables of noise levels, in VE and in flow matching, against the same noise through ours.

They keep their tables in float32. Where that would hide the algorithm, ours are put in their place; what is left is stated.
"""

from __future__ import annotations

import pytest
import torch

from diffusion_lib.denoisers import ExactDenoiser, NetDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.samplers import ddim, ddim_invert, ddpm, euler_maruyama, final, heun
from diffusion_lib.schedules import DiscreteSchedule, LinearSchedule, VESchedule
from diffusion_lib.targets import convert

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[test]")
pytestmark = pytest.mark.peers

SCHEDULE = DiscreteSchedule.from_name("linear")
MIXTURE = three_modes()
STEPS = 20
KS = list(range(951, 0, -50))  # 20 of DDPM's steps; "leading" spacing has these, minus 1


def eps_net(x, t):
    """A perfect eps-network on the mixture, in float64."""
    return convert(MIXTURE.denoise(x, t, SCHEDULE), x, t, SCHEDULE, "x0", "eps")


def at(x, k):
    return torch.full((len(x),), k / 1000, dtype=torch.float64)


def start(n=32):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def ours(sampler, times=None, denoiser=None, schedule=SCHEDULE, x=None, **options):
    times = SCHEDULE.time(torch.tensor([*KS, 0])) if times is None else times
    generator = torch.Generator().manual_seed(1)
    if sampler is not ddim_invert:
        options["generator"] = generator
    return final(sampler(denoiser or NetDenoiser(eps_net, SCHEDULE), schedule, start() if x is None else x, times, **options))


def in_noise_levels(scheduler, **options):
    """Run a scheduler whose sample is y = x/alpha. Each asks the network at x = y / sqrt(1 + level^2) and its own timestep."""
    scheduler.set_timesteps(STEPS)
    y, generator = start() / SCHEDULE.alpha(KS[0] / 1000), torch.Generator().manual_seed(1)
    if "generator" in options:
        options["generator"] = generator
    asked = []
    for timestep in scheduler.timesteps:
        asked.append(int(timestep) + 1)
        x = scheduler.scale_model_input(y, timestep).double()
        y = scheduler.step(eps_net(x, at(x, asked[-1])), timestep, y, **options).prev_sample.double()
    return y, asked


FLOAT32 = 1e-5  # their levels, and for Euler their samples, which begin at 100, are rounded to float32 in each of 20 steps


def test_euler_in_noise_levels_is_ddim():
    theirs, asked = in_noise_levels(diffusers.EulerDiscreteScheduler(timestep_spacing="leading"))
    assert asked == KS and float((theirs - ours(ddim)).abs().max()) < FLOAT32


def test_heun_agrees_and_asks_where_we_ask():
    theirs, asked = in_noise_levels(diffusers.HeunDiscreteScheduler(beta_start=1e-4, beta_end=0.02, timestep_spacing="leading"))
    assert len(asked) == 2 * STEPS - 1 and asked == [KS[0], *(k for k in KS[1:] for _ in range(2))]
    assert float((theirs - ours(heun)).abs().max()) < FLOAT32


def test_euler_ancestral_is_ddim_with_eta_one():
    scheduler = diffusers.EulerAncestralDiscreteScheduler(timestep_spacing="leading")
    theirs, _ = in_noise_levels(scheduler, generator=None)
    assert float((theirs - ours(ddim, eta=1.0)).abs().max()) < FLOAT32


def their_inversion(x, ask, stride=50):
    """DDIMInverseScheduler with our float64 table, 1000 / stride steps. ask(x, k from, k to) -> eps_hat."""
    scheduler = diffusers.DDIMInverseScheduler(clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading")
    scheduler.alphas_cumprod = SCHEDULE.alphas_bar[1:]
    scheduler.initial_alpha_cumprod = torch.ones((), dtype=torch.float64)
    scheduler.set_timesteps(1000 // stride)
    for timestep in scheduler.timesteps:
        k = int(timestep) + 1
        x = scheduler.step(ask(x, k - stride, k), int(timestep), x).prev_sample
    return x


def our_inversion(x, stride=50):
    return ours(ddim_invert, SCHEDULE.time(torch.tensor([*range(1001 - stride, 0, -stride), 0])), x=x)


def test_inversion_takes_the_same_step():
    """Given eps_hat at the time where the step begins (at t = 0: where it ends, with x scaled there), their step is ours."""
    x0 = MIXTURE.sample(32, torch.Generator().manual_seed(2))

    def where_it_stands(x, k_from, k_to):
        if k_from < 1:
            return eps_net(SCHEDULE.alpha(k_to / 1000) * x, at(x, k_to))
        return eps_net(x, at(x, k_from))

    assert float((their_inversion(x0, where_it_stands) - our_inversion(x0)).abs().max()) < 1e-10


def test_inversion_asks_elsewhere_and_agrees_in_the_limit():
    """Their pipelines ask the network at the time where the step ends, with the x of where it begins.

    Neither is wrong: the latents differ, by an amount that halves when the steps double. Ours keeps x and t of one state together.
    """
    x0 = MIXTURE.sample(200, torch.Generator().manual_seed(2))
    gaps = [
        float((their_inversion(x0, lambda x, k_from, k_to: eps_net(x, at(x, k_to)), stride) - our_inversion(x0, stride)).norm(dim=1).median())
        for stride in (20, 10, 5)
    ]
    assert gaps[0] > 0.01 and all(0.4 < fine / coarse < 0.6 for coarse, fine in zip(gaps, gaps[1:], strict=False))


def test_the_ve_predictor_is_ddpm_with_the_forward_variance():
    """ScoreSdeVeScheduler's predictor on its own levels, in float64: x + (sigma_t^2 - sigma_s^2) score + sqrt(the same) z."""
    scheduler = diffusers.ScoreSdeVeScheduler(num_train_timesteps=STEPS, sigma_min=0.01, sigma_max=50.0)
    scheduler.set_timesteps(STEPS)
    scheduler.set_sigmas(STEPS)
    scheduler.discrete_sigmas = scheduler.discrete_sigmas.double()
    sigmas = scheduler.discrete_sigmas.flip(0)
    schedule = VESchedule(0.01, 60.0)
    times = torch.cat([schedule.time_of_log_snr(-sigmas.log()), torch.zeros(1, dtype=torch.float64)])
    x, generator = 50.0 * start(), torch.Generator().manual_seed(1)
    states = list(ddpm(ExactDenoiser(MIXTURE, schedule), schedule, x, times, variance="forward", generator=torch.Generator().manual_seed(1)))
    for k in range(STEPS - 1):  # their last step adds noise; ours does not
        score = MIXTURE.score(x, float(times[k]), schedule)
        timestep = torch.tensor((STEPS - 1 - k + 0.5) / (STEPS - 1), dtype=torch.float64)  # the index that they round down to
        x = scheduler.step_pred(score, timestep, x, generator=generator).prev_sample
        assert float((x - states[k + 1]).abs().max()) < 1e-9


def test_flow_matching_euler_is_euler_in_t_on_the_straight_line():
    schedule, levels = LinearSchedule(), torch.linspace(0.999, 0.05, STEPS)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=levels.tolist())
    x, times = start(), torch.cat([scheduler.sigmas[:-1].double(), torch.zeros(1, dtype=torch.float64)])
    expected = ours(euler_maruyama, times, ExactDenoiser(MIXTURE, schedule), schedule, x, stochasticity=0.0)
    for timestep, t in zip(scheduler.timesteps, times, strict=False):
        velocity = convert(MIXTURE.denoise(x, float(t), schedule), x, t.expand(len(x)), schedule, "x0", "velocity")
        x = scheduler.step(velocity, timestep, x).prev_sample.double()
    assert float((x - expected).abs().max()) < 1e-5  # they round the sample, of size 4, to float32
