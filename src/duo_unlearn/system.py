"""A system: the base model with some edits and some guards, under a name. It is what is attacked and measured."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .detectors.interface import sees_all_of
from .edits.provenance import edit_hash, edit_names, hashes_below
from .errors import DuoError
from .guards.registry import GUARDS
from .guards.stacking import check_stack
from .records import ORIGINAL
from .storage.files import digest

if TYPE_CHECKING:
    from .families.interface import Model
    from .guards.interface import Context, Seen


LONGEST_NAME: Final = 100
"""How many bytes an edit's name may have: claims and folders have it beside other names."""


class EditFile(NamedTuple):
    """An edit of a system: its name, its folder, the hash of its file, and its strength."""

    name: str
    folder: Path
    sha256: str
    strength: float = 1.0


class GuardChoice(NamedTuple):
    """A guard of a system: its name, its options, and what else decides what it does.

    pairs: a hash of those that it learns from ("": of none). detector: the contract of the one that it asks ("": none).
    version: of the guard itself.
    """

    name: str
    options: Mapping[str, Any]
    pairs: str = ""
    detector: str = ""
    version: int = 1

    @property
    def further(self) -> dict[str, Any]:
        """Its detector, where it asks one, and its version from the second on: others read as they always did."""
        detector = {"detector": self.detector} if self.detector else {}
        return {**detector, "version": self.version} if self.version > 1 else detector


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
                "guards": [[g.name, dict(g.options), g.pairs, *g.further.values()] for g in self.guards],
            }
        )

    @property
    def seen(self) -> dict[str, Seen]:
        """Guard → how much of it a search that is aware of guards differentiates through."""
        return {guard.name: GUARDS.get(guard.name).seen for guard in self.guards}

    @property
    def aware_versions(self) -> dict[str, int]:
        """Guard → the version of what is seen so of it."""
        return {guard.name: GUARDS.get(guard.name).aware_version for guard in self.guards}

    @property
    def refuser(self) -> str:
        """The guards that look at finished images, by whose word one is refused; "" where there is none."""
        return "+".join(guard.name for guard in self.guards if GUARDS.get(guard.name).acts_on == "image")

    def why_not_aware(self) -> str | None:
        """Why no search can be aware of the guards, or None where it sees some part of one, and where there is none."""
        if not self.guards or any(seen != "nothing" for seen in self.seen.values()):
            return None
        return f"no search here can be aware of {' or '.join(self.seen)}: its numbers are those of an unaware one"

    def why_idle(self, model: Model, guidance: float) -> str | None:
        """Why one of its guards does nothing while the model samples at this scale, or None."""
        from .families.denoising import why_no_branches

        reason = why_no_branches(model, guidance)
        idle = next((guard.name for guard in self.guards if GUARDS.get(guard.name).needs_negative), None)
        return None if None in (reason, idle) else f"{idle} does nothing without a negative branch: {reason}"

    def works_towards(self, contract: str) -> str | None:
        """The guard that works towards a contract's detector, whose word on the system says nothing then; or None."""
        for guard in self.guards:
            is_goal = GUARDS.get(guard.name).asks == "a detector that heads no table"
            if is_goal and guard.detector.partition("[")[0] == contract.partition("[")[0]:
                return guard.name
        return None

    def why_no_measure(self, contract: str, head: str | None) -> str | None:
        """What a guard does with a contract's detector, which says nothing of the system then: "pno works towards".

        None: nothing. Where it refuses what the detector sees that heads the tables, the numbers stand, and the report
        says that they are 100 by construction. head: the contract of that one; None: this one.
        """
        if (guard := self.works_towards(contract)) is not None:
            return f"{guard} works towards"
        refuses = None if head in (None, contract) else self.refuses(contract)
        return None if refuses is None else f"{refuses} refuses what is seen by"

    def refuses(self, contract: str) -> str | None:
        """The guard that refuses whatever a contract's detector sees, so that this one sees nothing; or None."""
        return refusing([(guard.name, guard.detector) for guard in self.guards], contract)

    def why_no_search(self, contract: str) -> str | None:
        """Why a search that asks a contract's detector has no number on the system, or None."""
        guard = self.refuses(contract)
        said = "asks the detector that this search asks: no image passes the one and is seen by the other"
        return None if guard is None else f"{guard} {said}"

    def as_json(self) -> dict[str, Any]:
        """The system as results and attempts describe it."""
        edits = [{"name": e.name, "sha256": e.sha256, "strength": e.strength} for e in self.edits]
        guards = [{"name": g.name, "options": dict(g.options), "pairs": g.pairs, **g.further} for g in self.guards]
        return {"name": self.name, "sha256": self.sha256, "edits": edits, "guards": guards}

    @contextlib.contextmanager
    def on(self, model: Model, context: Context, *, fuse: bool = False) -> Iterator[None]:
        """The model is this system inside the block: its edits in order, and its guards at work.

        fuse: adapters are put into the weights there.
        """
        from .edits.files import check_base, fused, read_edit

        with contextlib.ExitStack() as stack:
            for file in self.edits:
                edit = read_edit(file.folder, file.name, strength=file.strength)
                check_base(edit, model)
                stack.enter_context((fused(edit) if fuse else edit).on(model))
            before = model.hooks
            stack.callback(setattr, model, "hooks", before)
            # A guard that learns something does so on the model with the edits, and with the guards before it.
            for guard in self.guards:
                hooks = GUARDS.get(guard.name).build(guard.options, context)
                model.hooks = [*model.hooks, hooks]
            yield


def refusing(guards: Iterable[tuple[str, str]], contract: str) -> str | None:
    """The first guard that refuses whatever a contract's detector sees, or None. guards: each with its own contract."""
    for name, detector in guards:
        if name in GUARDS.names() and GUARDS.get(name).asks == "any detector" and sees_all_of(detector, contract):
            return name
    return None


def system_of(
    name: str,
    edits: Path,
    options: Mapping[str, Mapping[str, Any]],
    pairs: str,
    asked: Callable[[Mapping[str, Any]], str] = lambda _options: "",
) -> System:
    """The system of a name such as "duo", "uce+duo" or "duo+negative-prompt".

    edits: the folder that holds an edit a folder. options: those of each guard. pairs: the hash of the run's pairs.
    asked(options): the contract of the detector that a guard with these options asks. A part of the name that is
    neither an edit nor a guard is a DuoError that lists both; so is one that comes twice, and so are guards that
    exclude each other.
    """
    parts = check_parts(name)
    chosen_edits: list[EditFile] = []
    chosen_guards: list[GuardChoice] = []
    for part in parts:
        if part in GUARDS.names():
            kind = GUARDS.get(part)
            validated = kind.settings.model_validate(dict(options.get(part, {}))).model_dump(mode="json")
            detector = asked(validated) if kind.asks is not None else ""
            learned = pairs if kind.learns else ""
            chosen_guards.append(GuardChoice(part, validated, learned, detector, kind.version))
        elif part and (edits / part).is_dir() and "/" not in part:
            _check_below(edits / part, chosen_edits)
            chosen_edits.append(EditFile(part, edits / part, edit_hash(edits / part)))
        else:
            there = ", ".join(edit_names(edits))
            hint = f"edits here: {there or 'none'}; guards: {', '.join(GUARDS.names())}; or {ORIGINAL}"
            raise DuoError("unknown system", got=name, hint=hint)
    check_stack([guard.name for guard in chosen_guards])
    return System(tuple(chosen_edits), tuple(chosen_guards))


def check_parts(name: str) -> list[str]:
    """The edits and guards of a system's name, in order; one that comes twice is a DuoError."""
    parts = [part for part in name.split("+") if part != ORIGINAL]
    if repeated := [part for part in parts if parts.count(part) > 1]:
        raise DuoError("a system holds each edit and guard once", got=name, hint=f"name {repeated[0]} once")
    return parts


def check_edit_name(name: str) -> None:
    """Fail for a name that an edit of others cannot have: none of a folder, or one that means something else."""
    is_folder = bool(name) and Path(name).name == name and not name.startswith(".") and not set(name) & set("+\\\0")
    if (
        not is_folder
        or name in (ORIGINAL, *GUARDS.names())
        or len(name.encode(errors="surrogateescape")) > LONGEST_NAME
    ):
        hint = "--system NAME: letters, digits and dashes, and no guard's name"
        raise DuoError("this cannot be the name of an edit", got=repr(name)[:120], hint=hint)


def check_aware(systems: Sequence[str], way: str) -> None:
    """Fail for a search that is aware of guards where no system has one. way: how to name a guard, in the hint."""
    if not any(part in GUARDS.names() for name in systems for part in name.split("+")):
        got = f"--aware, and no guard in {', '.join(systems) or 'the erasers'}"
        raise DuoError("a search is aware of guards alone", got=got, hint=f"leave --aware out; or {way}")


def check_below(edit: str, on: Sequence[str], below: Collection[str]) -> None:
    """Fail for an edit that is made on top of others where one of them does not come before it."""
    if missing := [name for name in on if name not in below]:
        hint = f"name it as {'+'.join([*on, edit])}"
        raise DuoError(f"the edit {edit} is made on top of {missing[0]}", got="a system without it", hint=hint)


def _check_below(folder: Path, below: list[EditFile]) -> None:
    """Fail for an edit that was made on top of others which do not come before it, or are not what they were."""
    on = hashes_below(folder)
    there = {edit.name: edit.sha256 for edit in below}
    check_below(folder.name, list(on), there)
    if changed := [name for name in on if there[name] != on[name]]:
        hint = "make it again: duo train, or the same arena"
        raise DuoError(f"the edit {folder.name} was made on another {changed[0]}", got="one made anew since", hint=hint)
