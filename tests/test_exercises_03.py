"""What chapter 3's printed solutions must do besides passing their judge (test_exercises.py)."""

from __future__ import annotations

import math

import pytest
import torch
from printed import printed_solution

from diffusion_lib.checks import check
from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture, three_modes
from diffusion_lib.samplers import ddim, ddim_invert, final
from diffusion_lib.schedules import CosineSchedule, time_grid

PATH = CosineSchedule()
CLOUDS = three_modes()
ORACLE = ExactDenoiser(CLOUDS, PATH)


def levels(s: float, t: float) -> tuple[float, float, float, float]:
    """(alpha_t, sigma_t, alpha_s, sigma_s)."""
    pair = torch.tensor([t, s], dtype=torch.float64)
    alpha, sigma = PATH.alpha(pair).tolist(), PATH.sigma(pair).tolist()
    return alpha[0], sigma[0], alpha[1], sigma[1]


def start(n: int = 200) -> torch.Tensor:
    return PATH.noise((n, 2), torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_steps_of_the_solution_make_the_librarys_sampler(eta):
    step, times, noise = printed_solution(3, "ddim_step"), time_grid(PATH, 12), torch.Generator().manual_seed(1)
    x = start()
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        alpha_t, sigma_t, alpha_s, sigma_s = levels(s, t)
        eps_hat = (x - alpha_t * ORACLE(x, t)) / sigma_t
        z = torch.randn(x.shape, generator=noise, dtype=x.dtype) if eta > 0 and s > 0 else torch.zeros_like(x)
        x = step(x, eps_hat, alpha_t, sigma_t, alpha_s, sigma_s, eta, z)
    library = final(ddim(ORACLE, PATH, start(), times, eta=eta, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(x, library, atol=1e-10)


def test_steps_of_the_solution_make_the_librarys_inversion():
    invert, times = printed_solution(3, "invert_step"), time_grid(PATH, 12).flip(0).tolist()
    x0 = CLOUDS.sample(100, torch.Generator().manual_seed(2))
    states = list(ddim_invert(ORACLE, PATH, x0, time_grid(PATH, 12)))
    for i in range(1, 12):  # the first step, from the data, takes its slope at its upper end
        alpha_t, sigma_t, alpha_s, sigma_s = levels(times[i], times[i + 1])
        eps_hat = (states[i] - alpha_s * ORACLE(states[i], times[i])) / sigma_s
        assert torch.allclose(invert(states[i], eps_hat, alpha_s, sigma_s, alpha_t, sigma_t), states[i + 1], atol=1e-10)


def test_arc_keeps_noise_and_the_line_does_not():
    arc = printed_solution(3, "interpolate")
    x, y = torch.randn(2, 20_000, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for u in (0.25, 0.5):
        norm, line = arc(x, y, u).norm(dim=1), ((1 - u) * x + u * y).norm(dim=1)
        assert (
            abs(norm.mean() - x.norm(dim=1).mean()) < 5 * (2 * 0.5 / len(x)) ** 0.5 + 1 / 64
        )  # 1/64: the ends' norms differ
        assert line.mean() < 0.85 * norm.mean()
    x, y = x[:, :2], y[:, :2]
    assert torch.allclose(arc(x, y, 0.0), x) and torch.allclose(arc(x, y, 1.0), y)


def test_kept_noise_walks_the_same_path_again():
    step, used = printed_solution(3, "ddim_step"), printed_solution(3, "noise_used")
    generator = torch.Generator().manual_seed(4)
    path = [start()]
    times = time_grid(PATH, 8)[:-1].tolist()
    for t in times[1:]:  # any path: here data plus noise that has nothing to do with the state before
        x0 = CLOUDS.sample(200, generator)
        path.append(PATH.alpha(t) * x0 + PATH.sigma(t) * torch.randn(x0.shape, generator=generator, dtype=x0.dtype))
    x = path[0]
    for i, (t, s) in enumerate(zip(times, times[1:], strict=False)):
        alpha_t, sigma_t, alpha_s, sigma_s = levels(s, t)
        guess = ORACLE(x, t)
        z = used(path[i + 1], x, guess, alpha_t, sigma_t, alpha_s, sigma_s)
        x = step(x, (x - alpha_t * guess) / sigma_t, alpha_t, sigma_t, alpha_s, sigma_s, 1.0, z)
        assert torch.allclose(x, path[i + 1], atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_one_picture_needs_one_step(eta):
    """3.14a."""
    point = GaussianMixture(*(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[0.3, -0.8]], [0.0])))
    denoiser = ExactDenoiser(point, PATH)
    for steps in (1, 7):
        end = final(
            ddim(denoiser, PATH, start(), time_grid(PATH, steps), eta=eta, generator=torch.Generator().manual_seed(5))
        )
        assert torch.allclose(end, point.means.expand_as(end), atol=1e-12)


@pytest.mark.parametrize(("steps", "middle", "spread"), [(10, 1.505, 0.0035), (1000, 1.5, 1e-12)])
def test_negative_root_ends_in_one_point(steps, middle, spread):
    """3.14b, with the numbers of its solution."""
    x = printed_solution(3, "flipped")(ORACLE, start(), time_grid(PATH, steps))
    assert x.std(0).max() < spread
    assert (x.mean(0) - torch.tensor([middle, 0.0])).abs().max() < 0.0005  # the digits that the page prints


def test_negative_root_with_five_steps_is_not_one_point():
    """3.14b."""
    x = printed_solution(3, "flipped")(ORACLE, start(4000), time_grid(PATH, 5))
    assert x[:, 0].std() > 0.5


def test_the_variance_may_be_taken_from_the_circle():
    """3.14e: 1 - alpha^2 for sigma^2 is right on a variance-preserving schedule."""
    def step(x_t, eps_hat, alpha_t, sigma_t, alpha_s, sigma_s, eta, z):
        variance_t, variance_s = 1 - alpha_t**2, 1 - alpha_s**2
        c = eta * (variance_s / variance_t * (1 - alpha_t**2 / alpha_s**2)) ** 0.5
        x0_hat = (x_t - variance_t**0.5 * eps_hat) / alpha_t
        return alpha_s * x0_hat + (variance_s - c**2) ** 0.5 * eps_hat + c * z

    assert check("3.14e", step).correct


def test_largest_eta_forgets():
    """3.14c: at c = sigma_s the step is the guess plus fresh noise."""
    t, s = 0.6, 0.4
    alpha_t, sigma_t, alpha_s, sigma_s = levels(s, t)
    eta = (1 - ((sigma_s / alpha_s) / (sigma_t / alpha_t)) ** 2) ** -0.5
    x, z = start(), start().flip(0)
    guess = ORACLE(x, t)
    eps_hat = (x - alpha_t * guess) / sigma_t
    step = printed_solution(3, "ddim_step")(x, eps_hat, alpha_t, sigma_t, alpha_s, sigma_s, eta * (1 - 1e-12), z)
    assert torch.allclose(step, alpha_s * guess + sigma_s * z, atol=1e-4)


def test_step_is_a_rotation():
    """3.14d, and the exact solution for Gaussian data."""
    x, guess = start(), start().flip(1)
    phi_t, phi_s = 1.1, 0.7
    alpha_t, sigma_t, alpha_s, sigma_s = math.cos(phi_t), math.sin(phi_t), math.cos(phi_s), math.sin(phi_s)
    eps_hat = (x - alpha_t * guess) / sigma_t
    v = alpha_t * eps_hat - sigma_t * guess
    step = printed_solution(3, "ddim_step")(x, eps_hat, alpha_t, sigma_t, alpha_s, sigma_s, 0.0, x)
    assert torch.allclose(step, math.cos(phi_t - phi_s) * x - math.sin(phi_t - phi_s) * v)

    gaussian = GaussianMixture(*(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[0.0, 0.0]], [0.25])))
    times = time_grid(PATH, 4000)
    end = final(ddim(ExactDenoiser(gaussian, PATH), PATH, start(20), times))
    rho = float(PATH.noise_level(times[0]))
    exact = start(20) / PATH.alpha(times[0]) * 0.5 / (0.25 + rho**2) ** 0.5
    assert torch.allclose(
        end, exact, rtol=2e-3
    )  # short by about pi^2 / (8 N) = 3e-4, times up to two for an uneven grid
