"""A system: the base model with some edits and some guards, under a name. It is what is attacked and measured."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .edits.provenance import edit_hash, edit_names, read_provenance
from .errors import DuoError
from .guards.registry import GUARDS
from .guards.stacking import check_stack
from .records import ORIGINAL
from .storage.files import digest

if TYPE_CHECKING:
    from .families.interface import Model
    from .guards.interface import Context


class EditFile(NamedTuple):
    """An edit of a system: its name, its folder, the hash of its file, and its strength."""

    name: str
    folder: Path
    sha256: str
    strength: float = 1.0


class GuardChoice(NamedTuple):
    """A guard of a system: its name, its options, and a hash of the pairs that it learns from ("": of none)."""

    name: str
    options: Mapping[str, Any]
    pairs: str = ""


@dataclasses.dataclass(frozen=True)
class System:
    """Edits and guards, in the order in which they act. name: "original", or their names joined by "+"."""

    edits: tuple[EditFile, ...] = ()
    guards: tuple[GuardChoice, ...] = ()

    @property
    def name(self) -> str:
        """What it is called in every file and table."""
        return "+".join([*(edit.name for edit in self.edits), *(guard.name for guard in self.guards)]) or ORIGINAL

    @property
    def sha256(self) -> str:
        """A hash of all edits and guards: what belongs to another one is stale."""
        return digest(
            {
                "edits": [[edit.name, edit.sha256, edit.strength] for edit in self.edits],
                "guards": [[guard.name, dict(guard.options), guard.pairs] for guard in self.guards],
            }
        )

    def as_json(self) -> dict[str, Any]:
        """The system as results and attempts describe it."""
        edits = [{"name": e.name, "sha256": e.sha256, "strength": e.strength} for e in self.edits]
        guards = [{"name": g.name, "options": dict(g.options), "pairs": g.pairs} for g in self.guards]
        return {"name": self.name, "sha256": self.sha256, "edits": edits, "guards": guards}

    @contextlib.contextmanager
    def on(self, model: Model, context: Context) -> Iterator[None]:
        """The model is this system inside the block: its edits in order, and its guards at work."""
        from .edits.files import check_base, read_edit

        with contextlib.ExitStack() as stack:
            for file in self.edits:
                edit = read_edit(file.folder, file.name, strength=file.strength)
                check_base(edit, model)
                stack.enter_context(edit.on(model))
            before = model.hooks
            stack.callback(setattr, model, "hooks", before)
            # A guard that learns something does so on the model with the edits, and with the guards before it.
            for guard in self.guards:
                hooks = GUARDS.get(guard.name).build(guard.options, context)
                model.hooks = [*model.hooks, hooks]
            yield


def system_of(name: str, edits: Path, options: Mapping[str, Mapping[str, Any]], pairs: str) -> System:
    """The system of a name such as "duo", "uce+duo" or "duo+negative-prompt".

    edits: the folder that holds an edit a folder. options: those of each guard. pairs: the hash of the run's pairs. A
    part of the name that is neither an edit nor a guard is a DuoError that lists both; so is one that comes twice, and
    so are guards that exclude each other.
    """
    parts = [part for part in name.split("+") if part != ORIGINAL]
    if repeated := [part for part in parts if parts.count(part) > 1]:
        raise DuoError("a system holds each edit and guard once", got=name, hint=f"name {repeated[0]} once")
    chosen_edits: list[EditFile] = []
    chosen_guards: list[GuardChoice] = []
    for part in parts:
        if part in GUARDS.names():
            kind = GUARDS.get(part)
            validated = kind.settings.model_validate(dict(options.get(part, {}))).model_dump(mode="json")
            chosen_guards.append(GuardChoice(part, validated, pairs if kind.learns else ""))
        elif part and (edits / part).is_dir() and "/" not in part:
            _check_below(edits / part, chosen_edits)
            chosen_edits.append(EditFile(part, edits / part, edit_hash(edits / part)))
        else:
            there = ", ".join(edit_names(edits))
            hint = f"edits here: {there or 'none'}; guards: {', '.join(GUARDS.names())}; or {ORIGINAL}"
            raise DuoError("unknown system", got=name, hint=hint)
    check_stack([guard.name for guard in chosen_guards])
    return System(tuple(chosen_edits), tuple(chosen_guards))


def _check_below(folder: Path, below: list[EditFile]) -> None:
    """Fail for an edit that was made on top of others which do not come before it, or are not what they were."""
    on = {str(one["name"]): str(one["sha256"]) for one in read_provenance(folder).get("on", [])}
    there = {edit.name: edit.sha256 for edit in below}
    if missing := [name for name in on if name not in there]:
        hint = f"name it as {'+'.join([*on, folder.name])}"
        raise DuoError(f"the edit {folder.name} was made on top of {missing[0]}", got="a system without it", hint=hint)
    if changed := [name for name in on if there[name] != on[name]]:
        hint = "make it again: duo train, or the same arena"
        raise DuoError(f"the edit {folder.name} was made on another {changed[0]}", got="one made anew since", hint=hint)
