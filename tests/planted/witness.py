"""A pytest plugin for plant.py: it holds that the *copy* of the library is under test, and writes down which test fails.

Loaded by ``pytest -p witness`` in a planted copy; PLANTED_REPORT names the file of JSON that it writes. A bug counts as caught only
where a test's own claim fails: an ``assert``, or a ``pytest.raises`` that nothing was raised in. A crash is no claim.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


def pytest_configure() -> None:
    import diffusion_lib

    found = Path(diffusion_lib.__file__).resolve()
    if found.parent.parent != Path.cwd().resolve():
        raise pytest.UsageError(f"the tests would import {found}; expected the copy in {Path.cwd()}: the bug would not be seen.")


def pytest_exception_interact(node: pytest.Item, call: pytest.CallInfo, report: pytest.TestReport) -> None:
    """Called for every failure, also while collecting. The first claim that fails ends the run; until then the first failure is kept."""
    path = Path(os.environ["PLANTED_REPORT"])
    where = Path(str(call.excinfo.traceback[-1].path)).resolve()
    inside = (Path.cwd() / "diffusion_lib").resolve() in where.parents
    claim = isinstance(call.excinfo.value, AssertionError | pytest.fail.Exception) and not inside and report.when == "call"
    if claim or not path.exists():
        message = f"{call.excinfo.typename}: {call.excinfo.value}".split("\n")[0][:160]
        path.write_text(json.dumps({"test": node.nodeid, "claim": claim, "message": message}))
    if claim:
        node.session.shouldstop = "a test has caught the bug"
