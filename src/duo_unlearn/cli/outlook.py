"""How far the processes of one command are, and how long the rest takes, by what lies in the run folders."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from ..errors import DuoError
from ..progress import Rate, clock
from ..records import Stage
from ..runs.folder import Run
from .options import say

if TYPE_CHECKING:
    from ..report.asked import Asked, Tally

ALL: Final[tuple[Stage, ...]] = ("pairs", "train", "images")
UNITS: Final[Mapping[Stage, str]] = {"pairs": "pairs", "train": "steps", "images": "images"}
EVERY: Final = 5.0
"""Seconds between two looks, each of which reads what is new in a folder's records."""


class Count(NamedTuple):
    """What is done of a stage, over all runs; of: None where that is not known yet."""

    done: int
    of: int | None

    @property
    def left(self) -> int | None:
        """What is missing; None where that is not known."""
        return None if self.of is None else max(0, self.of - self.done)


def few_parts(parts: int, workers: int) -> str | None:
    """What is told where there are more workers than parts; None elsewhere."""
    if not 0 < parts < workers:
        return None
    return f"{parts} part{'s' * (parts > 1)} so far for {workers} workers: some of these have nothing to do"


class Outlook:
    """Looks at runs now and then, and reports a percentage and a line.

    stages: run folder → what the command makes there. now: gives the time in seconds. edits: names of those that are
    made in each folder; none: the run's own, which is counted by its steps. workers: how many processes there are; say:
    tells, once, that they are more than there are parts. Images count once they are asked for, by this command: what an
    earlier one left is not its work.
    """

    def __init__(
        self,
        stages: Mapping[Path, Sequence[Stage]],
        report: Callable[..., None],
        now: Callable[[], float] = time.monotonic,
        *,
        edits: Sequence[str] = (),
        workers: int = 0,
        say: Callable[[str], None] = say,
    ) -> None:
        self.edits, self.workers, self.say = edits, workers, say
        self.units = {**UNITS, "train": "edits"} if edits else UNITS
        self.parts_before: int | None = 0  # at the last look; None once they were compared with the workers
        self.tallies: dict[tuple[Path, str], Tally] = {}
        self.runs = {folder: (Run(folder), tuple(chosen)) for folder, chosen in stages.items()}
        self.report, self.now = report, now
        self.asked_before = {path: path.stat().st_mtime_ns for run, _ in self.runs.values() for path in _groups(run)}
        self.rates = {stage: Rate(now=now) for stage in ALL}
        self.first: dict[Stage, int] = {}
        self.last: float | None = None

    def look(self) -> None:
        """Report, unless the last look was a moment ago."""
        if self.last is None or self.now() - self.last >= EVERY:
            self.last = self.now()
            self.tell()

    def tell(self) -> None:
        """Report what there is now."""
        counts = self._counts()
        for stage, count in counts.items():
            if count.of is not None:  # before that it has not begun, and no time goes by for it
                self.rates[stage].see(count.done)
                self.first.setdefault(stage, count.done)
        shares = [self._share(stage, count) for stage, count in counts.items()]
        if shares:
            self.report(int(100 * sum(shares) / len(shares)), self._line(counts))

    def _share(self, stage: Stage, count: Count) -> float:
        """How much of a stage is done since the first look, 0 to 1."""
        if count.of is None:
            return 0.0
        begun = self.first[stage]
        return 1.0 if not count.left else max(0, count.done - begun) / max(1, count.of - begun)

    def _line(self, counts: Mapping[Stage, Count]) -> str:
        """E.g. "12 of 64 pairs, 3:20 left, then steps, images". What has no rate yet is named without a time."""
        missing = {stage: count for stage, count in counts.items() if count.left != 0}
        if not missing:
            return ""
        # What has begun; at the very start that is the first stage.
        begun = [stage for stage, count in missing.items() if count.left is not None and count.done] or [
            next(iter(missing))
        ]
        words = [f"{counts[stage].done} of {counts[stage].of or '–'} {self.units[stage]}" for stage in begun]
        times = [self.rates[stage].seconds(counts[stage].left or 0) for stage in begun]
        known = [seconds for seconds in times if seconds is not None]
        left = clock(sum(known)) if len(known) == len(begun) else "–"
        later = [self.units[stage] for stage in missing if stage not in begun]
        return ", ".join([*words, f"{left} left"]) + (f", then {', '.join(later)}" if later else "")

    def _counts(self) -> dict[Stage, Count]:
        from ..report.asked import parts_of
        from ..settings.tree import whole_settings

        found: dict[Stage, list[Count]] = {}
        parts = 0
        for run, stages in self.runs.values():
            for stage in stages:
                with contextlib.suppress(DuoError):  # the folder is being begun
                    if stage == "images":
                        asked = self._asked(run)
                        parts += parts_of(asked, whole_settings(run.settings)["evaluate"]["batch"]) if asked else 0
                        count = Count(sum(one.done for one in asked), sum(one.size for one in asked) or None)
                    else:
                        count = self._stage(run, stage)
                    found.setdefault(stage, []).append(count)
        self._tell_few(parts)
        wanted = [stage for stage in ALL if any(stage in stages for _, stages in self.runs.values())]
        return {stage: _sum(found.get(stage, [])) for stage in wanted}

    def _asked(self, run: Run) -> list[Asked]:
        """What this command asks of a run's systems so far."""
        from ..report.asked import read_asked

        asked = read_asked(run, self.tallies)
        return [one for one in asked if one.reason is None and self._is_new(one.group.folder(run) / "group.json")]

    def _stage(self, run: Run, name: Literal["pairs", "train"]) -> Count:
        """A stage as `duo status` counts it, or edits where there are several."""
        from ..report.status import read_stage

        if name == "train" and self.edits:
            return Count(sum(run.edit(edit).is_dir() for edit in self.edits), len(self.edits))
        work = read_stage(run, name)
        return Count(work.done, work.done if work.state == "done" else work.of)

    def _tell_few(self, parts: int) -> None:
        """Tell once that there are too many workers, when as many parts are asked for as at the look before."""
        if parts and parts == self.parts_before:
            self.parts_before = None
            if (line := few_parts(parts, self.workers)) is not None:
                self.say(line)
        elif self.parts_before is not None:
            self.parts_before = parts

    def _is_new(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            return path.stat().st_mtime_ns != self.asked_before.get(path)
        return False


def _groups(run: Run) -> list[Path]:
    return sorted(run.attempts.glob("*/*/*/group.json"))


def _sum(counts: Sequence[Count]) -> Count:
    """Of several runs; one that is not known makes the whole unknown."""
    totals = [count.of for count in counts]
    known = [of for of in totals if of is not None]
    return Count(sum(count.done for count in counts), sum(known) if known and len(known) == len(totals) else None)
