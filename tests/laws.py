"""What the tests of samplers share: the list of samplers, a denoiser that counts, and the exact law of a sampler's output on Gaussian data."""

from __future__ import annotations

import math

import numpy as np
import torch

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture
from diffusion_lib.samplers import ddim, ddpm, deis, dpmpp, euler_maruyama, final, heun, predictor_corrector, unipc

# name: (sampler, options, draws of noise a step, weak order). An order of None: exact on Gaussians, or its error need not vanish.
SAMPLERS = {
    "ddim": (ddim, {}, 0, 1),
    "ddim-half": (ddim, {"eta": 0.5}, 1, 1),
    "ddim-ancestral": (ddim, {"eta": 1.0}, 1, 1),
    "ddpm-posterior": (ddpm, {"variance": "posterior"}, 1, 1),
    "ddpm-forward": (ddpm, {"variance": "forward"}, 1, 1),
    "ddpm-optimal": (ddpm, {"variance": "optimal"}, 1, None),
    "heun": (heun, {}, 0, 2),
    "heun-churn": (heun, {"churn": 2.0}, 1, 2),
    "dpmpp-sde": (dpmpp, {"eta": 1.0}, 1, 2),
    "dpmpp-sde-half": (dpmpp, {"eta": 0.5}, 1, 2),
    "dpmpp": (dpmpp, {}, 0, None),  # the orders of these four: test_multistep.py
    "dpmpp-3": (dpmpp, {"order": 3}, 0, None),
    "unipc": (unipc, {}, 0, None),
    "deis": (deis, {}, 0, None),
    "sde": (euler_maruyama, {}, 1, 1),
    "sde-half": (euler_maruyama, {"stochasticity": 0.5}, 1, 1),
    "euler": (euler_maruyama, {"stochasticity": 0.0}, 0, 1),
    "corrected-sde": (predictor_corrector, {}, 2, None),
    "corrected-ancestral": (predictor_corrector, {"predictor": "ancestral"}, 2, None),
}


class Counting:
    """A denoiser that counts how often it is asked, at which times, and for batches of which size."""

    def __init__(self, denoiser):
        self.denoiser, self.times, self.sizes = denoiser, [], []

    def __call__(self, x, t, **condition):
        self.times.append(float(t[0]))
        self.sizes.append(len(x))
        return self.denoiser(x, t, **condition)

    def variance(self, x, t, **condition):
        return self.denoiser.variance(x, t, **condition)


def class_log_prob(mixture, schedule, label):
    """log p(label | x_t), exact: label (B,) of component indices. The noisy classifier that classifier guidance asks for."""
    return lambda x, t: mixture.class_posterior(x, t, schedule).log().gather(1, label[:, None])[:, 0]


def start(schedule, n, seed=0, dim=2):
    return schedule.noise((n, dim), torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(variances, mean=0.0):
    """N(mean, diag(variances)) as a mixture of one component; ``variances`` has one entry per coordinate."""
    variances = torch.as_tensor(variances, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    return GaussianMixture(one, torch.full((1, len(variances)), mean, dtype=torch.float64), variances[None])


def level_grid(schedule, steps, highest=5.0, lowest=0.05):
    """Times at which sigma/alpha falls from ``highest`` to ``lowest`` in equal ratios: no step touches t = 0 or t_max."""
    levels = torch.linspace(math.log(highest), math.log(lowest), steps + 1, dtype=torch.float64)
    return schedule.time_of_log_snr(-levels)


def slope(steps, errors):
    """The fitted power of an error: log error against log steps."""
    return float(np.polyfit(np.log(steps), np.log(np.asarray(errors, dtype=float)), 1)[0])


def gains(walk, groups, draws, generator_seed=0):
    """For a walk that is affine in its start x and its noise, coordinate by coordinate: (p, q), last state = p x + sum_k q_k z_k.

    walk(x, generator) -> last state. Coordinates come in ``groups`` of equal coefficients. The walk's draws are repeated from the same
    generator and p (groups,) and q (draws, groups) solved for, with 8 more equations than unknowns: no Monte Carlo. AssertionError if
    the walk is not affine in them.
    """
    generator, size = torch.Generator().manual_seed(generator_seed), draws + 9
    shape = (1, groups * size)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    state = generator.get_state()
    z = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(draws)]
    generator.set_state(state)
    y = walk(x, generator).reshape(groups, size, 1)
    columns = torch.cat([x, *z]).T.reshape(groups, size, 1 + draws)
    solution = torch.linalg.lstsq(columns, y).solution
    residual = (columns @ solution - y).abs().amax((1, 2))
    assert bool((residual < 1e-9 * y.abs().amax((1, 2))).all()), "the walk is not affine in its start and its noise"
    return solution[:, 0, 0], solution[:, 1:, 0].T


def output_variance(name, schedule, times, variances, start_variances):
    """The exact variance of a sampler's last state, (V,), for data N(0, v) and a start N(0, w), for each v, w of two lists (V,)."""
    sampler, options, draws_a_step, _ = SAMPLERS[name]
    draws = draws_a_step * (len(times) - 1)
    variances, start_variances = (torch.as_tensor(v, dtype=torch.float64) for v in (variances, start_variances))
    data = gaussian(variances.repeat_interleave(draws + 9))

    def walk(x, generator):
        return final(sampler(ExactDenoiser(data, schedule), schedule, x, times, generator=generator, **options))

    p, q = gains(walk, len(variances), draws)
    return p**2 * start_variances + q.square().sum(0)


def marginal_variance(schedule, t, variances):
    """alpha^2 v + sigma^2 for each v."""
    return schedule.alpha(t) ** 2 * torch.as_tensor(variances, dtype=torch.float64) + schedule.sigma(t) ** 2
