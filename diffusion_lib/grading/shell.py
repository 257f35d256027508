"""IPython without a terminal, inside the student's process: runs a cell, collects its outputs, stops it after a time."""

from __future__ import annotations

import base64
import contextlib
import io
import signal
import traceback
from typing import Any

WALL = 4.0  # so many times its processor time may a cell, or a notebook, take by the clock
ALARMS = {getattr(signal, name) for name in ("SIGALRM", "SIGPROF") if hasattr(signal, name)}


class TimeLimit(BaseException):
    """Raised in the student's code when a cell or a call takes too long."""


class Cut(io.TextIOBase):
    """A stream that keeps the first ``limit`` characters and counts the rest."""

    def __init__(self, limit: int) -> None:
        self.limit, self.kept, self.length, self.lost = limit, [], 0, 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        room = self.limit - self.length
        if room > 0:
            self.kept.append(text[:room])
            self.length += len(text[:room])
        self.lost += max(0, len(text) - max(room, 0))
        return len(text)

    def text(self) -> str:
        tail = f"\n… {self.lost:,} more characters were cut." if self.lost else ""
        return "".join(self.kept) + tail


class Shell:
    """IPython without its terminal and history, with outputs collected."""

    def __init__(self, output: int) -> None:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        self.shell = InteractiveShell.instance(config=config)
        self.shell.displayhook.write_output_prompt = lambda: None
        self.shell.showtraceback = lambda *args, **kwargs: None
        self.shell.showsyntaxerror = lambda *args, **kwargs: None
        self.output = output

    @property
    def names(self) -> dict[str, Any]:
        return self.shell.user_ns

    def run(self, source: str, limit: float) -> dict:
        """Run a cell: its outputs as nbformat has them."""
        from IPython.utils.capture import capture_output

        out, err = Cut(self.output), Cut(self.output)
        shown: list = []
        problem: BaseException | None = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                with capture_output(stdout=False, stderr=False, display=True) as display, alarm(limit):
                    result = self.shell.run_cell(source, store_history=True)
                shown = display.outputs
                problem = result.error_before_exec or result.error_in_exec
            except BaseException as error:
                problem = error
        outputs = [{"output_type": "stream", "name": name, "text": stream.text()} for name, stream in (("stdout", out), ("stderr", err)) if stream.kept]
        outputs += [_rich(one.data, self.output) for one in shown[:50]]
        error = None
        if problem is not None:
            error = {"ename": type(problem).__name__[:100], "evalue": _text(problem)[:2000]}
            lines = traceback.format_exception(type(problem), problem, problem.__traceback__, limit=-5)
            outputs.append({"output_type": "error", **error, "traceback": ["".join(lines)[-4000:]]})
        return {"outputs": outputs, "error": error}


def _text(problem: BaseException) -> str:
    try:
        return str(problem)
    except BaseException:
        return ""


def _rich(data: dict, limit: int) -> dict:
    """Pictures and plain text alone: what is shown to others holds no HTML and no script of a student's."""
    kept = {}
    for kind in ("image/png", "text/plain"):
        value = data.get(kind)
        if isinstance(value, bytes):
            value = base64.b64encode(value).decode()
        if isinstance(value, str) and len(value) < (20 * limit if kind == "image/png" else limit):
            kept[kind] = value
    return {"output_type": "display_data", "data": kept, "metadata": {}}


@contextlib.contextmanager
def alarm(limit: float) -> Any:
    """Raise TimeLimit in the code after ``limit`` seconds of processor time, or `WALL` times as many by the clock, and again each second."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, _: Any) -> None:
        raise TimeLimit(f"It took longer than {limit:g} s." if number == signal.SIGPROF else f"It took longer than {WALL * limit:g} s by the clock.")

    before = {number: signal.signal(number, ring) for number in ALARMS}
    signal.setitimer(signal.ITIMER_PROF, limit, 1.0)
    signal.setitimer(signal.ITIMER_REAL, WALL * limit, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def quiet() -> Any:
    """Hold the alarm back, where there is one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, ALARMS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ALARMS)
