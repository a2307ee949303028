"""`duo sample`: a sheet of a model's images, with or without an edit, or of a system of a run; a row a prompt."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..edits.below import check_strength, edits_below, together
from ..edits.files import check_base, read_edit
from ..errors import DuoError
from ..families.interface import Model, SampleRequest
from ..families.load import load_model, pick_device
from ..progress import progress
from ..records import ORIGINAL
from ..runs.folder import Run
from ..session import Session
from ..settings.resolve import resolve_settings
from ..settings.source import edit_source, settings_of
from ..settings.tree import Settings
from ..storage.files import seed_of
from ..storage.pictures import check_sheet, save_png, sheet
from .target import guarded


class Subject(NamedTuple):
    """What is sampled: a base model, and a context in which it is the edited one."""

    model: Model
    on: AbstractContextManager[None]


def sample_sheet(
    prompts: Sequence[str],
    path: Path,
    *,
    adapter: Path | None = None,
    system: str | None = None,
    model: str | None = None,
    strength: float = 1.0,
    compare: bool = False,
    count: int = 4,
    seed: int = 0,
    steps: int = 25,
    guidance: float = 5.0,
    device: str = "auto",
) -> None:
    """Write a PNG with `count` images of each prompt, in a row; one that a guard refuses is black.

    adapter: a run folder, whose eraser's edit is taken, an edit's folder or its file; None: the model as it is. system:
    the name of a system of that run folder, in place of one edit; strength is of all its edits. model: None for that of
    the run, or else the default, which is loaded in float32; a system has that of its run. compare: two rows a prompt,
    the base above what was asked for, from the same noise.
    """
    check_sheet(path)
    _check_asked(prompts, {"strength": strength, "guidance": guidance})
    if strength != 1 and adapter is None:
        hint = "name an adapter: --adapter runs/erase"
        raise DuoError("a strength is that of an edit", got=f"--strength {strength:g} alone", hint=hint)
    if compare and adapter is None:
        raise DuoError("there is nothing to compare the model with", hint="name an adapter: --adapter runs/erase")
    subject = _subject(adapter, system, model, strength, device)
    requests = [SampleRequest(prompt, seed_of(seed, "sample", i)) for prompt in prompts for i in range(count)]
    grids = []
    plain: list[AbstractContextManager[None]] = [contextlib.nullcontext()] if compare else []
    for place in [*plain, subject.on]:
        with place, progress("sample", len(requests)) as report:
            made = subject.model.sample(requests, steps=steps, guidance=guidance, batch=8, report=report)
            side = (subject.model.resolution, subject.model.resolution)
            grids.append([image or Image.new("RGB", side) for image in guarded(subject.model, made)])
    save_png(sheet([images[i : i + count] for i in range(0, len(requests), count) for images in grids]), path)


def _check_asked(prompts: Sequence[str], numbers: Mapping[str, float]) -> None:
    """Fail for a prompt that no tokenizer reads, and for numbers that give no picture."""
    for prompt in prompts:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            hint = "type it again, in a terminal that sends UTF-8"
            raise DuoError("a prompt is not UTF-8", got=repr(prompt)[:120], hint=hint) from error
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise DuoError(f"the {name} must be a finite number", got=str(number), hint=f"--{name} 1")


def _subject(source: Path | None, system: str | None, model: str | None, strength: float, device: str) -> Subject:
    if source is None and system is not None:
        raise DuoError("a system is one of a run", got=f"--system {system}", hint="--adapter: its run folder")
    if source is None:
        return Subject(load_model(model or Settings().model, pick_device(device)), contextlib.nullcontext())
    if system is not None:
        if model is not None:
            hint = "leave --model out; or name the edit's folder, and no --system"
            raise DuoError("a system is sampled on the model of its run", got=f"--model {model}", hint=hint)
        return _system(source, system, strength, device)
    return _edited(source, model, strength, device)


def _edited(source: Path, model: str | None, strength: float, device: str) -> Subject:
    """The base of an edit as its run had it, but in float32, and the edit at a strength."""
    place = edit_source(source)
    edit = read_edit(place.place, place.name, strength=strength)
    settings = settings_of(place, edit.provenance, model)
    base = load_model(
        settings.model, pick_device(device), resolution=settings.resolution,
        checkpoint_config=settings.checkpoint_config,
    )  # fmt: skip
    check_base(edit, base)
    below = edits_below(edit, place.run.edits if place.run is not None else None)
    check_strength(below, strength)
    return Subject(base, together([*below, edit], base))


def _system(folder: Path, name: str, strength: float, device: str) -> Subject:
    """A system of a run, its edits at a strength, on the run's model as it is evaluated."""
    return _of_session(session_of(folder, device), name, strength)


def session_of(folder: Path, device: str = "auto") -> Session:
    """The session of a run that is there; its model is loaded when it is first asked for."""
    run = Run(folder)
    run.check_form()
    if not run.settings.exists():
        raise run.no_run("run `duo erase` first")
    return Session(resolve_settings({"output": str(folder), "device": device}), quiet=True)


def compared(
    session: Session, prompt: str, *, system: str, strength: float, seed: int, steps: int, guidance: float,
    say: Callable[[str], None],
) -> list[Image.Image | None]:  # fmt: skip
    """The original's image of a prompt and a system's, from the same noise; None in place of one that a guard refuses.

    They are those of `duo sample --compare --count 1` with these options. say: called with what is done next.
    """
    say("loading the model")
    subject = _of_session(session, system, strength)
    request = SampleRequest(prompt, seed_of(seed, "sample", 0))
    shown: list[Image.Image | None] = []
    for name, place in ((ORIGINAL, contextlib.nullcontext()), (system, subject.on)):
        say(f"drawing: {name}")
        with place:
            made = subject.model.sample([request], steps=steps, guidance=guidance, batch=1)
            shown += guarded(subject.model, made)
    return shown


def _of_session(session: Session, name: str, strength: float) -> Subject:
    known = session.system(name)
    chosen = dataclasses.replace(known, edits=tuple(edit._replace(strength=strength) for edit in known.edits))
    session.check_system(chosen)
    return Subject(session.model, chosen.on(session.model, session.guard_context(chosen)))
