"""Several runs side by side: their numbers, the spread between seeds, and how attacks transfer from one to another."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import DuoError
from ..records import is_share
from ..runs.folder import Run
from ..storage.files import read_json

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


class Row(NamedTuple):
    """One number of the erased models, by run. what: metric and prompts, or attack and preset. spread: of seeds."""

    what: str
    metric: str
    contract: str
    figures: list[Figure | None]
    spread: Spread | None


class Transfer(NamedTuple):
    """DSR of an attack whose artifacts were found on one run (rows) and used on another (columns)."""

    attack: str
    contract: str
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

        def figure(given: Figure | None) -> dict[str, float] | None:
            return None if given is None else given._asdict()

        rows = [
            {
                **row._asdict(),
                "figures": [figure(f) for f in row.figures],
                "spread": row.spread and row.spread._asdict(),
            }
            for row in self.rows
        ]
        transfers = [
            {**t._asdict(), "figures": [[figure(f) for f in line] for line in t.figures]} for t in self.transfers
        ]
        return {"version": 1, "runs": self.runs, "seeds": self.seeds, "rows": rows, "transfers": transfers}


def compare(folders: Sequence[Path]) -> Comparison:
    """The runs' estimates of their erased models, row by row. Numbers under different contracts share no row.

    Between seeds there is a spread where all runs have the same concept, model and training settings.
    """
    if len(folders) < 2:
        raise DuoError("there is nothing to compare", got=f"{len(folders)} run", hint="duo compare RUN RUN …")
    runs = [Run(folder) for folder in folders]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise DuoError("two runs have the same name", got=", ".join(names), hint="rename one of the folders")
    results = [_results(run) for run in runs]
    seeds = [int(found["seed"]) for found in results]
    alike = len(set(seeds)) == len(seeds) and len({_settings_of(run) for run in runs}) == 1
    entries = [_entries(run, found) for run, found in zip(runs, results, strict=True)]
    rows = []
    for key in dict.fromkeys(key for known in entries for key in known):
        if key[1].partition(", ")[0].rpartition("@")[2] in names:
            continue  # replayed: it is in the matrix
        figures = [known.get(key) for known in entries]
        spread = _spread(figures, bounded=is_share(key[0])) if alike else None
        rows.append(Row(key[1], key[0], key[2], figures, spread))
    return Comparison(names, seeds, alike, rows, _transfers(names, entries))


def _results(run: Run) -> dict[str, Any]:
    if not run.results.exists() or not run.settings.exists():
        raise DuoError(f"{run.folder} holds no results", hint=f"duo evaluate -o {run.folder}")
    found = read_json(run.results)
    if not isinstance(found, dict) or not isinstance(found.get("seed"), int):
        raise DuoError(f"{run.results} is broken", got="no seed in it", hint=f"duo evaluate -o {run.folder}")
    return found


def _settings_of(run: Run) -> str:
    """What must be the same for runs that differ by their seed alone: all but numbers of prompts and batch."""
    from ..settings.resolve import resolve_settings

    settings = resolve_settings({"output": str(run.folder)})
    counts = {name for name in type(settings.evaluate).model_fields if name.endswith("prompts")}
    left_out: Any = {"output": True, "seed": True, "device": True, "evaluate": {*counts, "batch"}}
    return settings.model_dump_json(exclude=left_out)


def _entries(run: Run, results: dict[str, Any]) -> dict[tuple[str, str, str], Figure]:
    """(metric, what, contract) → figure, of the erased model."""
    found = {}
    try:
        known = list(results["estimates"])
        if run.attack_results.exists():
            known += read_json(run.attack_results)["estimates"]
        for entry in known:
            if entry["model"] == "erased":
                what = f"{entry['attack']}, {entry['preset']}" if "attack" in entry else entry["prompts"]
                figure = Figure(*(entry[name] for name in Figure._fields))
                found[entry["metric"], what, entry["contract"]] = figure
    except (KeyError, TypeError) as error:
        hint = "`duo evaluate` and `duo measure` write them anew"
        raise DuoError(f"the estimates of {run.folder} are broken", got=f"no {error}", hint=hint) from error
    return found


def _spread(figures: Sequence[Figure | None], *, bounded: bool) -> Spread | None:
    """bounded: the values are shares, so their mean stays within 0 and 1."""
    values = [figure.value for figure in figures if figure is not None]
    if len(values) < 2:
        return None
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = T95[min(len(values) - 2, len(T95) - 1)] * deviation / len(values) ** 0.5
    low, high = (max(0.0, mean - half), min(1.0, mean + half)) if bounded else (mean - half, mean + half)
    return Spread(mean, low, high, deviation, len(values))


def _transfers(names: list[str], entries: list[dict[tuple[str, str, str], Figure]]) -> list[Transfer]:
    """A matrix an attack that some run replayed: `duo attack B --replay A` leaves ATTACK@A in B."""
    found: dict[tuple[str, str], list[list[Figure | None]]] = {}
    for to, known in enumerate(entries):
        for (_, what, contract), figure in known.items():
            attack, _, preset = what.partition(", ")
            base, _, source = attack.partition("@")
            if preset and source in names:
                matrix = found.setdefault((f"{base}, {preset}", contract), [[None] * len(names) for _ in names])
                matrix[names.index(source)][to] = figure
    for (attack, contract), matrix in found.items():
        for i, known in enumerate(entries):
            matrix[i][i] = known.get(("dsr", attack, contract))
    return [Transfer(attack, contract, matrix) for (attack, contract), matrix in found.items()]
