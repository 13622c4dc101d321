"""Hide from sidelight what another operating system lacks: `tests.support.platforms` runs this.

The interpreter imports this module as it starts, so that the programs that tests start are on the
same system. Only modules of sidelight see it: tests, libraries and Python itself see Linux.
"""

import builtins
import ctypes
import fcntl
import os
import struct
import sys
import types

SYSTEM = os.environ.get("SIDELIGHT_TEST_PLATFORM")

_BOTH = {
    "os": {"posix_fallocate", "fdatasync"},
    "time": {"pthread_getcpuclockid"},
    "mmap": {"MADV_DONTFORK"},
    "fcntl": {"F_OFD_SETLK", "F_OFD_GETLK", "F_OFD_SETLKW"},
}
_WINDOWS = {
    "os": {
        *("fork", "register_at_fork", "pread", "pwrite", "geteuid", "getuid", "statvfs", "uname"),
        *("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "posix_fallocate", "fdatasync"),
    },
    "time": {"pthread_getcpuclockid", "clock_gettime_ns", "clock_gettime"},
    "mmap": {"MADV_DONTFORK", "MAP_PRIVATE", "MAP_ANONYMOUS"},
    "select": {"poll", "epoll"},
    "signal": {"pthread_sigmask", "sigtimedwait", "SIGKILL", "SIGALRM", "SIGHUP", "setitimer"},
    "fcntl": None,
    "resource": None,
    "pwd": None,
}
_DARWIN = {**_BOTH, "ctypes": set()}  # its libc has a function more
LACKING = {"darwin": _DARWIN, "windows": _WINDOWS}.get(SYSTEM, {})


class Lacking(types.ModuleType):
    """A module without some of its names."""

    def __init__(self, module, names):
        super().__init__(module.__name__)
        self.__dict__.update(_module=module, _names=names)

    def __getattr__(self, name):
        if name in self._names:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._module, name)


def _locking(fd, mode, size):
    """Lock bytes from the position of a file, as Windows does."""
    at = os.lseek(fd, 0, os.SEEK_CUR)
    kind = fcntl.F_WRLCK if mode else fcntl.F_UNLCK
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, at, size, 0))
    except BlockingIOError as error:
        raise PermissionError(error.errno, error.strerror) from None


class _Libc:
    """The functions of libc, and one that tells this run of the machine as macOS does."""

    def __init__(self, *arguments):
        self._libc = ctypes.CDLL(*arguments)

    def __getattr__(self, name):
        return getattr(self._libc, name)

    def sysctlbyname(self, name, found, *_):
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:  # noqa: PTH123
            found.value = file.read().strip()
        return name != b"kern.bootsessionuuid"


def _seen_by_sidelight(name):
    if name == "ctypes":
        seen = Lacking(ctypes, set())
        seen.CDLL = _Libc
        return seen
    if name == "msvcrt" and SYSTEM == "windows":
        return types.SimpleNamespace(locking=_locking, LK_NBLCK=2, LK_UNLCK=0)
    if LACKING[name] is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return Lacking(_import(name), LACKING[name])


def _import_for(name, globals=None, *arguments, **named):
    asks = (globals or {}).get("__name__", "")
    is_ours = asks == "sidelight" or asks.startswith("sidelight.")
    if not is_ours or (name not in LACKING and name != "msvcrt"):
        return _import(name, globals, *arguments, **named)
    if name not in _seen:
        _seen[name] = _seen_by_sidelight(name)
    return _seen[name]


def _no_proc(event, arguments):
    """Refuse files of /proc to sidelight, as a system without it does."""
    if event not in ("open", "os.listdir") or not str(arguments[0]).startswith("/proc/"):
        return
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("pathlib"):
        frame = frame.f_back
    if frame is not None and frame.f_globals.get("__name__", "").startswith("sidelight."):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])


if LACKING:
    _seen, _import = {}, builtins.__import__
    builtins.__import__ = _import_for
    sys.addaudithook(_no_proc)
