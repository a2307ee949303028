"""Locks by flock: the kernel keeps them for a process, and lets go of them at its death. The one file with `fcntl`."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

try:
    import fcntl
except ImportError:  # Windows: owner files are used there
    fcntl = None  # type: ignore[assignment]

IS_THERE: Final = fcntl is not None
"""Whether this system has flock."""


def take(handle: IO[Any], *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file until it is closed; False where another handle has it. OSError: there are no locks here."""
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "Windows has no flock")
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


class FlockLocks:
    """Locks of a folder, each a hidden file that stays: FOLDER/.lock, FOLDER/.claims/NAME."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, name: str) -> Path:
        return self.folder / f".{name}"

    @contextlib.contextmanager
    def hold(self, name: str, *, shared: bool = False, wait: bool = False, sure: bool = False) -> Iterator[bool]:  # noqa: ARG002
        """Hold a lock inside the block (`Locks.hold`). Who has it lives, so it is always sure."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+", encoding="utf-8") as handle:
            if not take(handle, shared=shared, wait=wait):
                yield False
                return
            with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, without a name
                os.utime(path)  # since when it is held, for `duo status`
                handle.truncate(0)
                handle.write(f"process {os.getpid()}")
                handle.flush()
            yield True

    def owner(self, name: str) -> str:
        """Who has a lock, in words."""
        with contextlib.suppress(OSError):
            return self._path(name).read_text(encoding="utf-8", errors="replace").strip() or "another process"
        return "another process"
