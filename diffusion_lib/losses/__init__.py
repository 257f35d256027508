"""Losses: denoising.py the one that trains · times.py which times · weights.py how much each counts · bounds.py the variational
bound and Improved DDPM's hybrid · edm.py EDM's · score_matching.py explicit, implicit, sliced and denoising score matching · vae.py chapter 1's bounds ·
autoencoder.py what picture autoencoders minimise · lsgm.py a VAE and the prior of its latents in one bound."""

from diffusion_lib.losses.autoencoder import KLLoss, VQLoss
from diffusion_lib.losses.bounds import HybridLoss, VariationalLoss, bound_term, prior_term
from diffusion_lib.losses.denoising import DenoisingLoss, SampledLoss
from diffusion_lib.losses.edm import EDMLoss
from diffusion_lib.losses.lsgm import (
    LSGMLoss,
    LSGMTerms,
    VPImportanceTimes,
    cross_entropy,
    lsgm_terms,
    prior_denoiser,
)
from diffusion_lib.losses.score_matching import (
    denoising_score_matching,
    explicit_score_matching,
    implicit_score_matching,
    sliced_score_matching,
)
from diffusion_lib.losses.times import (
    DiscreteTimes,
    ImportanceTimes,
    LevelTimes,
    LogNormalLevels,
    TimeSampler,
    UniformTimes,
)
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
    "EDMLoss",
    "HybridLoss",
    "ImportanceTimes",
    "KLLoss",
    "LSGMLoss",
    "LSGMTerms",
    "LevelTimes",
    "LogNormalLevels",
    "SampledLoss",
    "TimeSampler",
    "UniformTimes",
    "VAELoss",
    "VPImportanceTimes",
    "VQLoss",
    "VariationalLoss",
    "bound_term",
    "cross_entropy",
    "denoising_score_matching",
    "dequantise",
    "explicit_score_matching",
    "implicit_score_matching",
    "iwae_bound",
    "log_weights",
    "loss_weight",
    "lsgm_terms",
    "pathwise_gradient",
    "prior_denoiser",
    "prior_term",
    "probabilistic_pca",
    "score_function_gradient",
    "sliced_score_matching",
    "vae_bound",
    "vae_terms",
]
