"""Turn a time and a label into vectors that a network can read."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffusion_lib.validate import check_batch_time, check_count, check_positive

C_NOISE_RANGE = (-2.5, 2.5)  # c_noise = log(noise level) / 4 of EDM, for noise levels from e^-10 to e^10: all that any schedule reaches
TIME_SCALE = 1000.0  # t in [0, 1] becomes the step index 0..1000 of the original papers


def sinusoidal(t: Tensor, dim: int, scale: float = TIME_SCALE, period: float = 10_000.0) -> Tensor:
    """Sines and cosines of ``scale * t`` at ``dim / 2`` frequencies, geometrically spaced from 1 to ``1 / period``.

    Vaswani et al. 2017, section 3.5; of diffusion times: Ho et al. 2020, appendix B (their step is our ``1000 t``).

    Args:
        t: (B,) float, times in [0, 1].
        dim: an even number >= 2, the width of the embedding.
        scale: what t is multiplied by before the sines. Without it, all of [0, 1] would look nearly the same.
        period: the slowest sine has wavelength ``2 pi period`` in units of ``scale * t``.

    Returns:
        (B, dim), the sines first; computed in at least float32.

    Raises:
        ValueError: if ``dim`` is odd.
    """
    _check_even("dim", dim)
    t = t.to(torch.promote_types(t.dtype, torch.float32))
    exponent = torch.arange(dim // 2, device=t.device, dtype=t.dtype) / max(dim // 2 - 1, 1)  # (dim / 2,) in [0, 1]
    angle = scale * t[:, None] * torch.exp(-math.log(period) * exponent)                        # (B, dim / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)                                        # (B, dim)


def _check_even(name: str, value: int) -> int:
    if not isinstance(value, int) or value % 2 or value < 2:
        raise ValueError(f"{name}={value!r} was given; expected an even number >= 2 (half sines, half cosines).")
    return value


class RandomFourier(nn.Module):
    """Sines and cosines of ``2 pi f t`` at random, fixed frequencies f ~ N(0, scale^2): (B,) -> (B, dim).

    Tancik et al. 2020, section 4; of noise levels: Song et al. 2021 (score SDE).
    The frequencies are a buffer, so a checkpoint keeps them.

    Args:
        dim: an even number >= 2, the width of the embedding.
        scale: standard deviation of the frequencies, in cycles per unit of t.
    """

    def __init__(self, dim: int, scale: float = 16.0):
        super().__init__()
        _check_even("dim", dim)
        self.register_buffer("frequencies", torch.randn(dim // 2) * check_positive("scale", scale))

    def forward(self, t: Tensor) -> Tensor:
        angle = 2 * math.pi * t.to(self.frequencies.dtype)[:, None] * self.frequencies  # (B, dim / 2)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)                            # (B, dim)


class TimeEmbedding(nn.Module):
    """Sinusoidal features of t through a two-layer MLP: (B,) -> (B, out). Ho et al. 2020, appendix B.

    Args:
        features: width of the sinusoidal features, even.
        out: width of the result.
    """

    def __init__(self, features: int, out: int):
        super().__init__()
        self.features = _check_even("width", features)
        self.layers = nn.Sequential(nn.Linear(features, out), nn.SiLU(), nn.Linear(out, out))

    def forward(self, t: Tensor) -> Tensor:
        return self.layers(sinusoidal(t, self.features).to(self.layers[0].weight.dtype))


class LabelEmbedding(nn.Module):
    """One learned vector per class, and one more for "no class": the null class, with index ``classes``.

    The null class is what makes classifier-free guidance possible (Ho & Salimans 2022, section 3): the loss drops
    labels to it, and a sampler asks for it. The network itself never drops a label.

    Args:
        classes: number of classes K >= 1; labels are 0..K-1, and K is the null class.
        dim: width of the vectors.
    """

    def __init__(self, classes: int, dim: int):
        super().__init__()
        self.classes = check_count("classes", classes)
        self.table = nn.Embedding(classes + 1, dim)

    def forward(self, label: Tensor | None, batch: int) -> Tensor:
        """Embed ``label`` (B,), integers in [0, classes]; None is the null class for the whole batch -> (B, dim)."""
        if label is None:
            return self.table.weight[self.classes].expand(batch, -1)
        return self.table(check_label(label, batch, self.classes))


def check_label(label: Tensor, batch: int, classes: int) -> Tensor:
    """Return ``label`` as (B,) int64 if it is one integer class per sample (values are read on the CPU only).

    Raises:
        TypeError: if it is no integer tensor.
        ValueError: for a wrong shape, or a class outside [0, classes].
    """
    if not isinstance(label, Tensor):
        raise TypeError(
            f"label is a {type(label).__name__}; expected an integer tensor of shape ({batch},): use torch.tensor(label)."
        )
    if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        raise TypeError(f"label has dtype {label.dtype}; expected integers, one class per sample: call .long().")
    if label.shape != (batch,):
        raise ValueError(f"label has shape {tuple(label.shape)}; expected one class per sample: shape ({batch},).")
    if torch.compiler.is_compiling() or label.device.type != "cpu" or batch == 0:
        return label.long()
    if not bool(((label >= 0) & (label <= classes)).all()):
        raise ValueError(
            f"label spans [{int(label.min())}, {int(label.max())}]; expected classes 0..{classes - 1}, or {classes} for the "
            "null class: check the data's labels or the network's `classes`."
        )
    return label.long()


def batch_time(t: Tensor | float, x: Tensor, time_range: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """Return ``t`` as (B,) in [0, 1], moved there from ``time_range``, and checked.

    Inside torch.compile only its shape is looked at, so that the graph stays whole.
    """
    low, high = time_range
    if (low, high) != (0.0, 1.0):
        t = torch.as_tensor(t, dtype=x.dtype if not isinstance(t, Tensor) else None)
        if t.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(((t >= low) & (t <= high)).all()):
            raise ValueError(
                f"t spans [{float(t.min()):.4g}, {float(t.max()):.4g}], and this network was built with time_range=({low:g}, {high:g}); "
                "expected EDM's c_noise, log(noise level) / 4: call it through EDMDenoiser."
            )
        t = ((t - low) / (high - low)).clamp(0.0, 1.0)
    if torch.compiler.is_compiling() and isinstance(t, Tensor) and t.shape == x.shape[:1]:
        return t
    return check_batch_time(t, x)


class Conditioning(nn.Module):
    """The vector that steers every block: time embedding plus, where there are classes, label embedding -> (B, out).

    Args:
        features: width of the sinusoidal features, even.
        out: width of the vector.
        classes: number of classes, or None for a network without labels.
        time_range: the lowest and the highest t; C_NOISE_RANGE for a network inside an EDMDenoiser.
    """

    def __init__(
        self, features: int, out: int, classes: int | None = None, time_range: tuple[float, float] = (0.0, 1.0)
    ):
        super().__init__()
        low, high = time_range
        if not low < high:
            raise ValueError(f"time_range=({low:g}, {high:g}) was given; expected (low, high) with low < high.")
        self.time_range = (float(low), float(high))
        self.time = TimeEmbedding(features, out)
        self.label = None if classes is None else LabelEmbedding(classes, out)

    def forward(self, x: Tensor, t: Tensor | float, label: Tensor | None = None) -> Tensor:
        vector = self.time(batch_time(t, x, self.time_range))  # (B, out)
        if self.label is not None:
            return vector + self.label(label, x.shape[0])
        if label is not None:
            raise ValueError(
                "label was given, but this network has no classes; expected label=None: build the network with classes=K."
            )
        return vector
