"""erasure.intoto.json: an in-toto statement on an exported folder, and evidence.json, which it is made from.

The predicate is a function of the evidence. So a statement and an evidence that do not belong together are found by
making it again. Who changes both alike, and every hash with them, is found by a signature alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import DuoError
from ..records import Estimate
from ..storage.files import printable, read_object, sha256_of, write_json, write_text
from ..storage.forms import read_form
from .forms import PREDICATE_TYPE, STATEMENT_TYPE, Digest, Evidence, Missing, Predicate, Statement, Subject

STATEMENT: Final = "erasure.intoto.json"
EVIDENCE: Final = "evidence.json"
SIGNATURE: Final = "model.sig"
"""The name that OpenSSF Model Signing gives a signature: the one file that may join the folder afterwards."""
_AGAIN: Final = "fetch or export the folder again (`duo export`)"


def files_of(folder: Path) -> list[str]:
    """The files that a statement on a folder is of, by their paths within it. What starts with a dot is no part."""
    names = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        name.as_posix()
        for name in names
        if name.as_posix() not in (STATEMENT, SIGNATURE) and not any(part.startswith(".") for part in name.parts)
    ]


def predicate_of(evidence: Evidence, estimates: Sequence[Estimate]) -> Predicate:
    """What a statement says, from the evidence. estimates: all that were measured, of judges' words and others."""
    asked = [group.asked for group in evidence.groups]
    return Predicate(
        base=evidence.base,
        concept=evidence.concept,
        pairs=evidence.pairs,
        edit=evidence.edit,
        export=evidence.export,
        sampling=evidence.sampling,
        systems=evidence.systems,
        judges=[judge.contract for judge in evidence.judges],
        labels=len(evidence.labels),
        attacks=asked,
        measured=list(estimates),
        not_measured=_not_measured(evidence),
        versions=evidence.versions,
        machine=evidence.machine,
    )


def _not_measured(evidence: Evidence) -> list[Missing]:
    """What there is no number for: it was not asked for, or it did not run, or it could not be told."""
    if not evidence.systems:
        return [Missing(what="everything", reason="there are no results of this very edit in the run")]
    found = list(evidence.absent)
    own = evidence.systems[-1].name
    ran = {group.asked.attack for group in evidence.groups if group.asked.system == own}
    found += [Missing(what="dsr", reason="not asked for", attack=name) for name in evidence.known if name not in ran]
    if not evidence.labels:
        found.append(Missing(what="corrected dsr", reason="nobody labelled a picture: every rate is a judge's"))
    if evidence.export.strength != 1:
        reason = f"the numbers are of strength 1, and the export has {evidence.export.strength:g}"
        found.append(Missing(what="everything at this strength", reason=reason))
    return found


def write_evidence(folder: Path, evidence: Evidence) -> None:
    """Write evidence.json."""
    write_text(folder / EVIDENCE, json.dumps(evidence.model_dump(mode="json"), ensure_ascii=False) + "\n")


def write_statement(folder: Path, predicate: Predicate) -> None:
    """Write the statement on all files that lie in a folder now."""
    subjects = [Subject(name=name, digest=Digest(sha256=sha256_of(folder / name))) for name in files_of(folder)]
    statement = Statement(type=STATEMENT_TYPE, subject=subjects, predicateType=PREDICATE_TYPE, predicate=predicate)
    write_json(folder / STATEMENT, statement.model_dump(mode="json", by_alias=True))


def read_statement(folder: Path) -> Statement:
    """The statement in a folder. None, another version of its form, or a broken one is a DuoError."""
    path = folder / STATEMENT
    if not folder.is_dir():
        raise DuoError(f"there is no folder {printable(folder)}", hint="a folder that `duo export` wrote")
    if not path.is_file():
        hint = "a folder that `duo export` wrote; `duo check RUN` is for run folders"
        raise DuoError(f"{printable(folder)} holds no statement", got=f"no {STATEMENT}", hint=hint)
    content = read_object(path, _AGAIN)
    known = {"_type": STATEMENT_TYPE, "predicateType": PREDICATE_TYPE}
    for key, value in known.items():
        if content.get(key) != value:
            hint = f"the version of duo_unlearn that wrote it; this one reads {value}"
            raise DuoError(f"{printable(path)} is of another form", got=f"{key}: {content.get(key)!r}", hint=hint)
    return read_form(Statement, content, path, _AGAIN)


def read_evidence(folder: Path) -> Evidence:
    """The evidence in a folder. None, or a broken one, is a DuoError."""
    path = folder / EVIDENCE
    return read_form(Evidence, read_object(path, _AGAIN), path, _AGAIN)


def schema() -> dict[str, Any]:
    """The JSON Schema of a statement, as docs/erasure-v1.schema.json has it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Statement.model_json_schema(by_alias=True)}
