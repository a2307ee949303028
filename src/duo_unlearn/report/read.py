"""What a run folder holds for its report: the only reader here. Every part may be absent, and then is None or empty."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ..errors import DuoError
from ..guards.registry import GUARDS
from ..pairs.manifest import MANIFEST
from ..records import CORRECTED, ORIGINAL, Attempt, Estimate, Pair
from ..runs.attempts import Group, GroupRecord, parts_of
from ..runs.folder import Run
from ..runs.metrics import read_lines
from ..runs.results import STALE, Results, read_results
from ..runs.verdicts import Verdicts, every_verdicts, read_verdicts
from ..settings.sampling import read_current
from ..settings.tree import read_settings, setting_keys
from ..storage.files import read_object
from .anew import changed_systems, current_sweeps

DETECTIONS: Final = ("dsr", CORRECTED, "detected", "refused", "broken")
"""Metrics that a detector's verdicts make. Their contract is that of the page's sentences and pictures."""


class Absent(NamedTuple):
    """A number that there is none of, and why. attack, preset: None where nothing attacks."""

    metric: str
    system: str
    scenario: str
    attack: str | None
    preset: str | None
    reason: str


class SystemEntry(NamedTuple):
    """A system: a column of the page. sha256: None where not recorded. asked: guard → its detector's contract."""

    name: str
    sha256: str | None
    edits: tuple[str, ...]
    guards: tuple[str, ...]
    asked: tuple[tuple[str, str], ...] = ()


Key = tuple[str, int]
"""An attempt's prompt and seed: what the same attempt on another system shares with it."""


class Attempts:
    """The attempts of a group that are on disk, in order, read anew each time and one part in memory at once."""

    def __init__(self, run: Run, record: GroupRecord) -> None:
        self.run, self.record = run, record

    def __iter__(self) -> Iterator[Attempt]:
        for part in parts_of(self.run, self.record):
            yield from part.attempts

    def of(self, keys: Collection[Key]) -> dict[Key, Attempt]:
        """Those of some keys."""
        return {key_of(attempt): attempt for attempt in self if key_of(attempt) in keys}


def key_of(attempt: Attempt) -> Key:
    """The key of an attempt."""
    return attempt.prompt, attempt.seed


class GroupAttempts(NamedTuple):
    """A group that has attempts on disk or may have some. kind: of the scenario. seconds: None: not recorded.

    size: how many attempts there are. contract: of the detector that the search asked; None: it asked none.
    """

    group: Group
    kind: str
    attempts: Attempts
    size: int
    seconds: float | None
    contract: str | None = None


class Setting(NamedTuple):
    """A setting as resolved: dotted name, value, meaning ("" where unknown)."""

    name: str
    value: str
    meaning: str


class Contents(NamedTuple):
    """The parts of a run.

    systems: the original first. estimates, groups: of these systems as they are now; those of another edit are in
    `absent`. contract: the detector contract of sentences, plots and pictures; verdicts: all readings under it. curves:
    name of an edit → the lines of its training, in order of step. record: run.json. sweeps: "beta" and "strength" →
    what `duo sweep` wrote. labels: what people's labels say of the judges; None: nobody labelled.
    """

    concept: str | None
    model: str | None
    seed: int | None
    quick: bool
    systems: list[SystemEntry]
    estimates: list[Estimate]
    absent: list[Absent]
    contract: str | None
    verdicts: Verdicts | None
    groups: list[GroupAttempts]
    pairs: list[Pair]
    curves: dict[str, list[dict[str, float]]]
    settings: list[Setting]
    record: dict[str, Any]
    sweeps: dict[str, dict[str, Any]]
    labels: dict[str, Any] | None = None

    @property
    def main(self) -> SystemEntry | None:
        """The system that the page is about: the last one with edits alone, else the last one; None: nothing erased."""
        others = [system for system in self.systems if system.name != ORIGINAL]
        bare = [system for system in others if not system.guards]
        return [*others, *bare][-1] if others else None

    @property
    def primary(self) -> list[Estimate]:
        """The estimates under the page's contract, and of metrics that no detector makes those under their first."""
        return under_first(self.estimates, dict.fromkeys(DETECTIONS, self.contract) if self.contract else {})


def under_first(estimates: Sequence[Estimate], known: Mapping[str, str] = MappingProxyType({})) -> list[Estimate]:
    """The estimates of each metric under one contract: that which is known, else its first, the head judge's."""
    first = dict(known)
    for estimate in estimates:
        first.setdefault(estimate.metric, estimate.contract)
    return [estimate for estimate in estimates if estimate.contract == first[estimate.metric]]


def read_contents(run: Run) -> Contents:
    """Read what the run folder has. A broken or edited file that cannot be made again here is a DuoError."""
    results = read_results(run) if run.results.exists() else None
    raw = read_settings(run.settings) if run.settings.exists() else {}
    records = [record for record in read_current(run, raw) if record.reason is None]
    systems = _systems(results, records)
    changed = changed_systems(run, results)
    hashes = {system.name: system.sha256 for system in systems if system.name not in changed}

    def is_current(name: str, sha256: str) -> bool:
        return name in hashes and hashes[name] in (None, sha256)

    estimates = [e for e in (results.estimates if results else []) if is_current(e.system, e.sha256)]
    judged = next((e.contract for e in estimates if e.metric in DETECTIONS), None)
    # One contract's verdicts are in memory, not every one's.
    verdicts = read_verdicts(run, judged) if judged is not None else next(every_verdicts(run), None)
    contract = judged if judged is not None else verdicts and verdicts.contract
    return Contents(
        concept=_text((results and results.concept) or raw.get("concept")),
        model=_text((results and results.model) or raw.get("model")),
        seed=seed if isinstance(seed := results.seed if results else raw.get("seed"), int) else None,
        quick=results is not None and bool(results.quick),
        systems=systems,
        estimates=estimates,
        absent=absences(results, [e for e in (results.estimates if results else []) if e not in estimates]),
        contract=contract,
        verdicts=verdicts,
        groups=[_attempts(run, r) for r in records if is_current(r.group.system, r.sha256)],
        pairs=_pairs(run.pairs / MANIFEST),
        curves=_curves(run),
        settings=_settings(raw),
        record=run.read_record(),
        sweeps=current_sweeps(run),
        labels=results.labels if results is not None else None,
    )


def _systems(results: Results | None, records: Sequence[GroupRecord]) -> list[SystemEntry]:
    """The systems of results.json, or those that have attempts where there is none; the original first."""
    if results is not None:
        systems = [
            SystemEntry(
                str(entry["name"]),
                str(entry["sha256"]),
                tuple(str(edit["name"]) for edit in entry["edits"]),
                tuple(str(guard["name"]) for guard in entry["guards"]),
                tuple((str(guard["name"]), str(guard["detector"])) for guard in entry["guards"] if "detector" in guard),
            )
            for entry in results.systems
        ]
    else:
        systems = [_system_of(name) for name in dict.fromkeys(record.group.system for record in records)]
    return sorted(systems, key=lambda system: system.name != ORIGINAL)


def _system_of(name: str) -> SystemEntry:
    parts = [part for part in name.split("+") if part != ORIGINAL]
    guards = [part for part in parts if part in GUARDS.names()]
    return SystemEntry(name, None, tuple(part for part in parts if part not in guards), tuple(guards))


def absences(results: Results | None, stale: Sequence[Estimate] = ()) -> list[Absent]:
    """What results.json says that there is no number of; and numbers of another edit than the one of now."""
    entries = [Absent(*(entry[name] for name in Absent._fields)) for entry in (results.absent if results else [])]
    entries += [Absent(e.metric, e.system, e.scenario, e.attack, e.preset, STALE) for e in stale]
    return list(dict.fromkeys(entries))


def _attempts(run: Run, record: GroupRecord) -> GroupAttempts:
    size, seconds = 0, []
    for part in parts_of(run, record):
        size += len(part.attempts)
        seconds += [part.seconds] if part.seconds is not None else []
    attempts, spent = Attempts(run, record), sum(seconds) if seconds else None
    return GroupAttempts(record.group, record.kind, attempts, size, spent, record.contract)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _pairs(path: Path) -> list[Pair]:
    if not path.exists():
        return []
    names = {field.name for field in dataclasses.fields(Pair)}
    entries = read_object(path).get("pairs", [])
    try:
        return [Pair(**{key: value for key, value in entry.items() if key in names}) for entry in entries]
    except (TypeError, AttributeError) as error:
        hint = "restore the manifest, or make or import the pairs again"
        raise DuoError(f"{path} has an entry that is no pair", got=str(error)[:120], hint=hint) from error


def _curves(run: Run) -> dict[str, list[dict[str, float]]]:
    """The lines that are whole: a killed training may leave half a line at the end."""
    pattern = run.metrics("*").relative_to(run.folder)
    return {path.parent.name: curve(path) for path in sorted(run.folder.glob(str(pattern)))}


def curve(path: Path) -> list[dict[str, float]]:
    """The lines of one metrics.jsonl that are whole, in order of step."""
    lines = [
        {k: float(v) for k, v in entry.items() if isinstance(v, int | float) and math.isfinite(v)}
        for entry in read_lines(path)
    ]
    return sorted(lines, key=lambda entry: entry["step"])


def _settings(raw: Mapping[str, Any]) -> list[Setting]:
    meanings = setting_keys()
    return [Setting(name, value, meanings.get(name, "")) for name, value in flatten(raw)]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as dotted names and readable values, in order."""
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", readable(value)))
    return rows


def readable(value: Any) -> str:
    """A value as a person writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(readable, value)) or "none"
    if isinstance(value, Mapping):
        return "none"
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
