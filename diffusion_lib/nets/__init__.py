"""Networks: plain nn.Modules that know no schedule and no sampler.

Each keeps its constructor's arguments in ``net.config``, so that a checkpoint can rebuild it.
"""

from __future__ import annotations

from torch import nn

from diffusion_lib.nets.autoencoder import KLAutoencoder, VQAutoencoder, psnr
from diffusion_lib.nets.captioned import CaptionedUNet
from diffusion_lib.nets.classifier import DigitClassifier, NoisyClassifier
from diffusion_lib.nets.embeddings import C_NOISE_RANGE, LabelEmbedding, RandomFourier, TimeEmbedding, sinusoidal
from diffusion_lib.nets.lsgm import LSGM
from diffusion_lib.nets.mlp import MLP
from diffusion_lib.nets.quantise import Codebook, codebook_use
from diffusion_lib.nets.text import TextEncoder, Tokenizer
from diffusion_lib.nets.unet import UNet
from diffusion_lib.nets.vae import VAE, LinearVAE
from diffusion_lib.validate import check_choice

NETS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (MLP, UNet, CaptionedUNet, VAE, LinearVAE, KLAutoencoder, VQAutoencoder, LSGM, DigitClassifier, NoisyClassifier)
}


def build(name: str, config: dict) -> nn.Module:
    """Build a network from its class name (one of ``NETS``) and its ``config``, as a checkpoint's JSON card states them.

    Initialisation draws from torch's default generator: call torch.manual_seed first for a reproducible start.

    Raises:
        ValueError: for an unknown name, or a config with a misspelt or missing entry.
    """
    kind = NETS[check_choice("name", name, NETS)]
    try:
        return kind(**config)
    except TypeError as error:
        raise ValueError(
            f"config={config} does not fit {name} ({error}); expected the arguments of its constructor: take net.config."
        ) from error


def parameter_count(net: nn.Module) -> int:
    """Return how many trainable numbers ``net`` has."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


__all__ = [
    "C_NOISE_RANGE", "LSGM", "MLP", "NETS", "CaptionedUNet", "Codebook", "DigitClassifier", "KLAutoencoder", "LabelEmbedding", "LinearVAE", "NoisyClassifier",
    "RandomFourier", "TextEncoder", "TimeEmbedding", "Tokenizer", "UNet", "VAE", "VQAutoencoder", "build", "codebook_use", "parameter_count", "psnr",
    "sinusoidal",
]
