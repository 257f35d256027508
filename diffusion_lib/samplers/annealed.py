"""Annealed Langevin sampling (NCSN): Langevin dynamics at one noise level after the other, from much noise to
little."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion_lib.denoisers import Denoiser
from diffusion_lib.samplers._walk import check_start, evaluate
from diffusion_lib.samplers.langevin import langevin_step
from diffusion_lib.schedules import Schedule
from diffusion_lib.validate import check_count, check_positive


def annealed_langevin(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    steps_per_level: int,
    step_size: float,
    denoise: bool = True,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """Annealed Langevin dynamics from x (B, ...) over a decreasing grid ``times`` (N + 1,): yields N + 1 states,
    ``x`` first.

    At each time t of times[:-1]: ``steps_per_level`` = K >= 1 steps x + (h/2) score + sqrt(h) z with h = step_size
    sigma_t^2, then x is rescaled by alpha_s / alpha_t to the next time s. State i is where the walk at times[i]
    begins. At s = 0, denoise=True replaces x by x0_hat (Tweedie), which takes the last level's noise away; False
    leaves x / alpha_t, with that noise in it. step_size > 0 is dimensionless: ``schedules.annealed_step_size``.
    times: ``schedules.level_times``. NCSN (Song & Ermon 2019, Alg. 1) writes alpha_i = eps sigma_i^2 / sigma_L^2 for
    h, so that step_size = eps / sigma_L^2; NCSNv2 (Song & Ermon 2020, Alg. 1) steps by x + alpha_i score + sqrt(2
    alpha_i) z, so that there step_size = 2 eps / sigma_L^2. The denoising step is that of Jolicoeur-Martineau et al.
    2021. It does not converge in N for fixed K and step_size: each level is left with the bias of ULA and of
    its start, and both vanish only for small step_size and large K N. N K evaluations, and one more to denoise.
    ValueError for a bad grid, a NaN in x, no steps or a step_size that is not positive. Book (4.22).
    """
    times = check_start(x, times, schedule)
    check_count("steps_per_level", steps_per_level)
    check_positive("step_size", step_size)
    return _walk(denoiser, schedule, x, times, steps_per_level, step_size, denoise, generator, condition)


@torch.no_grad()
def _walk(denoiser, schedule, x, times, steps_per_level, step_size, denoise, generator, condition) -> Iterator[Tensor]:
    alpha, sigma = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    times = times.tolist()
    yield x
    for k, t in enumerate(times[:-1]):
        h = step_size * sigma[k] ** 2
        for _ in range(steps_per_level):
            score = (alpha[k] * evaluate(denoiser, x, t, condition) - x) / sigma[k] ** 2
            x = langevin_step(x, score, h, generator)
        x = evaluate(denoiser, x, t, condition) if denoise and times[k + 1] == 0 else alpha[k + 1] / alpha[k] * x
        yield x
