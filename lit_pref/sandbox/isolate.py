"""Linux isolation by hand: namespaces, a root of read-only folders, a system-call filter; through ctypes.

What a program gets: the interpreter's standard library and the system's shared libraries, read-only and without any
site-packages; four device nodes; a small scratch folder. No network, no /proc, no other process to see, no
capability, no new process or program, threads up to a limit. x86_64 and aarch64, Linux >= 5.14.
Not covered: what the kernel itself leaks (its version, CPU time), and kernel bugs.

Standard library only: the sandbox's worker script imports this file by its own path.
"""

# pathlib would make every fork dearer
# ruff: noqa: PTH103, PTH110, PTH112, PTH118, PTH120, PTH123, PTH207

import contextlib
import ctypes
import errno
import glob
import os
import platform
import signal
import struct
import sys

NOBODY = 65534
SCRATCH = "/tmp"

_CLONE_NEW = {"mount": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000}
_CLONE_NEW["net"] = 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_AT_RECURSIVE = 0x8000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_MOUNT_SETATTR = 442  # the same number on every architecture
_CLONE_THREAD = 0x10000

_MACHINE = platform.machine()
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}
_PIVOT_ROOT, _CLONE, _PRLIMIT = (155, 41), (56, 220), (302, 261)
_FIRST_UNKNOWN = (
    424  # from here on numbers are shared; clone3, io_uring, pidfds, mounts: "no such call", libc falls back
)
# fmt: off
_DENIED = {  # system call: (x86_64, aarch64), -1 where it does not exist
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281),
    "socket": (41, 198), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    # Kernel objects that would outlive the program and escape its memory limit:
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "memfd_create": (319, 279), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # What could reach the worker, which without root runs under the same user:
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setparam": (142, 118), "kcmp": (312, 272),
    "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # Large, rarely needed parts of the kernel:
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_setup": (206, 0),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "mknod": (133, -1), "mknodat": (259, 33), "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "personality": (135, 92),
    "syslog": (103, 116), "modify_ldt": (154, -1),
}
# fmt: on

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _check(result, f"mount {kind or 'bind'} on {target}")


def _make_read_only(path: str, recursive: bool) -> None:
    # Unlike a remount this keeps the flags that are locked, and reaches mounts below.
    attributes = struct.pack("=4Q", _MS_RDONLY | _MS_NOSUID, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    result = _libc.syscall(_MOUNT_SETATTR, -100, os.fsencode(path), flags, attributes, ctypes.c_size_t(len(attributes)))
    _check(result, "mount_setattr (it needs Linux >= 5.14)")


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
    if sys.platform != "linux" or _MACHINE not in _COLUMN:
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


def _visible_folders() -> list[str]:
    """What a program may read: the standard library and shared libraries, outermost folders only."""
    prefixes = {sys.base_prefix, sys.base_exec_prefix, "/", "/usr"}
    wanted = {os.path.join(prefix, name) for prefix in prefixes for name in ("lib", "lib64")}
    wanted.add(os.path.dirname(os.path.realpath(os.__file__)))
    folders: list[str] = []
    for path in sorted(wanted):
        if os.path.isdir(path) and not any(path.startswith(folder + "/") for folder in folders):
            folders.append(path)
    return folders


def build_root(scratch_mb: int) -> None:
    """Replace this process's view of the file system by the visible folders, devices and scratch."""
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    # Sources are opened first: the new root may be mounted over one of them.
    files = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"]
    files += [path for path in ("/etc/ld.so.cache",) if os.path.exists(path)]
    folders = _visible_folders()
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
        if not path.startswith("/dev/"):
            _make_read_only(target, recursive=True)
    for folder in folders:
        # Installed packages may hold the very answers that programs are graded by.
        for name in ("python*/site-packages", "python*/dist-packages", "site-packages", "dist-packages"):
            for packages in glob.glob(f"{new_root}{folder}/{name}"):
                _mount("tmpfs", packages, "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, "size=4k,mode=555")
    os.makedirs(new_root + SCRATCH, exist_ok=True)
    os.chdir(new_root)
    _check(_libc.syscall(_PIVOT_ROOT[_COLUMN[_MACHINE]], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "detach the old root")
    os.chdir("/")
    _make_read_only("/", recursive=False)
    mount_scratch(scratch_mb)


def mount_scratch(size_mb: int) -> None:
    """An empty scratch folder of bounded size and file count."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _mount("tmpfs", SCRATCH, "tmpfs", flags, f"size={size_mb}m,nr_inodes=1024,mode=777")


def renew_scratch(size_mb: int) -> None:
    """Drop the scratch folder with whatever is in it; takes the same time however deep a program dug."""
    _check(_libc.umount2(os.fsencode(SCRATCH), _MNT_DETACH), "detach the scratch folder")
    mount_scratch(size_mb)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "parent-death signal")


def _filter() -> bytes:
    """The system-call filter as classic BPF: each instruction is (code, jump if true, jump if false, value)."""
    load, equal, at_least, any_bit, leave = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill = (leave, 0, 0, 0x7FFF0000), (leave, 0, 0, 0x80000000)
    refuse, unknown = (leave, 0, 0, 0x50000 | errno.EPERM), (leave, 0, 0, 0x50000 | errno.ENOSYS)
    column = _COLUMN[_MACHINE]
    code = [(load, 0, 0, 4), (equal, 1, 0, _AUDIT_ARCH[_MACHINE]), kill]
    code += [(load, 0, 0, 0), (at_least, 0, 1, _FIRST_UNKNOWN), unknown]
    for numbers in _DENIED.values():
        if numbers[column] >= 0:
            code += [(equal, 0, 1, numbers[column]), refuse]
    # A clone must be a thread; resource limits may be lowered for oneself alone.
    code += [(equal, 0, 4, _CLONE[column]), (load, 0, 0, 16), (any_bit, 1, 0, _CLONE_THREAD), refuse, allow]
    code += [(equal, 0, 4, _PRLIMIT[column]), (load, 0, 0, 16), (equal, 1, 0, 0), refuse, allow]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in [*code, allow])


class Lock:
    """The last step before a program runs: no capability, no way to gain one, no denied system call.

    Built in the worker, which takes what part it can itself live with, so that programs pay two system calls.
    """

    def __init__(self) -> None:
        self._code = ctypes.create_string_buffer(_filter())
        instructions = (len(self._code) - 1) // 8
        self._program = ctypes.create_string_buffer(struct.pack("@HP", instructions, ctypes.addressof(self._code)))
        self._no_capabilities = struct.pack("=2I", 0x20080522, 0), struct.pack("=6I", *[0] * 6)
        self._filter_mode = ctypes.c_ulong(2)
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0), "no new privileges")
        self._root = os.geteuid() == 0
        if self._root:
            os.setresgid(NOBODY, NOBODY, NOBODY)

    def apply(self) -> None:
        if self._root:
            os.setresuid(NOBODY, NOBODY, NOBODY)  # drops the capabilities too
        else:
            _check(_libc.capset(*self._no_capabilities), "drop capabilities")
        _check(_libc.prctl(_PR_SET_SECCOMP, self._filter_mode, self._program, 0, 0), "system-call filter")
