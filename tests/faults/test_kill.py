"""kill -9 at ten random moments of training; then resume: bit for bit the uninterrupted weights, and never half a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork and SIGKILL: Linux or macOS")
def test_ten_kills_change_nothing(tmp_path):
    script = Path(__file__).parent / "killed.py"
    run = subprocess.run([sys.executable, script, tmp_path, str(KILLS), "0"], capture_output=True, text=True, timeout=300,
                         env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr[-2000:]              # each read after a kill raises if the file is half written
    report = json.loads(run.stdout.splitlines()[-1])
    assert report["killed"] == KILLS, "some children had finished before they were killed"
    assert report["steps_at_kill"] == sorted(report["steps_at_kill"]) and 0 < report["steps_at_kill"][0]
    assert len(set(report["steps_at_kill"])) >= KILLS // 2, "the kills were not spread over the run"
    assert report["same_names"] and report["tensors"] > 100     # weights, average, both Adam moments, generators, loss curve
    assert report["differ"] == []
