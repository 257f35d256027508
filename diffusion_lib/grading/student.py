"""The process that runs a student's cells and answers for their variables: confined before it reads a line of theirs.

Started by `sandbox.Student`; reads one line of JSON (the settings), then messages of `wire`, on its standard input; answers on its standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

from diffusion_lib.grading import hook, kernel

SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/opt/lib", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/etc/fonts",
          "/sys/devices/system/cpu", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/filesystems", "/dev/zero", "/dev/urandom", "/dev/random",
          "/System", "/Library", "/private/etc/localtime")


def readable() -> list[str]:
    """What Python needs to read: itself, the packages, this library, the system's libraries."""
    import diffusion_lib

    return [sys.prefix, sys.exec_prefix, sys.base_prefix, os.path.dirname(diffusion_lib.__file__), *SYSTEM,
            *(p for p in sys.path if p.rstrip(os.sep).endswith(("site-packages", "dist-packages")))]


def first_walls(settings: dict) -> dict[str, str]:
    """Namespaces and Landlock, before anything is imported that starts a thread. Returns what holds, and what does not and why."""
    held: dict[str, str] = {}
    work = settings["work"]
    if sys.platform != "linux":
        return held
    if settings["namespaces"] and _goes_well(lambda: (kernel.enter_namespaces(), _in_child(
            lambda: kernel.arrange_files(work, settings["hidden"], settings["disk"])))):
        kernel.enter_namespaces()
        _become_first(lambda: kernel.arrange_files(work, settings["hidden"], settings["disk"]))
        os.chdir(work)
        kernel.drop_powers()
        held["namespaces"] = "users, processes, network, mounts, IPC"
    with contextlib.suppress(OSError):
        if settings["landlock"]:
            held["landlock"] = f"version {kernel.landlock(readable(), [work, '/dev/null'])}"
    return held


def _goes_well(trial: Any) -> bool:
    """Whether ``trial`` works, tried in a child process so that half of it does no harm."""
    pid = os.fork()
    if pid == 0:
        try:
            trial()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _in_child(action: Any) -> None:
    if not _goes_well(action):
        raise OSError("refused in the child")


def _become_first(action: Any) -> None:
    """Go on as process 1 of the new namespace; the process that waits outside does nothing else, and both die together."""
    pid = os.fork()
    if pid:
        for fd in (0, 1):
            os.close(fd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    action()


def limits(settings: dict) -> dict[str, str]:
    """The limits of the POSIX kind, where there are any."""
    try:
        import resource
    except ImportError:
        return {}
    held = []
    used = 0
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    wanted = {"AS": used + settings["memory"], "CPU": int(settings["time"]) + 10, "FSIZE": settings["disk"] // 4, "NOFILE": 256, "CORE": 0,
              "NPROC": 1 if sys.platform == "darwin" else 512}
    for name, value in wanted.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        with contextlib.suppress(ValueError, OSError):
            if kind is not None:
                resource.setrlimit(kind, (value, value))
                held.append(name)
    return {"limits": " ".join(held)}


def main() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    settings = json.loads(sys.stdin.buffer.readline())
    held = first_walls(settings)
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        os.dup2(os.open(os.devnull, flags), fd)
    sys.dont_write_bytecode = True

    from diffusion_lib.grading.gate import Server, StandIn
    from diffusion_lib.grading.shell import Cut, Shell, TimeLimit, alarm, quiet
    from diffusion_lib.grading.wire import receive, send, unpack

    sys.stdin, sys.stdout, sys.stderr = open(os.devnull), Cut(0), Cut(0)  # noqa: SIM115

    shell = Shell(settings["output"])
    import torch

    torch.manual_seed(0)
    sys.path.insert(0, settings["work"])
    held |= limits(settings)
    if sys.platform == "linux" and settings["seccomp"]:
        with contextlib.suppress(OSError):
            kernel.seccomp()
            held["seccomp"] = "no sockets, processes, signals to others"
    hook.install(readable(), [settings["work"], os.devnull])
    held["hook"] = "Python's audit hook"
    send(replies, {"ready": held})
    server = Server(shell.names)

    def talk(request: dict, buffers: list[bytes]) -> tuple[dict, list[bytes]]:
        with quiet():  # an alarm between the two would leave half a message in the pipe
            send(replies, request, buffers)
            return receive(requests)

    while True:
        try:
            request, buffers = receive(requests)
        except EOFError:
            os._exit(0)
        if request["do"] == "cell":
            send(replies, shell.run(request["source"], request["limit"]))
            continue
        if request["do"] == "replace":
            for name, value in request["names"].items():
                shell.names[name] = unpack(value, buffers, lambda _, __, name=name: StandIn(name, talk))
            send(replies, {"value": None})
            continue
        try:
            with contextlib.redirect_stdout(Cut(0)), contextlib.redirect_stderr(Cut(0)), alarm(request["limit"]):
                reply, raw = server.answer(request, buffers)
        except TimeLimit as problem:
            reply, raw = {"error": "TimeLimit", "text": str(problem)}, []
        try:
            send(replies, reply, raw)
        except ValueError as problem:
            send(replies, {"error": type(problem).__name__, "text": str(problem)[:500]})


if __name__ == "__main__":
    main()
