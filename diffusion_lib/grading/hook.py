"""Python's own watchman: an audit hook that refuses sockets, processes, signals and files outside the folder, in a plain sentence.

Where the kernel confines the process this only says why something failed. Where it cannot (macOS, Windows) it is all there is beside the limits,
and no boundary against malice: whoever reaches the C level walks around it.
"""

from __future__ import annotations

import os
import sys

PROCESSES = {"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn"}
SIGNALS = {"os.kill", "os.killpg", "signal.pthread_kill"}
WRITING = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate", "os.utime",
           "shutil.rmtree", "shutil.move", "os.setxattr"}
LISTING = {"os.listdir", "os.scandir", "os.chdir"}


def install(readable: list[str], writable: list[str]) -> None:
    """From now on; for good."""
    inside = [os.path.realpath(path) for path in writable]
    seen = inside + [os.path.realpath(path) for path in readable]

    def beneath(path: object, folders: list[str]) -> bool:
        if isinstance(path, int) or path is None:
            return True
        real = os.path.realpath(os.fsdecode(path))
        return any(real == folder or real.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)

    def watch(event: str, arguments: tuple) -> None:
        if event.startswith("socket.") and event not in ("socket.gethostname",):
            if event == "socket.__new__" and sys._getframe(1).f_code.co_name == "socketpair":
                return
            raise PermissionError("Not allowed while grading: a network connection.")
        if event in PROCESSES:
            raise PermissionError("Not allowed while grading: starting another process.")
        if event in SIGNALS:
            raise PermissionError("Not allowed while grading: a signal to a process.")
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, (str, bytes, os.PathLike)):
                write = (isinstance(mode, str) and any(c in mode for c in "wax+")) or (isinstance(flags, int) and flags & 3)
                if not beneath(path, inside if write else seen):
                    raise PermissionError(f"Not allowed while grading: {'writing' if write else 'reading'} {os.fsdecode(path)[:200]}, "
                                          "which lies outside the notebook's folder.")
        elif event in WRITING or event in LISTING:
            folders = seen if event in LISTING else inside
            if not all(beneath(p, folders) for p in arguments[:2] if isinstance(p, (str, bytes, os.PathLike))):
                raise PermissionError(f"Not allowed while grading: {event} of {os.fsdecode(arguments[0])[:200]}, which lies outside the notebook's folder.")

    sys.addaudithook(watch)
