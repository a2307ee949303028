"""Progress with the time left: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

Report = Callable[..., None]
"""Called as report(done, note): how many units are done in all, and a short note."""


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


WINDOW: Final = 600.0
"""Over how many seconds a rate is taken."""


class Rate:
    """How fast something goes of late: over the last `window` seconds, and over one change at least.

    now: gives the time in seconds. A pause makes the rate smaller for as long as it lasts.
    """

    def __init__(self, window: float = WINDOW, now: Callable[[], float] = time.monotonic) -> None:
        self.window, self.now = window, now
        self.seen: deque[tuple[float, int]] = deque()

    def see(self, done: int) -> None:
        """Note how many units are done by now."""
        moment = self.now()
        if not self.seen or done != self.seen[-1][1]:
            self.seen.append((moment, done))
        while len(self.seen) > 2 and self.seen[1][0] <= moment - self.window:
            self.seen.popleft()

    def seconds(self, units: int) -> float | None:
        """How long so many further units take; None until some were done."""
        if not self.seen:
            return None
        (first, before), (_, done) = self.seen[0], self.seen[-1]
        return units * (self.now() - first) / (done - before) if done > before else None


@contextmanager
def progress(title: str, total: int, *, done: int = 0, quiet: bool = False, timed: bool = True) -> Iterator[Report]:
    """Show how far `title` has come: units done of total, the time left, a note.

    done: units that an earlier run finished already; the estimate leaves them out. timed: False where the notes tell
    the time left.
    """
    if quiet:
        yield lambda _done, _note="": None
    elif sys.stderr.isatty():
        with _bar(title, total, done, timed=timed) as report:
            yield report
    else:
        with _lines(title, total, done, timed=timed) as report:
            yield report


@contextmanager
def _bar(title: str, total: int, done: int, *, timed: bool) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        *([TimeRemainingColumn(elapsed_when_finished=True)] if timed else []),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def report(count: int, note: str = "") -> None:
            bar.update(task, completed=count, note=note)

        yield report


@contextmanager
def _lines(title: str, total: int, done: int, every: float = 15.0, *, timed: bool) -> Iterator[Report]:
    start = last = time.monotonic()
    count = done

    def line(note: str) -> None:
        spent = time.monotonic() - start
        left = clock(spent / (count - done) * (total - count)) if count > done else "-:--"
        tail = f" in {clock(spent)}" if count >= total else f", {left} left" if timed else ""
        print(f"{title}: {count}/{total}{tail}{'  ' + note if note else ''}", file=sys.stderr, flush=True)

    def report(new: int, note: str = "") -> None:
        nonlocal count, last
        count = new
        if time.monotonic() - last >= every and count < total:
            last = time.monotonic()
            line(note)

    yield report
    if count >= total:
        line("")


@contextmanager
def no_loading_bars() -> Iterator[None]:
    """No bars for reading a local folder, which takes a moment. A download keeps its own."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    shown = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()
