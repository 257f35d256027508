"""Fashion-MNIST, MNIST and CIFAR-10 through the `datasets` library: fetched once, then read from its cache."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_lib.validate import check_choice, check_count


class HubSet(NamedTuple):
    """A data set on the hub: its repository, the columns that hold pictures and labels, and a picture's (C, H, W)."""

    repository: str
    picture: str
    label: str
    shape: tuple[int, int, int]


HUB: dict[str, HubSet] = {
    "fashion-mnist": HubSet("zalando-datasets/fashion_mnist", "image", "label", (1, 28, 28)),
    "mnist": HubSet("ylecun/mnist", "image", "label", (1, 28, 28)),
    "cifar10": HubSet("uoft-cs/cifar10", "img", "label", (3, 32, 32)),
}
LEVELS = 256


def images(name: str, split: str = "train", *, data_files: str | Path | Sequence[str | Path] | None = None,
           limit: int | None = None) -> tuple[Tensor, Tensor]:
    """A data set of the hub as ``(images, labels)``: (N, C, H, W) float32 in [-1, 1] and (N,) int64.

    name: "fashion-mnist" (1, 28, 28) | "mnist" (1, 28, 28) | "cifar10" (3, 32, 32); each has 10 classes
    split: "train" | "test" | "all" (train, then test)
    data_files: parquet files that were downloaded by hand, in the hub's form; then nothing is fetched and `split` is not used
    limit: keep only the first so many pictures
    Errors: ImportError without `datasets`; ConnectionError where it is neither cached nor reachable; FileNotFoundError for a missing
        data file; ValueError for an unknown name or split, or files of another form.
    """
    source = HUB[check_choice("name", name, HUB)]
    check_choice("split", split, ("train", "test", "all"))
    if limit is not None:
        check_count("limit", limit)
    table = _open(name, source, "train+test" if split == "all" else split, data_files)
    if limit is not None:
        table = table.select(range(min(limit, len(table))))
    return rows_to_tensors(table, source, name)


def _open(name: str, source: HubSet, split: str, data_files: Any) -> Any:
    """The `datasets.Dataset` of one split."""
    try:
        import datasets
    except ImportError:
        raise ImportError(f"{name} is read through the library `datasets`, which is not installed; "
                          "run `pip install datasets`, or use the digits, which need no download.") from None
    if data_files is not None:
        files = [data_files] if isinstance(data_files, (str, Path)) else list(data_files)
        for file in files:
            if not Path(file).is_file():
                raise FileNotFoundError(f"The data file {file} does not exist; expected parquet files of {name}: check the path.")
        try:
            return datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
        except Exception as error:
            raise ValueError(f"{', '.join(map(str, files))} cannot be read as parquet ({_first_line(error)}); "
                             f"expected the hub's parquet files of {source.repository}: download them again.") from None
    try:
        return datasets.load_dataset(source.repository, split=split)
    except Exception as error:  # the hub's client raises a dozen types for "no network"
        raise ConnectionError(f"{name} is not in the cache and {source.repository} could not be fetched ({_first_line(error)}); "
                              "connect once, or pass data_files=<its parquet files>, or use the digits, which need no download.") from None


def rows_to_tensors(table: Any, source: HubSet, name: str) -> tuple[Tensor, Tensor]:
    """Decode the hub's rows, {picture: {"bytes", "path"} or a PIL image, label: int}, to ``(images, labels)`` as in `images`.

    table: a `datasets.Dataset`; ValueError, one sentence, if a column is missing or a picture has another shape.
    """
    from PIL import Image

    column = next((c for c in (source.picture, "image", "img") if c in table.column_names), None)
    if column is None or source.label not in table.column_names:
        raise ValueError(f"The rows of {name} have the columns {table.column_names}; expected {source.picture!r} and {source.label!r}: "
                         "give the hub's own parquet files.")
    if hasattr(table.features[column], "decode"):                       # an Image feature: keep the bytes, decode them here
        import datasets

        table = table.cast_column(column, datasets.Image(decode=False))
    channels, height, width = source.shape
    pictures = torch.empty(len(table), height, width, channels, dtype=torch.uint8)
    mode = "L" if channels == 1 else "RGB"
    for i, picture in enumerate(table[column]):
        if isinstance(picture, dict):
            picture = Image.open(io.BytesIO(picture["bytes"]) if picture.get("bytes") else picture["path"])
        if picture.size != (width, height):
            raise ValueError(f"Row {i} of {name} is a picture of {picture.size[0]} x {picture.size[1]} pixels; expected {width} x {height}: "
                             f"are these files of {source.repository}?")
        raw = bytearray(picture.convert(mode).tobytes())
        pictures[i] = torch.frombuffer(raw, dtype=torch.uint8).view(height, width, channels)
    labels = torch.tensor(list(table[source.label]), dtype=torch.int64)
    scaled = pictures.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)
    return scaled, labels                                               # (N, C, H, W), (N,)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:120].rstrip('.') if text else 'no message'}"
