"""Stored experiments: each file is whole, says how it is made again, and holds nothing of the machine that made it."""

from __future__ import annotations

import ast
import json
import math
import re
import shlex
from pathlib import Path

import pytest

from diffusion_lib.studies import FOLDER, KEYS, check_rows, studies, study, write_study

ROOT = Path(__file__).resolve().parents[1]
NAMES = studies()
README = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")


def numbers(value):
    """Every number inside a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for inner in value for number in numbers(inner)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def script_of(command: str) -> Path:
    """The script that a command runs; the command may begin with VARIABLE=value."""
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    assert words[0] == "python"
    return ROOT / words[1]


def test_there_are_studies():
    assert NAMES == sorted(NAMES) and {"digits-guidance", "digits-edm", "digits-networks"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_file_is_whole(name):
    result = study(name)
    assert tuple(result) == KEYS and result["name"] == name
    assert result["question"].endswith("?") and result["seconds"] > 0
    check_rows(name, result["rows"])
    assert all(math.isfinite(number) for number in numbers(result))
    assert (FOLDER / f"{name}.json").stat().st_size < 60_000


@pytest.mark.parametrize("name", NAMES)
def test_command_runs_a_script_that_writes_it(name):
    """The script exists, calls write_study and holds the name of the study; benchmarks/README.md gives the command."""
    command = study(name)["command"]
    nodes = list(ast.walk(ast.parse(script_of(command).read_text(encoding="utf-8"))))
    assert any(isinstance(node, ast.Call) and getattr(node.func, "id", "") == "write_study" for node in nodes)
    assert name in {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert command in README, f"{command} is not in benchmarks/README.md"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_this_machine(name):
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert not re.search(r"(^|[\s\"'=(])(/|~/|[A-Za-z]:\\)\w+", text), "an absolute path"
    assert str(ROOT) not in text and str(Path.home()) + "/" not in text


DIGITS = [name for name in NAMES if name.startswith("digits")]


@pytest.mark.parametrize("name", DIGITS)
def test_seeds_are_complete(name):
    """Every method and setting was run with every seed, none twice: so that differences can be paired."""
    rows = study(name)["rows"]
    seeds = {row["seed"] for row in rows}
    assert len(seeds) >= 3
    measured = {key for row in rows for key, value in row.items() if isinstance(value, float)} - {"scale"}
    seen: dict[tuple, list] = {}
    for row in rows:
        setting = tuple((key, value) for key, value in row.items() if key not in measured | {"seed"})
        seen.setdefault(setting, []).append(row["seed"])
    assert all(sorted(found) == sorted(seeds) for found in seen.values()), seen


@pytest.mark.parametrize("name", DIGITS)
def test_shares_are_shares(name):
    for row in study(name)["rows"]:
        for key in {"accuracy", "precision", "recall", "outside", "far"} & row.keys():
            assert 0 <= row[key] <= 1, (key, row)
        assert row["frechet"] > 0


def test_a_copy_is_returned():
    name = NAMES[0]
    study(name)["rows"].clear()
    assert study(name)["rows"]


def test_a_wrong_name_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'digits-guidance'"):
        study("digits-guidanse")


def test_writing_and_what_is_refused(tmp_path):
    rows = [{"method": "a", "seed": 0, "value": 0.5}, {"method": "a", "seed": 1, "value": 1.5}]
    about = {"question": "Is it?", "command": "python x.py", "seconds": 1.0, "seeds": {"training": [0, 1]}, "settings": {}}
    path = write_study("one", **about, rows=rows, folder=tmp_path)
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert tuple(stored) == KEYS and stored["rows"] == rows
    for bad, message in (
        ([], "has no rows"),
        ([rows[0], {"method": "a", "seed": 1}], "differs from the first in value"),
        ([{"method": "a", "value": math.nan}], "value=nan"),
        ([{"method": "a", "value": [1]}], "rows are flat"),
    ):
        with pytest.raises(ValueError, match=message):
            write_study("two", **about, rows=bad, folder=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["one.json"]
