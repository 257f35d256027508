"""A batch of pictures as one PNG file."""

from __future__ import annotations

import io
import math
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lib.checkpoints import write_atomically


def write_grid(path: str | Path, pictures: Tensor, *, columns: int | None = None, pixels: int = 64) -> None:
    """Write pictures (B, C, H, W) in [-1, 1], C = 1 or 3, side by side in rows, values outside clamped.

    columns: pictures in a row; None makes the grid about square
    pixels: small pictures are enlarged by a whole factor to at least about this many pixels a side
    Errors: ValueError for another shape or a NaN; OSError if the file cannot be written.
    """
    from PIL import Image

    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or len(pictures) == 0:
        raise ValueError(f"pictures has shape {tuple(pictures.shape)}; expected (B, C, H, W) with C = 1 (grey) or 3 (RGB).")
    if not bool(torch.isfinite(pictures).all()):
        raise ValueError("pictures holds NaN or infinity; expected values in [-1, 1]: the network or the sampler diverged.")
    count, channels, height, width = pictures.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    factor = max(1, round(pixels / max(height, width)))
    levels = ((pictures.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    levels = levels.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    gap = max(1, factor // 2)
    cell_h, cell_w = height * factor + gap, width * factor + gap
    canvas = torch.full((rows * cell_h + gap, columns * cell_w + gap, channels), 255, dtype=torch.uint8)
    for i, picture in enumerate(levels):
        top, left = gap + (i // columns) * cell_h, gap + (i % columns) * cell_w
        canvas[top:top + height * factor, left:left + width * factor] = picture.permute(1, 2, 0)
    image = Image.fromarray(canvas.squeeze(-1).numpy() if channels == 1 else canvas.numpy())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    write_atomically(path, buffer.getvalue())
