"""What the picture networks are built of: convolutions on residual paths."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def zeroed(layer: nn.Module) -> nn.Module:
    """Set all parameters of ``layer`` to zero and return it: its branch starts as "add nothing"."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with at most 8 groups of at least 4 channels each (fewer groups where they would not divide)."""
    return nn.GroupNorm(max(g for g in (8, 4, 2, 1) if channels % g == 0 and (channels // g >= 4 or g == 1)), channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions on a residual path; the conditioning vector scales and shifts the features between them.

    "Adaptive group normalisation" (Dhariwal & Nichol 2021, section 3.1); without ``adaptive_norm`` the vector is only added before the
    norm, as in Ho et al. 2020. Book (6.8). The second convolution starts at zero.

    Args:
        inputs, outputs: channels in and out.
        condition: width of the conditioning vector.
        dropout: probability in [0, 1) of dropping a feature before the second convolution.
    """

    def __init__(self, inputs: int, outputs: int, condition: int, dropout: float = 0.0, adaptive_norm: bool = True):
        super().__init__()
        self.norm_in = group_norm(inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.adaptive_norm = adaptive_norm
        self.modulation = nn.Linear(condition, 2 * outputs if adaptive_norm else outputs)
        self.norm_out = group_norm(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        inner = self.conv_in(F.silu(self.norm_in(h)))                                   # (B, outputs, H, W)
        modulation = self.modulation(condition)[:, :, None, None]
        if self.adaptive_norm:
            scale, shift = modulation.chunk(2, dim=1)                                   # (B, outputs, 1, 1) each
            inner = self.norm_out(inner) * (1 + scale) + shift
        else:
            inner = self.norm_out(inner + modulation)
        return self.shortcut(h) + self.conv_out(self.dropout(F.silu(inner)))


class PlainBlock(nn.Module):
    """Two 3x3 convolutions on a residual path, steered by nothing: what an autoencoder is built of. The second starts at zero.

    Args:
        inputs, outputs: channels in and out.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.layers = nn.Sequential(
            group_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1),
            group_norm(outputs), nn.SiLU(), zeroed(nn.Conv2d(outputs, outputs, 3, padding=1)),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, h: Tensor) -> Tensor:
        return self.shortcut(h) + self.layers(h)                                        # (B, outputs, H, W)
