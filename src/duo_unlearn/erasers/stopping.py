"""What every training loop needs to stop well: a flag that signals set, the lines it writes, and why it gives up."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DuoError
from ..storage.files import write_text


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


def append_line(path: Path, line: Mapping[str, float]) -> None:
    """Add a step's figures to metrics.jsonl."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(dict(line)) + "\n")
    except OSError as error:
        raise DuoError(
            f"cannot write {path}", got=error.strerror or str(error), hint="free some space; it resumes"
        ) from error


def read_lines(path: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl that are whole: the last one may have been cut off when its process died."""
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and "step" in entry:
                lines.append(entry)
    return lines


def keep_lines(path: Path, step: int) -> list[dict[str, float]]:
    """Cut metrics.jsonl to the lines up to `step`, so that a resumed run does not write a step twice; gives them."""
    if not path.exists():
        return []
    kept = [line for line in read_lines(path) if line["step"] <= step]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
    return kept


def diverged(step: int, checkpoint: Path, hint: str) -> DuoError:
    """What is raised for a loss or a gradient that is not finite. step: counted from 1."""
    kept = f"the last good state is in {checkpoint}" if checkpoint.exists() else "no state was saved yet"
    return DuoError(f"the loss was not finite at step {step}", got=kept, hint=hint)
