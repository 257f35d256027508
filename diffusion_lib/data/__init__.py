"""Data sets as tensors: pictures (N, C, H, W) float32 in [-1, 1] and labels (N,) int64, or 2-D points (n, 2).

One file a source: ``toy`` (2-D sets), ``digits`` (scikit-learn, no download), ``images`` (Fashion-MNIST, MNIST, CIFAR-10),
``shapes`` (captioned shapes, drawn on the spot, with the judge of their pictures), ``folder`` (the reader's own pictures). ``load`` picks the source by name.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor


def load(name: str, split: str = "train", *, size: int | None = None, channels: int | None = None) -> tuple[Tensor, Tensor | list[str]]:
    """Load a data set of pictures by its name: ``(images, labels)``, (N, C, H, W) float32 in [-1, 1] and (N,) int64.

    name: "digits", "fashion-mnist", "mnist", "cifar10", "shapes", or the path of a folder of pictures; in place of labels, shapes have N captions
    split: "train" | "test" | "all"; shapes also have "unseen"; a folder has no split, so give it "all" or "train"
    size: side of the pictures in pixels; needed for a folder, any for shapes (None: 32), None elsewhere keeps the data set's own
    channels: 1 (grey) or 3 (RGB) for a folder (None: 3); None elsewhere
    Errors: ValueError for an unknown name; those of the source.
    """
    from diffusion_lib.data import digits as _digits
    from diffusion_lib.data import folder as _folder
    from diffusion_lib.data import images as _images
    from diffusion_lib.data import shapes as _shapes

    if Path(name).is_dir():
        if split not in ("train", "all"):
            raise ValueError(f"split={split!r} was asked of the folder {name}; a folder has no split: "
                             "keep held-out pictures in a folder of their own.")
        if size is None:
            raise ValueError(f"The folder {name} was given without a size; expected the side of the pictures in pixels: pass size=32.")
        return _folder.folder(name, size, channels=channels or 3)[:2]
    if name == "shapes":
        if channels not in (None, 3):
            raise ValueError(f"channels={channels} was asked of the shapes, which have 3 (RGB): leave it out.")
        return _shapes.shapes(split, size or 32)
    if name == "digits":
        if size not in (None, 8) or channels not in (None, 1):
            raise ValueError(f"size={size}, channels={channels} was asked of the digits, which are 1 x 8 x 8: leave both out.")
        return _digits.digits(split)
    if name in _images.HUB:
        own = _images.HUB[name].shape
        if size not in (None, own[-1]) or channels not in (None, own[0]):
            raise ValueError(f"size={size}, channels={channels} was asked of {name}, whose pictures are {own}: leave both out.")
        return _images.images(name, split)
    raise ValueError(f"The data set {name!r} is unknown and no such folder exists; expected 'digits', 'shapes', "
                     f"{', '.join(map(repr, _images.HUB))} or the path of a folder of pictures: check the spelling.")
