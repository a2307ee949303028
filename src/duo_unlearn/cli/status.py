"""The command that tells how a run stands."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

import typer

from ..progress import clock
from .options import AsJson, RunFolder

if TYPE_CHECKING:
    from ..report.status import Status, Work
    from ..runs.holders import Holder

MOST: Final = 3
"""How many pieces of work of a process are named."""


def add_commands(app: typer.Typer) -> None:
    """Register it."""
    app.command()(status)


def status(run: RunFolder, as_json: AsJson = False) -> None:
    """What of a run is done, what is missing under its settings, which process works on it, and the time left.

    Nothing is loaded or changed, so it may be asked while the run goes on. Processes are told on Linux, those of this
    machine; where locks are owner files, those of every machine, with 15 seconds to see whether they live.

    duo status runs/sword

    duo status runs/sword --json
    """
    from ..pipeline import status as read
    from ..runs.folder import Run
    from ..runs.holders import watch_others

    watch_others(Run(run))
    found = read(run)
    print(json.dumps(found.as_json(), indent=1, ensure_ascii=False) if as_json else _text(found))


def _text(found: Status) -> str:
    about = f"{found.concept or 'a concept'} on {found.model or 'a model'}"
    lines = [f"{found.run}: {about}" + (f", seed {found.seed}" if found.seed is not None else "")]
    width = max(len(work.name) for work in (*found.stages, *found.attacks))
    lines += [_line(work, width) for work in found.stages]
    if found.attacks:
        lines += ["attacks", *(_line(work, width) for work in found.attacks)]
    if found.processes is None:
        lines.append("which processes work on it is not told on this system")
    lines += [_process(holder) for holder in found.processes or []]
    if found.processes == []:
        lines.append("no process is known to work on it")
    if found.seconds_left is not None:
        lines.append(f"left: about {clock(found.seconds_left)} by one process, as far as it is known")
    if found.next is not None:
        lines.append(f"next: {found.next}")
    return "\n".join(lines)


def _line(work: Work, width: int) -> str:
    counts = f"{work.done} of {work.of}" if work.of is not None else str(work.done)
    if work.of == work.done:
        counts = str(work.done)
    left = f", {clock(work.seconds_left)} left" if work.seconds_left is not None else ""
    words = "" if work.of == 0 else f"{counts} {work.unit}{left}"
    note = f"{'; ' if words else ''}{work.note}" if work.note else ""
    return f"  {work.name:<{width}}  {work.state:<9}  {words}{note}".rstrip()


def _process(holder: Holder) -> str:
    claims = [claim.name for claim in holder.claims]
    at = f", at {', '.join(claims[:MOST])}{' …' if len(claims) > MOST else ''}" if claims else ""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
    dead = " (no sign of life: others take its work over)" if holder.lives is False else ""
    return f"{holder} since {since}{at}{dead}: {holder.command}"
