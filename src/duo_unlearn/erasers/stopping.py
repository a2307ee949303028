"""What every training loop needs to stop well: a flag that signals set, and why it gives up."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DuoError


@contextlib.contextmanager
def stop_flag() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; a second Ctrl-C stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set handlers
        return

    def handler(number: int, _frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def diverged(step: int, checkpoint: Path, hint: str) -> DuoError:
    """What is raised for a loss or a gradient that is not finite. step: counted from 1."""
    kept = f"the last good state is in {checkpoint}" if checkpoint.exists() else "no state was saved yet"
    return DuoError(f"the loss was not finite at step {step}", got=kept, hint=hint)
