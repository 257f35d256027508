"""Any network, made for any schedule, on any schedule, by any sampler: with exact predictions each combination ends where it should."""

from __future__ import annotations

import math
from functools import cache
from itertools import product

import pytest
import torch
from conftest import SCHEDULES
from laws import SAMPLERS, output_variance

from diffusion_lib.denoisers import EDMDenoiser, ExactDenoiser, NetDenoiser, on_schedule
from diffusion_lib.exact import three_modes
from diffusion_lib.guidance import classifier_free_guided
from diffusion_lib.nets import MLP
from diffusion_lib.samplers import final, heun
from diffusion_lib.schedules import (
    CosineSchedule,
    EDMSchedule,
    LinearSchedule,
    VESchedule,
    VPSchedule,
    expand,
    time_grid,
)
from diffusion_lib.targets import TARGETS, convert

MIXTURE = three_modes()
KINDS = (*TARGETS, "edm")  # what a network may predict; EDM's F last
HIGHEST, STEPS, PATHS = 20.0, 24, 32
DETERMINISTIC = [name for name, (_, _, draws, _) in SAMPLERS.items() if draws == 0]
STOCHASTIC = [name for name, (_, _, draws, _) in SAMPLERS.items() if draws and name != "ddpm-optimal"]  # which asks for Var[x_0|x_t], as no net knows


def perfect(kind, own):
    """A denoiser around a "network" that predicts ``kind`` under ``own`` exactly, and knows nothing but its two inputs."""
    if kind == "edm":
        edm, shape = EDMSchedule(1000.0), EDMDenoiser(None, 0.9, own)

        def raw(y, c_noise):
            level = torch.exp(4 * c_noise)
            c_skip, c_out, c_in, _ = (c[:, None] for c in shape.coefficients(level))
            return (MIXTURE.denoise(y / c_in, level / edm.sigma_max, edm) - c_skip * y / c_in) / c_out

        return shape.with_net(raw)
    return NetDenoiser(lambda x, t: convert(MIXTURE.denoise(x, t, own), x, t, own, "x0", kind), own, kind)


def combined(kind, own, name):
    return on_schedule(perfect(kind, SCHEDULES[own]), SCHEDULES[own], SCHEDULES[name])


@cache
def beginning():
    """y = x / alpha at the highest level, drawn from its marginal: (PATHS, 2)."""
    generator = torch.Generator().manual_seed(0)
    return MIXTURE.sample(PATHS, generator) + HIGHEST * torch.randn(PATHS, 2, generator=generator, dtype=torch.float64)


@cache
def arrived():
    """Where the exact flow takes them: Runge-Kutta of order 4 on dy/dlevel = eps_hat, in log level down to 1e-3, and x0_hat there.

    The two are good to 1e-6: x0_hat at level l is off by l^2 times a slope of the score, about 1/0.15^2 here.
    """
    edm, y, lowest, count = EDMSchedule(), beginning(), 1e-3, 600
    h = math.log(lowest / HIGHEST) / count

    def slope_of(u, y):
        return y - MIXTURE.denoise(y, math.exp(u) / edm.sigma_max, edm)

    for k in range(count):
        u = math.log(HIGHEST) + k * h
        a = slope_of(u, y)
        b = slope_of(u + h / 2, y + h / 2 * a)
        c = slope_of(u + h / 2, y + h / 2 * b)
        y = y + h / 6 * (a + 2 * b + 2 * c + slope_of(u + h, y + h * c))
    return MIXTURE.denoise(y, lowest / edm.sigma_max, edm)


def walked(denoiser, sampler, name, steps=STEPS, paths=PATHS):
    """The last state of a sampler on the karras grid of a schedule, from ``beginning``, with noise of seed 1."""
    schedule, (walk, options, *_) = SCHEDULES[name], SAMPLERS[sampler]
    times = time_grid(schedule, steps, "karras", noise_max=HIGHEST)
    x = schedule.alpha(times[0]) * beginning()[:paths]
    return final(walk(denoiser, schedule, x, times, generator=torch.Generator().manual_seed(1), **options))


@cache
def exactly(sampler, name, steps=STEPS, paths=PATHS):
    """The same with the exact denoiser of that schedule."""
    return walked(ExactDenoiser(MIXTURE, SCHEDULES[name]), sampler, name, steps, paths)


def off(x):
    """Median distance from where the exact flow arrives."""
    return float((x - arrived()[: len(x)]).norm(dim=1).median())


def turns(sampler):
    """(kind, own, sampled on) for each schedule sampled on, such that all pairs with ``sampler`` occur, and over the samplers most triples."""
    k, names = list(SAMPLERS).index(sampler), list(SCHEDULES)
    return [(KINDS[(i + k) % len(KINDS)], names[(3 * i + k) % len(names)], name) for i, name in enumerate(names)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", SCHEDULES)
def test_every_network_on_every_schedule_is_the_exact_denoiser(kind, own, schedule):
    """All 384 triples, pointwise, over four decades of the noise level."""
    levels = torch.logspace(-2, math.log10(40), 40, dtype=torch.float64)
    t = schedule.time_of_log_snr(-levels.log())
    y = MIXTURE.sample(40, torch.Generator().manual_seed(2)) + levels[:, None] * torch.randn(40, 2, generator=torch.Generator().manual_seed(3)).double()
    x = expand(schedule.alpha(t), y) * y
    found = on_schedule(perfect(kind, SCHEDULES[own]), SCHEDULES[own], schedule)(x, t)
    assert float((found - MIXTURE.denoise(x, t, schedule)).abs().max()) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddim", "ddpm-posterior", "heun", "heun-churn", "dpmpp", "dpmpp-sde", "unipc", "deis"])
def test_the_full_product_with_the_samplers_for_pictures(sampler):
    """384 walks of 5 steps each: the last state is the exact denoiser's, to rounding. All other samplers: every pair, below."""
    for kind, own, name in product(KINDS, SCHEDULES, SCHEDULES):
        found = walked(combined(kind, own, name), sampler, name, 5, 4)
        assert float((found - exactly(sampler, name, 5, 4)).abs().max()) < 1e-7, (kind, own, name)


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_deterministic_samplers_arrive_where_the_exact_flow_does(sampler):
    """Within the error that the sampler has with the exact denoiser, which is measured here, and falls when the steps are doubled."""
    for kind, own, name in turns(sampler):
        found, error = walked(combined(kind, own, name), sampler, name), off(exactly(sampler, name))
        assert abs(off(found) - error) < 1e-6 and error < 1.0, (kind, own, name)
        order = SAMPLERS[sampler][3] or 2  # of those without an entry here, two at least: test_multistep.py
        assert off(exactly(sampler, name, 4 * STEPS)) < error / 4 ** (order - 0.5), (kind, own, name, error)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_stochastic_samplers_draw_what_the_exact_denoiser_draws(sampler):
    """From the same noise, sample for sample."""
    for kind, own, name in turns(sampler):
        found = walked(combined(kind, own, name), sampler, name)
        assert float((found - exactly(sampler, name)).abs().max()) < 1e-6, (kind, own, name)


@pytest.mark.parametrize("sampler", ["ddim-ancestral", "heun-churn", "dpmpp-sde", "sde"])
def test_stochastic_samplers_draw_the_mixture(sampler):
    """Weights, means and spreads within 4 standard errors; the spread against the sampler's own exact law for one narrow Gaussian."""
    kind, own, name = turns(sampler)[2]
    schedule, (walk, options, *_), n = SCHEDULES[name], SAMPLERS[sampler], 2000
    times = time_grid(schedule, 100, "log_snr", noise_max=HIGHEST)
    law = float(output_variance(sampler, schedule, times, [0.15**2], [schedule.alpha(times[0]) ** 2 * 0.15**2 + schedule.sigma(times[0]) ** 2])) ** 0.5
    assert abs(law / 0.15 - 1) < 0.12
    start = MIXTURE.marginal(schedule, float(times[0])).sample(n, torch.Generator().manual_seed(4))
    x = final(walk(combined(kind, own, name), schedule, start, times, generator=torch.Generator().manual_seed(5), **options))
    component = (x[:, None] - MIXTURE.means).square().sum(-1).argmin(1)
    for k, weight in enumerate(MIXTURE.weights.tolist()):
        mine = (x[component == k] - MIXTURE.means[k]) / law
        assert abs(len(mine) / n - weight) < 4 * math.sqrt(weight * (1 - weight) / n)
        assert bool((mine.mean(0).abs() < 4 / len(mine) ** 0.5).all()) and bool(((mine.std(0) - 1).abs() < 4 / (2 * len(mine)) ** 0.5).all())


# --- on_schedule itself ----------------------------------------------------------------------------------------------


def test_a_level_that_its_own_schedule_does_not_reach_is_refused():
    moved = on_schedule(ExactDenoiser(MIXTURE, VESchedule()), VESchedule(), EDMSchedule())
    with pytest.raises(ValueError, match=r"noise level 80 .*VESchedule, reaches 50; .*noise_max=50\)") as caught:
        final(heun(moved, EDMSchedule(), 80 * torch.ones(2, 2).double(), time_grid(EDMSchedule(), 5, "karras")))
    assert "\n" not in str(caught.value)
    mixed = torch.tensor([0.1, 0.7], dtype=torch.float64)  # one of a batch is enough
    with pytest.raises(ValueError, match="noise level 56"):
        moved(torch.ones(2, 2).double(), mixed)
    assert torch.isfinite(moved(torch.ones(2, 2).double(), mixed / 2)).all()


@pytest.mark.parametrize("own", [VPSchedule(), CosineSchedule(), LinearSchedule(), VESchedule()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_its_highest_level_is_not_refused_for_a_rounding(own, dtype):
    """What the sentence advises, noise_max to four digits, works; and so does the schedule on itself, in float32 too."""
    highest = float(own.noise_level(torch.tensor(own.t_max, dtype=torch.float64)))
    far, x = EDMSchedule(2000.0), torch.ones(2, 2, dtype=dtype)
    denoiser = ExactDenoiser(MIXTURE, own)
    advised = float(time_grid(far, 5, "karras", noise_max=float(f"{highest:.4g}"))[0])
    assert torch.isfinite(on_schedule(denoiser, own, far)(highest * x, advised)).all()
    close = 1e-3 if dtype is torch.float32 else 1e-9
    assert torch.allclose(on_schedule(denoiser, own, own)(x, own.t_max), denoiser(x, own.t_max), atol=close)


def test_dtype_and_conditions_and_guidance_pass():
    """Guided by contrast on another schedule: the null class and the levels of the interval are known there."""
    torch.manual_seed(0)
    net = MLP(2, width=16, depth=1, classes=3)
    torch.nn.init.normal_(net.head.weight)
    own, other = NetDenoiser(net, VPSchedule(), "v"), EDMSchedule()
    label, x = torch.tensor([0, 1, 2, 3]), torch.randn(4, 2)
    moved = on_schedule(own, VPSchedule(), other)
    t_own = VPSchedule().time_of_log_snr(other.log_snr(torch.tensor(0.01, dtype=torch.float64)))
    assert moved(x, 0.01, label=label).dtype == torch.float32
    assert torch.allclose(moved(x, 0.01, label=label), own(VPSchedule().alpha(t_own).float() * x, float(t_own), label=label), atol=1e-5)
    options = {"interval": (0.5, 1.0)}
    inside, outside = (classifier_free_guided(moved, {"label": label}, 2.0, **options)(x, t) for t in (0.01, 0.02))
    null = moved(x, 0.01, label=torch.full((4,), 3))
    assert torch.allclose(inside, null + 2 * (moved(x, 0.01, label=label) - null), atol=1e-5)
    assert torch.equal(outside, moved(x, 0.02, label=label))
