"""What system calls a program may make, as seccomp filters; through ctypes.

Two filters. `Lock` goes on top of namespaces, which hold files, network and other processes off: it forbids new
processes and what could outlive or reach around them. `StrictLock` is used where a machine allows no namespaces:
an allow-list without which a program cannot open, look up or make a file, a socket or a process, nor signal another
one; what it may import must be loaded before. x86_64 and aarch64.
Not covered: what the kernel itself leaks (its version, CPU time), and kernel bugs.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

NOBODY = 65534
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_CLONE_THREAD = 0x10000
_MACHINE = platform.machine()
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}
_FIRST_UNKNOWN = (
    424  # from here on numbers are shared; clone3, io_uring, pidfds, mounts: "no such call", libc falls back
)
# System calls: (x86_64, aarch64), -1 where one does not exist.
_CLONE, _PRLIMIT, _KILL, _TGKILL, _IOCTL, _FCNTL = (56, 220), (302, 261), (62, 129), (234, 131), (16, 29), (72, 25)
_OPEN, _OPENAT, _QUEUE, _TGQUEUE = (2, -1), (257, 56), (129, 138), (297, 240)
# fmt: off
_DENIED = {
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281),
    "socket": (41, 198), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    # Kernel objects that would outlive the program and escape its memory limit:
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "memfd_create": (319, 279), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # What could reach the worker, which without root runs under the same user:
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setparam": (142, 118), "kcmp": (312, 272),
    "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    "tkill": (200, 130),
    # What tells of others that load the same libraries:
    "inotify_init": (253, -1), "inotify_init1": (294, 26),
    # Large, rarely needed parts of the kernel:
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_setup": (206, 0),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "mknod": (133, -1), "mknodat": (259, 33), "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "personality": (135, 92),
    "syslog": (103, 116), "modify_ldt": (154, -1),
}
_UNSUPPORTED = {"setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7)}  # they outlive who set them
_ALLOWED = {
    # The descriptors that it was given:
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "lseek": (8, 62), "pread64": (17, 67), "pwrite64": (18, 68),
    "readv": (19, 65), "writev": (20, 66), "fstat": (5, 80), "dup": (32, 23), "dup2": (33, -1), "dup3": (292, 24),
    "pipe": (22, -1), "pipe2": (293, 59), "ftruncate": (77, 46),
    "poll": (7, -1), "ppoll": (271, 73), "select": (23, -1), "pselect6": (270, 72),
    # Memory:
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216),
    "madvise": (28, 233), "mincore": (27, 232),
    # Its own signals, threads and end:
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "pause": (34, -1),
    "alarm": (37, -1), "getitimer": (36, 102), "setitimer": (38, 103), "restart_syscall": (219, 128),
    "futex": (202, 98), "set_robust_list": (273, 99), "get_robust_list": (274, 100), "rseq": (334, 293),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168), "membarrier": (324, 283),
    "exit": (60, 93), "exit_group": (231, 94),
    # Clocks and what it is:
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, -1), "times": (100, 153), "getrusage": (98, 165), "getrlimit": (97, 163),
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "uname": (63, 160), "sysinfo": (99, 179), "getrandom": (318, 278),
}
_NO_FILES = {  # to these there is no file of any name
    "open": (2, -1), "openat": (257, 56), "creat": (85, -1), "stat": (4, -1), "lstat": (6, -1),
    "newfstatat": (262, 79), "statx": (332, 291), "access": (21, -1), "faccessat": (269, 48), "readlink": (89, -1),
    "readlinkat": (267, 78), "getcwd": (79, 17), "chdir": (80, 49),
}
# fmt: on
_TCGETS = 0x5401  # whether it is a terminal
_FCNTL_ALLOWED = (0, 1, 2, 3, 1030)  # duplicate a descriptor, read and set its flags
_FCNTL_DENIED = (1024, 1026, 1036, 1038)  # leases, notices, hints: on libraries and devices that others have too
_IOCTL_DENIED = (0x40086602, 0x401C5820)  # a file's flags
_O_TMPFILE = 0x400000  # a file without a name leaves a folder as it was, but for the count of files that it had
_ANYBODY = 0x7FFFFFFF  # a process number that none has

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _LEAVE = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x50000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT, _THIRD_ARGUMENT = 0, 4, 16, 24, 32

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, value

_libc = ctypes.CDLL(None, use_errno=True)
if sys.platform == "linux":  # looked up here: in a new process that would take longer than the call
    _prctl, _capset = _libc.prctl, _libc.capset


def check(result: int, what: str) -> None:
    """Raise the C library's error of a call that returned -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _leave(action: int) -> _Instruction:
    return _LEAVE, 0, 0, action


def _numbers(calls: dict[str, tuple[int, int]]) -> list[int]:
    return [pair[_COLUMN[_MACHINE]] for pair in calls.values() if pair[_COLUMN[_MACHINE]] >= 0]


def _each(calls: dict[str, tuple[int, int]], action: int) -> list[_Instruction]:
    return [step for number in _numbers(calls) for step in ((_EQUAL, 0, 1, number), _leave(action))]


def _where(
    call: tuple[int, int],
    argument: int,
    test: int,
    values: tuple[int, ...],
    then: int = _ALLOW,
    otherwise: int = _ERRNO | errno.EPERM,
) -> list[_Instruction]:
    """What becomes of a call where its argument passes the test with one of the values, and where it does not."""
    number = call[_COLUMN[_MACHINE]]
    tests = [step for value in values for step in ((test, 0, 1, value), _leave(then))]
    body = [(_LOAD, 0, 0, argument), *tests, _leave(otherwise)]
    return [(_EQUAL, 0, len(body), number), *body] if number >= 0 else []


def _to_itself() -> list[_Instruction]:
    """Signals go to nobody else: neither to this program's checker nor to another's."""
    calls = (_KILL, _TGKILL, _QUEUE, _TGQUEUE)
    return [step for call in calls for step in _where(call, _FIRST_ARGUMENT, _EQUAL, (_ANYBODY,))]


def _begin() -> list[_Instruction]:
    start: list[_Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _AUDIT_ARCH[_MACHINE])]
    start += [_leave(_KILL_PROCESS), (_LOAD, 0, 0, _NUMBER)]
    return [*start, (_AT_LEAST, 0, 1, _FIRST_UNKNOWN), _leave(_ERRNO | errno.ENOSYS)]


def _deny_list() -> list[_Instruction]:
    code = _begin() + _each(_DENIED, _ERRNO | errno.EPERM)
    # A clone must be a thread; resource limits may be lowered only for oneself.
    code += _where(_CLONE, _FIRST_ARGUMENT, _ANY_BIT, (_CLONE_THREAD,))
    code += _where(_PRLIMIT, _FIRST_ARGUMENT, _EQUAL, (0,))
    code += _each(_UNSUPPORTED, _ERRNO | errno.EOPNOTSUPP) + _to_itself()
    refused = _ERRNO | errno.EOPNOTSUPP, _ALLOW
    code += _where(_FCNTL, _SECOND_ARGUMENT, _EQUAL, _FCNTL_DENIED, *refused)
    code += _where(_IOCTL, _SECOND_ARGUMENT, _EQUAL, _IOCTL_DENIED, *refused)
    code += _where(_OPEN, _SECOND_ARGUMENT, _ANY_BIT, (_O_TMPFILE,), *refused)
    code += _where(_OPENAT, _THIRD_ARGUMENT, _ANY_BIT, (_O_TMPFILE,), *refused)
    return [*code, _leave(_ALLOW)]


def _allow_list() -> list[_Instruction]:
    code = _begin() + _each(_ALLOWED, _ALLOW) + _each(_NO_FILES, _ERRNO | errno.ENOENT)
    code += _where(_CLONE, _FIRST_ARGUMENT, _ANY_BIT, (_CLONE_THREAD,))
    code += _where(_PRLIMIT, _THIRD_ARGUMENT, _EQUAL, (0,))  # ask for limits, not set them
    code += _to_itself()
    code += _where(_IOCTL, _SECOND_ARGUMENT, _EQUAL, (_TCGETS,))
    code += _where(_FCNTL, _SECOND_ARGUMENT, _EQUAL, _FCNTL_ALLOWED)
    return [*code, _leave(_ERRNO | errno.EPERM)]


def forbid_new_privileges() -> None:
    """For this process and its children; the kernel wants it before a filter without root."""
    if _MACHINE not in _COLUMN:
        raise OSError(errno.ENOSYS, f"isolation knows x86_64 and aarch64, not {_MACHINE}")
    check(_prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0), "no new privileges")


class _Filter:
    """A filter that is built once; each process puts its own number into its places."""

    def __init__(self, code: list[_Instruction]) -> None:
        packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
        self._code = ctypes.create_string_buffer(packed, len(packed))
        self._bytes = memoryview(self._code).cast("B")
        number = struct.pack("=I", _ANYBODY)
        self._places = [slice(at, at + 4) for at in range(4, len(packed), 8) if packed[at : at + 4] == number]
        program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(self._code)))
        self._arguments = _PR_SET_SECCOMP, ctypes.c_ulong(2), program, 0, 0

    def apply(self) -> None:
        number = os.getpid().to_bytes(4, sys.byteorder)
        for place in self._places:
            self._bytes[place] = number
        check(_prctl(*self._arguments), "system-call filter")


class Lock(_Filter):
    """The last step before a program runs in namespaces: no capability, no way to gain one, no denied system call.

    Built in the worker, which takes what part it can itself live with, so that programs pay two system calls.
    """

    def __init__(self) -> None:
        forbid_new_privileges()
        super().__init__(_deny_list())
        self._no_capabilities = struct.pack("=2I", 0x20080522, 0), struct.pack("=6I", *[0] * 6)
        self._root = os.geteuid() == 0
        if self._root:
            os.setresgid(NOBODY, NOBODY, NOBODY)

    def apply(self) -> None:
        if self._root:
            os.setresuid(NOBODY, NOBODY, NOBODY)  # drops the capabilities too
        else:
            check(_capset(*self._no_capabilities), "drop capabilities")
        super().apply()


class StrictLock(_Filter):
    """The last step before a program runs without namespaces."""

    def __init__(self) -> None:
        forbid_new_privileges()
        super().__init__(_allow_list())
