"""What the pages show of a run, read again only where a file has changed, and which picture an id stands for."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ..errors import DuoError
from ..pairs.manifest import MANIFEST, PARTIAL, Manifest, read_entries
from ..records import PRESERVED, Attempt, Pair, Verdict, spoken
from ..report.anew import changed_systems
from ..report.status import read_status
from ..runs.attempts import GroupRecord, attempts_of, read_groups
from ..runs.folder import Run
from ..runs.holders import Holder, holders
from ..runs.results import ANOTHER_EDIT, Results, read_results
from ..runs.verdicts import Verdicts, every_verdicts
from ..settings.sampling import read_sampling, why_other
from ..settings.tree import read_settings
from ..storage.files import read_object
from ..storage.names import leads_out

PATIENCE: Final = 1.0
"""Seconds for which it is not asked again which process holds the run."""
OTHER: Final = "of another edit than the one that the results are of"
Value = TypeVar("Value")


class Entry(NamedTuple):
    """An attempt and where it stands: its group, and its place in it.

    stale: why no number is of it now, or None. current: it is of the system as it is now, however it was sampled.
    """

    record: GroupRecord
    place: int
    attempt: Attempt
    stale: str | None
    current: bool

    @property
    def path(self) -> tuple[str, str, str, int]:
        """What names it: system, prompt set, attack with its budget, place."""
        group = self.record.group
        return group.system, group.scenario, group.slug, self.place


class Cached(Generic[Value]):
    """A value that is read again where its mark has changed. mark: something cheap, e.g. files' times and sizes."""

    def __init__(self, mark: Callable[[], Hashable], read: Callable[[], Value]) -> None:
        self._mark, self._read, self._lock = mark, read, threading.Lock()
        self._known: tuple[Hashable, Value] | None = None

    def __call__(self) -> Value:
        """The value as it is now."""
        with self._lock:
            mark = self._mark()
            if self._known is None or self._known[0] != mark:
                self._known = mark, self._read()
            return self._known[1]


def mark_of(*paths: Path) -> Hashable:
    """The times and sizes of files or folders; None for one that is not there."""
    return tuple(_stat(path) for path in paths)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class Records:
    """The records of one run, for any number of threads."""

    def __init__(self, run: Run) -> None:
        self.run = run
        files = run.pairs / MANIFEST, run.pairs / PARTIAL
        self.manifest = Cached(lambda: mark_of(*files), self._read_manifest)
        self.verdicts = Cached(self._mark_verdicts, self._read_verdicts)
        self.attempts = Cached(self._mark_attempts, self._read_attempts)
        self.pictures = Cached(lambda: (self._mark_attempts(), mark_of(*files)), self._read_pictures)
        self.about = Cached(lambda: mark_of(run.record, run.settings), self._read_about)
        self.stand = Cached(self._mark_stand, lambda: read_status(run))
        self._held: tuple[float, Holder | None] = (-PATIENCE, None)

    def warm(self) -> None:
        """Read all that a first page shows. What is broken is told by the page that shows it."""
        with contextlib.suppress(DuoError):
            self.pictures()
            self.stand()

    def _read_manifest(self) -> Manifest | None:
        name = next((name for name in (MANIFEST, PARTIAL) if (self.run.pairs / name).exists()), None)
        return None if name is None else read_entries(self.run.pairs, name)

    @property
    def pairs(self) -> list[Pair]:
        """The pairs, dropped ones too; none where there are none yet."""
        manifest = self.manifest()
        return manifest.pairs if manifest is not None else []

    def _mark_verdicts(self) -> Hashable:
        return mark_of(*sorted(self.run.verdicts.glob("*.json")), self.run.results)

    def _read_verdicts(self) -> list[Verdicts]:
        """All judges, those that head the run's tables first."""
        try:
            told = read_results(self.run).estimates if self.run.results.exists() else []
        except DuoError:
            told = []
        order = list(dict.fromkeys(estimate.contract for estimate in told if estimate.metric == "dsr"))
        found = every_verdicts(self.run)
        return sorted(found, key=lambda one: order.index(one.contract) if one.contract in order else len(order))

    def _mark_attempts(self) -> Hashable:
        # A file that is replaced changes its folder's time.
        folders = sorted(self.run.attempts.glob("*/*/*"))
        others = (self.run.results, self.run.settings, *sorted(self.run.edits.glob("*")))  # by these it is stale
        return tuple(folders), mark_of(*folders), mark_of(*(f / "group.json" for f in folders), *others)

    def _read_attempts(self) -> list[Entry]:
        results: Results | None = None
        with contextlib.suppress(DuoError):
            results = read_results(self.run) if self.run.results.exists() else None
        hashes = {str(entry["name"]): str(entry["sha256"]) for entry in (results.systems if results else [])}
        changed = changed_systems(self.run, results)
        sampling: dict[str, float] = {}
        with contextlib.suppress(DuoError):  # settings that were changed by hand are told by the first page
            sampling = read_sampling(self.run)
        found = []
        for record in (record for record in read_groups(self.run) if record.reason is None):
            name = record.group.system
            is_told = hashes.get(name, record.sha256) == record.sha256
            other = OTHER if not is_told else ANOTHER_EDIT if name in changed else None
            stale = other or why_other(record.sampling, sampling)
            attempts = attempts_of(self.run, record)
            found += [Entry(record, i, attempt, stale, other is None) for i, attempt in enumerate(attempts)]
        return found

    def _read_pictures(self) -> dict[str, Path]:
        """SHA-256 → the file that a record names. Only what is inside the run is taken."""
        named: list[tuple[Path, str, str]] = []
        with contextlib.suppress(DuoError):  # a broken manifest is told by the page of pairs
            named += [(self.run.pairs, *side) for pair in self.pairs for side in _sides(pair)]
        named += [(self.run.folder, a.file, a.sha256) for a in self._shown()]
        return {sha: folder / file for folder, file, sha in named if sha and not leads_out(file)}

    def _shown(self) -> Iterator[Any]:
        return (entry.attempt for entry in self.attempts() if entry.attempt.file and entry.attempt.sha256)

    def _read_about(self) -> dict[str, Any]:
        """concept, model, seed, sensitive of the run; a broken record is as none: the stages say so."""
        found: dict[str, Any] = {}
        with contextlib.suppress(DuoError):
            found |= read_settings(self.run.settings)
        asked = str(found.get("concept"))
        with contextlib.suppress(DuoError):
            found |= read_object(self.run.record)
        if "+" in asked:
            found["concept"] = spoken(asked)
        return {key: found.get(key) for key in ("concept", "model", "seed", "sensitive")}

    @property
    def concept(self) -> str:
        """What the run erases, as people call it."""
        return str(self.about()["concept"] or "the concept")

    @property
    def sensitive(self) -> bool:
        """Whether pictures are blurred until asked for: always, unless the run says that it needs none of that."""
        return self.about()["sensitive"] is not False

    def pool(self) -> dict[str, Entry]:
        """The pictures that labels are drawn from, by hash: those that a DSR is of."""
        return {
            str(entry.attempt.sha256): entry
            for entry in self.attempts()
            if entry.stale is None and entry.attempt.sha256 and entry.record.kind not in PRESERVED
        }

    def _mark_stand(self) -> Hashable:
        run, at_work = self.run, [(str(one), one.claims) for one in holders(self.run) or []]
        files = (run.pairs / MANIFEST, run.pairs / PARTIAL, run.settings, run.record, run.report, run.edits)
        training = sorted(run.folder.glob("train/*/metrics.jsonl"))
        return self._mark_attempts(), self._mark_verdicts(), mark_of(*files, *training), str(at_work)

    def holder(self) -> Holder | None:
        """Another process that holds the run now, or None. Of locks by flock, Linux alone tells it."""
        asked, known = self._held
        if time.monotonic() - asked > PATIENCE:
            known = next((one for one in holders(self.run) or [] if _holds(one)), None)
            self._held = time.monotonic(), known
        return known


def _holds(holder: Holder) -> bool:
    """Whether a process may change the run: another one than this, that lives and does more than add a label."""
    if (holder.pid == os.getpid() and holder.host is None) or holder.lives is False:
        return False
    return holder.alone or not holder.claims or any(claim.name != "labels" for claim in holder.claims)


def word(verdict: Verdict) -> str:
    """A verdict as a label says it: yes, no, broken."""
    return "broken" if verdict.broken else "yes" if verdict.detected else "no"


def _sides(pair: Pair) -> tuple[tuple[str, str], tuple[str, str]]:
    return (pair.unsafe, pair.unsafe_sha256), (pair.safe, pair.safe_sha256)
