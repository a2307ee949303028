"""What a run folder holds for its report: every part may be absent, and then is None or empty, never an error."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..errors import DuoError
from ..records import Estimate, Pair
from ..runs.folder import Run
from ..settings.tree import known_keys, read_yaml
from ..storage.files import read_json

T = TypeVar("T")


class Absent(NamedTuple):
    """A number that the evaluation could not give, and why."""

    metric: str
    prompts: str
    reason: str


class Setting(NamedTuple):
    """A setting as resolved: dotted name, value, meaning ("" where unknown)."""

    name: str
    value: str
    meaning: str


class Contents(NamedTuple):
    """The parts of a run. record: run.json; curves: the lines of metrics.jsonl, in order of step.

    verdicts: prompt set → model → one entry an image, as in verdicts.json. attacks: attacks.json.
    sweeps: "beta" and "strength" → what `duo sweep` wrote.
    """

    concept: str | None
    model: str | None
    seed: int | None
    quick: bool
    estimates: list[Estimate]
    absent: list[Absent]
    verdicts: dict[str, dict[str, list[dict[str, Any]]]]
    pairs: list[Pair]
    curves: list[dict[str, float]]
    settings: list[Setting]
    record: dict[str, Any]
    attacks: dict[str, Any]
    sweeps: dict[str, dict[str, Any]]


def read_contents(run: Run) -> Contents:
    """Read what the run folder has. A file that is there but broken is a DuoError."""
    results = _mapping(run.results)
    raw = read_yaml(run.settings, "settings") if run.settings.exists() else {}
    record = _mapping(run.record)
    seed = results.get("seed", raw.get("seed"))
    return Contents(
        concept=_text(results.get("concept") or raw.get("concept")),
        model=_text(results.get("model") or raw.get("model")),
        seed=seed if isinstance(seed, int) else None,
        quick=bool(results.get("quick", False)),
        estimates=[_record(Estimate, entry, run.results) for entry in _entries(results, "estimates", run.results)],
        absent=[
            Absent(*(str(e.get(key, "")) for key in Absent._fields)) for e in _entries(results, "absent", run.results)
        ],
        verdicts=_verdicts(run.verdicts),
        pairs=_pairs(run.pairs / "manifest.json"),
        curves=_curves(run.metrics),
        settings=_settings(raw),
        record=record,
        attacks=_mapping(run.attack_results),
        sweeps={kind: known for kind in ("beta", "strength") if (known := _mapping(run.sweep / f"{kind}.json"))},
    )


def to_share(contents: Contents) -> Contents:
    """The same without what tells of the machine: folders before file names, and the words of exceptions."""

    def name(text: str) -> str:
        return re.split(r"[/\\]", text)[-1] if re.match(r"([A-Za-z]:)?[/\\.~]", text) else text

    return contents._replace(
        concept=contents.concept and name(contents.concept),
        model=contents.model and name(contents.model),
        absent=[a._replace(reason=a.reason.partition(": ")[0]) for a in contents.absent],
        settings=[s._replace(value=name(s.value)) for s in contents.settings],
        record={k: name(v) if isinstance(v, str) else v for k, v in contents.record.items()},
    )


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


def _mapping(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise DuoError(f"{path} must hold a JSON object", got=type(content).__name__, hint="run `duo evaluate` again")
    return content


def _entries(content: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
    """A list of JSON objects; empty where the key is absent."""
    found = content.get(key, [])
    if not isinstance(found, list) or not all(isinstance(entry, Mapping) for entry in found):
        raise DuoError(f"{path}: {key} must be a list of objects", got=str(found)[:120], hint="restore the file")
    return found


def _verdicts(path: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    found = _mapping(path)
    for name, by_model in found.items():
        if not isinstance(by_model, Mapping):
            raise DuoError(f"{path}: the prompt set {name!r} must hold an object", got=str(by_model)[:120])
        for model in by_model:
            _entries(by_model, model, path)
    return found


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _record(kind: type[T], entry: Any, path: Path) -> T:
    """A record from its JSON object; keys that the record does not know are left out."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    try:
        for key in ("value", "low", "high", "n"):
            float(entry.get(key, 0))
        return kind(**{key: value for key, value in entry.items() if key in names})
    except (TypeError, AttributeError, ValueError) as error:
        raise DuoError(f"{path} has an entry that does not make one {kind.__name__}", got=str(entry)[:120]) from error


def _pairs(path: Path) -> list[Pair]:
    if not path.exists():
        return []
    content = read_json(path)
    entries = _entries(content if isinstance(content, dict) else {"pairs": content}, "pairs", path)
    return [_record(Pair, entry, path) for entry in entries]


def _curves(path: Path) -> list[dict[str, float]]:
    """The lines that are whole: a killed training may leave half a line at the end."""
    if not path.exists():
        return []
    lines: list[dict[str, float]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            lines.append({k: float(v) for k, v in entry.items() if isinstance(v, int | float) and math.isfinite(v)})
    return sorted(lines, key=lambda entry: entry["step"])


def _settings(raw: Mapping[str, Any]) -> list[Setting]:
    meanings = known_keys()
    return [Setting(name, value, meanings.get(name, "")) for name, value in flatten(raw)]
