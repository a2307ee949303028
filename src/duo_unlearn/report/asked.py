"""The attempts of a run as a status counts them: read without setting a broken file aside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DuoError
from ..runs.attempts import Group
from ..runs.folder import Run
from ..storage.files import read_object


class Asked(NamedTuple):
    """A group of attempts on disk. done: attempts that are there under their keys; seconds: they took, as recorded."""

    group: Group
    sha256: str
    reason: str | None
    size: int
    done: int
    seconds: float
    pictures: frozenset[str]


def read_asked(run: Run) -> list[Asked]:
    """Every group, read without setting a broken file aside."""
    found = []
    for path in sorted(run.attempts.glob("*/*/*/group.json")):
        content = object_or_empty(path)
        try:
            group, parts = Group(**content["group"]), dict(content["parts"])
            attempts, seconds = [], 0.0
            for name, key in parts.items():
                part = object_or_empty(path.with_name(f"{name}.json"))
                if part.get("key") == key:
                    attempts += part["attempts"]
                    seconds += part.get("seconds") or 0.0
            pictures = frozenset(str(a["sha256"]) for a in attempts if a["sha256"] is not None)
            size, reason = int(content["size"]), content["reason"]
            found.append(Asked(group, content["sha256"], reason, size, len(attempts), seconds, pictures))
        except (KeyError, TypeError, ValueError):
            continue  # broken: as if it were not there, which is how the commands take it
    return found


def rate_of(asked: Sequence[Asked]) -> float | None:
    """Seconds an image, of those that are there."""
    done, seconds = sum(one.done for one in asked), sum(one.seconds for one in asked)
    return seconds / done if done and seconds else None


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
