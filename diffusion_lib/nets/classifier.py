"""A small convolutional classifier; the layer before its last serves as features for the Fréchet distance."""

from __future__ import annotations

from torch import Tensor, nn

from diffusion_lib.validate import check_count


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
