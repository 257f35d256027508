"""The whole state of a training run in one safetensors file, written atomically, so that it can be killed at any moment.

Tensors: net.*, ema.*, optimizer.<i>.*, loss.*, the noise generator and the loss curve. Numbers and the place in the data
ride as JSON in the same file's header: one file, hence one rename, hence never half of a state.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lib import __version__
from diffusion_lib.checkpoints import check_fits, read_tensors, write_atomically

NAME = "state.safetensors"


def write_state(folder: Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Write ``tensors`` and the JSON values ``numbers`` to folder/state.safetensors."""
    from safetensors.torch import save

    whole = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    header = {"format": "diffusion_lib training state", "state": json.dumps({"version": __version__, **numbers})}
    write_atomically(folder / NAME, save(whole, metadata=header))


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """(tensors, numbers) of folder/state.safetensors; None if there is none. Errors: ValueError if it is damaged or another file."""
    path = folder / NAME
    if not path.exists():
        return None
    tensors, header = read_tensors(path)
    if "state" not in header:
        raise ValueError(f"{path} holds weights but no training state; expected a file written by train(checkpoint=...): "
                         "choose another folder, or pass resume=False to overwrite it.")
    return tensors, json.loads(header["state"])


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's per-parameter state as a flat dict of tensors."""
    return {f"optimizer.{i}.{key}": value for i, state in optimizer.state_dict()["state"].items() for key, value in state.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put `pack_optimizer`'s tensors back."""
    whole = optimizer.state_dict()
    whole["state"] = {}
    for name, tensor in section(tensors, "optimizer").items():
        i, key = name.split(".", 1)
        whole["state"].setdefault(int(i), {})[key] = tensor
    optimizer.load_state_dict(whole)


def section(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The entries ``name.*``, without the prefix."""
    return {key[len(name) + 1:]: value for key, value in tensors.items() if key.startswith(name + ".")}


def prefixed(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``{name.key: tensor}``."""
    return {f"{name}.{key}": value for key, value in state.items()}


def restore(net: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load weights after checking that they fit. Errors: ValueError that names the first tensor that does not."""
    check_fits(net.state_dict(), state, source)
    net.load_state_dict(state)
