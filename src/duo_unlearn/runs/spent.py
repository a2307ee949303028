"""How long a piece of work took, over all the processes that one after another worked on it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DuoError
from ..storage.files import read_object, write_json

Clock = Callable[[], float]
"""Seconds since a fixed time, as files' times are counted."""


@contextlib.contextmanager
def stopwatch(path: Path | None, kept: Path, clock: Clock = time.time) -> Iterator[Clock]:
    """Gives a function: the seconds that went into a work so far, those of processes that were stopped with them.

    path: where that is kept until the work is done; None: it is never taken up again. kept: the work's last state on
    disk: of a process that died without a word, what it did until then counts.
    """
    before = 0.0 if path is None else _before(path, kept)
    began = clock()

    def so_far() -> float:
        return before + max(clock() - began, 0.0)

    if path is not None:
        write_json(path, {"seconds": before, "began": began})
    try:
        yield so_far
    except BaseException:
        if path is not None:
            with contextlib.suppress(DuoError, OSError):  # what stopped the work is what is told
                write_json(path, {"seconds": so_far()})
        raise
    if path is not None:
        path.unlink(missing_ok=True)


def _before(path: Path, kept: Path) -> float:
    """What a file says; nothing where it is not there or is broken: a time is no result."""
    try:
        content: dict[str, Any] = read_object(path) if path.exists() else {}
        seconds, began = float(content.get("seconds", 0.0)), content.get("began")
        until = kept.stat().st_mtime if began is not None and kept.exists() else 0.0
        return seconds + (max(until - float(began), 0.0) if began is not None else 0.0)
    except (DuoError, TypeError, ValueError):
        return 0.0
