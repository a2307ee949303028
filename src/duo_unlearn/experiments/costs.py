"""What a system costs: to make its edits, and an image as a multiple of the original's, timed side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..arena.plans import evaluation_plans
from ..arena.target import guarded
from ..edits.files import read_edit
from ..edits.interface import edits_off
from ..edits.provenance import edit_file, read_provenance
from ..erasers.wraps import round_name
from ..families.interface import SampleRequest
from ..report.arena import Cost
from ..runs.attempts import read_derived, write_sealed
from ..session import Session, machine
from ..storage.files import digest
from ..system import EditFile, System

IMAGES: Final = 4
ROUNDS: Final = 3
"""How often the system's and the original's images are sampled in turn; the medians are compared."""


def cost_of(session: Session, system: System, folder: Path) -> Cost:
    """What a system cost in a run, as far as its files say. folder: where the times of images are kept.

    The passes of attacks between rounds are not counted, so an edit that was made in rounds has seconds alone.
    """
    stages = session.run.read_record().get("stages", {})
    own = {session.settings.edit: stages.get("train", {})}
    entries = [stages.get(f"train {edit.name}") or own.get(edit.name, {}) for edit in system.edits]
    entries += [stages.get(stage, {}) for edit in system.edits for stage in earlier_stages(edit)]
    seconds = [entry["seconds"] for entry in entries if isinstance(entry.get("seconds"), int | float)]
    trained_once = [edit for edit in system.edits if not earlier_stages(edit)]
    passes = [p["passes"] for edit in trained_once if "passes" in (p := read_provenance(edit.folder))]
    changed = [read_edit(edit_file(edit.folder), edit.name).changed(session.model) for edit in system.edits]
    count = len(system.edits)
    return Cost(
        seconds=sum(seconds) if count and len(seconds) == len(entries) else None,
        passes=sum(passes) if count and len(passes) == count else None,
        changed=sum(changed) if count else None,
        image=_image(session, system, folder / "times.json") if count or system.guards else None,
    )


def earlier_stages(edit: EditFile) -> list[str]:
    """The stages of a run that made the bank which an edit read: the trainings and attacks of earlier rounds."""
    bank = read_provenance(edit.folder).get("bank", {})
    names = [round_name(edit.name, number) for number in range(1, bank.get("round", 0) + 1)]
    return [f"{stage} {name}" for name in names for stage in ("train", "attack")]


def _image(session: Session, system: System, path: Path) -> float:
    """The time of an image as a multiple of the original's: read where it was measured on this machine, or measured."""
    settings = session.settings.evaluate
    place = machine(session.model.device.type)
    key = digest([system.sha256, settings.steps, settings.guidance, session.model.variant, place])[:16]
    content = read_derived(path)
    known: dict[str, Any] = content["times"] if content is not None else {}
    if key not in known:
        known[key] = round(_ratio(session, system), 3)
        write_sealed(path, {"version": 1, "times": known})
    return float(known[key])


def _ratio(session: Session, system: System) -> float:
    model, settings = session.model, session.settings.evaluate
    asked = next(plan.scenario for plan in evaluation_plans(session, [System()]) if plan.scenario.prompts)
    pairs = list(zip(asked.prompts, asked.seeds, strict=True))[:IMAGES]
    requests = [SampleRequest(prompt.text, seed) for prompt, seed in pairs]

    def images() -> None:
        guarded(model, model.sample(requests, steps=settings.steps, guidance=settings.guidance, batch=settings.batch))

    own, original = [], []
    with system.on(model, session.guard_context(system)):
        for _ in range(ROUNDS):
            own.append(_seconds(images))
            with edits_off(model):
                original.append(_seconds(images))
    return statistics.median(own) / statistics.median(original)


def _seconds(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
