"""Windows' rules on Linux, as far as they can be: what the package must do without, and what files refuse there.

`install` puts them on this process for good. `sys.platform` stays as it is, as libraries go by it. The rules:

* The modules of UNIX_MODULES cannot be imported, by libraries neither, but for OF_LIBRARIES.
* The package's own `os` and `signal` have nothing that Windows' lack, and its `os.name` is "nt".
* A file that this process has open or mapped cannot be renamed, replaced or removed, nor can a folder that holds one.
  (Python opens files on Windows without leave to delete them.)
* New names have no character that Windows forbids, are no device, and no other name but for its case.
* Files are flushed through a handle that may write, folders are not opened, there are no links and no /proc.
* The package opens text with a named encoding.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import importlib.abc
import os
import re
import signal
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

PACKAGE: Final = "duo_unlearn"
UNIX_MODULES: Final = (
    "crypt", "curses", "fcntl", "grp", "nis", "ossaudiodev", "posix_ipc", "pty", "pwd", "readline", "resource", "spwd",
    "syslog", "termios", "tty",
)  # fmt: skip
OF_LIBRARIES: Final = ("resource", "termios", "tty")
"""What psutil and accelerate import where `sys.platform` is "linux": forbidden to the package alone."""
WINDOWS_OS: Final = (
    "DirEntry", "F_OK", "O_APPEND", "O_BINARY", "O_CREAT", "O_EXCL", "O_RDONLY", "O_RDWR", "O_TRUNC", "O_WRONLY",
    "PathLike", "R_OK", "SEEK_CUR", "SEEK_END", "SEEK_SET", "W_OK", "X_OK", "abort", "access", "altsep", "chdir",
    "chmod", "close", "closerange", "cpu_count", "curdir", "defpath", "device_encoding", "devnull", "dup", "dup2",
    "environ", "error", "execv", "execve", "extsep", "fdopen", "fsdecode", "fsencode", "fspath", "fstat", "fsync",
    "ftruncate", "get_exec_path", "get_inheritable", "get_terminal_size", "getcwd", "getcwdb", "getenv", "getlogin",
    "getpid", "getppid", "isatty", "kill", "linesep", "link", "listdir", "lseek", "lstat", "makedirs", "mkdir", "name",
    "open", "pardir", "path", "pathsep", "pipe", "popen", "putenv", "read", "readlink", "remove", "removedirs",
    "rename", "renames", "replace", "rmdir", "scandir", "sep", "set_inheritable", "stat", "stat_result",
    "statvfs_result", "strerror", "supports_bytes_environ", "supports_dir_fd", "supports_effective_ids", "supports_fd",
    "supports_follow_symlinks", "symlink", "system", "terminal_size", "times", "times_result", "truncate", "umask",
    "unlink", "unsetenv", "urandom", "utime", "waitpid", "waitstatus_to_exitcode", "walk", "write",
)  # fmt: skip
"""What `os` has on Windows (docs.python.org/3.11, "Availability"), without what only Windows has."""
WINDOWS_SIGNALS: Final = ("SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM")
FORBIDDEN: Final = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$')
DEVICES: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
LONGEST: Final = 260 - len("C:/Users/somebody.or-other/Documents/experiments/")
"""Letters of a path below the run folder's parent."""

TEMPORARY: Final = tempfile.gettempdir()  # a hook that asked would wait for who asks now

_look = threading.local()
_frame_of = sys._getframe  # the hook asks at each event
_fcntl = fcntl  # for the rules themselves, before nobody can import it


def install() -> None:
    """Put the rules on this process."""
    for name in set(UNIX_MODULES) - set(OF_LIBRARIES):
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Absent())
    of_package = {"os": _windows_os(), "signal": _windows_signal()}
    imported = builtins.__import__

    def windows_import(
        name: str, told: Any = None, own: Any = None, fromlist: Any = (), level: int = 0
    ) -> types.ModuleType:
        if not level and _is_own((told or {}).get("__name__")):
            if name in UNIX_MODULES:
                raise _absent(name)
            if name in of_package:
                return of_package[name]
        return imported(name, told, own, fromlist, level)

    builtins.__import__ = windows_import  # type: ignore[assignment]
    warnings.filterwarnings("error", category=EncodingWarning, module=rf"{PACKAGE}(\.|$)")
    sys.addaudithook(_audit)


class _Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, _path: object, _target: object = None) -> None:
        if name in UNIX_MODULES and name not in OF_LIBRARIES:
            raise _absent(name)


def _absent(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)


def _is_own(module: object) -> bool:
    return isinstance(module, str) and (module == PACKAGE or module.startswith(f"{PACKAGE}."))


class _Part(types.ModuleType):
    """A module without some of its names."""

    def __init__(self, whole: types.ModuleType, names: frozenset[str], **other: Any) -> None:
        super().__init__(whole.__name__, whole.__doc__)
        self.__dict__.update({"_whole": whole, "_names": names, **other})

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on Windows", name=name)
        return getattr(self._whole, name)


def _windows_os() -> types.ModuleType:
    def flush(handle: int) -> None:
        if _fcntl.fcntl(handle, _fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor: it may not be written")
        os.fsync(handle)

    def kill(pid: int, number: int) -> None:
        assert number, "os.kill(pid, 0) is Ctrl-C on Windows"
        os.kill(pid, number)

    return _Part(os, frozenset(WINDOWS_OS), name="nt", fsync=flush, kill=kill)


def _windows_signal() -> types.ModuleType:
    names = {name for name in dir(signal) if not name.startswith("SIG")} | {"SIG_DFL", "SIG_IGN", *WINDOWS_SIGNALS}
    absent = {"alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "siginterrupt", "sigpending", "sigwait"}
    return _Part(signal, frozenset(names - absent))


def _audit(event: str, told: tuple[Any, ...]) -> None:
    if event not in RULES or getattr(_look, "goes_on", False):
        return
    _look.goes_on = True  # the rules open files themselves
    try:
        RULES[event](*told)
    finally:
        _look.goes_on = False


def _opens(path: Any, _mode: object, flags: int) -> None:
    if not isinstance(path, str):
        return
    if path.startswith("/proc/") and _asked_by_package(_frame_of(3)):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory on Windows", path)
    if flags & os.O_CREAT:
        _names(path)


def _asked_by_package(frame: FrameType | None) -> bool:
    """Whether the package called, itself or by way of pathlib and the like."""
    while frame is not None and frame.f_globals.get("__name__") in ("pathlib", "io", "contextlib", "codecs"):
        frame = frame.f_back
    return frame is not None and _is_own(frame.f_globals.get("__name__"))


def _removes(path: Any, folder: int = -1) -> None:
    if folder == -1:
        _is_let_go(os.fspath(path))


def _renames(source: Any, target: Any, *_folders: int) -> None:
    for path in (source, target):
        _is_let_go(os.fspath(path))
    _names(os.fspath(target))


def _makes_folder(path: Any, _mode: int, folder: int = -1) -> None:
    if folder == -1:
        _names(os.fspath(path))


def _links(_source: Any, target: Any, *_folders: int) -> None:
    if _is_temporary(os.path.realpath(target)) and _asked_by_package(_frame_of(3)):
        raise OSError(errno.EPERM, "A required privilege is not held by the client", target)


RULES: Final[dict[str, Callable[..., None]]] = {
    "open": _opens,
    "os.remove": _removes,
    "os.rename": _renames,
    "os.mkdir": _makes_folder,
    "os.link": _links,
    "os.symlink": _links,
}


def _is_temporary(path: str) -> bool:
    """Whether it is of a test, and no library's own."""
    return path.startswith(TEMPORARY + os.sep)


def _is_let_go(path: str) -> None:
    """Fail where this process has a file open or mapped, or one in a folder."""
    path = os.path.realpath(path)
    if not _is_temporary(path) or not Path(path).exists():
        return
    for used in _files_in_use():
        if used == path or used.startswith(f"{path}/"):
            raise PermissionError(errno.EACCES, "The process cannot access the file: it is open here", path)


def _files_in_use() -> Iterator[str]:
    """Files that this process has open or mapped."""
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            yield str(handle.readlink())
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        if (place := line.partition("/"))[1]:
            yield f"/{place[2]}"


def _names(path: str) -> None:
    """Fail for a new name that Windows does not allow."""
    path = os.path.abspath(path)  # noqa: PTH100 - a link is not followed
    if not _is_temporary(path) or not _asked_by_package(_frame_of(4)):
        return
    folder, name = os.path.split(path)
    if FORBIDDEN.search(name) or DEVICES.fullmatch(name):
        raise OSError(errno.EINVAL, "The filename is not allowed on Windows", path)
    if len(path) - len(TEMPORARY) > LONGEST:
        raise OSError(errno.ENAMETOOLONG, "The path is too long for Windows", path)
    with contextlib.suppress(FileNotFoundError):
        for other in (path.name for path in Path(folder).iterdir()):
            if other != name and other.lower() == name.lower():
                raise FileExistsError(errno.EEXIST, f"Windows has one file for this name and {other}", path)
