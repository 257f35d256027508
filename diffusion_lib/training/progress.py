"""A progress bar that leaves nothing behind."""

from __future__ import annotations

import os
import sys
from typing import Any


def bar(total: int, start: int, wanted: bool | str) -> Any:
    """A tqdm bar on stderr (a widget in a notebook) that clears itself at the end.

    Shown if ``wanted`` is "always"; or if it is True and somebody can see it move: on a terminal or in a live notebook, and
    not where DIFFUSION_STATIC=1 says that the outputs are being stored.
    """
    from tqdm import tqdm

    kernel = in_kernel()
    seen = os.environ.get("DIFFUSION_STATIC") != "1" and (kernel or sys.stderr.isatty())
    shown = wanted == "always" or (bool(wanted) and seen)
    if shown and kernel:
        from tqdm.auto import tqdm
    return tqdm(total=total, initial=start, disable=not shown, leave=False, unit="step", file=None if kernel else sys.stderr,
                dynamic_ncols=True, mininterval=0.2)


def in_kernel() -> bool:
    """Whether this runs in a notebook's kernel (and not merely where ipykernel has been imported)."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")
