"""The planted bugs are in step with the library, and the script that judges them is not fooled. (That all are caught: ``make bugs``.)"""

from __future__ import annotations

import ast
import re

import plant
import pytest

BUGS = plant.read_bugs()
ROOT = plant.ROOT


def test_there_are_many_with_names_of_their_own():
    assert len(BUGS) >= 25 and len({bug.name for bug in BUGS}) == len(BUGS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_can_still_be_planted(bug, tmp_path):
    """Its old text is there exactly once, the new text is another program that parses, and the tests it names exist."""
    path = tmp_path / "diffusion_lib" / bug.file
    path.parent.mkdir(parents=True)
    before = (ROOT / "diffusion_lib" / bug.file).read_text(encoding="utf-8")
    path.write_text(before, encoding="utf-8")
    bug.plant(tmp_path)
    after = path.read_text(encoding="utf-8")
    assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(before))
    assert bug.why and "\n" not in bug.why and bug.tests
    for test in bug.tests:
        file, _, name = test.partition("::")
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in text, test


# --- the judge, on a library of one line ---


@pytest.fixture
def tree(tmp_path):
    """A library with one function, and three tests of it: one that claims nothing, one that claims something, one that crashes first."""
    root = tmp_path / "tree"
    files = {
        "diffusion_lib/__init__.py": "def double(x):\n    return 2 * x\n",
        "pyproject.toml": "",
        "tests/test_nothing.py": "from diffusion_lib import double\n\ndef test_runs():\n    double(2)\n",
        "tests/test_claim.py": "from diffusion_lib import double\n\ndef test_double():\n    assert double(3) == 6\n",
        "tests/test_crash.py": "from diffusion_lib import double\n\ndef test_length():\n    assert len([0] * (7 // (9 - double(3))))\n",
        "tests/test_import.py": "from diffusion_lib import double\n\nassert double(3) == 6\n\ndef test_late():\n    pass\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


SQUARE = plant.Bug("square", "__init__.py", "2 * x", "x ** 2", "The square: right for 2.", ())


@pytest.mark.parametrize("test, caught, how", [
    ("test_claim.py", True, "test_claim.py::test_double"),
    ("test_nothing.py", False, plant.PASSED),
    ("test_crash.py", False, "no claim.*ZeroDivisionError"),
    ("test_import.py", False, "no claim.*test_import.py"),
    ("test_absent.py", False, "status 4"),
])  # fmt: skip
def test_only_the_claim_of_a_test_catches(tree, test, caught, how):
    verdict = plant.run(tree, [test], SQUARE)
    assert verdict.caught == caught and re.search(how, verdict.how), verdict
    assert "2 * x" in (tree / "diffusion_lib/__init__.py").read_text()                  # the tree itself was not touched


def test_a_crash_does_not_hide_the_claim_of_a_later_test(tree):
    assert plant.run(tree, ["test_crash.py", "test_claim.py"], SQUARE).how == "test_claim.py::test_double"


def test_the_clean_copy_passes_and_a_broken_tree_is_noticed(tree):
    assert [verdict.how for verdict in plant.clean(tree, ["test_claim.py", "test_nothing.py"], 2)] == [plant.PASSED] * 2
    SQUARE.plant(tree)
    assert [verdict.how for verdict in plant.clean(tree, ["test_claim.py"], 2)] == ["test_claim.py::test_double"]
    with pytest.raises(ValueError, match="0 times"):
        SQUARE.plant(tree)
