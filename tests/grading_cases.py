"""What the tests of the grading share: a small assignment, notebooks made from its release, and hostile cells."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat

from diffusion_lib.grading import masters, release

HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Coursework 99: a small one

```{code-cell} ipython3
import torch

unit = torch.ones(3)
```
"""
TASK = """
## {name}

```{{code-cell}} ipython3
:nbgrader: {{"grade": false, "grade_id": "{name}", "locked": false, "schema_version": 3, "solution": true, "task": false}}

def {name}(x):
    \"\"\"{factor} times x.\"\"\"
    ### BEGIN SOLUTION
    very_secret_factor = {factor}  # a telling comment in the solution
    return very_secret_factor * x
    ### END SOLUTION
```

```{{code-cell}} ipython3
:nbgrader: {{"grade": true, "grade_id": "{name}-test", "locked": true, "points": {points}, "schema_version": 3, "solution": false, "task": false}}

assert {name}(1.0) == {factor}, "{name}(1) should be {factor}."
### BEGIN HIDDEN TESTS
hidden_cases = torch.linspace(3, 17, 5)  # nobody may see these
assert torch.allclose({name}(hidden_cases), {factor} * hidden_cases), "{name} is wrong elsewhere."
### END HIDDEN TESTS
```
"""
MANUAL = """
## Task 4. What you conclude

+++ {"nbgrader": {"grade": true, "grade_id": "conclude", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}}

### BEGIN SOLUTION
The marking key: two points for the reason.
### END SOLUTION

+++

The end.
"""
RIGHT = {"double": "def double(x):\n    return x + x", "triple": "def triple(x):\n    return 3 * x",
         "sextuple": "def sextuple(x):\n    return triple(double(x))"}


CHAINED = """
## sextuple

```{code-cell} ipython3
:nbgrader: {"grade": false, "grade_id": "sextuple", "locked": false, "schema_version": 3, "solution": true, "task": false}

def sextuple(x):
    \"\"\"6 times x.\"\"\"
    ### BEGIN SOLUTION
    return triple(double(x))  # built on both
    ### END SOLUTION
```

```{code-cell} ipython3
:nbgrader: {"grade": true, "grade_id": "sextuple-test", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}

assert sextuple(unit)[0] == 6, "sextuple(1) should be 6."
### BEGIN HIDDEN TESTS
assert torch.equal(sextuple(unit * 7), unit * 42), "sextuple is wrong elsewhere."
### END HIDDEN TESTS
```
"""


def make_master(folder: Path) -> masters.Master:
    """Tasks of 5 and 7 points, one of 6 that builds on both, and one of 4 that is read by a person, as 99_small.md."""
    folder.mkdir(parents=True, exist_ok=True)
    text = HEADER + TASK.format(name="double", factor=2, points=5) + TASK.format(name="triple", factor=3, points=7) + CHAINED + MANUAL
    (folder / "99_small.md").write_text(text, encoding="utf-8")
    return masters.read(folder / "99_small.md")


def answered(master: masters.Master, answers: dict[str, str]) -> nbformat.NotebookNode:
    """The students' notebook with these solution cells."""
    notebook = copy.deepcopy(release.students(master))
    for cell in notebook.cells:
        cell.source = answers.get(cell.metadata.nbgrader["grade_id"], cell.source)
    return notebook


def hand_in(folder: Path, student: str, notebook: nbformat.NotebookNode | str, name: str = "99_small.ipynb") -> Path:
    """Put a notebook (or any text) where a student hands it in."""
    path = folder / student / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebook if isinstance(notebook, str) else nbformat.writes(notebook), encoding="utf-8")
    return path


# One cell each, and a piece of what its error must say. CANARY is a file that the test made, outside of the student's folder.
REFUSED = {
    "read a file outside": ("open(CANARY).read()", "outside the notebook's folder"),
    "write a file outside": ("open(CANARY, 'w').write('gone')", "outside the notebook's folder"),
    "delete a file outside": ("import os; os.remove(CANARY)", "outside the notebook's folder"),
    "delete a folder outside": ("import shutil; shutil.rmtree(os.path.dirname(CANARY))", "outside the notebook's folder"),
    "list a folder outside": ("os.listdir(os.path.dirname(CANARY))", "outside the notebook's folder"),
    "follow a link out": ("os.symlink(CANARY, 'link'); open('link').read()", "outside the notebook's folder"),
    "open a socket": ("import socket; socket.create_connection(('127.0.0.1', 9), 1)", "network"),
    "a socket from C": ("import _socket; _socket.socket()", "network"),
    "kill the parent": ("os.kill(os.getppid(), 0)", "signal"),
    "start a process": ("import subprocess; subprocess.run(['true'])", "process"),
    "fork bomb": ("while True: os.fork()", "process"),
    "50 GB": ("torch.zeros(50 * 2**30 // 4)", "memory"),
    "an endless loop": ("while True: pass", "longer than"),
}
# Past Python, straight to the C library: each must give -1 where the kernel confines. Signal 0 only asks.
FROM_C = {
    "open": "libc.open(CANARY.encode(), 0)",
    "unlink": "libc.unlink(CANARY.encode())",
    "socket": "libc.socket(2, 1, 0)",
    "fork": "libc.fork()",
    "kill": "libc.kill(PARENT, 0)",
    "ptrace": "libc.ptrace(16, PARENT, 0, 0)",
    "mount": "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
    "unshare": "libc.unshare(0x10000000)",
}
