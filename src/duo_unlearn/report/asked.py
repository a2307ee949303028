"""The attempts of a run as a status counts them: read without setting a broken file aside."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..edits.provenance import read_provenance
from ..errors import DuoError
from ..records import ORIGINAL
from ..runs.attempts import Group
from ..runs.folder import Run
from ..runs.results import ANOTHER_EDIT
from ..settings.sampling import why_other
from ..storage.files import read_object
from ..system import EditFile, System


class Tally(NamedTuple):
    """What counts of a part that is there under its key; see `Asked`."""

    done: int
    seconds: float
    pictures: frozenset[str]


class Asked(NamedTuple):
    """A group of attempts on disk. parts: how many it has. done: attempts that are there under their keys.

    seconds: they took, as recorded. pictures: the hashes of their images. sampling: see `GroupRecord`.
    """

    group: Group
    sha256: str
    reason: str | None
    size: int
    parts: int
    done: int
    seconds: float
    pictures: frozenset[str]
    sampling: Mapping[str, float]


def parts_of(asked: Sequence[Asked], batch: int) -> int:
    """How many parts processes can share: those of searches, and of each system's plain prompts batches of its sets."""
    plain = Counter[str]()
    for one in asked:
        plain[one.group.system] += one.size if one.group.preset is None else 0
    searches = sum(one.parts for one in asked if one.group.preset is not None)
    return searches + sum(math.ceil(size / batch) for size in plain.values())


def read_asked(run: Run, known: dict[tuple[Path, str], Tally] | None = None) -> list[Asked]:
    """Every group, read without setting a broken file aside.

    known: (part, key) → what was read of it before, which is added to: a part that is there does not change.
    """
    found, known = [], {} if known is None else known
    for path in sorted(run.attempts.glob("*/*/*/group.json")):
        content = object_or_empty(path)
        try:
            group, parts = Group(**content["group"]), dict(content["parts"])
            made = []
            for name, key in parts.items():
                place = path.with_name(f"{name}.json"), str(key)
                if place not in known and (read := _tally(*place)) is not None:
                    known[place] = read
                made += [known[place]] if place in known else []
            done, seconds = sum(one.done for one in made), sum(one.seconds for one in made)
            pictures = frozenset().union(*(one.pictures for one in made))
            size, reason, sampling = int(content["size"]), content["reason"], dict(content.get("sampling", {}))
            found.append(Asked(group, content["sha256"], reason, size, len(parts), done, seconds, pictures, sampling))
        except (KeyError, TypeError, ValueError):
            continue  # broken: as if it were not there, which is how the commands take it
    return found


def _tally(path: Path, key: str) -> Tally | None:
    """What a part has; None where it is not there under its key."""
    part = object_or_empty(path)
    if part.get("key") != key:
        return None
    attempts = part["attempts"]
    pictures = frozenset(str(attempt["sha256"]) for attempt in attempts if attempt["sha256"] is not None)
    return Tally(len(attempts), part.get("seconds") or 0.0, pictures)


def rate_of(asked: Sequence[Asked]) -> float | None:
    """Seconds an image, of those that are there."""
    done, seconds = sum(one.done for one in asked), sum(one.seconds for one in asked)
    return seconds / done if done and seconds else None


def why_stale(run: Run, one: Asked, sampling: Mapping[str, float]) -> str | None:
    """Why attempts are not of what is there, or None. Of guards it is not looked at. sampling: by the settings."""
    if (why := why_other(one.sampling, sampling)) is not None:
        return why
    edits = []
    for name in one.group.system.split("+") if one.group.system != ORIGINAL else []:
        place = run.edit(name)
        if not place.is_dir():
            return None
        try:
            edits.append(EditFile(name, place, str(read_provenance(place).get("sha256"))))
        except DuoError:
            return None
    return None if one.sha256 == System(tuple(edits)).sha256 else ANOTHER_EDIT


def place_of(group: Group) -> tuple[str, str, str]:
    """What an evaluation asks once: a budget of one's own is no other question."""
    is_plain = group.preset is None or group.attack == "concept-inversion"
    return group.system, group.scenario, group.attack if is_plain and group.replay is None else group.slug


def object_or_empty(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where it is missing or broken: the commands that need it say so."""
    try:
        return read_object(path) if path.exists() else {}
    except DuoError:
        return {}
