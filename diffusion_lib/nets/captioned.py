"""A U-Net that reads captions: text encoder and U-Net as one network, trained together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from diffusion_lib.nets.text import PAD, TextEncoder, Tokenizer
from diffusion_lib.nets.unet import UNet
from diffusion_lib.validate import check_choice

READS = ("both", "words", "pooled", "nothing")


class CaptionedUNet(nn.Module):
    """Denoising U-Net with captions: net(x, t, tokens=None), (B, C, H, W) -> (B, C, H, W). Rombach et al. 2022, section 3.3.

    Args:
        words: the vocabulary; kept in the config. ``net.tokenizer`` turns captions into tokens.
        length: most tokens in a caption, START included.
        channels, width, multipliers, blocks, attention, dropout, time_range: of the U-Net, see :class:`UNet`.
        cross_attention: the U-Net's levels that look at the words.
        coordinates: tell each level where its pixels lie, see :class:`UNet`; without it "left of" stays at chance for long. Book 8.8.
        text_width, text_layers, position_scale: of the text encoder, see :class:`TextEncoder`.
        reads: what of the caption reaches the U-Net. "both": cross-attention to the words, and their mean added to the time's vector;
            "words", "pooled": only one of the two; "nothing": neither, and tokens are ignored.

    ``tokens=None`` is the empty caption for all, which is also ``net.null_condition["tokens"]``.
    """

    def __init__(
        self,
        words: Sequence[str],
        length: int = 32,
        channels: int = 4,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2),
        blocks: int | Sequence[int] = 1,
        attention: Sequence[int] = (-1,),
        cross_attention: Sequence[int] = (0, 1),
        text_width: int = 128,
        text_layers: int = 2,
        position_scale: float = 1.0,
        reads: str = "both",
        dropout: float = 0.0,
        time_range: tuple[float, float] = (0.0, 1.0),
        coordinates: bool = True,
    ):
        super().__init__()
        check_choice("reads", reads, READS)
        self.tokenizer, self.reads = Tokenizer(words, length), reads
        self.config = dict(
            words=self.tokenizer.words, length=length, channels=channels, width=width, multipliers=list(multipliers),
            blocks=blocks if isinstance(blocks, int) else list(blocks), attention=list(attention), cross_attention=list(cross_attention),
            text_width=text_width, text_layers=text_layers, position_scale=position_scale, reads=reads, dropout=dropout,
            time_range=list(time_range), coordinates=coordinates,
        )
        heads = max(h for h in (4, 2, 1) if text_width % h == 0)
        self.text = None if reads == "nothing" else TextEncoder(len(self.tokenizer), length, text_width, text_layers, heads, position_scale)
        self.unet = UNet(
            channels, width, multipliers, blocks, attention, dropout=dropout, time_range=time_range,
            coordinates=coordinates, cross_attention=cross_attention if reads in ("both", "words") else (),
            context=text_width if reads in ("both", "words") else None, pooled=text_width if reads in ("both", "pooled") else None,
        )
        self.channels = channels

    @property
    def null_condition(self) -> dict[str, Tensor]:
        """What stands for "nothing asked", for one sample: {"tokens": the empty caption (length,)}."""
        return {"tokens": self.tokenizer.empty()}

    def forward(self, x: Tensor, t: Tensor | float, tokens: Tensor | None = None) -> Tensor:
        """Predict for x (B, C, H, W) at times t (B,), for captions ``tokens`` (B, L) or None."""
        if self.text is None:
            return self.unet(x, t)
        if tokens is None:
            tokens = self.tokenizer.empty().to(x.device).expand(len(x), -1)
        elif len(tokens) != len(x):
            raise ValueError(f"tokens has {len(tokens)} rows and x has {len(x)} samples; expected one caption a sample.")
        words, mask, pooled = self.text(_trimmed(tokens))
        seen = {"context": words, "mask": mask} if self.reads in ("both", "words") else {}
        return self.unet(x, t, **seen, pooled=pooled if self.reads in ("both", "pooled") else None)


def _trimmed(tokens: Tensor) -> Tensor:
    """``tokens`` without the columns that are padding in every row. Padding changes nothing, and costs time; on an accelerator looking costs more."""
    if tokens.device.type != "cpu" or tokens.ndim != 2 or not len(tokens):
        return tokens
    used = (tokens != PAD).any(0).nonzero()
    return tokens[:, : int(used[-1]) + 1] if len(used) else tokens
