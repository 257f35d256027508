"""Seconds that `import diffusion_lib` and each of its modules add beyond torch (aim: the package itself under 0.2 s).

    python benchmarks/import_time.py

Each import runs in a fresh interpreter that has imported torch already; the median of several runs is printed.
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import statistics
import subprocess
import sys

import diffusion_lib

PROBE = "import time, torch; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"


def seconds(module: str, repeats: int) -> float:
    """Median time to import ``module`` after torch, in seconds."""
    command = [sys.executable, "-c", PROBE.format(module=module)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(repeats)]
    return statistics.median(float(run.stdout) for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--modules", nargs="*", help="which modules (default: the package and each of its modules)")
    args = parser.parse_args()
    found = [f"diffusion_lib.{entry.name}" for entry in pkgutil.iter_modules(diffusion_lib.__path__)]
    for module in args.modules or ["diffusion_lib", *(name for name in found if not name.endswith("__main__"))]:
        print(json.dumps(dict(module=module, seconds=round(seconds(module, args.repeats), 3))), flush=True)


if __name__ == "__main__":
    main()
