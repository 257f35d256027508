"""Losses: denoising.py the one that trains · times.py which times · weights.py how much each counts · bounds.py the variational
bound and Improved DDPM's hybrid · vae.py chapter 1's bounds."""

from diffusion_lib.losses.bounds import HybridLoss, VariationalLoss, bound_term, prior_term
from diffusion_lib.losses.denoising import DenoisingLoss, SampledLoss
from diffusion_lib.losses.times import DiscreteTimes, ImportanceTimes, TimeSampler, UniformTimes
from diffusion_lib.losses.vae import *  # noqa: F403  (its __all__ is chapter 1's list)
from diffusion_lib.losses.weights import WEIGHTS, loss_weight

__all__ = [
    "WEIGHTS",
    "DenoisingLoss",
    "DiscreteTimes",
    "HybridLoss",
    "ImportanceTimes",
    "SampledLoss",
    "TimeSampler",
    "UniformTimes",
    "VariationalLoss",
    "bound_term",
    "loss_weight",
    "prior_term",
]
