"""Attention over a picture's pixels: to each other, and to the words of a caption."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lib.nets.blocks import group_norm, zeroed


class SelfAttention(nn.Module):
    """Every pixel looks at every other one (Vaswani et al. 2017, eq. 1), on a residual path that starts at zero.

    Args:
        channels: channels in and out.
        head: channels per head; the number of heads is ``channels // head`` (at least one).
    """

    def __init__(self, channels: int, head: int = 32):
        super().__init__()
        self.heads = channels // head if channels % head == 0 else 1
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, h: Tensor) -> Tensor:
        batch, channels, height, width = h.shape
        tokens = self.norm(h).permute(0, 2, 3, 1).reshape(batch, height * width, channels)     # (B, HW, C)
        qkv = self.qkv(tokens).view(batch, height * width, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)                                         # (B, heads, HW, C / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, height * width, channels))       # (B, HW, C)
        return h + mixed.view(batch, height, width, channels).permute(0, 3, 1, 2)


class CrossAttention(nn.Module):
    """Every pixel looks at the words of its caption: queries from pixels, keys and values from words, on a residual path that starts at zero.

    Book (8.12). Rombach et al. 2022, section 3.3; Vaswani et al. 2017, eq. 1.

    Args:
        channels: channels in and out.
        context: width of the word vectors.
        head: channels per head; the number of heads is ``channels // head`` (at least one).
    """

    def __init__(self, channels: int, context: int, head: int = 32):
        super().__init__()
        self.heads = channels // head if channels % head == 0 else 1
        self.norm = group_norm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context, 2 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, h: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """h (B, C, H, W), context (B, L, context), mask (B, L) bool: True for a word, False for padding -> like h."""
        batch, channels, height, width = h.shape
        heads, length, each = self.heads, context.shape[1], channels // self.heads
        pixels = self.norm(h).permute(0, 2, 3, 1).reshape(batch, height * width, channels)     # (B, HW, C)
        query = self.query(pixels).view(batch, height * width, heads, each).transpose(1, 2)    # (B, heads, HW, C / heads)
        key, value = self.key_value(context).view(batch, length, 2, heads, each).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        found = self.out(found.transpose(1, 2).reshape(batch, height * width, channels))       # (B, HW, C)
        return h + found.view(batch, height, width, channels).permute(0, 3, 1, 2)
