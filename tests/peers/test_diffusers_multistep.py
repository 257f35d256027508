"""diffusers' solvers of the probability-flow ODE on a grid of ours: the same noise, the same levels, the same denoiser.

Their grid is replaced by ours, in float64. Euler and DPM-Solver++ round the state to float32 in each step; UniPC, Heun and DDIM do not.
"""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from laws import level_grid, slope

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.samplers import ddim, dpmpp, dpmpp_coefficients, final, heun, unipc, unipc_coefficients
from diffusion_lib.samplers._multistep import walk
from diffusion_lib.schedules import EDMSchedule, time_grid

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[test]")
pytestmark = pytest.mark.peers

HIGHEST = 80.0
SCHEDULE, MIXTURE = EDMSchedule(HIGHEST), three_modes()
DENOISER = ExactDenoiser(MIXTURE, SCHEDULE)
TOLERANCE = 1e-5  # asked of every pair; float32 in their steps leaves about 1e-6


def start(n=64):
    return HIGHEST * torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def theirs(name, times, x, **options):
    """All states in the variable x/alpha, x first, of ``diffusers.<name>`` on the grid ``times`` of SCHEDULE."""
    levels, steps = SCHEDULE.noise_level(times), len(times) - 1
    if name == "DDIMScheduler":
        scheduler = diffusers.DDIMScheduler(steps, clip_sample=False, prediction_type="sample", set_alpha_to_one=True)
        scheduler.alphas_cumprod = (1 / (1 + levels[:-1] ** 2)).flip(0)
        scheduler.set_timesteps(steps)
        places, timesteps = levels[:-1], [int(t) for t in scheduler.timesteps]
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = getattr(diffusers, name)(prediction_type="sample", **options)
            scheduler.set_timesteps(steps)
        twice = name == "HeunDiscreteScheduler"
        scheduler.sigmas = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2 if twice else 1), levels[-1:]])
        places, timesteps = scheduler.sigmas[:-1], torch.arange(len(scheduler.sigmas) - 1, 0, -1, dtype=torch.float64)
        scheduler.timesteps = timesteps
        scheduler.set_begin_index(0)
        scheduler.is_scale_input_called = True
    preserving = "Euler" not in name and "Heun" not in name  # their state is x / sqrt(1 + level^2)
    ends = scheduler.sigmas[1:] if hasattr(scheduler, "sigmas") else levels[1:]
    x = x / (1 + levels[0] ** 2).sqrt() if preserving else x
    states = []
    for timestep, level, end in zip(timesteps, places, ends, strict=True):
        clean = x * (1 + level**2).sqrt() if preserving else x
        x = scheduler.step(DENOISER(clean, float(level / HIGHEST)), timestep, x).prev_sample.double()
        states.append(x * (1 + end**2).sqrt() if preserving else x)
    return states


def gap(a, b):
    return float((a - b).abs().max())


@pytest.mark.parametrize("steps", [9, 24])
@pytest.mark.parametrize(
    "sampler, options, name, their_options",
    [
        (ddim, {}, "DDIMScheduler", {}),
        (ddim, {}, "EulerDiscreteScheduler", {}),
        (heun, {}, "HeunDiscreteScheduler", {}),
        (dpmpp, {"order": 1}, "DPMSolverMultistepScheduler", {"solver_order": 1}),
        (dpmpp, {"order": 2}, "DPMSolverMultistepScheduler", {"solver_order": 2}),
        (unipc, {"order": 1}, "UniPCMultistepScheduler", {"solver_order": 1}),
        (unipc, {"order": 2}, "UniPCMultistepScheduler", {"solver_order": 2}),
    ],
    ids=["ddim", "euler", "heun", "dpmpp-1", "dpmpp-2", "unipc-1", "unipc-2"],
)
def test_the_same_sample(sampler, options, name, their_options, steps):
    times = time_grid(SCHEDULE, steps, "karras")
    ours = final(sampler(DENOISER, SCHEDULE, start(), times, **options))
    assert gap(ours, theirs(name, times, start(), **their_options)[-1]) < TOLERANCE


def test_unipc_3_differs_where_theirs_lowers_the_order():
    """Theirs steps to the second-last time with order 2 (lower_order_final). That row in our table gives their sample; all before it is the same.

    Both are UniPC: it is a choice of settings, and both converge.
    """
    times, x = time_grid(SCHEDULE, 24, "karras"), start()
    mine = list(unipc(DENOISER, SCHEDULE, x, times, order=3))
    other = theirs("UniPCMultistepScheduler", times, x, solver_order=3)
    assert all(gap(a, b) < 1e-9 for a, b in zip(mine[1:-2], other[:-2], strict=True))
    assert gap(mine[-1], other[-1]) > TOLERANCE
    rows = unipc_coefficients(SCHEDULE, times, 3)
    rows[-2] = unipc_coefficients(SCHEDULE, times, 2)[-2]
    assert gap(final(walk(DENOISER, x, times.tolist(), rows, None, None)), other[-1]) < 1e-9


def half_of_the_curvature(times, corrected_start=False):
    """Our rows of 3M, less half of what the second derivative adds: phi_3 D2 where D2 is half of that derivative."""
    lam, alpha = SCHEDULE.log_snr(times).tolist(), SCHEDULE.alpha(times).tolist()
    rows = dpmpp_coefficients(SCHEDULE, times, 3, corrected_start=corrected_start)
    for k in range(2, len(rows)):
        if rows[k].keep == 0:
            continue
        a, b, c, h = lam[k], lam[k - 1], lam[k - 2], lam[k + 1] - lam[k]
        phi_3 = 0.5 - 1 / h - math.expm1(-h) / h**2
        divided = (1 / ((a - b) * (a - c)), 1 / ((b - a) * (b - c)), 1 / ((c - a) * (c - b)))  # of Newton's second difference
        lowered = tuple(w - alpha[k + 1] * phi_3 * h * h * d for w, d in zip(rows[k].weights, divided, strict=True))
        rows[k] = rows[k]._replace(weights=lowered)
    return rows


def test_3m_theirs_lacks_half_of_the_second_derivative():
    """That alone, and our corrected start, is the difference: with both put back our walk is theirs."""
    times, x = time_grid(SCHEDULE, 24, "karras"), start()
    other = theirs("DPMSolverMultistepScheduler", times, x, solver_order=3, lower_order_final=False)[-1]
    assert gap(final(walk(DENOISER, x, times.tolist(), half_of_the_curvature(times), None, None)), other) < TOLERANCE
    assert gap(final(dpmpp(DENOISER, SCHEDULE, x, times, order=3, corrected_start=False)), other) > 100 * TOLERANCE


def test_3m_ours_steps_a_parabola_exactly_and_theirs_does_not():
    """x0_hat = lambda^2: integral e^lambda lambda^2 over the step, in closed form. Ours is it; theirs misses by the missing half."""
    times = level_grid(SCHEDULE, 12)
    lam, sigma, k = SCHEDULE.log_snr(times).tolist(), SCHEDULE.sigma(times).tolist(), 6
    exact = sigma[k + 1] * sum(sign * math.exp(u) * (u * u - 2 * u + 2) for u, sign in ((lam[k + 1], 1), (lam[k], -1)))
    ours = sum(w * lam[k - j] ** 2 for j, w in enumerate(dpmpp_coefficients(SCHEDULE, times, 3)[k].weights))
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=3, prediction_type="sample")
    scheduler.set_timesteps(12)
    scheduler.sigmas, scheduler._step_index = SCHEDULE.noise_level(times), k
    values = [torch.tensor([lam[k - j] ** 2], dtype=torch.float64) for j in (2, 1, 0)]
    level = SCHEDULE.noise_level(times[k + 1])
    update = scheduler.multistep_dpm_solver_third_order_update(values, sample=torch.zeros(1, dtype=torch.float64))
    found = float(update * (1 + level**2).sqrt())  # from their state to x/alpha
    h = lam[k + 1] - lam[k]
    missing = h * h * (0.5 - 1 / h - math.expm1(-h) / h**2)
    assert ours == pytest.approx(exact, rel=1e-9)
    assert found == pytest.approx(exact - missing, rel=1e-9) and missing / exact > 1e-3


def test_3m_has_order_three_with_the_factor_and_two_without():
    """Slopes of the median error along paths between two noise levels, both with the corrected start, in float64 (theirs as the rows above)."""
    generator, steps = torch.Generator().manual_seed(0), (160, 320, 640)
    y = MIXTURE.sample(100, generator) + 5 * torch.randn(100, 2, generator=generator, dtype=torch.float64)
    truth = final(unipc(DENOISER, SCHEDULE, y, level_grid(SCHEDULE, 2560), order=3))
    errors = {"with": [], "without": []}
    for n in steps:
        times = level_grid(SCHEDULE, n)
        for name, rows in (("with", dpmpp_coefficients(SCHEDULE, times, 3)), ("without", half_of_the_curvature(times, True))):
            found = final(walk(DENOISER, y, times.tolist(), rows, None, None))
            errors[name].append(float((found - truth).norm(dim=1).median()))
    assert abs(-slope(steps, errors["with"]) - 3) < 0.15 and abs(-slope(steps, errors["without"]) - 2) < 0.15, errors
    assert errors["with"][-1] < errors["without"][-1] / 10
