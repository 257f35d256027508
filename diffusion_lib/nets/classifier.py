"""Two small convolutional classifiers: of clean digits, whose layer before the last serves as features for the Fréchet distance, and of noisy ones."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lib.nets.blocks import ResidualBlock, group_norm
from diffusion_lib.nets.embeddings import Conditioning
from diffusion_lib.validate import check_count, check_tensor


class DigitClassifier(nn.Module):
    """Class scores of small square pictures, and the features they rest on.

    channels, size: of the pictures (channels, size, size), size >= 4
    classes: how many classes
    width: channels of the first convolution (the second has twice as many)
    features: length of the feature vector
    """

    def __init__(self, channels: int = 1, size: int = 8, classes: int = 10, width: int = 32, features: int = 32) -> None:
        super().__init__()
        check_count("size", size, 4)
        self.config = {"channels": channels, "size": size, "classes": classes, "width": width, "features": features}
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(4, width), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(4, width), nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.GroupNorm(4, 2 * width), nn.SiLU(),
            nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(2 * width * 9, features),
        )
        self.head = nn.Sequential(nn.SiLU(), nn.Dropout(0.2), nn.Linear(features, classes))

    def features(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] -> features (B, F), before the last nonlinearity."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] -> class scores (logits) (B, classes)."""
        return self.head(self.features(x))


class NoisyClassifier(nn.Module):
    """Class scores of noisy pictures: net(x, t) -> logits (B, classes). The half of a U-Net that goes down, pooled.

    What classifier guidance needs (Dhariwal & Nichol 2021, section 4.1): it must know p(class | x_t) at every noise level, so it is told t.

    channels, size: of the pictures (channels, size, size), size a multiple of 4
    classes: how many classes
    width: channels at full resolution; twice as many at half and at a quarter of it
    """

    def __init__(self, channels: int = 1, size: int = 8, classes: int = 10, width: int = 32) -> None:
        super().__init__()
        check_count("channels", channels)
        check_count("classes", classes)
        if check_count("size", size, 4) % 4:
            raise ValueError(f"size={size} was given; expected a multiple of 4, since this network halves the resolution twice: pad or resize.")
        self.config = {"channels": channels, "size": size, "classes": classes, "width": width}
        widths = [width, 2 * width, 2 * width]
        self.conditioning = Conditioning(width, 4 * width)
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, 4 * width) for a, b in zip([width, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Sequential(group_norm(2 * width), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, classes))

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Noisy pictures (B, C, H, W) at times t (B,) in [0, 1] -> class scores (logits) (B, classes)."""
        shape = (self.config["channels"], self.config["size"], self.config["size"])
        if check_tensor("x", x, 4).shape[1:] != shape:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (B, {', '.join(map(str, shape))}): this network was built for such pictures.")
        condition = F.silu(self.conditioning(x, t))
        h = self.stem(x)
        for k, block in enumerate(self.blocks):
            h = block(self.pool(h) if k else h, condition)
        return self.head(h)
