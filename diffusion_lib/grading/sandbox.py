"""Start a student's process, talk to it, watch it, end it; and say what confines it on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusion_lib.grading.gate import Stopped
from diffusion_lib.grading.shell import WALL
from diffusion_lib.grading.wire import WireError, receive, send

PACKAGE = Path(__file__).resolve().parents[2]
GIB = 2**30
RUNNING = "; this cell was the one running."
START = 180.0  # seconds that a busy machine may need to start Python and load torch; the submission's own time begins after it


@dataclass(frozen=True)
class Limits:
    """What one submission may use: processor seconds in all and for one cell, bytes of memory and disk, characters of output a cell.

    By the clock each may take `WALL` times as long: a busy machine costs no student a mark, and one that sleeps is stopped all the same.
    namespaces, landlock, seccomp: use them where the platform has them (False is for tests of what is left)
    """

    time: float = 120.0
    cell: float = 40.0
    memory: int = 4 * GIB
    disk: int = GIB // 4
    output: int = 50_000
    namespaces: bool = True
    landlock: bool = True
    seccomp: bool = True

    @property
    def wall(self) -> float:
        """Seconds by the clock in all."""
        return WALL * self.time


class Student:
    """A confined process with its folder.

    work: its folder, a copy that may be thrown away
    limits: see `Limits`
    hidden: folders that it must not see (masters, the others' work)
    """

    def __init__(self, work: Path, limits: Limits, hidden: list[Path] = ()) -> None:
        self.work, self.limits, self.why = work.resolve(), limits, ""
        self.on_callback: Callable[[dict, list[bytes]], tuple[dict, list[bytes]]] | None = None  # who answers its stand-ins
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-m", "diffusion_lib.grading.student"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, cwd=self.work, env=environment(self.work), start_new_session=True, close_fds=True)
        self._ended = threading.Event()
        self._begun = time.monotonic() + START  # until it is ready
        self._used, self._used_before = 0.0, None  # processor seconds: in all, and those of its start
        self._watchman = threading.Thread(target=self._watch, daemon=True)
        self._watchman.start()
        settings = {**asdict(limits), "work": str(self.work), "hidden": [str(p) for p in map(Path.resolve, hidden) if p.is_dir() and not _needed(p)]}
        try:
            self.process.stdin.write(json.dumps(settings).encode() + b"\n")
            self.process.stdin.flush()
            self.held: dict[str, str] = self._read()[0]["ready"]
            self._used_before = _processor(self.process.pid)
            self._begun = time.monotonic()
        except (OSError, KeyError, TypeError) as problem:
            self.end()
            raise Stopped(self.why or f"The student's process did not start ({type(problem).__name__}).") from None

    def cell(self, source: str) -> dict:
        """Run a cell; its outputs and its error. Errors: Stopped."""
        reply, _ = self.exchange({"do": "cell", "source": source}, [])
        return reply if isinstance(reply, dict) else {"outputs": [], "error": None}

    def exchange(self, request: dict, buffers: list[bytes]) -> tuple[Any, list[bytes]]:
        """One request and its reply. Errors: Stopped."""
        if self.process.stdin.closed:
            self._fail()
        left = self.limits.time - self._spent()
        try:
            send(self.process.stdin, {**request, "limit": max(0.1, min(self.limits.cell, left - 1))}, buffers)
        except OSError:
            self._fail()
        reply, raw = self._read()
        while self.on_callback is not None and isinstance(reply, dict) and "callback" in reply:
            try:
                send(self.process.stdin, *self.on_callback(reply, raw))
            except OSError:
                self._fail()
            reply, raw = self._read()
        return reply, raw

    def _read(self) -> tuple[Any, list[bytes]]:
        try:
            return receive(self.process.stdout)
        except (EOFError, OSError):
            self._fail()
        except WireError as problem:
            self.why = self.why or f"The notebook's process sent a message that makes no sense: {problem}"
            self._fail()

    def _fail(self) -> None:
        self.end()
        raise Stopped(self.why or _ending(self.process.returncode))

    def _spent(self) -> float:
        """Processor seconds since it was ready, as the watch last saw them."""
        return 0.0 if self._used_before is None else max(0.0, self._used - self._used_before)

    def _watch(self) -> None:
        """Time, memory, disk, twice a second."""
        import psutil

        while not self._ended.wait(0.3):
            self._used = max(self._used, _processor(self.process.pid))
            if self._spent() > self.limits.time:
                self.why = f"Stopped: the notebook as a whole took more than {self.limits.time:g} s of processor time{RUNNING}"
            elif time.monotonic() - self._begun > self.limits.wall:
                self.why = (f"Stopped: the notebook as a whole took more than {self.limits.wall:g} s by the clock, "
                            f"{self._spent():.0f} s of them on the processor{RUNNING}")
            elif disk(self.work) > self.limits.disk:
                self.why = f"Stopped: it wrote more than {self.limits.disk / 2**20:.0f} MiB."
            else:
                with contextlib.suppress(psutil.Error):
                    family = psutil.Process(self.process.pid)
                    size = sum(p.memory_info().rss for p in [family, *family.children(recursive=True)])
                    if size > self.limits.memory + GIB:
                        self.why = f"Stopped: it used more than {self.limits.memory / GIB:g} GiB of memory."
            if self.why:
                self._kill()
                return

    def _kill(self) -> None:
        """The process, its group, and what else descends from it."""
        import psutil

        family = []
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self.process.pid).children(recursive=True)
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, 9) if hasattr(os, "killpg") else self.process.kill()
        for one in family:
            with contextlib.suppress(psutil.Error):
                one.kill()
        with contextlib.suppress(OSError):
            self.process.kill()

    def end(self) -> None:
        """End it, if it still runs, and wait for it."""
        self._ended.set()
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2 if self.process.stdout.closed else 0.05)
        self._kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def _processor(pid: int) -> float:
    """Processor seconds of a process and its children so far."""
    import psutil

    total = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += sum(one.cpu_times()[:2])
    return total


def _needed(folder: Path) -> bool:
    """True for a folder that Python itself lies in: it cannot be hidden."""
    return any(folder in (Path(p).resolve(), *Path(p).resolve().parents) for p in (sys.prefix, sys.base_prefix, sys.executable, PACKAGE / "diffusion_lib"))


def _ending(code: int | None) -> str:
    signal = -code if code is not None and code < 0 else code - 128 if code is not None and code > 128 else 0
    if signal in (24, 9):
        return "The notebook's process was killed: it used more time or memory than the limit allows."
    if signal:
        return f"The notebook's process crashed (signal {signal})."
    return "The notebook's process ended itself (os._exit, or the like), so nothing after it could be tested."


def environment(work: Path) -> dict[str, str]:
    """All that the student's process is told: nothing of the person who grades."""
    kept = {name: os.environ[name] for name in ("SYSTEMROOT", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
    here = dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP", "MPLCONFIGDIR", "IPYTHONDIR", "XDG_CACHE_HOME"), str(work))
    return {**kept, **threads, **here,
            "PATH": "/usr/bin:/bin", "PYTHONPATH": str(PACKAGE), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1",
            "DIFFUSION_STATIC": "1", "DIFFUSION_PROFILE": "cpu", "MPLBACKEND": "module://matplotlib_inline.backend_inline", "MALLOC_ARENA_MAX": "2",
            "CUDA_VISIBLE_DEVICES": ""}


def disk(folder: Path) -> int:
    """Bytes in a folder; links are not followed."""
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def prepare(work: Path, source: Path | None = None) -> None:
    """Fill ``work`` with a submission's folder: plain files alone, no links, no devices, at most 64 MiB; and matplotlib's list of fonts."""
    if source is not None:
        room = 64 * 2**20
        for where, folders, files in os.walk(source):
            folders[:] = [name for name in folders if not os.path.islink(os.path.join(where, name))]
            for name in files:
                path = Path(where, name)
                if path.is_symlink() or not path.is_file() or path.stat().st_size > room:
                    continue
                room -= path.stat().st_size
                target = work / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    for font_list in Path(_fonts()).glob("fontlist*.json"):
        shutil.copyfile(font_list, work / font_list.name)


def _fonts() -> str:
    from diffusion_lib.plotting.style import mpl

    return mpl.get_cachedir()


def enforced(held: dict[str, str]) -> str:
    """One line: what is enforced here, and what is not."""
    network = "the network is off" if {"namespaces", "seccomp"} & set(held) else "the network is refused by Python alone"
    files = "the file system outside its folder is closed" if "landlock" in held else (
        "the file system is read-only" if "namespaces" in held else "files outside its folder are refused by Python alone")
    others = "it cannot start or signal processes" if {"namespaces", "seccomp"} & set(held) else "processes are refused by Python alone"
    boundary = "" if {"landlock", "seccomp"} <= set(held) or "namespaces" in held else " This is no boundary against malice: use a container."
    kinds = ", ".join(f"{name} ({text})" for name, text in held.items())
    return f"Enforced: {network}, {files}, {others}, time and memory are limited. By: {kinds}.{boundary}"
