"""What the Linux kernel does to confine a process, through ctypes: namespaces, Landlock, a seccomp filter. Standard library alone, no root.

Each function raises OSError where the kernel refuses. A process that was confined cannot undo it, nor can what it starts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable

LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 1, 4, 38, 24
READ_FILE, READ_DIR, EXECUTE, WRITE_FILE, TRUNCATE = 1 << 2, 1 << 3, 1 << 0, 1 << 1, 1 << 14
ERRNO, ALLOW, KILL = 0x00050000, 0x7FFF0000, 0x80000000

# What a notebook of this course never needs: (x86_64, aarch64); None where the machine has no such call.
DENIED = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "socket": (41, 198), "ptrace": (101, 117),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268), "mount_setattr": (442, 442),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "open_by_handle_at": (304, 265), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "memfd_create": (319, 279), "shmget": (29, 194), "mq_open": (240, 180), "setpriority": (141, 140),
}
ONLY_SELF = {"kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261)}  # first argument: this process (or 0, of prlimit64)
CLONE, CLONE3 = (56, 220), (435, 435)
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def _call(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, value: int) -> None:
    """One of the kernel's switches for this process."""
    _call(LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    _call(LIBC.mount(os.fsencode(source), os.fsencode(target), kind.encode() if kind else None, flags, data.encode() if data else None))


def enter_namespaces() -> None:
    """Users, mounts, network, IPC, host name and (from the next fork on) processes of one's own; inside, nobody special."""
    user, group = os.geteuid(), os.getegid()
    _call(LIBC.unshare(NEWUSER | NEWNS | NEWNET | NEWIPC | NEWUTS | NEWPID))
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    mount("none", "/", None, MS_REC | MS_PRIVATE)


def arrange_files(work: str, hidden: Iterable[str], size: int) -> None:
    """In a mount namespace: all read-only, nothing in the ``hidden`` folders, and ``work`` writable (it keeps what is in it).

    Called after the fork, as process 1 of its namespace. size: bytes that the temporary folders may hold.
    """
    keep = os.open(work, os.O_PATH)
    for folder in hidden:
        if os.path.isdir(folder):
            mount("none", folder, "tmpfs", MS_NOSUID | MS_NODEV, f"size={size},mode=755")
    os.makedirs(work, exist_ok=True)
    mount(f"/proc/self/fd/{keep}", work, None, MS_BIND)
    os.close(keep)
    read_only = struct.pack("<QQQQ", 1, 0, 0, 0)  # MOUNT_ATTR_RDONLY
    writable = struct.pack("<QQQQ", MS_NOSUID | MS_NODEV, 1, 0, 0)
    _call(LIBC.syscall(442, -100, b"/", 0x8000, read_only, len(read_only)))  # AT_RECURSIVE
    _call(LIBC.syscall(442, -100, os.fsencode(work), 0, writable, len(writable)))
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def drop_powers() -> None:
    """Give up every capability and the way back to them."""
    for capability in range(64):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, data = struct.pack("<Ii", 0x20080522, 0), bytes(24)
    _call(LIBC.capset(header, data))
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def landlock_version() -> int:
    """The kernel's version of Landlock, 0 if it has none."""
    return max(0, LIBC.syscall(444, None, 0, 1)) if LIBC else 0


def landlock(readable: Iterable[str], writable: Iterable[str]) -> int:
    """From now on this thread, and what it starts, reads and writes only beneath these paths. Returns Landlock's version."""
    version = landlock_version()
    if not version:
        raise OSError(errno.ENOSYS, "no Landlock")
    everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    attributes = struct.pack("<QQQ", everything, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    ruleset = _call(LIBC.syscall(444, attributes, 8 if version < 4 else 16 if version < 6 else 24, 0))
    read = READ_FILE | READ_DIR | EXECUTE
    for paths, access in ((readable, read), (writable, everything)):
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            if not os.path.isdir(path):
                access_here = access & (READ_FILE | EXECUTE | WRITE_FILE | TRUNCATE)
            else:
                access_here = access
            _call(LIBC.syscall(445, ruleset, 1, struct.pack("<Qi", access_here & everything, fd), 0))
            os.close(fd)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    _call(LIBC.syscall(446, ruleset, 0))
    os.close(ruleset)
    return version


def seccomp() -> None:
    """Refuse the calls of `DENIED` with "not permitted": no socket, no new process, no signal to another one, no new mounts or namespaces."""
    if platform.machine() not in MACHINES:
        raise OSError(errno.ENOSYS, f"no filter for {platform.machine()}")
    which, machine = MACHINES[platform.machine()]
    pid = os.getpid()
    load, equal, any_bit, least, ret = 0x20, 0x15, 0x45, 0x35, 0x06  # BPF opcodes
    code: list[tuple[int, int, int, int]] = [(load, 0, 0, 4), (equal, 1, 0, machine), (ret, 0, 0, KILL), (load, 0, 0, 0)]
    code += [(least, 0, 1, 0x40000000), (ret, 0, 0, ERRNO | errno.EPERM)]
    for numbers in DENIED.values():
        if numbers[which] is not None:
            code += [(equal, 0, 1, numbers[which]), (ret, 0, 0, ERRNO | errno.EPERM)]
    code += [(equal, 0, 1, CLONE3[which]), (ret, 0, 0, ERRNO | errno.ENOSYS)]  # the C library then takes clone
    code += [(equal, 0, 4, CLONE[which]), (load, 0, 0, 16), (any_bit, 1, 0, 0x10000), (ret, 0, 0, ERRNO | errno.EPERM), (ret, 0, 0, ALLOW)]
    for name, numbers in ONLY_SELF.items():
        zero = 0 if name == "prlimit64" else pid
        code += [(equal, 0, 5, numbers[which]), (load, 0, 0, 16), (equal, 2, 0, pid), (equal, 1, 0, zero),
                 (ret, 0, 0, ERRNO | errno.EPERM), (ret, 0, 0, ALLOW)]
    code.append((ret, 0, 0, ALLOW))
    program = b"".join(struct.pack("<HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    prctl(PR_SET_NO_NEW_PRIVS, 1)
    number = {0: 317, 1: 277}[which]
    _call(LIBC.syscall(number, 1, 1, ctypes.byref(Program(len(code), ctypes.addressof(buffer)))))  # all threads
