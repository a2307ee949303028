"""What a reproduction found beside what was published: the form of reproduction.json, which can be sent to others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import DuoError, several
from ..records import Estimate
from ..storage.files import printable, read_object, write_text
from ..storage.forms import faults
from .protocol import Protocol, Published

VERSION: Final = 1
Verdict = Literal["agrees", "compatible", "undecided", "differs", "not comparable", "not measured"]
MEANINGS: Final[dict[Verdict, str]] = {
    "agrees": "the whole interval lies within the tolerance",
    "compatible": "the value lies within the tolerance, its interval reaches out of it: n is too small to be sure",
    "undecided": "the value lies outside the tolerance, its interval reaches into it",
    "differs": "the whole interval lies outside the tolerance",
    "not comparable": "it was measured by another judge or network than the published number",
    "not measured": "there is no number",
}


class _Form(BaseModel):
    """A part of the file: an unknown key is a fault, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Number(_Form):
    """A measured number with its 95 % interval. of_original: the original's, where the number is a change from it."""

    value: float
    low: float
    high: float
    n: int = Field(ge=1)
    contract: str
    of_original: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Number:
        if not self.low <= self.value <= self.high:
            raise ValueError("the interval does not hold the value")
        return self


class Row(_Form):
    """A published number and what it says of ours."""

    published: Published
    ours: Number | None
    verdict: Verdict
    reason: str = ""

    @model_validator(mode="after")
    def _check(self) -> Row:
        if (self.ours is None) != (self.verdict == "not measured"):
            raise ValueError("a number and the verdict 'not measured' exclude each other")
        if self.ours is None or self.verdict == "not comparable":
            return self
        if self.verdict != (right := compared(self.published, self.ours)):
            raise ValueError(f"the numbers say {right!r}")
        return self


class UsedFile(_Form):
    """What of the user's was used. sha256: of a folder of images, of their names and sizes, in 8 digits."""

    role: str
    name: str
    sha256: str


class Measured(_Form):
    """An estimate, and of which β and concept it is. beta: None of the original, which is the same beside all."""

    beta: float | None
    concept: str
    metric: str
    system: str
    scenario: str
    attack: str | None
    preset: str | None
    value: float
    low: float
    high: float
    n: int = Field(ge=1)
    contract: str


class Reproduction(_Form):
    """reproduction.json."""

    version: Literal[1]
    protocol: Protocol
    protocol_sha256: str
    finished: str
    machine: str
    versions: dict[str, str]
    base: str = Field(description="The fingerprint of the base model's weights.")
    model: str
    seed: int
    judges: list[str] = Field(description="Whose DSR there is; the first one's heads the tables.")
    files: list[UsedFile]
    rows: list[Row]
    measured: list[Measured]
    not_measured: list[str]

    @model_validator(mode="after")
    def _check(self) -> Reproduction:
        if self.protocol_sha256 != self.protocol.digest:
            raise ValueError("the protocol is not the one of protocol_sha256: a tolerance was changed afterwards")
        if [row.published for row in self.rows] != list(self.protocol.published):
            raise ValueError("the rows are not those of the protocol")
        return self


def rows_of(protocol: Protocol, measured: Sequence[Measured], why_absent: str = "") -> list[Row]:
    """Each published number beside ours, with the verdict by the tolerance that the protocol states.

    why_absent: what is said of a number that there is none of.
    """
    return [_row(published, measured, why_absent) for published in protocol.published]


def _row(published: Published, measured: Sequence[Measured], why_absent: str) -> Row:
    fitting = [one for one in measured if _is_of(one, published)]
    if not fitting:
        return Row(published=published, ours=None, verdict="not measured", reason=why_absent)
    same = [one for one in fitting if _is_by(one, published)]
    ours = _number((same or fitting)[0], published, measured)
    if not same:
        reason = f"published by {' or '.join(published.judges)}, here by {ours.contract}"
        return Row(published=published, ours=ours, verdict="not comparable", reason=reason)
    return Row(published=published, ours=ours, verdict=compared(published, ours))


def _is_of(one: Measured, published: Published) -> bool:
    names = ("metric", "scenario", "attack", "preset")
    if any(getattr(one, name) != getattr(published, name) for name in names):
        return False
    if published.concept is not None and one.concept != published.concept:
        return False
    return one.beta == published.beta


def _is_by(one: Measured, published: Published) -> bool:
    return not published.judges or one.contract.startswith(published.judges)


def _number(one: Measured, published: Published, measured: Sequence[Measured]) -> Number:
    if not published.change:
        return Number(value=one.value, low=one.low, high=one.high, n=one.n, contract=one.contract)
    same = ("concept", "metric", "scenario", "attack", "preset", "contract")
    before = next(
        other.value
        for other in measured
        if other.beta is None and all(getattr(other, name) == getattr(one, name) for name in same)
    )
    # The interval is that of the edited model alone. The original was asked the same with the same noise, so the
    # change spreads less than that.
    moved = {name: getattr(one, name) - before for name in ("value", "low", "high")}
    return Number(**moved, n=one.n, contract=one.contract, of_original=before)


def compared(published: Published, ours: Number) -> Verdict:
    """What an interval says of a published value ± its tolerance."""
    low, high = published.value - published.tolerance, published.value + published.tolerance
    if low <= ours.low and ours.high <= high:
        return "agrees"
    if low <= ours.value <= high:
        return "compatible"
    return "differs" if ours.high < low or ours.low > high else "undecided"


def measured_of(estimate: Estimate, beta: float | None, concept: str) -> Measured:
    """An estimate of a run, as the file has it."""
    names = [name for name in Measured.model_fields if name not in ("beta", "concept")]
    return Measured(beta=beta, concept=concept, **{name: getattr(estimate, name) for name in names})


def write_reproduction(path: Path, content: Reproduction) -> None:
    """Write the file, a row or a number a line."""
    whole = content.model_dump(mode="json")
    lists = {name: whole.pop(name) for name in ("rows", "measured")}
    lines = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in whole.items()]
    for name, entries in lists.items():
        inner = ",\n ".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        lines.append(f"{json.dumps(name)}: [\n {inner}\n]" if entries else f"{json.dumps(name)}: []")
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_reproduction(path: Path) -> Reproduction:
    """A results file, checked: its form, its intervals, its verdicts, and that its protocol is whole. DuoError: not."""
    hint = "the file that `duo reproduce` wrote, as it was written"
    content = read_object(path, hint)
    if content.get("version") != VERSION:
        got = f"version {content.get('version')!r}"
        raise DuoError(f"{printable(path)} is of another form", got=got, hint=f"this version reads {VERSION}")
    try:
        return Reproduction.model_validate(content)
    except ValidationError as error:
        got = several(faults(error, Reproduction.model_fields))
        raise DuoError(f"{printable(path)} has faults", got=got, hint=hint) from error


def schema() -> dict[str, Any]:
    """The JSON Schema of a results file, as docs/reproduction-v1.schema.json has it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Reproduction.model_json_schema()}
