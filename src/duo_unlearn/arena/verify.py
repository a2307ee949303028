"""`duo verify`: whether an exported folder is what its statement says. Nothing is changed.

The checks, in order: the files have their hashes; the statement follows from the evidence, every number computed
again; the card tells the same; the weights are the base with the edit. `remeasure` samples some of it again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from ..edits.provenance import PROVENANCE, WEIGHTS
from ..edits.sketch import sketch_of_model, why_another
from ..errors import DuoError, several
from ..export.card import STATED, metadata, model_card, named_base, results
from ..export.forms import Evidence, Predicate, Statement
from ..export.interface import Base
from ..export.registry import FORMATS
from ..export.statement import EVIDENCE, files_of, predicate_of, read_evidence, read_statement
from ..families.beside import beside_weights
from ..families.identify import is_hub_id
from ..families.load import DTYPES, pick_device
from ..records import Estimate
from ..storage.files import read_bytes, read_object, sha256_of
from ..system import EditFile, System
from .recompute import recompute

Outcome = Literal["agrees", "differs", "not checked"]
HINT = "fetch the folder again, or ask whoever exported it; a signature tells who that was (docs/statement.md)"


class Check(NamedTuple):
    """One check of a folder: what came of it, and in words what was found."""

    name: str
    outcome: Outcome
    words: str


class Verified(NamedTuple):
    """The checks of a folder in order."""

    checks: list[Check]

    def has(self, outcome: Outcome) -> bool:
        """Whether some check came out like that."""
        return any(check.outcome == outcome for check in self.checks)


def verify(folder: Path, *, base: str | None = None, device: str = "auto") -> Verified:
    """Check an exported folder against its statement.

    base: the base model, where it does not lie under the name that the statement has. A folder without a statement, and
    one of another form, is a DuoError.
    """
    statement = read_statement(folder)
    files = _files(folder, statement)
    checks = [Check("files", *files)]
    checks += [_tried("numbers", _numbers, folder, statement.predicate)]
    checks += [_tried("card", _card, folder, statement.predicate)]
    if files[0] == "differs":
        checks.append(Check("weights", "not checked", "the files are not those of the statement"))
    else:
        checks.append(_tried("weights", _weights, folder, statement.predicate, base, device))
    return Verified(checks)


def check_numbers(folder: Path) -> None:
    """Fail where a folder's statement does not follow from its evidence: the run's results are not of its attempts."""
    outcome, words = _numbers(folder, read_statement(folder).predicate)
    if outcome == "differs":
        hint = "duo judge RUN, which makes results.json again from the attempts; nothing is sampled"
        raise DuoError("the run's results are not what its attempts give", got=words, hint=hint)


def _tried(name: str, check: Callable[..., tuple[Outcome, str]], *arguments: Any) -> Check:
    """A check; what it cannot read is a difference."""
    try:
        return Check(name, *check(*arguments))
    except DuoError as error:
        return Check(name, "differs", error.reason)
    except Exception as error:  # files that someone changed may break any reader
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's; no file's fault
            raise
        return Check(name, "differs", f"it cannot be read: {type(error).__name__}: {str(error)[:120]}")


def _files(folder: Path, statement: Statement) -> tuple[Outcome, str]:
    stated = {subject.name: subject.digest.sha256 for subject in statement.subject}
    there = set(files_of(folder))
    faults = [f"{name} is missing" for name in sorted(set(stated) - there)]
    faults += [f"{name} is not in the statement" for name in sorted(there - set(stated))]
    faults += [
        f"{name} is another file" for name in sorted(there & set(stated)) if sha256_of(folder / name) != stated[name]
    ]
    if len(stated) != len(statement.subject):
        faults.append("a file is named twice")
    return ("differs", several(faults)) if faults else ("agrees", f"{len(stated)} files have their hashes")


def _numbers(folder: Path, predicate: Predicate) -> tuple[Outcome, str]:
    """Whether the statement follows from the evidence, and the evidence from the edit's hash."""
    evidence = read_evidence(folder)
    faults = [*_foreign(evidence), *_provenance(folder, predicate)]
    again = predicate_of(evidence, recompute(evidence))
    stated, found = predicate.model_dump(mode="json"), again.model_dump(mode="json")
    faults += [f"{path} is another one in {EVIDENCE}" for path in _paths(stated, found) if path != "measured"]
    faults += _estimates(predicate.measured, again.measured)
    if faults:
        return "differs", several(faults)
    judged = sum(len(group.attempts) for group in evidence.groups)
    return "agrees", f"{len(predicate.measured)} estimates follow from {judged} attempts and the judges' words on them"


def _foreign(evidence: Evidence) -> Iterator[str]:
    """Attempts of another system than the edit's and the original's."""
    if not evidence.systems:
        return
    edit = evidence.edit
    below = [EditFile(one.name, Path(), one.sha256) for one in edit.below]
    own = System((*below, EditFile(edit.name, Path(), edit.sha256)))
    hashes = {system.name: system.sha256 for system in (System(), own)}
    if {system.name: system.sha256 for system in evidence.systems} != hashes:
        yield "the systems that were measured are not the edit's"
    for group in evidence.groups:
        if hashes.get(group.asked.system) != group.sha256:
            yield f"{group.asked.attack} on {group.asked.system} is of another system"


def _provenance(folder: Path, predicate: Predicate) -> Iterator[str]:
    told = read_object(folder / PROVENANCE)
    known = {
        "edit": predicate.edit.name,
        "edit_sha256": predicate.edit.sha256,
        "strength": predicate.export.strength,
        "format": predicate.export.format,
        "base": predicate.base.fingerprint,
        "settings": predicate.edit.settings,
    }
    for name, value in known.items():
        if name in told and told[name] != value:
            yield f"{name} is another one in {PROVENANCE}"


def _paths(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two JSON values differ, by the names on the way; lists are compared whole."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _paths(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
    elif one != other:
        yield path


def _estimates(stated: Sequence[Estimate], found: Sequence[Estimate]) -> Iterator[str]:
    """Estimates that are on one side alone, and numbers that differ."""
    sides = [{_key(e): e for e in side} for side in (stated, found)]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        one, other = sides[0].get(key), sides[1].get(key)
        name = " ".join(str(part) for part in key[:6] if part is not None)
        if one is None or other is None:
            yield f"{name} is not in the {'statement' if one is None else 'evidence'}"
        elif not _same(one, other):
            yield f"{name} is {other.value:.4g} [{other.low:.4g}, {other.high:.4g}] of {other.n} by the evidence"
    if len(stated) != len(found):
        yield f"{len(stated)} estimates, {len(found)} by the evidence"


def _key(estimate: Estimate) -> tuple[str | None, ...]:
    return (*estimate.of_what, estimate.sha256, str(estimate.seeds), estimate.corrected_by)


def _same(one: Estimate, other: Estimate) -> bool:
    numbers = zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)
    return all(math.isclose(a, b, abs_tol=1e-9) if isinstance(a, float) else a == b for a, b in numbers)


def _card(folder: Path, predicate: Predicate) -> tuple[Outcome, str]:
    """Whether the card has the statement's numbers, what was not measured, and the hub's metadata of both."""
    text = read_bytes(folder / "README.md").decode(errors="replace")
    name = predicate.export.target
    head = text.split("---\n")[1] if text.startswith("---\n") else ""
    rows = [line for line in results(predicate.measured, predicate.export.strength) if line.startswith("| ")]
    told = [line for line in text.split("\n") if line.startswith("| ")]
    if rows != told:
        odd = next((line for line in [*rows, *told] if rows.count(line) != told.count(line)), "their order")
        return "differs", f"README.md and the statement differ in {odd}"
    found, own = _sections(text), _sections(model_card(predicate, {}, name or "x", None))
    for title in STATED:
        if found.get(title) != own[title]:
            return "differs", f"“{title}” of README.md is not what the statement gives"
    # A version before wrote an index at every strength.
    allowed = [metadata(predicate, name or "x"), metadata(predicate, name or "x", indexed=True)]
    if _index(head, predicate) not in [_index(one, predicate) for one in allowed]:
        return "differs", "the metadata of README.md are not those of the statement: license, base or model index"
    return "agrees", "README.md has the statement's numbers"


def _sections(text: str) -> dict[str, list[str]]:
    """Title → the content of each section of a card with that title."""
    found: dict[str, list[str]] = {}
    for part in text.split("\n## ")[1:]:
        title, _, content = part.partition("\n")
        found.setdefault(title, []).append(content.strip())
    return found


def _index(head: str, predicate: Predicate) -> Any:
    """The results of a card's model index, its license, and whether the base that it names is the statement's.

    A card may name none. Whether a name is the hub's or a folder's was seen on the disk of who exported it.
    """
    from ..storage.forms import parse_yaml

    content = parse_yaml(head, "the metadata of README.md")
    if not isinstance(content, dict):
        return None
    index, base = content.get("model-index") or [{}], named_base(predicate)
    kept = {key: content.get(key) for key in ("license", "pipeline_tag")}
    kept["results"] = index[0].get("results") if isinstance(index[0], dict) else index
    return kept | {"base": {key: content[key] for key in base if key in content} in ({}, base)}


def _weights(folder: Path, predicate: Predicate, source: str | None, device: str) -> tuple[Outcome, str]:
    """Whether what is loaded is the base with the edit."""
    said, same = predicate.export, ""
    if said.target and said.target not in files_of(folder):
        return "differs", f"there is no {said.target} in the folder, which is what is loaded"
    if said.format == "diffusers" and said.strength == 1 and predicate.edit.kind == "lora":
        if sha256_of(folder / WEIGHTS) != predicate.edit.sha256:
            return "differs", f"{WEIGHTS} is not the edit that was measured: its SHA-256 differs"
        same = "the adapter is the very file that was measured; "
    try:
        base = base_of(predicate, source, device)
        model = base.load()
    except DuoError as error:
        return "not checked", f"{same}the base is not here ({error.reason}); name it: --base"
    if model.fingerprint() != predicate.base.fingerprint:
        got = f"{base.source} is another base: {model.fingerprint()}, not {predicate.base.fingerprint}"
        return "differs", f"{got}; it changed since, or --base names another one"
    before, others = sketch_of_model(model), beside_weights(model)
    del model  # two may not fit
    loaded = FORMATS.get(said.format).load(folder / said.target, base)
    evidence, after = read_evidence(folder), sketch_of_model(loaded)
    why = why_another(evidence.change, before, after, torch.finfo(base.dtype).eps)
    if why is not None:
        return "differs", f"the weights are not the base with the edit: {why}"
    if odd := list(_paths(others, beside_weights(loaded))):
        return "differs", f"what lies beside the weights is not the base's: {several(odd)}"
    return "agrees", f"{same}the weights are {base.source} with a change of {len(evidence.change)} weights, as stated"


def base_of(predicate: Predicate, source: str | None, device: str) -> Base:
    """The base of a statement, in the precision of the export. source: where it lies, None: under its name.

    A statement is someone else's word, so of what it names nothing is fetched: that of the hub is a DuoError.
    """
    named = [name for name in (predicate.base.name, predicate.sampling.checkpoint_config) if name is not None]
    if source is None and (absent := [name for name in named if is_hub_id(name)]):
        raise DuoError(f"{absent[0]} is the hub's", got="nothing that a statement names is fetched", hint="--base")
    return Base(
        source or predicate.base.name,
        predicate.sampling.checkpoint_config,
        predicate.base.resolution,
        pick_device(device),
        DTYPES[predicate.export.precision],
    )
