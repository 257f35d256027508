"""The variational bound on -log p(x_0), in nats, term by term: the likelihood of the ancestral chain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.denoisers import Denoiser, check_variance, reverse_prediction
from diffusion_lib.losses.bounds import bound_term, prior_term
from diffusion_lib.samplers._walk import at, check_start
from diffusion_lib.schedules import Schedule
from diffusion_lib.targets import diffuse


@dataclass(frozen=True)
class Bound:
    """The variational bound on -log p(x_0), in nats, term by term.

    prior (B,): L_T. diffusion (N - 1, B): the KL of each step down to s > 0, in the order of the grid, noisiest first.
    reconstruction (B,): L_0 = -log p(x_0 | x_{t_1}). total (B,): their sum, which is minus the ELBO.
    """

    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor

    @property
    def total(self) -> Tensor:
        """The upper bound on -log p(x_0), (B,) nats: minus the ELBO."""
        return self.prior + self.diffusion.sum(0) + self.reconstruction


@torch.no_grad()
def elbo(
    denoiser: Denoiser,
    schedule: Schedule,
    x0: Tensor,
    *,
    times: Tensor,
    variance: str = "posterior",
    decoder: str = "gaussian",
    bins: int = 256,
    generator: torch.Generator | None = None,
    condition: dict[str, Tensor] | None = None,
) -> Bound:
    """The variational bound of x0 (B, ...) over a decreasing grid ``times`` (N + 1,) from t_max to 0, one noise draw a term.

    Its expectation is an upper bound on -log p(x_0) of the model that ``samplers.ddpm`` samples on the same grid with the same
    ``variance`` (whose last step here keeps its noise, or there would be no density). decoder: "gaussian", a density, or
    "discretized", the probability of one of ``bins`` values in [-1, 1]. N evaluations. Book (1.24), (2.8), (2.9). Ho et al. 2020, eq. 5.
    """
    times = check_start(x0, times)
    check_variance(denoiser, variance)
    if float(times[-1]) != 0.0 or abs(float(times[0]) - schedule.t_max) > 1e-6:
        raise ValueError(
            f"times runs from {float(times[0]):.4g} to {float(times[-1]):.4g}; expected t_max={schedule.t_max:.4g} to 0, "
            "or the bound would miss terms: use time_grid(schedule, steps)."
        )
    if decoder == "discretized" and bool((x0.abs() > 1 + 1 / (bins - 1)).any()):
        raise ValueError(
            f"x0 spans [{float(x0.min()):.4g}, {float(x0.max()):.4g}]; expected grey values in [-1, 1] for decoder='discretized': "
            "scale the pictures, or use decoder='gaussian'."
        )
    condition, terms = condition or {}, []
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        x = diffuse(x0, noise.randn_like(x0, generator), at(t, x0), schedule)
        x0_hat, options = reverse_prediction(denoiser, x, at(t, x), variance, condition)
        terms.append(bound_term(x0, x, x0_hat, s, t, schedule, **options, decoder=decoder, bins=bins))
    diffusion = torch.stack(terms[:-1]) if len(terms) > 1 else x0.new_zeros(0, x0.shape[0])
    return Bound(prior_term(x0, schedule), diffusion, terms[-1])
