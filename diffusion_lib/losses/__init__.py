"""Losses: denoising.py the one that trains · times.py which times · weights.py how much each counts · bounds.py the variational
bound and Improved DDPM's hybrid · vae.py chapter 1's bounds."""

from diffusion_lib.losses.bounds import HybridLoss, VariationalLoss, bound_term, prior_term
from diffusion_lib.losses.denoising import DenoisingLoss, SampledLoss
from diffusion_lib.losses.times import DiscreteTimes, ImportanceTimes, TimeSampler, UniformTimes
from diffusion_lib.losses.vae import (
    PPCA,
    VAELoss,
    dequantise,
    iwae_bound,
    log_weights,
    pathwise_gradient,
    probabilistic_pca,
    score_function_gradient,
    vae_bound,
    vae_terms,
)
from diffusion_lib.losses.weights import WEIGHTS, loss_weight

__all__ = [
    "PPCA",
    "WEIGHTS",
    "DenoisingLoss",
    "DiscreteTimes",
    "HybridLoss",
    "ImportanceTimes",
    "SampledLoss",
    "TimeSampler",
    "UniformTimes",
    "VAELoss",
    "VariationalLoss",
    "bound_term",
    "dequantise",
    "iwae_bound",
    "log_weights",
    "loss_weight",
    "pathwise_gradient",
    "prior_term",
    "probabilistic_pca",
    "score_function_gradient",
    "vae_bound",
    "vae_terms",
]
