"""Attempts on disk: a folder a group, a file a part, each with a hash over what it holds that is checked when read."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DuoError
from ..records import Attempt, Awareness
from ..storage.files import Objects, digest, read_object, set_aside, sha256_of, write_json
from .folder import Run

VERSION = 2


class Group(NamedTuple):
    """What a folder of attempts is of. attack: "direct" where nothing attacks; preset is None then.

    search: whether a white-box search saw the system's guards. replay: the run whose findings were used.
    """

    system: str
    scenario: str
    attack: str
    preset: str | None
    search: Awareness | None = None
    replay: str | None = None

    @property
    def attack_name(self) -> str:
        """The attack as tables name it: with the run that its findings are from."""
        return self.attack + (f"@{self.replay}" if self.replay else "")

    @property
    def slug(self) -> str:
        """The name of its folder, without those of system and scenario."""
        return ".".join(name for name in (self.attack_name, self.preset, self.search) if name)

    def folder(self, run: Run) -> Path:
        """Where its files lie."""
        return run.attempts / self.system / self.scenario / self.slug

    def claim(self, name: str) -> str:
        """The claim of a piece of its work, e.g. of its part 0000."""
        return f"{self.system}.{self.scenario}.{self.slug}.{name}"

    def is_claimed_by(self, claim: str) -> bool:
        """Whether a claim is of its work; or of a batch of its system's plain prompts, which may be of any set."""
        batch = rf"{re.escape(self.system)}\..*\.{re.escape(self.slug)}\.\d+\+\d+"
        return claim.startswith(self.claim("")) or (self.preset is None and re.fullmatch(batch, claim) is not None)


def batch_claim(parts: Sequence[str]) -> str:
    """The claim of parts that are made together: the first one's, and how many more there are."""
    return parts[0] + (f"+{len(parts) - 1}" if len(parts) > 1 else "")


class GroupRecord(NamedTuple):
    """group.json: what was asked for last. sha256: of the system. kind: of the scenario.

    reason: why the attack did not run, or None. size: how many prompts it has. parts: name of a part's file → the key
    that it must have. sampling: steps and guidance of its images; {}: not known.
    """

    group: Group
    sha256: str
    kind: str
    title: str
    budget: Mapping[str, Any]
    contract: str | None
    reason: str | None
    size: int
    parts: Mapping[str, str]
    sampling: Mapping[str, float] = {}


class Part(NamedTuple):
    """Some attempts of a group in order, and how long they took to make, seconds; None: unknown."""

    key: str
    attempts: list[Attempt]
    seconds: float | None


def write_group(run: Run, record: GroupRecord) -> None:
    """Write group.json, with a hash over its content."""
    content = {"version": VERSION, **record._asdict(), "group": record.group._asdict()}
    write_sealed(record.group.folder(run) / "group.json", content)


def read_groups(run: Run) -> list[GroupRecord]:
    """Every group of a run, in order of its folder. A broken group.json is set aside, and told on stderr."""
    paths = sorted(run.attempts.glob("*/*/*/group.json"))
    return [record for path in paths if (record := read_group(path)) is not None]


def read_group(path: Path) -> GroupRecord | None:
    """One group.json; None where there is none, or where it was broken and set aside."""
    content = read_derived(path)
    if content is None:
        return None
    try:
        content.pop("version")
        record = GroupRecord(**{**content, "group": Group(**content["group"])})
        group, places = record.group, path.parent.parts[-3:]
        # Names decide which files are read and renamed, so they must be this folder's own.
        if places != (group.system, group.scenario, group.slug) or not all(map(str.isdecimal, record.parts)):
            raise ValueError("it is of another folder")
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        set_broken_aside(path, str(error))
        return None
    return record


def write_part(path: Path, part: Part) -> None:
    """Write a part whole, with a hash over its content. `seconds` is not part of the hash: it is no result."""
    content = {"key": part.key, "attempts": [dataclasses.asdict(attempt) for attempt in part.attempts]}
    write_json(path, {**content, "seconds": part.seconds, "digest": digest(content)})


def read_part(path: Path) -> Part | None:
    """A part; None where there is none, or where it was broken or edited and set aside."""
    content = read_derived(path, free=("seconds",))
    if content is None:
        return None
    try:
        attempts = [_attempt(entry) for entry in content["attempts"]]
        return Part(str(content["key"]), attempts, content["seconds"])
    except (TypeError, KeyError, AttributeError) as error:
        set_broken_aside(path, str(error))
        return None


def _attempt(entry: Mapping[str, Any]) -> Attempt:
    """An attempt from its JSON object. A plain prompt's text is one string with the prompt."""
    attempt = Attempt(**entry)
    text = attempt.prompt if attempt.text == attempt.prompt else attempt.text
    return dataclasses.replace(attempt, shows=shared(tuple(attempt.shows.items())), text=text)


@functools.lru_cache(maxsize=4096)
def shared(entries: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """Attributes and their labels as a mapping, one object wherever they are the same; it must not be changed."""
    return dict(entries)


def read_derived(path: Path, free: Sequence[str] = (), objects: Objects | None = None) -> dict[str, Any] | None:
    """The content of a file that can be made again, its hash checked; None where it is missing or was set aside.

    free: keys that the hash leaves out. objects: see `storage.files.read_json`.
    """
    if not path.exists():
        return None
    try:
        return read_sealed(path, free, objects)
    except DuoError as error:
        set_broken_aside(path, error.got or error.problem)
        return None


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with a hash over itself, which `read_derived` and `read_sealed` check."""
    write_json(path, {**content, "digest": digest(dict(content))})


def read_sealed(path: Path, free: Sequence[str] = (), objects: Objects | None = None) -> dict[str, Any]:
    """The content of a file that carries a hash over itself, without the hash. A broken or edited one is a DuoError."""
    content = read_object(path, objects=objects)
    written = content.pop("digest", None)
    if written != digest({key: value for key, value in content.items() if key not in free}):
        hint = "it is set aside and made again by the command that needs it"
        raise DuoError(f"{path} is not what was written", got="its content was changed afterwards", hint=hint)
    return content


def set_broken_aside(path: Path, why: str) -> None:
    """Rename a broken file that can be made again, and say so on stderr."""
    aside = set_aside(path)
    print(f"{path} is set aside as {aside.name} and made again: {why}"[:300], file=sys.stderr, flush=True)


def attempts_of(run: Run, record: GroupRecord) -> list[Attempt]:
    """The attempts of a group that were asked for last, in order. Parts of other settings may lie beside them."""
    return [attempt for part in parts_of(run, record) for attempt in part.attempts]


def parts_of(run: Run, record: GroupRecord) -> Iterator[Part]:
    """The whole parts of a group that have the right key, in order, one in memory at a time."""
    folder = record.group.folder(run)
    for name, key in record.parts.items():
        part = read_part(folder / f"{name}.json")
        if part is not None and part.key == key:
            yield part


def why_partial(record: GroupRecord, there: int) -> str | None:
    """Why a group has no number while attempts of it are missing, or None. there: how many it has."""
    if there >= record.size:
        return None
    return f"{there} of {record.size} attempts are there: `duo evaluate` or `duo attack` again"


def is_whole(run: Run, attempts: Sequence[Attempt]) -> bool:
    """Whether every image is there and is the one that was sampled.

    Someone may have deleted images that are not for every eye, or replaced one.
    """
    for attempt in attempts:
        if attempt.file is None:
            continue
        path = run.folder / attempt.file
        if not path.is_file():
            return False
        if sha256_of(path) != attempt.sha256:
            print(f"{path} is not the image that was sampled: it is made again", file=sys.stderr, flush=True)
            return False
    return True
