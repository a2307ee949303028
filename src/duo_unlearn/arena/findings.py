"""What searches found, on disk: once found, it is sampled, taken up again, and replayed on other runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..attacks.interface import Finding, Findings
from ..errors import DuoError
from ..runs.attempts import Group, read_derived, write_sealed
from ..runs.folder import Run
from ..runs.search_state import SearchState
from ..session import Session
from ..storage.files import read_tensors, sha256_of, write_tensors
from .plans import Plan


class FoundPart(NamedTuple):
    """The findings of a part, the texts that they stand for, and the family of the model they were found on."""

    findings: Findings
    texts: list[str]
    family: str


class FindingsFile:
    """found-NNNN.json of a group, and the tensors beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_if(self, key: str) -> Findings | None:
        """The findings that were found under a key, or None."""
        content = read_derived(self.path)
        if content is None or content.get("key") != key:
            return None
        return None if tensors_fault(self.path, content) is not None else self._findings(content)

    def read(self) -> FoundPart:
        """Whatever was found last. A missing or broken file, and tensors that are not those, are a DuoError."""
        content = read_derived(self.path)
        if content is None:
            raise DuoError(f"there is nothing found in {self.path}", hint="duo attack, with the same prompts")
        if (fault := tensors_fault(self.path, content)) is not None:
            raise fault
        return FoundPart(self._findings(content), content["texts"], content["family"])

    def _findings(self, content: Mapping[str, Any]) -> Findings:
        """What the file has, whose tensors are those that it names."""
        tensors = self.path.with_suffix(".safetensors")
        return Findings(
            [Finding(**entry) for entry in content["findings"]],
            read_tensors(tensors)[0] if content["tensors"] is not None else {},
        )

    def write(self, found: Findings, key: str, family: str, texts: Sequence[str]) -> None:
        """Write findings under a key, with a hash over all of it."""
        tensors = self.path.with_suffix(".safetensors")
        if found.tensors:
            write_tensors(tensors, found.tensors)
        content = {
            "key": key,
            "family": family,
            "texts": list(texts),
            "tensors": sha256_of(tensors) if found.tensors else None,
            "findings": [_entry(finding) for finding in found.findings],
        }
        write_sealed(self.path, content)

    def state(self, key: str) -> SearchState:
        """Where the search for them keeps its state."""
        return SearchState(self.path.with_name(f"{self.path.stem}.state.safetensors"), key)

    def sha256(self) -> str:
        """The hash of the file."""
        return sha256_of(self.path)


def tensors_fault(path: Path, content: Mapping[str, Any]) -> DuoError | None:
    """What is wrong with the tensors beside findings, or None. path: of the findings; content: of their file."""
    tensors = path.with_suffix(".safetensors")
    if content["tensors"] is None or (tensors.is_file() and sha256_of(tensors) == content["tensors"]):
        return None
    got = "its SHA-256 differs" if tensors.is_file() else "it is missing"
    hint = f"delete the folder {path.parent}, and `duo attack` or `duo evaluate` searches again"
    return DuoError(f"{tensors} is not what the search found", got=got, hint=hint)


def _entry(finding: Finding) -> dict[str, Any]:
    """A finding as JSON: without what only some attacks have, so that other files stay as they always were."""
    entry = finding._asdict()
    rare = ("seed", "conditioning", "trajectory")
    return {name: value for name, value in entry.items() if name not in rare or value is not None}


def replayed_file(session: Session, plan: Plan, name: str, texts: Sequence[str]) -> FindingsFile:
    """What another run found for the same prompts on a model of the same family; a DuoError where it found nothing."""
    assert plan.replay is not None
    other = Run(plan.replay)
    system = "original" if plan.attack.is_shared else plan.replay_system
    search = None if plan.attack.is_shared else plan.search
    group = Group(system, plan.scenario.name, plan.attack.name, plan.preset, search)
    file = FindingsFile(group.folder(other) / f"found-{name}.json")
    hint = f"duo attack {other.argument} --attack {plan.attack.name} --preset {plan.preset}, with the same prompts"
    if not file.path.exists():
        raise DuoError(f"{plan.replay} holds no findings of {plan.attack.name}", got=f"no {file.path}", hint=hint)
    known = file.read()
    if known.texts != list(texts) or len(known.findings.findings) != len(texts):
        got = f"{len(known.findings.findings)} findings there, {len(texts)} prompts here"
        raise DuoError(f"{file.path} was found for other prompts", got=got, hint=hint)
    family = session.model.family
    if known.family != family:
        raise DuoError(f"{file.path} was found on {known.family}", got=f"a model of {family}", hint="its own family")
    return file
