"""Weights on disk: ``name.safetensors`` holds the tensors, ``name.json`` beside it the model card. No pickle anywhere.

A file is written whole or not at all: first under a temporary name in the same folder, forced to the disk, then renamed
over the old one (POSIX ``rename`` is atomic). The card names the SHA-256 of the tensors, so the two cannot drift apart.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lib import __version__, nets
from diffusion_lib.denoisers import EDMDenoiser, NetDenoiser
from diffusion_lib.schedules import schedule_from_config

WEIGHTS = Path(__file__).parent / "weights"
REQUIRED = ("architecture", "config", "tensors", "sha256")


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a crash at any moment leaves the old file or the new one, never a part.

    Errors: OSError, one sentence, if the folder cannot be written or the disk is full; the old file is then untouched.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        if os.name == "posix":  # the rename itself must reach the disk too
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        try:
            part.unlink(missing_ok=True)
        except OSError:
            pass
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"{path} could not be written ({reason}); what was there before is intact: "
                                   "free some space or choose another folder") from None


def hardware(device: torch.device | str = "cpu") -> str:
    """One line for a card: the GPU's name, or the processor and the number of threads torch uses."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {device.type}, {torch.get_num_threads()} threads"


def paths(path: str | Path) -> tuple[Path, Path]:
    """(tensors, card) of a checkpoint, given its name with or without ``.safetensors`` or ``.json``."""
    path = Path(path)
    if path.suffix in (".safetensors", ".json"):
        path = path.with_suffix("")
    return path.with_name(path.name + ".safetensors"), path.with_name(path.name + ".json")


def save(path: str | Path, net: nn.Module, card: dict[str, Any], *, dtype: torch.dtype | None = None) -> Path:
    """Write the weights of ``net`` and a model card; return the path of the tensors.

    path: where, with or without ``.safetensors``; the folder is made if it is missing
    net: a network of ``diffusion_lib.nets`` (it can be rebuilt from its class name and ``net.config``)
    card: what a reader wants to know, as JSON values: data, steps, seconds, hardware, metrics, command, and what use needs:
        schedule (``schedule.config``), target, shape of a picture (C, H, W). Architecture, config, tensor shapes,
        library version and SHA-256 are added here.
    dtype: how floating-point tensors are stored (torch.float16 halves the file); None keeps the network's own
    Errors: ValueError for a network that is not in ``diffusion_lib.nets`` or holds a NaN; TypeError for a card that is not
        JSON; OSError for a full or missing disk.
    """
    from safetensors.torch import save as to_bytes

    weights, card_path = paths(path)
    state = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in net.state_dict().items()}
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"The tensor {name!r} holds NaN or infinity; expected finite weights: "
                             "train again with a lower lr or with clip=1.0.")
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    if dtype is not None:
        state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    content = to_bytes(state)
    full = {**card, "architecture": _architecture(net), "config": net.config, "version": __version__, "torch": torch.__version__,
            "parameters": sum(p.numel() for p in net.parameters()), "bytes": len(content), "tensors": shapes,
            "sha256": hashlib.sha256(content).hexdigest()}
    try:
        text = _dump(full)
    except (TypeError, ValueError) as error:
        raise TypeError(f"The card cannot be written as JSON ({error}); expected str, finite numbers, bool, None, lists and dicts: "
                        "turn tensors into numbers with .item() or .tolist().") from None
    write_atomically(weights, content)
    write_atomically(card_path, text.encode())
    return weights


def load(path: str | Path, device: torch.device | str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild a network from its card and fill in its weights; returns ``(net, card)``, the net in eval mode.

    path: as given to `save`
    device: where to put the network; None is the CPU
    Errors: FileNotFoundError for missing weights or a missing card; ValueError, one sentence, for a pickle, a truncated file,
        a card that belongs to other weights, and another architecture (the first tensor that does not fit is named).
    """
    weights, card_path = paths(path)
    if not weights.exists():
        pickled = Path(path)
        if pickled.is_file() and pickled.suffix not in (".json", ""):
            refuse_pickle(pickled, pickled.read_bytes()[:4])
            raise ValueError(f"{pickled} is no .safetensors file; expected a checkpoint written by diffusion_lib.checkpoints.save.")
        raise FileNotFoundError(f"No weights at {weights}; expected a file written by save(): check the path, "
                                "or use pretrained(name) for the weights that ship with the package.")
    content = weights.read_bytes()
    state, _ = read_tensors(weights, content)
    card = _read_card(card_path)
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise ValueError(f"{weights.name} is not the file that {card_path.name} describes (their SHA-256 differ); expected a pair "
                         "written by one save(): copy both files from the same place, or save again.")
    try:
        net = nets.build(card["architecture"], card["config"]).float()     # whatever torch's default dtype is
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{card_path.name} asks for the architecture {card['architecture']!r}, which this version ({__version__}) "
                         f"cannot build ({str(error).strip()}); install the version that the card names ({card.get('version')}).") from None
    check_fits(net.state_dict(), state, weights.name)
    net.load_state_dict(state)
    return net.eval().to(device or "cpu"), card


def pretrained(name: str, device: torch.device | str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The weights that ship with the package: ``(net, card)``. ``card["command"]`` is the command that made them.

    name: one of `available`, e.g. "digits-ddpm"
    Errors: ValueError for an unknown name (the nearest one is suggested).
    """
    names = available()
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]!r}?" if near else "choose one of these."
        raise ValueError(f"No pretrained weights are called {name!r}; the package ships {', '.join(map(repr, names)) or 'none'}: {hint}")
    return load(WEIGHTS / name, device)


def available() -> list[str]:
    """The names that `pretrained` knows, sorted."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def denoiser_of(net: nn.Module, card: dict[str, Any], clip: float | None | str = "card") -> NetDenoiser | EDMDenoiser:
    """The loaded network as a denoiser, with the schedule (``.schedule``), target and learned variance that its card names.

    clip: clamp x0_hat to [-clip, clip], or None; "card" takes the card's ``clip`` (1 where it names none, as fits pictures)
    A card with "sigma_data" is that of a network inside EDM's preconditioning, which has no target and clips nothing.
    Errors: ValueError if the card names no schedule and target, or one that does not exist, or a clip is asked of EDM's.
    """
    for key in ("schedule",) if "sigma_data" in card else ("schedule", "target"):
        if key not in card:
            raise ValueError(f"The card of {card['architecture']} names no {key}; expected the card of a denoising network: "
                             f"pass {{'{key}': ...}} in the card when you save.")
    schedule = schedule_from_config(card["schedule"])
    if "sigma_data" in card:
        if clip not in ("card", None):
            raise ValueError(f"clip={clip!r} was given for a card with sigma_data; expected none, as EDM's preconditioning keeps x0_hat "
                             "near the data by itself: leave clip out.")
        return EDMDenoiser(net, card["sigma_data"], schedule)
    clip = card.get("clip", 1.0) if clip == "card" else clip
    return NetDenoiser(net, schedule, card["target"], bool(card["config"].get("learned_variance", False)), clip)


def read_tensors(path: Path, content: bytes | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a safetensors file. Errors: ValueError for a pickle or a truncated file."""
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    content = path.read_bytes() if content is None else content
    refuse_pickle(path, content[:4])
    try:
        tensors = from_bytes(content)
        header = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is truncated or damaged ({len(content)} bytes; {str(error).strip()}); expected a whole safetensors file: "
                         "download or save it again.") from None
    return tensors, header.get("__metadata__", {})


def refuse_pickle(path: Path, head: bytes) -> None:
    """ValueError if a file starts like a pickle or like torch.save's zip (loading one may run code)."""
    if head[:2] == b"PK" or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        raise ValueError(f"{path} is a pickle (torch.save), which can run code when it is read; expected safetensors: "
                         "load it where you trust it and write it again with diffusion_lib.checkpoints.save.")


def check_fits(expected: dict[str, Tensor], given: dict[str, Tensor], source: str) -> None:
    """ValueError that names the first tensor of ``given`` that does not fit ``expected``."""
    for name, tensor in expected.items():
        if name not in given:
            raise ValueError(f"{source} has no tensor {name!r} {tuple(tensor.shape)}, which the network needs; "
                             "expected weights of the same architecture: build the network that they were saved from.")
        if given[name].shape != tensor.shape:
            raise ValueError(f"{source} holds {name!r} of shape {tuple(given[name].shape)}, and the network expects "
                             f"{tuple(tensor.shape)}: build the network with the width and classes that the weights were saved from.")
    for name in given:
        if name not in expected:
            raise ValueError(f"{source} holds {name!r}, which the network does not have; expected weights of the same architecture: "
                             "build the network that they were saved from.")


def _architecture(net: nn.Module) -> str:
    """The registry name of a network. Errors: ValueError if it is not one of diffusion_lib.nets."""
    name = type(net).__name__
    if name not in nets.NETS or not isinstance(getattr(net, "config", None), dict):
        raise ValueError(f"A {name} was given; expected a network of diffusion_lib.nets ({', '.join(sorted(nets.NETS))}), "
                         "which has a .config: add yours to the registry in diffusion_lib/nets/__init__.py.")
    return name


def _read_card(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"The model card {path} is missing; expected it beside the weights: copy both files, or save() again.")
    try:
        card = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"The model card {path} is not JSON ({error}); copy it again, or save() again.") from None
    missing = [key for key in REQUIRED if not isinstance(card, dict) or key not in card]
    if missing:
        raise ValueError(f"The model card {path} lacks {', '.join(missing)}; expected a card written by save(): save again.")
    return card


def _dump(card: dict[str, Any]) -> str:
    """JSON with one key a line, and each tensor's shape on its line."""
    lines = []
    for key, value in card.items():
        if key == "tensors":
            inner = ",\n".join(f"    {json.dumps(name)}: {json.dumps(shape)}" for name, shape in value.items())
            lines.append(f'  "tensors": {{\n{inner}\n  }}')
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def command_line() -> str:
    """The command that is running, for a card's "command": ``python -m diffusion_lib train …``."""
    import shlex

    name = Path(sys.argv[0]).name
    head = "python -m diffusion_lib" if name == "__main__.py" else f"python {name}"
    return shlex.join([*head.split(), *sys.argv[1:]])
