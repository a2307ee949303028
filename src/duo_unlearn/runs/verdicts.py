"""Verdicts on disk: a file a detector contract, its word on every image by the image's hash.

A contract's readings are in memory together, some 330 bytes an image, and one contract's at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..records import Attempt, Verdict
from .attempts import read_derived, shared, write_sealed
from .folder import Run

FEW: Final = 32
"""An object with more entries is no image's attributes."""


class Reading(NamedTuple):
    """What a detector says of one image: its verdict, and the attributes that it reads, if it reads any."""

    verdict: Verdict
    attributes: Mapping[str, str]


class Verdicts(NamedTuple):
    """All readings under one contract, by the images' SHA-256. faults: why an image has none.

    reader: the name that attributes are told under, e.g. "mini-judge@1a2b3c4d".
    """

    contract: str
    reader: str
    readings: dict[str, Reading]
    faults: dict[str, str]

    def covers(self, attempts: Sequence[Attempt]) -> bool:
        """Whether each attempt was judged, or was tried and could not be."""
        return all(a.sha256 is None or a.sha256 in self.readings or a.sha256 in self.faults for a in attempts)


def read_verdicts(run: Run, contract: str) -> Verdicts | None:
    """The verdicts under a contract; None where there are none, or where their file was broken and set aside."""
    return _verdicts(read_derived(run.verdicts_of(contract), objects=_objects))


def every_verdicts(run: Run, first: Sequence[str] = ()) -> Iterator[Verdicts]:
    """The verdicts under every contract, one after another: those of `first`, then the others by name."""
    paths = set(run.verdicts.glob("*.json")) - {run.verdicts_of(contract) for contract in first}
    read = (read_derived(path, objects=_objects) for path in sorted(paths))
    others = sorted(str(content["contract"]) for content in read if content is not None)
    for contract in (*first, *others):
        if (verdicts := read_verdicts(run, contract)) is not None:
            yield verdicts


def _verdicts(content: dict[str, Any] | None) -> Verdicts | None:
    if content is None:
        return None
    # A file of before broken pictures were told has three entries a verdict. Each is let go when it is read.
    entries = content["verdicts"]
    readings = {}
    for sha256 in list(entries):
        detected, score, attributes, *broken = entries.pop(sha256)
        verdict = Verdict(bool(detected), float(score), *map(bool, broken))
        readings[sha256] = Reading(verdict, attributes)
    return Verdicts(content["contract"], content["reader"], readings, content["faults"])


def _objects(entries: list[tuple[str, Any]]) -> Any:
    """A JSON object: attributes that an image shares with others, or anything else."""
    labels = 0 < len(entries) <= FEW and all(type(value) is str for _, value in entries)
    return shared(tuple(entries)) if labels else dict(entries)


def write_verdicts(run: Run, verdicts: Verdicts) -> None:
    """Write all verdicts under a contract, with a hash over them."""
    content = {
        "contract": verdicts.contract,
        "reader": verdicts.reader,
        "verdicts": {
            k: [r.verdict.detected, r.verdict.score, dict(r.attributes), r.verdict.broken]
            for k, r in sorted(verdicts.readings.items())
        },
        "faults": dict(sorted(verdicts.faults.items())),
    }
    write_sealed(run.verdicts_of(verdicts.contract), content)
