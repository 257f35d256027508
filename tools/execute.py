"""Run the chapters whose code changed since their outputs were made, and store light, stable outputs.

    python tools/execute.py [02_ddpm ...] [--force] [--check]

A notebook remembers the fingerprint of the code that made its outputs (metadata.book.executed).
The kernel gets DIFFUSION_STATIC=1: a widget then shows only its static twin, which is what the rendered book can use.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

sys.path.insert(0, str(Path(__file__).parent))
from chapters import NOTEBOOKS, ROOT, fingerprint, read, select  # noqa: E402
from pair import pair, write  # noqa: E402

WIDGET = "application/vnd.jupyter.widget-view+json"


def stale(text: Path) -> bool:
    """True if the outputs were not made by the code that stands in the chapter now."""
    paired = text.with_suffix(".ipynb")
    if not paired.exists():
        return True
    made_by = nbformat.read(paired, as_version=4).metadata.get("book", {}).get("executed")
    return made_by != fingerprint(read(text))


def tidy_text(text: str) -> str:
    """No memory addresses, no overwritten progress lines, no path of the machine it ran on."""
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    text = "\n".join(line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n"))
    return text.replace(str(ROOT) + os.sep, "").replace(str(Path.home()), "~")


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Leave what a reader should see: no stderr, no live widgets, no timestamps."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        kept: list = []
        for output in cell.outputs:
            if output.output_type == "stream":
                if output.name != "stdout":
                    continue
                output.text = tidy_text(output.text)
                if kept and kept[-1].output_type == "stream":
                    kept[-1].text += output.text
                    continue
            elif output.output_type in ("display_data", "execute_result"):
                if WIDGET in output.data:
                    continue
                if "text/plain" in output.data:
                    output.data["text/plain"] = tidy_text(output.data["text/plain"])
            kept.append(output)
        cell.outputs = [output for output in kept if output.output_type != "stream" or output.text.strip()]


def execute(text: Path, timeout: int = 900) -> float:
    """Run a chapter from top to bottom in one kernel, store it, and return the seconds it took."""
    notebook = pair(text)
    environment = {**os.environ, "DIFFUSION_STATIC": "1", "PYTHONHASHSEED": "0"}
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}
    )
    begun = time.perf_counter()
    client.execute(env=environment)
    seconds = time.perf_counter() - begun
    tidy(notebook)
    notebook.metadata = nbformat.from_dict({**read(text).metadata, "book": {"executed": fingerprint(notebook)}})
    write(notebook, text.with_suffix(".ipynb"))
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="chapters, such as 02_ddpm (default: all that changed)")
    parser.add_argument("--force", action="store_true", help="run them even if nothing changed")
    parser.add_argument("--check", action="store_true", help="run nothing; say which chapters would run")
    arguments = parser.parse_args()
    waiting = [text for text in select(arguments.names) if arguments.force or stale(text)]
    if arguments.check:
        for text in waiting:
            print(
                f"{text.stem}: the code changed since its outputs were made; run: python tools/execute.py {text.stem}"
            )
        return 1 if waiting else 0
    for text in waiting:
        print(f"{text.stem} runs ...", flush=True)
        try:
            seconds = execute(text)
        except CellExecutionError as problem:
            print(f"{text.stem} failed, nothing was stored:\n{problem}", file=sys.stderr)
            return 1
        size = text.with_suffix(".ipynb").stat().st_size / 1e6
        print(f"{text.stem} took {seconds:.0f} s, {size:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
