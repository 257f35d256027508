"""Samplers: generators of states over an explicit time grid, one algorithm family a file.

x_0 = final(ddim(denoiser, schedule, x_T, times)). Each state belongs to the time of the same index; the loop is the reader's.
"""

from diffusion_lib.samplers._walk import final
from diffusion_lib.samplers.annealed import annealed_langevin
from diffusion_lib.samplers.ddim import ddim, ddim_coefficients, ddim_invert, ddim_step
from diffusion_lib.samplers.ddpm import ddpm, ddpm_step
from diffusion_lib.samplers.deis import deis, deis_coefficients
from diffusion_lib.samplers.dpmpp import dpmpp, dpmpp_coefficients
from diffusion_lib.samplers.heun import heun
from diffusion_lib.samplers.importance import (
    AISResult,
    annealed_importance_sampling,
    effective_sample_size,
    geometric_path,
    log_mean_weight,
)
from diffusion_lib.samplers.inpaint import inpaint
from diffusion_lib.samplers.langevin import langevin, langevin_step, log_acceptance, minibatch_score, polynomial_steps
from diffusion_lib.samplers.sde import (
    euler_maruyama,
    euler_maruyama_coefficients,
    forward_sde,
    predictor_corrector,
)
from diffusion_lib.samplers.unipc import unipc, unipc_coefficients

__all__ = [
    "AISResult",
    "annealed_importance_sampling",
    "annealed_langevin",
    "ddim",
    "ddim_coefficients",
    "ddim_invert",
    "ddim_step",
    "ddpm",
    "ddpm_step",
    "deis",
    "deis_coefficients",
    "dpmpp",
    "dpmpp_coefficients",
    "effective_sample_size",
    "euler_maruyama",
    "euler_maruyama_coefficients",
    "final",
    "forward_sde",
    "geometric_path",
    "heun",
    "inpaint",
    "langevin",
    "langevin_step",
    "log_acceptance",
    "log_mean_weight",
    "minibatch_score",
    "polynomial_steps",
    "predictor_corrector",
    "unipc",
    "unipc_coefficients",
]
