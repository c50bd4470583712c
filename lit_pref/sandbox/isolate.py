"""Linux isolation by hand: namespaces and a root of read-only folders, through ctypes.

What a program gets: the interpreter's standard library and the system's shared libraries, read-only and without any
site-packages; four device nodes; a small scratch folder. No network, no /proc, no other process to see; what system
calls it may make is for `seccomp.py`. x86_64 and aarch64, Linux >= 5.14.
Not covered: what the kernel itself leaks (its version, CPU time), and kernel bugs.
"""

import contextlib
import ctypes
import errno
import os
import platform
import signal
import struct
import sys

from lit_pref.sandbox import visible
from lit_pref.sandbox.seccomp import NOBODY, check

SCRATCH = "/tmp"

_CLONE_NEW = {"mount": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000}
_CLONE_NEW["net"] = 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_NOATIME = 1, 2, 4, 8, 1024
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MS_REMOUNT, _MS_RELATIME, _MS_STRICTATIME, _ST_RELATIME = 32, 1 << 21, 1 << 24, 4096
_MNT_DETACH = 2
_AT_RECURSIVE = 0x8000
_PR_SET_PDEATHSIG = 1
_MOUNT_SETATTR = 442  # the same number on every architecture

_MACHINE = platform.machine()
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)
if sys.platform == "linux":  # looked up here: in a new process that would take longer than the call
    _prctl = _libc.prctl


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    check(result, f"mount {kind or 'bind'} on {target}")


def _make_read_only(path: str, recursive: bool) -> None:
    # Unlike a remount this keeps the flags that are locked, and reaches mounts below.
    attributes = struct.pack("=4Q", _MS_RDONLY | _MS_NOSUID, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    result = _libc.syscall(_MOUNT_SETATTR, -100, os.fsencode(path), flags, attributes, ctypes.c_size_t(len(attributes)))
    check(result, "mount_setattr (it needs Linux >= 5.14)")


def _write_id_maps(pid: int, user: int, group: int) -> None:
    """As root, map root and nobody, so that programs run as neither root nor the worker; else only ourselves."""

    def write(name: str, text: str) -> None:
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(text)

    def permitted(name: str, text: str) -> bool:
        try:
            write(name, text)
        except PermissionError:  # root of a container that has only this one id
            return False
        return True

    if user == 0 and permitted("uid_map", f"0 0 1\n{NOBODY} {NOBODY} 1\n"):
        write("gid_map", f"0 {group} 1\n{NOBODY} {NOBODY} 1\n")
        return
    write("uid_map", f"{NOBODY} {user} 1\n")
    write("setgroups", "deny")
    write("gid_map", f"{NOBODY} {group} 1\n")


def enter_namespaces() -> None:
    """Move this process into namespaces of its own; its next child becomes their process 1.

    Only a process that stays outside may map two ids, hence the short-lived helper.
    """
    if sys.platform != "linux" or _MACHINE not in _PIVOT_ROOT:
        raise OSError(errno.ENOSYS, f"isolation knows Linux on x86_64 and aarch64, not {sys.platform} on {_MACHINE}")
    user, group, pid = os.geteuid(), os.getegid(), os.getpid()
    if user == 0:
        with contextlib.suppress(PermissionError):  # root of a container that forbids it: nothing to drop
            os.setgroups([])
    gate_read, gate_write = os.pipe()
    helper = os.fork()
    if helper == 0:
        code = 1
        try:
            os.close(gate_write)
            if os.read(gate_read, 1):
                _write_id_maps(pid, user, group)
            code = 0
        except OSError as error:
            code = error.errno or 1
        finally:
            os._exit(code)
    os.close(gate_read)
    result = _libc.unshare(sum(_CLONE_NEW.values()))
    number = ctypes.get_errno()
    if result == 0:
        os.write(gate_write, b"g")
    os.close(gate_write)
    failed = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    if result == -1:
        raise OSError(number, f"new namespaces: {os.strerror(number)}")
    if failed:
        raise OSError(failed, f"user id map: {os.strerror(failed)}")


def build_root(scratch_mb: int) -> None:
    """Replace this process's view of the file system by the visible folders, devices and scratch."""
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    # Sources are opened first: the new root may be mounted over one of them.
    files = [*visible.DEVICES, *visible.files()]
    folders = visible.folders()
    sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in files + folders}
    new_root = SCRATCH
    _mount("tmpfs", new_root, "tmpfs", _MS_NOSUID, "size=1m,mode=755")
    for path, source in sources.items():
        target = new_root + path
        os.makedirs(target if path in folders else os.path.dirname(target), exist_ok=True)
        if path in files:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        _mount(f"/proc/self/fd/{source}", target, None, _MS_BIND | _MS_REC)
        os.close(source)
        _make_read_only(target, recursive=True)  # a device too: its times and attributes, not what it takes and gives
    for folder in folders:
        for packages in visible.installed_packages(new_root + folder):
            _mount("tmpfs", packages, "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, "size=4k,mode=555")
    os.makedirs(new_root + SCRATCH, exist_ok=True)
    os.chdir(new_root)
    check(_libc.syscall(_PIVOT_ROOT[_MACHINE], b".", b"."), "pivot_root")
    check(_libc.umount2(b".", _MNT_DETACH), "detach the old root")
    os.chdir("/")
    _make_read_only("/", recursive=False)
    mount_scratch(scratch_mb)


def finish_root(scratch_mb: int) -> None:
    """What bubblewrap cannot do: devices whose times and attributes stay, and the scratch folder."""
    for device in visible.DEVICES:  # bubblewrap knows older kernels too
        flags = os.statvfs(device).f_flag
        access = flags & _MS_NOATIME or (_MS_RELATIME if flags & _ST_RELATIME else _MS_STRICTATIME)
        kept = flags & (_MS_NOSUID | _MS_NOEXEC) | access  # none of these may be taken off
        _mount("none", device, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)
    mount_scratch(scratch_mb)


def mount_scratch(size_mb: int) -> None:
    """An empty scratch folder of bounded size and file count."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME  # looking into it must not show
    _mount("tmpfs", SCRATCH, "tmpfs", flags, f"size={size_mb}m,nr_inodes=1024,mode=777")


def renew_scratch(size_mb: int) -> None:
    """Drop the scratch folder with whatever is in it; takes the same time however deep a program dug."""
    check(_libc.umount2(os.fsencode(SCRATCH), _MNT_DETACH), "detach the scratch folder")
    mount_scratch(size_mb)


def process_numbers(processes: int | None) -> int | None:
    """A descriptor of the number after which this namespace's next process is numbered; `renumber` sets it.

    processes: a descriptor of /proc. None where it cannot be had: an old kernel, a container with a read-only /proc.
    """
    with contextlib.suppress(OSError):
        if processes is not None:
            numbers = os.open("sys/kernel/ns_last_pid", os.O_WRONLY, dir_fd=processes)
            renumber(numbers)
            return numbers
    return None


def renumber(numbers: int | None) -> None:
    """Have the next processes get the numbers after 1, so that none can tell how many there were before."""
    if numbers is not None:
        os.pwrite(numbers, b"1", 0)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    check(_prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "parent-death signal")
