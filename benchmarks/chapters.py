"""Wall time and peak memory of executing each chapter, and of the test suite.

    python benchmarks/chapters.py                      # every notebooks/NN_*.md
    python benchmarks/chapters.py --only 02 --test     # one chapter, and `make test`

Each chapter runs from its Markdown source, top to bottom, in a fresh kernel; nothing is written back. Peak memory is the
largest resident set of any one process of the run (getrusage of the children).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXECUTE = """
import sys, jupytext
from nbclient import NotebookClient
book = jupytext.read(sys.argv[1])
NotebookClient(book, timeout=1200, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
"""
MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 2**20
print(json.dumps({"exit": code, "seconds": round(time.perf_counter() - start, 1), "peak_MiB": round(peak)}))
"""


def measure(command: list[str]) -> dict[str, float]:
    """Run ``command`` under a parent of its own: its exit status, wall time in seconds and peak resident memory in MiB."""
    run = subprocess.run([sys.executable, "-c", MEASURE, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="chapters whose file name starts with this")
    parser.add_argument("--test", action="store_true", help="also time `make test`")
    args = parser.parse_args()
    failed = 0
    for chapter in sorted((ROOT / "notebooks").glob(f"{args.only}*.md")):
        row = measure([sys.executable, "-c", EXECUTE, str(chapter), str(chapter.parent)])
        failed += row["exit"] != 0
        print(json.dumps(dict(chapter=chapter.stem) | row), flush=True)
    if args.test:
        row = measure(["make", "test"])
        failed += row["exit"] != 0
        print(json.dumps(dict(command="make test") | row), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
