"""Several runs side by side: their numbers, the spread between seeds, and how attacks transfer from one to another."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import DuoError
from ..records import ORIGINAL, Awareness, Estimate, is_share
from ..report.anew import changed_systems
from ..runs.folder import Run
from ..runs.results import STALE, Results, read_results
from ..settings.resolve import resolve_settings
from ..settings.tree import Settings
from .pooled import with_none

T95: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t for a 95 % interval of a mean, by degrees of freedom from 1; beyond, the last is near enough."""


class Figure(NamedTuple):
    """A run's number: value, 95 % interval, n."""

    value: float
    low: float
    high: float
    n: int


class Spread(NamedTuple):
    """Between seeds: mean, the 95 % interval of the mean, standard deviation, how many seeds."""

    mean: float
    low: float
    high: float
    deviation: float
    seeds: int


class Key(NamedTuple):
    """What a number is of, in every run: the fields of an estimate that are not the run's own."""

    metric: str
    system: str
    scenario: str
    attack: str | None
    preset: str | None
    search: Awareness | None
    contract: str

    @property
    def what(self) -> str:
        """System, scenario and attack in one phrase, for tables."""
        aware = f", {self.search} of the guard" if self.search else ""
        attack = f", {self.attack} ({self.preset}){aware}" if self.attack is not None else ""
        return f"{self.system}: {self.scenario}{attack}"


class Row(NamedTuple):
    """One number, by run; None where a run does not have it. spread: of seeds."""

    key: Key
    figures: list[Figure | None]
    spread: Spread | None


class Transfer(NamedTuple):
    """DSR under an attack whose findings are from one run (rows) and were used on another (columns).

    The diagonal is each run's own search.
    """

    key: Key
    figures: list[list[Figure | None]]


class Comparison(NamedTuple):
    """runs: their names. seeds: of each. alike: same concept, model and settings, so that seeds may be pooled."""

    runs: list[str]
    seeds: list[int]
    alike: bool
    rows: list[Row]
    transfers: list[Transfer]

    def as_json(self) -> dict[str, Any]:
        """For a file: the same numbers by name."""

        def figure(number: Figure | None) -> dict[str, float] | None:
            return None if number is None else number._asdict()

        rows = [
            {
                "what": row.key.what,
                **row.key._asdict(),
                "figures": [figure(f) for f in row.figures],
                "spread": row.spread and row.spread._asdict(),
            }
            for row in self.rows
        ]
        transfers = [
            {"what": t.key.what, **t.key._asdict(), "figures": [[figure(f) for f in line] for line in t.figures]}
            for t in self.transfers
        ]
        return {"version": 2, "runs": self.runs, "seeds": self.seeds, "rows": rows, "transfers": transfers}


def compare(folders: Sequence[Path]) -> Comparison:
    """The estimates of runs, row by row, of all systems but the original. Other contracts are other rows.

    What was measured of an edit that was made anew since is left out, and told on stderr. Between seeds there is a
    spread where all runs have the same concept, model and training settings.
    """
    if len(folders) < 2:
        raise DuoError("there is nothing to compare", got=f"{len(folders)} run", hint="duo compare RUN RUN …")
    runs = [Run(folder) for folder in folders]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise DuoError("two runs have the same name", got=", ".join(names), hint="rename one of the folders")
    results = [_results(run) for run in runs]
    seeds = [found.seed for found in results]
    alike = (
        len(set(seeds)) == len(seeds)
        and len({settings_of(resolve_settings({"output": str(run.folder)})) for run in runs}) == 1
    )
    estimates = [_current(run, found) for run, found in zip(runs, results, strict=True)]
    entries = [_entries(found) for found in with_none(estimates)]
    rows = []
    for key in dict.fromkeys(key for known in entries for key in known):
        if _replayed_from(key) in names:
            continue  # it is in the matrix
        figures = [known.get(key) for known in entries]
        spread = _spread(figures, bounded=is_share(key.metric)) if alike else None
        rows.append(Row(key, figures, spread))
    return Comparison(names, seeds, alike, rows, _transfers(names, entries))


def _results(run: Run) -> Results:
    run.check_form()
    if not run.settings.exists():
        raise DuoError(f"{run.folder} holds no results", hint=f"duo evaluate -o {run.argument}")
    return read_results(run)


def _current(run: Run, results: Results) -> list[Estimate]:
    """The estimates of all systems but the original that are of the edits which the run has now."""
    changed = changed_systems(run, results)
    if changed:
        print(f"{run.folder}: no number of {', '.join(sorted(changed))}: {STALE}", file=sys.stderr, flush=True)
    return [e for e in results.estimates if e.system not in (ORIGINAL, *changed)]


def settings_of(settings: Settings) -> str:
    """What must be the same for runs that differ by their seed alone: all but numbers of prompts and batch."""
    counts = settings.evaluate.counts
    left_out: Any = {"output": True, "seed": True, "device": True, "evaluate": {*counts, "batch"}}
    return settings.model_dump_json(exclude=left_out)


def _entries(estimates: Sequence[Estimate]) -> dict[Key, Figure]:
    """What each number is of → the number."""
    return {
        Key(e.metric, e.system, e.scenario, e.attack, e.preset, e.search, e.contract): Figure(
            e.value, e.low, e.high, e.n
        )
        for e in estimates
    }


def _replayed_from(key: Key) -> str:
    """The name of the run whose findings an attack used; "" where it searched by itself."""
    return (key.attack or "").partition("@")[2]


def _spread(figures: Sequence[Figure | None], *, bounded: bool) -> Spread | None:
    """bounded: the values are shares, so their mean stays within 0 and 1."""
    values = [figure.value for figure in figures if figure is not None]
    if len(values) < 2:
        return None
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = T95[min(len(values) - 2, len(T95) - 1)] * deviation / len(values) ** 0.5
    low, high = (max(0.0, mean - half), min(1.0, mean + half)) if bounded else (mean - half, mean + half)
    return Spread(mean, low, high, deviation, len(values))


def _transfers(names: list[str], entries: list[dict[Key, Figure]]) -> list[Transfer]:
    """A matrix for every attack that some run replayed: `duo attack B --replay A` leaves ATTACK@A in B."""
    found: dict[Key, list[list[Figure | None]]] = {}
    for to, known in enumerate(entries):
        for key, figure in known.items():
            source = _replayed_from(key)
            if key.metric == "dsr" and source in names:
                own = key._replace(attack=(key.attack or "").partition("@")[0])
                matrix = found.setdefault(own, [[None] * len(names) for _ in names])
                matrix[names.index(source)][to] = figure
    for own, matrix in found.items():
        for i, known in enumerate(entries):
            matrix[i][i] = known.get(own)
    return [Transfer(key, matrix) for key, matrix in found.items()]
