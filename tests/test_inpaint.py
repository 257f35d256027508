"""Inpainting: what it returns, what it costs, and how far the replacement trick is from the exact conditional."""

from __future__ import annotations

import pytest
import torch
from laws import Counting, start

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture
from diffusion_lib.samplers import ddpm, final, inpaint
from diffusion_lib.schedules import VPSchedule, time_grid

CORRELATION, SEEN = 0.9, 1.5
PAIR = GaussianMixture(
    torch.ones(1, dtype=torch.float64),
    torch.zeros(1, 2, dtype=torch.float64),
    torch.tensor([[[1.0, CORRELATION], [CORRELATION, 1.0]]], dtype=torch.float64),
)
FIRST = torch.tensor([True, False])


def fill(schedule, n=16, steps=20, resample=1, generator=None, mask=FIRST):
    x, times = start(schedule, n), time_grid(schedule, steps, "log_snr")
    known = torch.tensor([[SEEN, torch.pi]], dtype=torch.float64).expand(n, 2)  # pi stands where it must not be read
    options = {"known": known, "mask": mask, "resample": resample, "generator": generator}
    denoiser = Counting(ExactDenoiser(PAIR, schedule))
    return list(inpaint(denoiser, schedule, x, times, **options)), times, denoiser


@pytest.mark.parametrize("resample", [1, 3])
def test_known_part_states_and_cost(schedule, resample, generator):
    states, times, denoiser = fill(schedule, resample=resample, generator=generator)
    assert len(states) == len(times) == 21
    assert bool((states[-1][:, 0] == SEEN).all()) and not bool((states[-1][:, 1] == torch.pi).any())
    expected = [t for t in times[:-2].tolist() for _ in range(resample)] + [float(times[-2])]
    assert denoiser.times == expected  # (N - 1) resample + 1


def test_the_known_part_is_noised_afresh_at_every_time(schedule, generator):
    """At each time it is a draw of N(alpha y, sigma^2), within 4 standard errors, independent of the draw before."""
    n = 4000
    states, times, _ = fill(schedule, n, steps=6, generator=generator)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    noise = [(state[:, 0] - a * SEEN) / s for state, a, s in zip(states[:-1], alpha, sigma, strict=False)]
    for before, now in zip([None, *noise], noise, strict=False):
        assert abs(float(now.mean())) < 4 / n**0.5 and abs(float(now.std()) - 1) < 4 / (2 * n) ** 0.5
        assert before is None or abs(float((before * now).mean())) < 4 / n**0.5


def test_the_known_part_without_its_noise_is_the_signal(schedule, monkeypatch):
    """alpha y at every time of the grid, the start included."""
    monkeypatch.setattr("diffusion_lib.noise.randn_like", lambda x, generator: torch.zeros_like(x))
    states, times, _ = fill(schedule, n=1, resample=2)
    assert torch.allclose(torch.cat(states)[:, 0], schedule.alpha(times) * SEEN, rtol=1e-12)


def test_masks_of_all_shapes_mean_the_same():
    schedule = VPSchedule()
    results = [
        fill(schedule, mask=mask, generator=torch.Generator().manual_seed(1))[0][-1]
        for mask in (FIRST, FIRST[None], FIRST[None].expand(16, 2).clone())
    ]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_pictures_and_everything_known(generator):
    schedule = VPSchedule()
    x, known = torch.randn(3, 1, 4, 4, generator=generator), torch.rand(3, 1, 4, 4, generator=generator)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:, :2] = True
    options = {"known": known, "generator": generator}
    out = final(inpaint(lambda x, t: 0.3 * x, schedule, x, time_grid(schedule, 5), mask=mask, **options))
    assert out.dtype == torch.float32 and torch.equal(out[..., :2], known[..., :2])
    everything = torch.ones(1, dtype=torch.bool)
    assert torch.equal(final(inpaint(lambda x, t: 0.3 * x, schedule, x, time_grid(schedule, 5), mask=everything, **options)), known)


def test_nothing_known_is_ancestral_sampling(schedule, monkeypatch):
    """With the noise held at one value, the walk is ddpm's."""
    monkeypatch.setattr("diffusion_lib.noise.randn_like", lambda x, generator: torch.full_like(x, 0.3))
    nothing = torch.zeros(2, dtype=torch.bool)
    states, times, _ = fill(schedule, mask=nothing)
    for ours, theirs in zip(states, ddpm(ExactDenoiser(PAIR, schedule), schedule, states[0], times), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def expected_fill(schedule, resample, monkeypatch):
    """The exact mean of the unknown part: the walk is affine in its noise, so it is the walk without noise."""
    with monkeypatch.context() as patch:
        patch.setattr("diffusion_lib.noise.randn_like", lambda x, generator: torch.zeros_like(x))
        patch.setattr("diffusion_lib.noise.randn", lambda shape, *a, **k: torch.zeros(shape, dtype=torch.float64))
        return float(fill(schedule, n=1, steps=100, resample=resample)[0][-1][0, 1])


def test_replacement_is_biased_and_resampling_mends_it(schedule, monkeypatch):
    """E[x_2 | x_1 = 1.5] = 1.35. Replacement stays at least a quarter below it; each further resampling brings it closer, to 3 % with 20."""
    exact = CORRELATION * SEEN
    errors = [1 - expected_fill(schedule, resample, monkeypatch) / exact for resample in (1, 2, 5, 20)]
    assert errors[0] > 0.25 and errors[0] > errors[1] > errors[2] > errors[3] > -0.01 and errors[3] < 0.03


def test_spread_of_what_is_filled_in(generator):
    """std[x_2 | x_1] = 0.436: replacement is too wide by more than 4 standard errors and 15 %; 20 resamplings are within 4 and 3 %."""
    schedule, n = VPSchedule(), 3000
    exact, tolerance = (1 - CORRELATION**2) ** 0.5, 4 / (2 * n) ** 0.5
    wide, near = (
        float(fill(schedule, n, steps=100, resample=resample, generator=generator)[0][-1][:, 1].std()) / exact
        for resample in (1, 20)
    )
    assert wide > 1.15 + tolerance and abs(near - 1) < 0.03 + tolerance
