"""A folder of the reader's own pictures, of any size and format, as one tensor."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lib.validate import check_count

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


def folder(path: str | Path, size: int, *, channels: int = 3, skip_unreadable: bool = False) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Read a folder: ``(images, labels, classes)``, (N, C, size, size) float32 in [-1, 1], (N,) int64 and the classes' names.

    Each picture is turned upright (EXIF), cropped to its central square and resized with antialiasing. Pictures in a subfolder
    belong to the class of that name, classes in alphabetical order; pictures right in `path` mean one nameless class (classes == ()).
    Files that are no pictures by their suffix, and hidden ones, are left out.

    size: side of the result in pixels, >= 1
    channels: 3 (RGB; transparent parts become white) or 1 (grey)
    skip_unreadable: False refuses a folder with a damaged picture; True warns, and goes on without it
    Errors: FileNotFoundError for a missing folder; ValueError for an empty one, pictures both inside and beside subfolders, a
        damaged picture or another number of channels.
    """
    path = Path(path).expanduser()
    check_count("size", size)
    if channels not in (1, 3):
        raise ValueError(f"channels={channels!r} was given; expected 1 (grey) or 3 (RGB).")
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder; expected the path of a folder that holds pictures: check the spelling.")
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in SUFFIXES
                   and not any(part.startswith(".") for part in file.relative_to(path).parts))
    if not files:
        raise ValueError(f"The folder {path} holds no pictures ({', '.join(sorted(SUFFIXES))}); expected at least one: check the path.")
    owners = [file.relative_to(path).parts[0] if file.parent != path else None for file in files]
    classes = tuple(sorted({owner for owner in owners if owner is not None}))
    if classes and None in owners:
        raise ValueError(f"The folder {path} holds {owners.count(None)} pictures beside its subfolders ({', '.join(classes[:3])}); "
                         "expected one subfolder a class, or no subfolders: move them.")

    pictures, labels, unreadable = [], [], []
    for file, owner in zip(files, owners, strict=True):
        try:
            pictures.append(_read(file, size, channels))
            labels.append(classes.index(owner) if owner is not None else 0)
        except Exception as error:  # PIL raises many types for a damaged file
            unreadable.append(f"{file.relative_to(path)} ({type(error).__name__})")
    if unreadable:
        few = ", ".join(unreadable[:3]) + (", ..." if len(unreadable) > 3 else "")
        if not skip_unreadable or not pictures:
            raise ValueError(f"{len(unreadable)} of {len(files)} pictures in {path} cannot be read: {few}; "
                             "remove them, or pass skip_unreadable=True.")
        warnings.warn(f"{len(unreadable)} of {len(files)} pictures in {path} cannot be read and were left out: {few}.", stacklevel=2)
    scaled = torch.stack(pictures).to(torch.float32).div_(127.5).sub_(1)
    return scaled, torch.tensor(labels, dtype=torch.int64), classes     # (N, C, size, size), (N,)


def _read(file: Path, size: int, channels: int) -> Tensor:
    """One picture: (C, size, size) uint8."""
    from PIL import Image, ImageOps

    with Image.open(file) as opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        picture = picture.convert("L" if channels == 1 else "RGB")
    fitted = ImageOps.fit(picture, (size, size), method=Image.Resampling.LANCZOS)   # central square, then antialiased resize
    return torch.frombuffer(bytearray(fitted.tobytes()), dtype=torch.uint8).view(size, size, channels).permute(2, 0, 1)
