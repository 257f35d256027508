"""Messages between the checker's process and the student's: JSON and raw bytes, so that reading one runs nobody's code.

Plain values (numbers, strings, tensors, arrays, lists, tuples, dicts) travel as what they are, in both directions. Everything else is left to
``other``: the student's side keeps it and sends a number for it, the checker's side may pickle (what the checker sends, the student may read).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

LARGEST = 256 * 2**20  # bytes in one message
DEEPEST = 40
_DTYPES = {str(d).removeprefix("torch."): d for d in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    torch.complex64, torch.complex128)}


class WireError(ValueError):
    """A value or a message that cannot travel."""


def pack(value: Any, buffers: list[bytes], other: Callable[[Any, list[bytes]], Any], depth: int = 0) -> Any:
    """``value`` as JSON; its bytes are added to ``buffers``. ``other(value, buffers)`` packs what is not plain. Errors: WireError."""
    if depth > DEEPEST:
        raise WireError(f"a value nested more than {DEEPEST} deep was given; expected a number, a tensor, or lists and dicts of them.")
    if value is None or isinstance(value, (bool, str)) and type(value) in (bool, str):
        return value
    if value is Ellipsis:
        return {"$": "open"}
    if type(value) is int:
        return value if abs(value) < 2**63 else {"$": "int", "v": hex(value)}
    if isinstance(value, (float, np.floating)) and not isinstance(value, np.longdouble):
        value = float(value)
        return value if math.isfinite(value) else {"$": "float", "v": repr(value)}
    if isinstance(value, (np.bool_, np.integer)):
        return value.item()
    if type(value) is complex:
        return {"$": "complex", "v": [pack(value.real, buffers, other), pack(value.imag, buffers, other)]}
    if isinstance(value, Tensor):
        return _pack_tensor(value, buffers)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc" and value.dtype != np.longdouble:
        return {"$": "array", "v": _pack_tensor(torch.from_numpy(np.ascontiguousarray(value).copy()), buffers)}
    if type(value) in (list, tuple, torch.Size):
        items = [pack(item, buffers, other, depth + 1) for item in value]
        return items if type(value) is list else {"$": "tuple", "v": items}
    if type(value) is dict:
        pairs = [[pack(k, buffers, other, depth + 1), pack(v, buffers, other, depth + 1)] for k, v in value.items()]
        return {"$": "dict", "v": pairs}
    return other(value, buffers)


def _pack_tensor(value: Tensor, buffers: list[bytes]) -> dict[str, Any]:
    if value.layout is not torch.strided or str(value.dtype).removeprefix("torch.") not in _DTYPES:
        raise WireError(f"a tensor of layout {value.layout} and dtype {value.dtype} was given; expected an ordinary one: call .to_dense().")
    flat = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    buffers.append(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return {"$": "tensor", "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape), "at": len(buffers) - 1}


def unpack(value: Any, buffers: list[bytes], other: Callable[[dict, list[bytes]], Any], depth: int = 0) -> Any:
    """The inverse of `pack`; ``other`` reads what ``pack``'s other wrote. Errors: WireError for a message that makes no sense."""
    if depth > 4 * DEEPEST:
        raise WireError("a message nested too deep was received.")
    if isinstance(value, list):
        return [unpack(item, buffers, other, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    try:
        kind = value["$"]
        if kind == "open":
            return Ellipsis
        if kind == "int":
            return int(value["v"][:10_000], 16)
        if kind == "float":
            return float(value["v"])
        if kind == "complex":
            return complex(*(unpack(part, buffers, other, depth + 1) for part in value["v"]))
        if kind == "tensor":
            return _unpack_tensor(value, buffers)
        if kind == "array":
            return _unpack_tensor(value["v"], buffers).numpy()
        if kind == "tuple":
            return tuple(unpack(item, buffers, other, depth + 1) for item in value["v"])
        if kind == "dict":
            return {unpack(k, buffers, other, depth + 1): unpack(v, buffers, other, depth + 1) for k, v in value["v"]}
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as problem:
        raise WireError(f"a message that makes no sense was received ({type(problem).__name__}: {problem}).") from None
    return other(value, buffers)


def _unpack_tensor(value: dict, buffers: list[bytes]) -> Tensor:
    dtype, raw = _DTYPES[value["dtype"]], buffers[value["at"]]
    if not raw:
        return torch.zeros(0, dtype=dtype).reshape(value["shape"])  # refuses a shape that is not empty
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(dtype).reshape(value["shape"])


def send(stream: BinaryIO, message: Any, buffers: list[bytes] = ()) -> None:
    """Write one message. Errors: WireError if it is too long; OSError if nobody reads."""
    head = json.dumps(message).encode()
    total = len(head) + sum(map(len, buffers))
    if total > LARGEST:
        raise WireError(f"a value of {total / 2**20:.0f} MiB was returned; expected at most {LARGEST / 2**20:.0f} MiB.")
    stream.write(struct.pack(f"<QQ{len(buffers)}Q", len(head), len(buffers), *map(len, buffers)))
    stream.write(head)
    for raw in buffers:
        stream.write(raw)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[Any, list[bytes]]:
    """Read one message. Errors: EOFError at the end; WireError for one that is too long or no JSON."""
    size, count = struct.unpack("<QQ", _exactly(stream, 16))
    if size > LARGEST or count > 100_000:
        raise WireError("a message that is too long was received.")
    sizes = struct.unpack(f"<{count}Q", _exactly(stream, 8 * count))
    if size + sum(sizes) > LARGEST:
        raise WireError("a message that is too long was received.")
    head = _exactly(stream, size)
    buffers = [_exactly(stream, n) for n in sizes]
    try:
        return json.loads(head), buffers
    except (ValueError, RecursionError) as problem:
        raise WireError(f"a message that is no JSON was received ({type(problem).__name__}).") from None


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if data is None or len(data) < size:
        raise EOFError("the other process has ended")
    return data
