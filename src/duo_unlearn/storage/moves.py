"""Putting files in their place and removing them, also on Windows, which refuses both while anybody reads the file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

_T = TypeVar("_T")

PAUSES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between the tries: other processes read for a moment, and so do scanners for viruses."""


def patiently(act: Callable[[], _T]) -> _T:
    """Do something with a file, and on Windows again where it is refused: who has the file open lets go of it soon."""
    for pause in PAUSES if os.name == "nt" else ():
        try:
            return act()
        except PermissionError:
            time.sleep(pause)
    return act()


def replace(source: Path, target: Path) -> None:
    """Give a file or folder another's name. A file of that name is replaced at once."""
    patiently(lambda: source.replace(target))


def remove(path: Path) -> None:
    """Remove a file where it is there."""
    patiently(lambda: path.unlink(missing_ok=True))


def put(finished: Path, path: Path) -> None:
    """Put a finished file in its place: its contents reach the disk before the name does."""
    with finished.open("r+b", buffering=0) as handle:  # Windows flushes only what may be written
        os.fsync(handle.fileno())
    replace(finished, path)
