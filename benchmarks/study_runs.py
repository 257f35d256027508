"""What all studies share: options, rows that are measured once and kept, means with their standard errors.

Not a benchmark of its own. Rows and trained networks are kept under ``runs/studies`` (or --cache FOLDER), so that a script that is
interrupted, or whose sampling changes, need not train again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path


def options(doc: str) -> argparse.Namespace:
    """The options that the scripts share."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("runs/studies"), help="where trained networks are kept (default runs/studies)")
    parser.add_argument("--only-train", action="store_true", help="train what is missing, then stop")
    parser.add_argument("--parts", nargs="+", help="only these parts; what others stored stays")
    return parser.parse_args()


def say(text: str) -> None:
    """A line of the log."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def rounded(row: dict, digits_: int = 5) -> dict:
    """The same row with its floats rounded."""
    return {key: round(value, digits_) if isinstance(value, float) else value for key, value in row.items()}


class Store:
    """Rows that are measured once: a JSON-lines file beside the networks, so that a long script can be stopped and gone on with."""

    def __init__(self, cache: Path, name: str):
        self.path = cache / f"{name}.rows.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.known = {line["key"]: line for line in map(json.loads, lines)}

    def row(self, key: str, make: Callable[[], dict]) -> dict:
        """The row ``key``: as stored, or made now, timed, and stored."""
        if key not in self.known:
            begun = time.process_time()
            row = rounded(make())
            self.known[key] = {"key": key, "seconds": round(time.process_time() - begun, 1), "row": row}
            with open(self.path, "a") as file:
                file.write(json.dumps(self.known[key]) + "\n")
            say(f"{key}: " + ", ".join(f"{k} {row[k]:.3f}" for k in ("frechet", "accuracy", "recall", "caption_accuracy") if k in row))
        return self.known[key]["row"]

    @property
    def seconds(self) -> float:
        """Processor seconds that all rows took together, over all runs."""
        return sum(line["seconds"] for line in self.known.values())


def mean_se(values: list[float]) -> tuple[float, float]:
    """(mean, standard error of the mean)."""
    return statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
