"""Samplers: generators of states over an explicit time grid, one algorithm family a file.

x_0 = final(ddim(denoiser, schedule, x_T, times)). Each state belongs to the time of the same index; the loop is the reader's.
"""

from diffusion_lib.samplers._walk import final
from diffusion_lib.samplers.ddim import ddim, ddim_coefficients, ddim_step
from diffusion_lib.samplers.ddpm import ddpm, ddpm_step

__all__ = ["ddim", "ddim_coefficients", "ddim_step", "ddpm", "ddpm_step", "final"]
