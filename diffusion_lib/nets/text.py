"""From a caption to vectors: a tokenizer with a fixed vocabulary, and a small transformer that reads its tokens.

Vaswani et al. 2017; pre-norm as in Xiong et al. 2020. The words are passed in and kept in the config, so that a checkpoint rebuilds both.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lib.validate import check_count, check_positive

PAD, START = 0, 1  # token 0 fills up, token 1 opens every caption: the empty caption is START and padding
SPECIAL = 2


class Tokenizer:
    """Words to numbers: captions -> (B, length) int64, START, the words, PAD.

    words: the vocabulary, all different; case does not matter. A word of a caption is a run of letters, digits, hyphens or apostrophes; a mark such
    as a comma is a word of its own if the vocabulary has it, and is passed over if not.
    length: tokens a caption, START included.
    """

    def __init__(self, words: Sequence[str], length: int = 32):
        self.words, self.length = [str(word).lower() for word in words], check_count("length", length, least=2)
        if not self.words or len(set(self.words)) < len(self.words):
            raise ValueError(f"words holds {len(self.words)} entries, {len(set(self.words))} of them different; expected a vocabulary without repeats.")
        self.number = {word: k + SPECIAL for k, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words) + SPECIAL

    def __call__(self, captions: str | Sequence[str]) -> Tensor:
        """One caption or several -> (B, length). ValueError for an empty or over-long one, or a word it does not know (with the nearest)."""
        return torch.stack([self._one(caption) for caption in ([captions] if isinstance(captions, str) else captions)])

    def empty(self) -> Tensor:
        """The caption that asks for nothing: (length,)."""
        return torch.tensor([START] + [PAD] * (self.length - 1))

    def text(self, tokens: Tensor) -> str:
        """The words of one row of tokens (length,), joined by blanks."""
        return " ".join(self.words[k - SPECIAL] for k in tokens.tolist() if k >= SPECIAL)

    def _one(self, caption: str) -> Tensor:
        found = [word for word in re.findall(r"[\w'-]+|[^\w\s]", str(caption).lower()) if word in self.number or re.match(r"\w", word)]
        if not found:
            raise ValueError(f"The prompt {caption!r} holds no word; expected a caption such as one of {', '.join(map(repr, self.words[:3]))}, …")
        unknown = [word for word in found if word not in self.number]
        if unknown:
            near = difflib.get_close_matches(unknown[0], self.words, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it knows {', '.join(map(repr, sorted(self.words)))}."
            raise ValueError(f"The word {unknown[0]!r} of the prompt is unknown; expected words of the vocabulary: {hint}")
        if len(found) >= self.length:
            raise ValueError(f"The prompt has {len(found)} words; expected at most {self.length - 1}: shorten it.")
        return torch.tensor([START, *(self.number[word] for word in found)] + [PAD] * (self.length - 1 - len(found)))


class TextBlock(nn.Module):
    """Self-attention and an MLP on residual paths, each behind a layer norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = h.shape
        qkv = self.qkv(self.norm_in(h)).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv, attn_mask=mask[:, None, None, :])            # (B, heads, L, width / heads)
        h = h + self.mix(mixed.transpose(1, 2).reshape(batch, length, width))
        return h + self.mlp(self.norm_out(h))                                                     # (B, L, width)


class TextEncoder(nn.Module):
    """Tokens -> one vector a word, and one for the caption.

    Args:
        vocabulary: number of tokens, ``len(tokenizer)``.
        length: most tokens in a caption.
        width: of the vectors, a multiple of ``heads``.
        layers: transformer blocks.
        heads: attention heads.
        position_scale: standard deviation of the position embedding at the start, > 0; the token embedding's is 1. At 0.02, a usual choice
            elsewhere, the order of the words is too faint to be learned, and with it which colour belongs to which shape. Book (8.13).
    """

    def __init__(self, vocabulary: int, length: int = 32, width: int = 128, layers: int = 2, heads: int = 4, position_scale: float = 1.0):
        super().__init__()
        for name, value in (("vocabulary", vocabulary), ("length", length), ("layers", layers), ("heads", heads)):
            check_count(name, value)
        if check_count("width", width) % heads:
            raise ValueError(f"width={width} was given for heads={heads}; expected a multiple of the heads.")
        self.config = dict(vocabulary=vocabulary, length=length, width=width, layers=layers, heads=heads, position_scale=position_scale)
        self.vocabulary, self.length = vocabulary, length
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(check_positive("position_scale", position_scale) * torch.randn(length, width))
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tokens (B, L) integers, L <= length -> words (B, L, width), mask (B, L) bool (False: padding), pooled (B, width), their mean."""
        tokens = self._check(tokens)
        mask = tokens != PAD                                                                      # (B, L)
        h = self.token(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            h = block(h, mask)
        words = self.norm(h)
        share = mask.to(words.dtype)[:, :, None]
        return words, mask, (words * share).sum(1) / share.sum(1)

    def _check(self, tokens: Tensor) -> Tensor:
        if not isinstance(tokens, Tensor) or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
            raise TypeError(f"tokens is {getattr(tokens, 'dtype', type(tokens).__name__)}; expected integers (B, L): use the net's tokenizer.")
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.length:
            raise ValueError(f"tokens has shape {tuple(tokens.shape)}; expected (B, L) with L <= {self.length}: use the net's tokenizer.")
        if tokens.device.type == "cpu" and len(tokens) and not torch.compiler.is_compiling():
            low, high = int(tokens.min()), int(tokens.max())
            if low < 0 or high >= self.vocabulary:
                raise ValueError(f"tokens spans [{low}, {high}]; expected 0..{self.vocabulary - 1}: this encoder has another vocabulary.")
            if not bool((tokens != PAD).any(1).all()):
                raise ValueError("tokens has a row of padding alone; expected START at least: the empty caption is tokenizer.empty().")
        return tokens.long()
