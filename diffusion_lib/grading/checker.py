"""Run the tests of a master on what a student's notebook defines; the side of the gate that decides.

It runs the master's read-only cells itself, in variables of its own, and asks the student's process for what these do not define.
A test counts only if its cell has run to the end here, out of the student's reach.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
from dataclasses import dataclass
from typing import Any

import torch

from diffusion_lib.grading.gate import Client, Stopped
from diffusion_lib.grading.wire import WireError

LONGEST = 800  # characters of a reason
SKIP = "student-only"  # the tag of read-only cells that the checker need not run (a figure, a long run)


@dataclass
class Outcome:
    """What became of a test cell: ``passed``, the sentence to show, and what the cell printed."""

    passed: bool
    reason: str
    printed: str = ""


class Checker:
    """The checker's own variables, and the gate to the student's.

    client: the gate
    names: variables to begin with (copied)
    """

    def __init__(self, client: Client, names: dict[str, Any] | None = None) -> None:
        if names is None:
            reset()
        self.client = client
        self.names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__} if names is None else dict(names)
        self.own: set[str] = {*self.names, *vars(builtins)}  # nobody's `abs` but Python's

    def run(self, source: str) -> None:
        """Run a read-only cell of the master. Errors: whatever it raises."""
        source = plain(source)
        tree = ast.parse(source)
        self.fetch(tree)
        before = {name: id(value) for name, value in self.names.items()}
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(tree, "<read-only cell>", "exec"), self.names)  # noqa: S102
        finally:
            self.own |= {name for name, value in self.names.items() if before.get(name) != id(value)}

    def test(self, source: str) -> Outcome:
        """Run a test cell to its end, or to its first failure."""
        printed = io.StringIO()
        torch.manual_seed(0)
        try:
            tree = ast.parse(plain(source))
            self.fetch(tree)
            with contextlib.redirect_stdout(printed):
                exec(compile(tree, "<test cell>", "exec"), {**self.names})  # noqa: S102
        except (Exception, Stopped) as problem:
            return Outcome(False, reason(problem), printed.getvalue()[:LONGEST])
        return Outcome(True, "", printed.getvalue()[:LONGEST])

    def fetch(self, tree: ast.AST) -> None:
        """Ask the student's process for the names of a cell that are not the checker's own."""
        first: dict[str, ast.Name] = {}
        for node in sorted((n for n in ast.walk(tree) if isinstance(n, ast.Name)), key=lambda n: (n.lineno, n.col_offset)):
            first.setdefault(node.id, node)
        used = {name for name, node in first.items() if isinstance(node.ctx, ast.Load)} - self.own
        for name in used:
            self.names.pop(name, None)
        for name in self.client.defined(sorted(used)):
            with contextlib.suppress(WireError):                             # too large, or too odd: then it is missing
                self.names[name] = self.client.variable(name)


def reset() -> None:
    """torch's switches as at its start: a master that sets one must not reach the next submission that this process tests."""
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(False)
    torch.manual_seed(0)


def plain(source: str) -> str:
    """A cell's source without IPython's magics."""
    lines = [line[: len(line) - len(line.lstrip())] + "pass" if line.lstrip().startswith(("%", "!")) else line for line in source.split("\n")]
    return "\n".join(lines)


def reason(problem: BaseException) -> str:
    """One sentence for what a test raised."""
    text = " ".join(str(problem).split())[:LONGEST]
    if isinstance(problem, NameError) and "is not defined" in text:
        return f"{text}: the cell that defines it is missing, failed, or was changed."
    if isinstance(problem, Stopped):
        return text
    if isinstance(problem, AssertionError):
        return text or "An assertion of the test does not hold."
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__
