"""What confines a student's process: hostile cells in the real thing. Everything aims at a file that the test made."""

from __future__ import annotations

import os
import sys
import time

import pytest

pytest.importorskip("nbgrader", reason="grading needs the extra `teach`")
import torch  # noqa: E402
from grading_cases import FROM_C, REFUSED  # noqa: E402

from diffusion_lib.grading.gate import Client, Stopped, local  # noqa: E402
from diffusion_lib.grading.sandbox import GIB, Limits, Student, disk, enforced, environment, prepare  # noqa: E402
from diffusion_lib.grading.wire import WireError  # noqa: E402
from diffusion_lib.grading.worker import clean  # noqa: E402

KERNEL = ("landlock", "seccomp")


@pytest.fixture(scope="module")
def canary(tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "canary.txt"
    path.write_text("alive")
    return path


@pytest.fixture(scope="module")
def student(tmp_path_factory, canary):
    os.environ["CANARY_SECRET"] = "a token of the person who grades"
    one = Student(tmp_path_factory.mktemp("work"), Limits(time=60, cell=2, memory=GIB), hidden=[canary.parent])
    one.cell(f"import os, ctypes, torch\nCANARY, PARENT = {str(canary)!r}, {os.getpid()}")
    yield one
    one.end()
    del os.environ["CANARY_SECRET"]


def value(student: Student, source: str):
    student.cell(f"value = {source}")
    return Client(student.exchange).variable("value")


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_cell_is_refused_with_its_reason(student, canary, name):
    source, piece = REFUSED[name]
    begun = time.monotonic()
    error = student.cell(source)["error"]
    assert error is not None and piece in error["evalue"], error
    assert time.monotonic() - begun < 4 * 2 + 4 and canary.read_text() == "alive"
    assert value(student, "1 + 1") == 2                                       # and the process goes on


@pytest.mark.parametrize("name", FROM_C)
def test_nor_does_the_c_library_reach_out(student, canary, name):
    if not set(KERNEL) <= set(student.held):
        pytest.skip(f"this platform's kernel confines by {sorted(student.held)} alone")
    assert student.cell("libc = ctypes.CDLL(None, use_errno=True)")["error"] is None
    assert value(student, FROM_C[name]) == -1 and canary.read_text() == "alive"


def test_environment_holds_no_secret(student):
    seen = value(student, "dict(os.environ)")
    assert "CANARY_SECRET" not in seen and seen["HOME"] == str(student.work)
    assert set(environment(student.work)) <= {*environment(student.work), "PATH"}


def test_a_million_lines_are_cut(student):
    out = student.cell("for i in range(1_000_000): print(i)")["outputs"][0]["text"]
    assert len(out) < 60_000 and "more characters were cut" in out


def test_the_disk_is_limited(tmp_path):
    one = Student(tmp_path, Limits(time=60, cell=20, disk=40 * 2**20))
    error = one.cell("with open('big', 'wb') as f:\n    for _ in range(100): f.write(bytes(2**20))")["error"]
    assert error is not None and disk(tmp_path) <= 11 * 2**20
    one.end()


def test_the_time_is_limited_even_for_what_silences_the_alarm(tmp_path):
    one = Student(tmp_path, Limits(time=3, cell=1))
    begun = time.monotonic()
    with pytest.raises(Stopped, match="as a whole took more than (3 s of processor time|12 s by the clock)"):
        one.cell("import signal\nfor one in (signal.SIGALRM, signal.SIGPROF): signal.signal(one, signal.SIG_IGN)\nwhile True: pass")
    assert time.monotonic() - begun < 4 * 3 + 5 and one.process.poll() is not None
    with pytest.raises(Stopped):
        one.cell("1")


def test_waiting_costs_the_clock_alone(tmp_path):
    """A busy machine makes a notebook wait: its own seconds are those of the processor. Who sleeps is stopped by the clock, four times as late."""
    one = Student(tmp_path, Limits(time=2.5, cell=1))
    assert one.cell("import time; time.sleep(2.5)")["error"] is None
    assert "4 s by the clock" in one.cell("time.sleep(60)")["error"]["evalue"]
    with pytest.raises(Stopped, match="10 s by the clock, [012] s of them on the processor; this cell was the one running"):
        one.cell("import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN); time.sleep(60)")


@pytest.mark.parametrize(("without", "left"), [({"namespaces": False}, "landlock"), ({"namespaces": False, "landlock": False, "seccomp": False}, "hook")])
def test_with_less_there_is_still_something_and_it_says_so(tmp_path, canary, without, left):
    """As in a container without namespaces; and as on macOS, where only Python watches."""
    one = Student(tmp_path, Limits(time=60, cell=5, **without))
    said = enforced(one.held)
    assert (left in one.held or sys.platform != "linux") and ("no boundary against malice" in said) == (not set(KERNEL) <= set(one.held))
    assert "outside the notebook's folder" in one.cell(f"open({str(canary)!r}).read()")["error"]["evalue"]
    assert "process" in one.cell("import os; os.fork()")["error"]["evalue"]
    one.end()


def test_prepare_copies_no_links(tmp_path, canary):
    source, work = tmp_path / "source", tmp_path / "work"
    (source / "sub").mkdir(parents=True)
    work.mkdir()
    (source / "sub" / "helper.py").write_text("x = 1")
    (source / "link").symlink_to(canary)
    (source / "folder").symlink_to(canary.parent)
    prepare(work, source)
    assert (work / "sub" / "helper.py").exists() and not (work / "link").exists() and not (work / "folder").exists()


def test_values_travel_through_the_gate():
    names: dict = {}
    exec("import torch\ndef f(x, g=None): return {'a': (x, [1.5, None, ...])}, torch.rand(2, generator=g)\n"  # noqa: S102
         "def count(n):\n    for i in range(n): yield i\n"
         "def slope(h, x):\n    x = x.clone().requires_grad_()\n    return torch.autograd.grad(h(x).sum(), x)[0]\n"
         "def leave(): raise SystemExit\n"
         "class Odd: pass\nodd = Odd()", names)
    gate, generator = local(names), torch.Generator().manual_seed(0)
    x = torch.tensor([[1, 2]], dtype=torch.bfloat16)
    first, drawn = gate.variable("f")(x, g=generator)
    assert torch.equal(first["a"][0], x) and first["a"][1] == [1.5, None, ...] and first["a"][0].dtype == x.dtype
    assert not torch.equal(drawn, gate.variable("f")(x, g=generator)[1])     # the generator has moved on
    assert list(gate.variable("count")(4)) == [0, 1, 2, 3]
    factor = 3.0
    assert gate.variable("slope")(lambda x: factor * x**2, torch.tensor([2.0])) == 12
    with pytest.raises(RuntimeError):
        gate.variable("leave")()
    assert not callable(gate.variable("odd")) and gate.defined(["f", "nothing"]) == ["f"]


def test_outputs_hold_no_script_whatever_the_process_sends():
    """The student's process may send anything for an output; pages show it to others."""
    bad = '"><script>alert(1)</script>'
    kinds = dict.fromkeys(("text/html", "application/javascript", "image/svg+xml", "image/png"), bad)
    sent = [{"output_type": "display_data", "data": kinds, "metadata": {"x": bad}},
            {"output_type": "execute_result", "data": {"image/png": "iVBORw0KGgo=", "text/plain": "3"}},
            {"output_type": "stream", "name": bad, "text": "hello"},
            {"output_type": "error", "ename": "E", "evalue": "v", "traceback": bad}, {"output_type": "update", "data": 3}, bad, 3]
    found = clean(sent)
    assert [one.output_type for one in found] == ["display_data", "display_data", "stream", "error"] and "script" not in str(found)
    assert found[1].data == {"image/png": "iVBORw0KGgo=", "text/plain": "3"} and clean(bad) == [] and clean(None) == []


@pytest.mark.parametrize("value", [
    {"$": "tensor", "dtype": "float64", "shape": [10**12], "at": 0}, {"$": "tensor", "dtype": "object", "shape": [], "at": 0}, {"$": "pickle", "at": 0},
    {"$": "tensor", "dtype": "float64", "shape": [2], "at": 7}, {"$": "dict", "v": [[[], 1]]}, {"$": "handle", "v": 0}, {"no": "kind"},
    {"$": "remote", "v": "x"},
])
def test_a_forged_reply_is_refused_and_unpickles_nothing(value):
    with pytest.raises(WireError):
        Client(lambda request, buffers: ({"value": value, "generators": []}, [b""])).variable("x")


def test_a_master_that_sets_a_default_does_not_reach_the_next():
    from diffusion_lib.grading.checker import Checker

    Checker(local({})).run("import torch\ntorch.set_default_dtype(torch.float64)")
    assert Checker(local({})).test("import torch\nassert torch.ones(1).dtype == torch.float32").passed
