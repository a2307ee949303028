"""Verdicts on disk: a file a detector contract, its word on every image by the image's hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..records import Attempt, Verdict
from .attempts import read_derived, write_sealed
from .folder import Run


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
    return _verdicts(read_derived(run.verdicts_of(contract)))


def every_verdicts(run: Run) -> list[Verdicts]:
    """The verdicts under every contract, in order of the contracts' names."""
    read = (_verdicts(read_derived(path)) for path in sorted(run.verdicts.glob("*.json")))
    return sorted((one for one in read if one is not None), key=lambda one: one.contract)


def _verdicts(content: dict[str, Any] | None) -> Verdicts | None:
    if content is None:
        return None
    # A file of before broken pictures were told has three entries a verdict.
    readings = {
        k: Reading(Verdict(bool(v[0]), float(v[1]), *map(bool, v[3:])), v[2]) for k, v in content["verdicts"].items()
    }
    return Verdicts(content["contract"], content["reader"], readings, content["faults"])


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
