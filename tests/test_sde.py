"""The forward SDE, its reversals and the corrector, against the path, the Fokker-Planck equation and exact marginals."""

from __future__ import annotations

import math

import pytest
import torch
from laws import gains, gaussian, slope, start

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import three_modes, two_modes
from diffusion_lib.samplers import (
    euler_maruyama,
    euler_maruyama_coefficients,
    final,
    forward_sde,
    predictor_corrector,
)
from diffusion_lib.schedules import EDMSchedule, LinearSchedule, VESchedule, VPSchedule, time_grid
from diffusion_lib.transitions import forward_kernel

MIXTURE = three_modes()


def test_moments_of_the_forward_sde_follow_the_path(schedule):
    """x_t = p x_0 + sum q_k z_k exactly: p against alpha and sum q^2 against sigma^2 along the way, at order 1 in the step."""
    steps, means, variances = (90, 180, 360), [], []
    for n in steps:
        times = torch.linspace(0.0, 0.9, n + 1, dtype=torch.float64)
        wrong = []
        for part in (n // 3, 2 * n // 3, n):

            def walk(x, generator, grid=times[: part + 1]):
                return final(forward_sde(schedule, x, grid, generator=generator))

            p, q = gains(walk, 1, part)
            wrong.append((float(p / schedule.alpha(times[part])) - 1, float(q.square().sum() / schedule.sigma(times[part]) ** 2) - 1))
        mean, variance = (max(map(abs, errors)) for errors in zip(*wrong, strict=True))
        means.append(mean)
        variances.append(variance)
    assert abs(slope(steps, variances) + 1) < 0.15 and variances[-1] < 0.1
    if isinstance(schedule, VESchedule | EDMSchedule | LinearSchedule):  # alpha is constant or linear in t: Euler's steps are exact
        assert max(means) < 1e-11
    else:
        assert abs(slope(steps, means) + 1) < 0.15


def test_a_forward_step_is_the_exact_one_to_first_order(schedule):
    """1 + f h and g^2 h against q(x_t | x_s): both differ by O(h^2)."""
    s, widths, scales, variances = 0.5002, (4e-4, 2e-4, 1e-4, 5e-5), [], []
    for h in widths:
        scale, variance = forward_kernel(schedule, s, s + h)
        scales.append(abs(float(1 + schedule.drift(s) * h - scale)))
        variances.append(abs(float(schedule.diffusion_sq(s) * h - variance)))
    assert slope(widths, variances) > 1.95
    assert max(scales) < 1e-15 or slope(widths, scales) > 1.95


def test_marginals_solve_the_fokker_planck_equation(schedule, generator):
    """d log p / dt = -f D - f x.s + g^2/2 (div s + |s|^2), with autograd through the exact marginal, in t and in x."""
    for t in (0.0505, 0.3505, 0.7505):
        time = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        x = MIXTURE.marginal(schedule, t).sample(8, generator).requires_grad_()
        density = MIXTURE.marginal(schedule, time).log_prob(x)
        score = torch.autograd.grad(density.sum(), x, create_graph=True)[0]
        divergence = sum(torch.autograd.grad(score[:, d].sum(), x, retain_graph=True)[0][:, d] for d in range(2))
        change = torch.stack([torch.autograd.grad(value, time, retain_graph=True)[0] for value in density])
        x, score = x.detach(), score.detach()
        f, g_sq = schedule.drift(t), schedule.diffusion_sq(t)
        flux = -2 * f - f * (x * score).sum(1) + 0.5 * g_sq * (divergence + score.square().sum(1))
        size = change.abs().max() + g_sq * divergence.abs().max()
        assert float((change - flux).abs().max()) < 1e-10 * float(size)


@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0, 1.5])
def test_one_step_is_the_equation(schedule, stochasticity, generator):
    """x - h (f x - (1 + lambda^2)/2 g^2 score) + lambda g sqrt(h) z, with the mixture's own score."""
    t, h = 0.4, 1e-2
    times = torch.tensor([t, t - h], dtype=torch.float64)
    x = MIXTURE.marginal(schedule, t).sample(6, generator)
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    f, g_sq, score = schedule.drift(t), schedule.diffusion_sq(t), MIXTURE.score(x, t, schedule)
    expected = x - h * (f * x - (1 + stochasticity**2) / 2 * g_sq * score) + stochasticity * (g_sq * h).sqrt() * z
    options = {"stochasticity": stochasticity, "generator": torch.Generator().manual_seed(3)}
    found = final(euler_maruyama(ExactDenoiser(MIXTURE, schedule), schedule, x, times, **options))
    assert float((found - expected).abs().max()) < 1e-11 * float(expected.abs().max())


def test_only_the_step_to_the_data_is_without_noise(schedule):
    coefficients = euler_maruyama_coefficients(schedule, time_grid(schedule, 10))
    assert all(c > 0 for _, _, c in coefficients[:-1]) and coefficients[-1][2] == 0.0


@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0, 1.5])
def test_marginals_on_the_way(smooth_schedule, stochasticity):
    """States of a walk, where the components still overlap and after, against the exact marginal of two modes: Kolmogorov-Smirnov.

    sqrt(n) times the largest gap exceeds 2.23 once in 10,000 (k about 4). The bias of 400 steps is below half a unit for n = 2000.
    Euler's method in t on VE has six times the bias of the others, and six times the steps.
    """
    schedule, mixture, n = smooth_schedule, two_modes(), 2000
    slow = isinstance(schedule, VESchedule) and stochasticity < 1
    times = time_grid(schedule, 2400 if slow else 400, "log_snr")
    x, generator = start(schedule, n, dim=1), torch.Generator().manual_seed(1)
    states = euler_maruyama(
        ExactDenoiser(mixture, schedule), schedule, x, times, stochasticity=stochasticity, generator=generator
    )
    stops = {int((schedule.noise_level(times) > level).sum()) for level in (2.0, 0.5, 0.1)}
    for k, x in enumerate(states):
        if k not in stops and k != len(times) - 1:
            continue
        law = mixture.marginal(schedule, times[k])
        sorted_x = x[:, 0].sort().values
        cdf = (law.weights * torch.special.ndtr((sorted_x[:, None] - law.means[:, 0]) / law.covariances.sqrt())).sum(1)
        places = torch.arange(n + 1, dtype=torch.float64) / n
        gap = torch.maximum((cdf - places[:-1]).abs(), (places[1:] - cdf).abs()).max()
        assert math.sqrt(n) * float(gap) < 2.23, f"at t = {float(times[k]):.4g}"


# --- the corrector ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predictor", ["euler_maruyama", "ancestral"])
def test_the_corrector_has_the_variance_of_langevin_dynamics(schedule, predictor):
    """Many corrections at one time forget their start, and leave v / (1 - h / 4v) for a Gaussian of variance v = alpha^2 s^2 + sigma^2."""
    std, snr, corrections, t = 0.5, 0.3, 200, 0.5
    times = torch.tensor([t + 1e-6, t], dtype=torch.float64)

    def walk(x, generator):
        denoiser = ExactDenoiser(gaussian([std**2] * x.shape[1]), schedule)
        options = {"predictor": predictor, "corrector_steps": corrections, "snr": snr, "generator": generator}
        return final(predictor_corrector(denoiser, schedule, x, times, **options))

    p, q = gains(walk, 1, corrections + 1)
    sigma_sq = float(schedule.sigma(t) ** 2)
    v, h = float(schedule.alpha(t) ** 2) * std**2 + sigma_sq, 4 * snr**2 * sigma_sq
    remains = (1 - h / (2 * v)) ** (2 * corrections)  # of the variance with which the corrections began
    assert abs(float(q.square().sum()) / (v / (1 - h / (4 * v))) - 1) < 1e-9 + 2 * remains
    assert abs(float(p)) < 1e-12 + 2 * remains**0.5


def test_a_sample_does_not_depend_on_its_neighbours(monkeypatch):
    """The step is made from sigma, not from norms over the batch: with the same noise, alone or in company is the same."""
    schedule = VPSchedule()
    monkeypatch.setattr("diffusion_lib.noise.randn_like", lambda x, generator: torch.full_like(x, 0.3))
    x, times, denoiser = start(schedule, 5), time_grid(schedule, 10), ExactDenoiser(MIXTURE, schedule)
    alone = final(predictor_corrector(denoiser, schedule, x[:1], times))
    together = final(predictor_corrector(denoiser, schedule, x, times))[:1]
    assert float((alone - together).abs().max()) < 1e-12
