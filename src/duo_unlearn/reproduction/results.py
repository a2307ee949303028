"""What a reproduction found beside what was published: the form of reproduction.json, which can be sent to others."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from ..errors import DuoError
from ..records import Estimate, is_share
from ..storage.files import printable, read_object, write_text
from ..storage.forms import Frozen, read_form
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


class _Interval(Frozen):
    value: float
    low: float
    high: float
    n: int = Field(ge=1)
    contract: str

    @model_validator(mode="after")
    def _check_interval(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("the interval does not hold the value")
        return self


class Number(_Interval):
    """A measured number with its 95 % interval, and by whom. of_original: the original's, where it is a change."""

    of_original: float | None = None


class Row(Frozen):
    """A published number and what it says of ours."""

    published: Published
    ours: Number | None
    verdict: Verdict
    reason: str = ""


class UsedFile(Frozen):
    """What of the user's was used. sha256: of a folder of images, of their names and sizes, in 8 digits."""

    role: str
    name: str
    sha256: str


class Measured(_Interval):
    """An estimate, and of which β and concept it is. beta: None of the original, which is the same beside all."""

    beta: float | None
    concept: str
    metric: str
    system: str
    scenario: str
    attack: str | None
    preset: str | None

    @model_validator(mode="after")
    def _check_share(self) -> Self:
        if is_share(self.metric) and not 0 <= self.low <= self.high <= 1:
            raise ValueError("a share lies between 0 and 1")
        return self


class Reproduction(Frozen):
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
    changes: list[str] = Field(description="Settings that are not the protocol's.")
    concepts: dict[str, str] = Field(description="Concept → the SHA-256 of its file's content.")
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
        for row, right in zip(self.rows, rows_of(self.protocol, self.measured), strict=True):
            if (row.ours, row.verdict) != (right.ours, right.verdict):
                what = f"{right.published.metric}, {right.published.scenario}"
                raise ValueError(f"of {what} the measured numbers say {right.verdict!r}")
        return self


def rows_of(protocol: Protocol, measured: Sequence[Measured]) -> list[Row]:
    """Each published number beside ours, with the verdict by the tolerance that the protocol states."""
    return [_row(published, measured) for published in protocol.published]


def _row(published: Published, measured: Sequence[Measured]) -> Row:
    fitting = [one for one in measured if _is_of(one, published)]
    same = [one for one in fitting if _is_by(one, published)]
    ours = next(filter(None, (_number(one, published, measured) for one in (*same, *fitting))), None)
    if ours is None:
        return Row(published=published, ours=None, verdict="not measured", reason="there is no number of it")
    if not same:
        reason = f"published by {' or '.join(published.judges)}"
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


def _number(one: Measured, published: Published, measured: Sequence[Measured]) -> Number | None:
    """A number, or how much higher it is than the original's; None where the original has none."""
    if not published.change:
        return Number(value=one.value, low=one.low, high=one.high, n=one.n, contract=one.contract)
    same = ("concept", "metric", "scenario", "attack", "preset", "contract")
    originals = (other for other in measured if other.beta is None)
    before = next((o for o in originals if all(getattr(o, name) == getattr(one, name) for name in same)), None)
    if before is None:
        return None
    # Both intervals together, as if the two were independent. They have prompts and noise in common, so it is wide.
    low = math.hypot(one.value - one.low, before.high - before.value)
    high = math.hypot(one.high - one.value, before.value - before.low)
    change = one.value - before.value
    return Number(
        value=change, low=change - low, high=change + high, n=one.n, contract=one.contract, of_original=before.value
    )


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
    return read_form(Reproduction, content, path, hint)


def read_sent(path: Path, protocol: Protocol) -> Reproduction:
    """A results file of a protocol. DuoError: it has faults, or is of another protocol or of other tolerances."""
    sent = read_reproduction(path)
    if sent.protocol.digest != protocol.digest:
        got = f"{sent.protocol.name}, SHA-256 {sent.protocol_sha256[:16]}; the protocol here: {protocol.digest[:16]}"
        hint = "the protocol that it names, in the version that wrote it"
        raise DuoError(f"{printable(path)} is of another protocol than {protocol.name} is here", got=got, hint=hint)
    return sent


def is_reproduced(content: Reproduction) -> bool:
    """Whether no published number differs, and some was compared. Where none was published, nothing can differ."""
    verdicts = {row.verdict for row in content.rows}
    return not verdicts or ("differs" not in verdicts and not verdicts <= {"not comparable", "not measured"})


def schema() -> dict[str, Any]:
    """The JSON Schema of a results file, as docs/reproduction-v1.schema.json has it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Reproduction.model_json_schema()}
