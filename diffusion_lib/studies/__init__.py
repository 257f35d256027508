"""Experiments too long for a page, as stored results: ``study(name)`` is what a script of benchmarks/ measured, and how.

A chapter prints such a table, and runs one of its rows again; the file says by which command the whole is made.
"""

from __future__ import annotations

import copy
import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffusion_lib.validate import check_choice

FOLDER = Path(__file__).parent
KEYS = ("name", "question", "command", "seconds", "hardware", "torch", "version", "seeds", "settings", "rows")


def studies() -> list[str]:
    """The names that `study` knows, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def study(name: str) -> dict[str, Any]:
    """One stored experiment.

    name: one of `studies`, e.g. "digits-guidance"
    Returns a dict: name, question, command (what makes it again), seconds (of one core, training included), hardware, torch and version (of
    the library), seeds, settings, and rows: a list of flat dicts with the same keys, one for each method, setting and seed.
    Errors: ValueError for an unknown name (the nearest one is suggested).
    """
    return copy.deepcopy(_read(check_choice("study", name, studies())))


@lru_cache(maxsize=8)
def _read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def write_study(name: str, *, question: str, command: str, seconds: float, seeds: dict, settings: dict, rows: list[dict[str, Any]],
                folder: Path = FOLDER) -> Path:
    """Write an experiment beside this file, one row a line; hardware and versions are added. Used by the scripts of benchmarks/.

    rows: flat dicts of numbers, strings and bools, all with the same keys. seconds: what the whole took. Returns the path.
    Errors: ValueError for no rows, for rows with different keys, and for a number that is not finite.
    """
    from diffusion_lib import __version__
    from diffusion_lib.checkpoints import hardware, write_atomically

    check_rows(name, rows)
    import torch

    head = {"name": name, "question": question, "command": command, "seconds": round(seconds, 1), "hardware": hardware(),
            "torch": torch.__version__, "version": __version__, "seeds": seeds, "settings": settings}
    lines = [f'  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}' for key, value in head.items()]
    inner = ",\n".join(f"    {json.dumps(row, ensure_ascii=False, allow_nan=False)}" for row in rows)
    path = folder / f"{name}.json"
    write_atomically(path, ("{\n" + ",\n".join(lines) + f',\n  "rows": [\n{inner}\n  ]\n}}\n').encode())
    _read.cache_clear()
    return path


def check_rows(name: str, rows: list[dict[str, Any]]) -> None:
    """ValueError, one sentence, unless ``rows`` is a table: at least one row, the same keys in each, plain and finite values."""
    if not rows:
        raise ValueError(f"The study {name!r} has no rows; expected one for each method, setting and seed.")
    for k, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            odd = sorted(row.keys() ^ rows[0].keys())
            raise ValueError(f"Row {k} of the study {name!r} differs from the first in {', '.join(odd)}; expected the same keys in each row.")
        for key, value in row.items():
            if not isinstance(value, (str, bool, int, float)):
                raise ValueError(f"Row {k} of the study {name!r} holds {key}={value!r}; expected a string, a bool or a number: rows are flat.")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"Row {k} of the study {name!r} holds {key}={value}; expected a finite number.")
