"""Diffusion where it is cheap: an autoencoder and a measured scale, so that samplers, likelihoods and guidance walk on latents as on any data.

A latent is data of shape (C, h, w) with standard deviation 1. Nothing else in the library needs to know: encode the training set, train and sample
as always, decode the result. Rombach et al. 2022, section 3 and appendix G ("rescaling").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lib.validate import check_count, check_number, check_positive, check_tensor


class LatentSpace:
    """An autoencoder and the affine map that makes its latents have mean 0 and standard deviation 1: z = scale (latents(x) - shift).

    autoencoder: a net with latents(x), decode(z) and .latent, as `nets.KLAutoencoder` and `nets.VQAutoencoder`. It is put in eval mode.
    scale: > 0, one number, so that distances keep their ratios. shift: one number a channel, or one for all; 0 for Rombach et al. 2022, who
    only scale. Both are measured: see :meth:`measured`. Book (8.10), (8.11).
    """

    def __init__(self, autoencoder: nn.Module, scale: float, shift: float | Sequence[float] = 0.0):
        self.autoencoder, self.scale = autoencoder.eval(), float(check_positive("scale", scale))
        values = [float(shift)] * autoencoder.latent if isinstance(shift, (int, float)) else [float(value) for value in shift]
        if len(values) != autoencoder.latent:
            raise ValueError(f"shift holds {len(values)} numbers; expected one for each of the {autoencoder.latent} channels of the latents.")
        self.shift = [check_number("shift", value) for value in values]

    @classmethod
    @torch.no_grad()
    def measured(cls, autoencoder: nn.Module, pictures: Tensor | Iterable[Tensor], *, shift: bool = True, batch: int = 512) -> LatentSpace:
        """The space whose latents of ``pictures`` have mean 0 in each channel (with ``shift``) and standard deviation 1 over all numbers.

        pictures: (N, C, H, W) in [-1, 1], or an iterable of such batches, so that they need not fit into memory together.
        shift=False: scale alone, by the standard deviation about the channels' common mean, as Rombach et al. 2022 do with their first batch.
        """
        autoencoder.eval()
        parts = pictures.split(check_count("batch", batch)) if isinstance(pictures, Tensor) else pictures
        count, total, square = 0, 0.0, 0.0
        for x in parts:
            z = autoencoder.latents(x).double()
            count += z.numel() // z.shape[1]
            total, square = total + z.sum((0, 2, 3)), square + z.square().sum((0, 2, 3))
        if count < 2:
            raise ValueError(f"pictures gave {count} latent pixels; expected at least 2, to measure a standard deviation.")
        mean, second = total / count, square / count                                          # (C,)
        centre = mean if shift else mean.mean()
        variance = float((second - 2 * centre * mean + centre**2).mean())
        return cls(autoencoder, 1 / math.sqrt(variance), mean.tolist() if shift else 0.0)

    @classmethod
    def from_card(cls, autoencoder: nn.Module, card: Mapping[str, Any]) -> LatentSpace:
        """The space in which a latent model was trained, from its card's "latents". ValueError, one sentence, if the scale is missing or wrong."""
        entry = card_entry(card)
        return cls(autoencoder, entry["scale"], entry.get("shift", 0.0))

    @property
    def entry(self) -> dict[str, Any]:
        """What the card of a latent model stores: {"scale", "shift"}."""
        return {"scale": self.scale, "shift": self.shift}

    def shape(self, height: int, width: int | None = None) -> tuple[int, int, int]:
        """The shape (C, h, w) of the latents of pictures of ``height`` x ``width`` pixels."""
        return self.autoencoder.latent_shape(height, height if width is None else width)

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] -> latents of standard deviation 1 (B, latent, h, w)."""
        z = self.autoencoder.latents(x)
        return self.scale * (z - self._shift(z))

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, latent, h, w) -> pictures (B, C, H, W), not clamped. Differentiable. ValueError for a latent of another shape."""
        check_tensor("z", z, 4)
        if z.shape[1] != self.autoencoder.latent:
            raise ValueError(f"z has shape {tuple(z.shape)}; expected latents (B, {self.autoencoder.latent}, h, w): this autoencoder's have "
                             f"{self.autoencoder.latent} channels, and pictures go through encode first.")
        return self.autoencoder.decode(z / self.scale + self._shift(z))

    def _shift(self, z: Tensor) -> Tensor:
        return torch.tensor(self.shift, dtype=z.dtype, device=z.device)[:, None, None]


def card_entry(card: Mapping[str, Any]) -> Mapping[str, Any]:
    """The card's "latents". ValueError, one sentence, if there is no scale in it."""
    entry = card.get("latents")
    if not isinstance(entry, Mapping) or "scale" not in entry:
        raise ValueError(f"The card of {card.get('architecture', 'the network')} names no latent scale, without which its samples decode to noise; "
                         "expected \"latents\": {\"scale\": …}: measure it with LatentSpace.measured(autoencoder, pictures) and save again.")
    return entry
