"""What an eraser is: from a run's pairs and a concept to an edit of the base model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..records import Level

if TYPE_CHECKING:
    from pathlib import Path

    from ..concepts.spec import Concept
    from ..families.family import Family
    from ..families.interface import Model
    from ..records import Pair
    from ..runs.folder import Run
    from ..storage.forms import Strict
    from .course import MakeCourse
    from .previews import Watch

State = Literal["done", "already done"]
Reads = Literal["images", "prompts", "images and prompts"]
"""What of the pairs an eraser uses, for tables."""


Makes = Literal["lora", "low-rank", "weights"]
"""The kind of an eraser's edit, as `edits.interface` tells them apart."""


class EraserContext(NamedTuple):
    """What an eraser works on.

    model: the base, without edits. pairs: those that are kept. options: of this eraser, checked. provenance: what is
    known of the run, for the edit's file; the eraser adds what it did. asked: what the run's evaluation asks, where the
    concept has no scenes apart for training; an eraser is given none of it beside the pairs' own prompts. watch: what
    is shown of a training while it goes on, for erasers that watch theirs. bank: captions that attacks on earlier
    rounds found, in place of the options' own file.
    """

    model: Model
    concept: Concept
    run: Run
    pairs: Sequence[Pair]
    options: Any
    seed: int
    provenance: Mapping[str, Any]
    quiet: bool = False
    asked: frozenset[str] = frozenset()
    watch: Watch | None = None
    bank: Path | None = None


class Rounds(NamedTuple):
    """Trainings one after another, each from the original; later ones read what attacks on earlier ones found.

    trainings: how many. attacks: searches on what each gave, with quick budgets but for the fields in `budgets`.
    prompts: how many training prompts they attack. later: options of the trainings after the first, in place of those
    that differ. bank: captions that all of them read beside, or None.
    """

    trainings: int
    attacks: Sequence[str]
    prompts: int
    budgets: Mapping[str, Mapping[str, Any]]
    later: Mapping[str, Any]
    bank: Path | None = None


class Passes(NamedTuple):
    """Rows of a training through the denoiser, and back through it to what is trained or searched for."""

    forward: float
    back: float


Facts = Callable[[EraserContext], Mapping[str, Any]]


def no_facts(_context: EraserContext) -> Mapping[str, Any]:
    """Options, pairs and words decide all."""
    return {}


def _any_options(_family: Family, _options: Any) -> str | None:
    return None


def _no_files(_run: Run, _options: Any) -> None:
    return None


def _one_training(_options: Any) -> Rounds | None:
    return None


class Eraser(NamedTuple):
    """One eraser, as data and functions.

    settings: the class of its options. reads: what of the pairs it uses. why_not(family): why a family cannot have it,
    or None. erase(context, name): writes the edit of that name into the run, or finds it there under the same settings;
    the same context gives the same bytes. trains: whether it is a training that several processes share. course: how
    its training is set up, where it is one by gradient descent. level: where it acts, by the survey's four levels.
    makes: the kind of its edit. on_floor: whether it trains on what lies below it. facts(context): what beside the
    options decides its course, for the provenance. why_not_options(family, options): why a family cannot have it with
    these options, or None. watches: whether its training is measured on held-out pairs and shows pictures.
    rounds(options): the rounds that it trains in, or None for one training. for_wordless(options, pairs): options that
    must be otherwise because pairs have no prompts, dotted → a value that they can have; without it an eraser that
    reads prompts needs one pair that has both. check_files(run, options): a DuoError for a file of its options that
    cannot be read. passes(options): about how many rows its training takes; None: not known beforehand.
    """

    name: str
    title: str
    settings: type[Strict]
    reads: Reads
    why_not: Callable[[Family], str | None]
    erase: Callable[[EraserContext, str], State]
    trains: bool = False
    course: MakeCourse | None = None
    level: Level = "generator"
    makes: Makes = "weights"
    on_floor: bool = False
    facts: Facts = no_facts
    why_not_options: Callable[[Family, Any], str | None] = _any_options
    watches: bool = False
    rounds: Callable[[Any], Rounds | None] = _one_training
    for_wordless: Callable[[Any, Sequence[Pair]], Mapping[str, Any]] | None = None
    check_files: Callable[[Run, Any], None] = _no_files
    passes: Callable[[Any], Passes] | None = None


def why_no_floor(floor: Eraser, eraser: Eraser) -> str | None:
    """Why the edit of one eraser cannot lie below that of another, or None."""
    if floor.name == eraser.name:
        return "a system holds each edit once"
    if floor.makes == "lora":
        return "it makes an adapter, which a training on top of it would switch off in its reference"
    if not eraser.on_floor:
        return f"{eraser.name} is not made to train on top of another edit; robust-duo is"
    return None


def checked_options(eraser: Eraser, options: Mapping[str, Any]) -> Strict:
    """The options of an eraser, checked; what it does not know, or cannot take, is a DuoError."""
    from pydantic import ValidationError

    from ..errors import DuoError
    from ..storage.forms import faults

    try:
        return eraser.settings.model_validate(dict(options))
    except ValidationError as error:
        got = "; ".join(faults(error, eraser.settings.model_fields))
        raise DuoError(f"options of the eraser {eraser.name} have faults", got=got, hint="duo erasers") from error
