"""Progress with the time left: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[..., None]
"""Called as report(done, note): how many units are done in all, and a short note."""


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


@contextmanager
def progress(title: str, total: int, *, done: int = 0, quiet: bool = False) -> Iterator[Report]:
    """Show how far `title` has come: units done of total, the time left, a note.

    done: units that an earlier run finished already; the estimate leaves them out.
    """
    if quiet:
        yield lambda _done, _note="": None
    elif sys.stderr.isatty():
        with _bar(title, total, done) as report:
            yield report
    else:
        with _lines(title, total, done) as report:
            yield report


@contextmanager
def _bar(title: str, total: int, done: int) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def report(count: int, note: str = "") -> None:
            bar.update(task, completed=count, note=note)

        yield report


@contextmanager
def _lines(title: str, total: int, done: int, every: float = 15.0) -> Iterator[Report]:
    start = last = time.monotonic()
    count = done

    def line(note: str) -> None:
        spent = time.monotonic() - start
        left = clock(spent / (count - done) * (total - count)) if count > done else "-:--"
        tail = f", {left} left" if count < total else f" in {clock(spent)}"
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
