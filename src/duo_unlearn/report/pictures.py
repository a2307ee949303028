"""The pictures of a report: small WEBP data URIs, grids with a row a system in each cell, and the pairs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image

from ..records import Attempt, Awareness, Pair, Verdict
from ..runs.folder import Run
from ..storage.files import is_regular, sha256_of
from ..storage.pictures import read_image
from .read import Contents, GroupAttempts, Key, key_of

LIMIT: Final = 24
"""Pictures of a set that are shown: the first ones, never chosen."""
LARGEST: Final = 224
"""Longest side of an inlined picture, pixels; smaller ones stay as they are."""


class Picture(NamedTuple):
    """One attempt of a system. text: what it was asked with. refusal: the guard that refused it, or None.

    source: the data URI; None: it was refused, or the file is missing, broken, or not the one that was sampled.
    detected: whether the concept is seen; None: there is no verdict. broken: nothing can be recognised.
    """

    system: str
    text: str
    source: str | None
    detected: bool | None
    refusal: str | None
    broken: bool = False


class Cell(NamedTuple):
    """The same prompt and noise under every system of the grid; None where a system has no such attempt."""

    caption: str
    pictures: list[Picture | None]


class Count(NamedTuple):
    """In how many of a system's images the concept was seen. n: whole ones that were judged, and refused ones."""

    system: str
    detected: int
    n: int
    refused: int
    broken: int = 0


class Grid(NamedTuple):
    """Some cells of a prompt set and attack, how many there are in all, and the detections over all.

    systems: whose pictures a cell has, from top to bottom. counts: of the systems that were judged.
    """

    scenario: str
    search: Awareness | None
    systems: list[str]
    cells: list[Cell]
    total: int
    counts: list[Count]


class PairCell(NamedTuple):
    """A pair, unsafe above safe: data URIs, None where a file is missing or cannot be read."""

    pair: Pair
    unsafe: str | None
    safe: str | None


def data_uri(path: Path, inside: Path, sha256: str | None = None) -> str | None:
    """An image as a WEBP data URI, at most LARGEST pixels; None if it is missing, broken or not in `inside`.

    sha256: what the file must have; None: anything.
    """
    try:
        is_inside = path.resolve().is_relative_to(inside.resolve())
    except (OSError, ValueError, RuntimeError):
        return None
    if not is_inside or not is_regular(path) or (sha256 is not None and sha256_of(path) != sha256):
        return None
    image = read_image(path)
    if image is None:
        return None
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def grids(
    run: Run, contents: Contents, groups: Sequence[GroupAttempts], limit: int = LIMIT
) -> list[tuple[Grid, list[GroupAttempts]]]:
    """A grid for each prompt set, attack, budget and awareness among the groups, with the groups that it shows.

    A system without guards stands beside the searches that are unaware of guards, or beside all where there are none.
    """
    places: dict[tuple[str, str, str | None], list[GroupAttempts]] = {}
    for one in groups:
        if one.size:
            places.setdefault((one.group.scenario, one.group.attack_name, one.group.preset), []).append(one)
    order = [system.name for system in contents.systems]
    shown = []
    for members in places.values():
        searches = sorted({one.group.search for one in members} - {None}, key=str, reverse=True)
        for i, search in enumerate(searches or [None]):
            here = [one for one in members if one.group.search == search or (one.group.search is None and i == 0)]
            here.sort(key=lambda one: order.index(one.group.system))
            shown.append((_grid(run, contents, here, search, limit), here))
    return shown


def _grid(run: Run, contents: Contents, members: Sequence[GroupAttempts], search: Awareness | None, limit: int) -> Grid:
    # By prompt and seed: of a run that was stopped a system may lack parts in the middle.
    columns: list[dict[Key, Attempt]] = []
    keys: dict[Key, None] = {}  # of the cells that are shown
    seen: set[int] = set()  # the hash of every key: the keys themselves would stay in memory
    counts = []
    for one in members:
        column: dict[Key, Attempt] = {}
        count = _Counter(contents, one.group.system)
        for attempt in one.attempts:
            count.add(attempt)
            key = key_of(attempt)
            seen.add(hash(key))
            if key in keys or len(keys) < limit:
                keys[key] = None
                column[key] = attempt
        columns.append(column)
        counts.append(count.total())
    systems = [one.group.system for one in members]
    main = contents.main.name if contents.main is not None else None
    leader = systems.index(main) if main in systems else len(systems) - 1
    cells = []
    for key in keys:
        attempts = [column.get(key) for column in columns]
        caption = next(a.text for a in (attempts[leader], *reversed(attempts)) if a is not None)
        pictures = [
            None if attempt is None else picture_of(run, contents, system, attempt)
            for system, attempt in zip(systems, attempts, strict=True)
        ]
        cells.append(Cell(caption, pictures))
    scenario = members[0].group.scenario
    return Grid(scenario, search, systems, cells, len(seen), [count for count in counts if count is not None])


def _verdict(contents: Contents, attempt: Attempt) -> Verdict | None:
    readings = contents.verdicts.readings if contents.verdicts is not None else {}
    reading = readings.get(attempt.sha256) if attempt.sha256 is not None else None
    return None if reading is None else reading.verdict


class _Counter:
    """Counts a system's attempts, one after another."""

    def __init__(self, contents: Contents, system: str) -> None:
        self.contents, self.system = contents, system
        self.judged = self.seen = self.broken = self.refused = 0

    def add(self, attempt: Attempt) -> None:
        self.refused += attempt.refusal is not None
        if (verdict := _verdict(self.contents, attempt)) is not None:
            self.judged += 1
            self.seen += verdict.detected
            self.broken += verdict.broken

    def total(self) -> Count | None:
        if not (self.judged or self.refused):
            return None
        return Count(self.system, self.seen, self.judged - self.broken + self.refused, self.refused, self.broken)


def picture_of(run: Run, contents: Contents, system: str, attempt: Attempt) -> Picture:
    """An attempt of a system as the page shows it."""
    source = None if attempt.file is None else data_uri(run.folder / attempt.file, run.folder, attempt.sha256)
    verdict = _verdict(contents, attempt)
    detected, broken = (None, False) if verdict is None else (verdict.detected, verdict.broken)
    return Picture(system, attempt.text, source, detected, attempt.refusal, broken)


def pair_cells(run: Run, contents: Contents) -> list[PairCell]:
    """Up to LIMIT pairs: those that training uses first, with a quarter left for dropped ones if there are so many."""
    used = [pair for pair in contents.pairs if pair.keep]
    dropped = [pair for pair in contents.pairs if not pair.keep]
    room = max(LIMIT - len(used), min(len(dropped), LIMIT // 4))
    chosen = [*used[: LIMIT - min(room, len(dropped))], *dropped[:room]]
    return [
        PairCell(pair, data_uri(run.pairs / pair.unsafe, run.pairs), data_uri(run.pairs / pair.safe, run.pairs))
        for pair in chosen
    ]
