"""Making an edit of a run by its eraser: on its floor, in all its rounds, with its provenance."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

from ..edits.files import read_edit
from ..edits.lora import detach
from ..erasers.interface import Eraser, EraserContext, State, checked_options
from ..erasers.registry import ERASERS
from ..erasers.wraps import wrapped
from ..errors import DuoError
from ..pairs.manifest import MANIFEST
from ..runs.machine import alone, is_first_process
from ..runs.spent import Clock, stopwatch
from ..session import Session
from ..settings.check import check_family
from ..settings.tree import Settings
from ..settings.wordless import check_words
from .held_out import watch_of
from .plans import evaluated_texts
from .rounds import Say, Training, in_rounds, silent


class EditPlan(NamedTuple):
    """An edit to be made. name: its own. options: of the eraser, in place of the run's where they are given.

    floor: the eraser whose edit lies below it.
    """

    name: str
    eraser: str
    options: Mapping[str, Any] = {}
    wrap: str | None = None
    floor: str | None = None

    def over(self, settings: Settings) -> Settings:
        """A run's settings with this edit in the place of their own."""
        options = {**settings.erasers.get(self.eraser, {}), **self.options}
        return settings.model_copy(
            update={
                "eraser": self.eraser, "wrap": self.wrap, "floor": self.floor,
                "erasers": {**settings.erasers, self.eraser: options},
            }
        )  # fmt: skip

    def is_own(self, settings: Settings) -> bool:
        """Whether it is the run's own edit, which is made as `duo train` makes it, so that it is one and the same."""
        return self == EditPlan(settings.edit, settings.eraser)

    def floor_in(self, settings: Settings) -> str | None:
        """What lies below it in a run."""
        return settings.floor if self.is_own(settings) else self.floor


def make_edit(session: Session, plan: EditPlan | None = None, clock: Clock = time.time, say: Say = silent) -> State:
    """Make an edit from the run's pairs, in all its rounds, with its provenance. plan: another one than the settings'.

    clock: the time that it takes is counted by, with that of processes that were stopped before it was done.
    """
    return _in_rounds(session, plan, lambda training: _make(session, plan, training, clock), say)


def _in_rounds(session: Session, plan: EditPlan | None, train: Callable[[Training], State], say: Say) -> State:
    """Make an edit as its eraser's options say: by one training, or in rounds."""
    session.begin()
    settings = _settings(session, plan)
    if not (session.run.pairs / MANIFEST).exists():
        hint = "run `duo pairs` first, or `duo erase` for all stages"
        raise DuoError(f"{session.run.folder} holds no pairs", hint=hint)
    if not session.pairs:
        raise DuoError(f"every pair in {session.run.pairs} is dropped", hint="take some back: duo drop RUN NAME --undo")
    check_family(settings, session.family)
    check_words(settings, session.pairs)
    eraser = ERASERS.get(settings.eraser)
    rounds = eraser.rounds(_options(eraser, settings))
    return in_rounds(session, settings.edit if plan is None else plan.name, settings.floor, rounds, train, say)


def _settings(session: Session, plan: EditPlan | None) -> Settings:
    return session.settings if plan is None else plan.over(session.settings)


def _options(eraser: Eraser, settings: Settings, training: Training | None = None) -> Any:
    """The options of an eraser by some settings, with those of a training on top."""
    return checked_options(eraser, {**settings.own, **(training.options if training is not None else {})})


def _make(session: Session, plan: EditPlan | None, training: Training, clock: Clock) -> State:
    """Make the edit of one training."""
    name, settings = training.name, _settings(session, plan)
    kept = session.run.checkpoint(name)
    resumes = is_first_process() and ERASERS.get(settings.eraser).course is not None
    with stopwatch(kept.with_name("seconds.json") if resumes else None, kept, clock) as seconds:
        state = _erased(session, plan, training)
        own = plan is None and name == settings.edit
        return session.finish("train" if own else f"train {name}", seconds(), state)


def _erased(session: Session, plan: EditPlan | None, training: Training) -> State:
    """What the eraser does in one training."""
    detach(session.model)  # an evaluation leaves adapters on it, switched off
    settings = _settings(session, plan)
    eraser = ERASERS.get(settings.eraser)
    options = _options(eraser, settings, training)
    provenance = {
        "made_by": f"duo_unlearn {version('duo_unlearn')}", "eraser": eraser.name, "concept": session.concept.erased,
        "model": settings.model, "base": session.model.fingerprint(), "seed": settings.seed,
    }  # fmt: skip
    if settings.wrap is not None:
        eraser = wrapped(eraser, settings.wrap, settings.wraps.get(settings.wrap, {}))
    if not eraser.trains:
        alone(f"train with {eraser.name}")
    asked = evaluated_texts(session)
    with _floor(session, settings.floor) as below:
        context = EraserContext(
            session.model, session.concept, session.run, session.pairs, options, settings.seed, {**provenance, **below},
            quiet=session.quiet, asked=asked, watch=watch_of(session, asked) if eraser.watches else None,
            bank=training.bank,
        )  # fmt: skip
        return eraser.erase(context, training.name)


def make_edit_by_one(session: Session, say: Say = silent) -> State:
    """Make the run's edit. One of the processes that erase together trains, and the others wait, without a model.

    All of them share the attacks between rounds.
    """
    name = f"edit.{session.settings.floor or session.settings.edit}"

    def train(training: Training) -> State:
        with session.run.claim(name) as mine:
            if mine:
                return _make(session, None, training, time.time)
        session.unload()
        with session.run.claim(name, wait=True):
            return _make(session, None, training, time.time)

    return _in_rounds(session, None, train, say)


@contextlib.contextmanager
def _floor(session: Session, name: str | None) -> Iterator[dict[str, Any]]:
    """The edit of an eraser by that name acts inside the block, and is made first; gives what provenance says of it."""
    if name is None:
        yield {}
        return
    make_edit(session, EditPlan(name, name))
    edit = read_edit(session.run.edit(name), name)
    with edit.on(session.model):
        yield {"on": [{"name": name, "sha256": edit.sha256}]}
