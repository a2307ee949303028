"""The recipe `robust`: robust DUO on a floor. A concept file has its settings where they were searched for.

Elsewhere they are scaled from DUO's own there, by reasons and not by measurement. β, λ and the learning rate are DUO's:
the preference term is the same. The weight w of what must stay keeps its ratio to β that held on the mini model, as the
gradient of the preference is β/2 at its start and that of L_hold is 2w times the distance. The search has the mini
model's steps and rate, carried over unscaled. Whether they suit embeddings of another width is not tested.

There is one round, on the mini model and elsewhere: each further one costs another training and its searches, and what
it brings is not measured. `erasers.robust-duo.rounds=2` on top of the recipe asks for two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ...concepts.spec import Concept
from ...errors import DuoError
from ..duo.settings import ObjectiveSettings

if TYPE_CHECKING:
    from ...families.family import Family
    from ..duo.settings import TrainSettings

SHARED: Final = tuple(ObjectiveSettings.model_fields)
"""What is DUO's own."""


class _Lacking(NamedTuple):
    """An option of DUO's training that robust DUO has not. why: what it does instead; as_if: the value that this is."""

    why: str
    as_if: Any = ...


LACKING: Final[Mapping[str, _Lacking]] = {
    "prior_every": _Lacking("the prior term is in every step", 1),
    "reference_bank": _Lacking("the reference is asked anew in every step", 0),
    "gradient_accumulation_steps": _Lacking("a step reads train.train_batch_size pairs", 1),
    "captions": _Lacking("what pairs read has shares in erasers.robust-duo.captions"),
    "caption_dropout": _Lacking("the empty prompt has a share, erasers.robust-duo.captions.empty"),
    "checkpointing_steps": _Lacking("how often its state is saved is fixed"),
    "keep_checkpoints": _Lacking("the last adapter alone is kept", 0),
    "preview_steps": _Lacking("it shows no previews", 0),
    "report_to": _Lacking("its figures are in train/ alone", None),
}


def robust_settings(concept: Concept, family: Family, train: TrainSettings) -> dict[str, Any]:
    """Settings, nested as in a settings file. train: DUO's own for the concept and family.

    A family that does not read CLIP alone has no search, whose tokens are CLIP's. One without cross-attention has no
    floor.
    """
    if family.name in concept.robust:
        return concept.robust[family.name].settings
    options: dict[str, Any] = {name: getattr(train, name) for name in SHARED}
    if not family.reads_clip_alone:
        options["captions"] = {"unsafe": 0.5, "own": 0.0, "empty": 0.2, "random": 0.3, "bank": 0.0, "search": 0.0}
    floor = {"floor": "uce"} if family.denoiser == "unet" else {}
    return {"eraser": "robust-duo", **floor, "erasers": {"robust-duo": options}}


def said_of_duo(train: TrainSettings, given: Mapping[str, Any], *, scaled: bool = True) -> dict[str, Any]:
    """Settings, nested, that follow from what is given of DUO's objective. train: that objective, checked.

    scaled: whether w follows β. A run may have its number written down, which gives way.
    """
    options: dict[str, Any] = {name: getattr(train, name) for name in SHARED if name in given}
    if scaled and "beta" in options:
        options["hold_weight"] = None
    return {"erasers": {"robust-duo": options}} if options else {}


def check_said(given: Mapping[str, Any], train: TrainSettings, before: TrainSettings) -> None:
    """Fail for what is given of DUO's training and would have no effect here.

    train: DUO's training with what is given; before: without. A value that changes nothing is let through.
    """
    said = {name: getattr(train, name) for name in LACKING if name in given}
    lost = [name for name, value in said.items() if value not in (getattr(before, name), LACKING[name].as_if)]
    if lost:
        got = ", ".join(f"train.{name}={said[name]}" for name in lost)
        why = "; ".join(f"{name}: {LACKING[name].why}" for name in lost)
        raise DuoError("the recipe robust has no such option of DUO's training", got=got, hint=f"leave it out; {why}")


def without_lacking(train: Mapping[str, Any]) -> dict[str, Any]:
    """DUO's training as another run of the recipe is told it: what the recipe has not was said by nobody."""
    return {name: value for name, value in train.items() if name not in LACKING}


def source_of(concept: Concept, family: str) -> str:
    """Where the recipe's settings for a family come from."""
    if family in concept.robust:
        return concept.robust[family].source
    return "scaled from DUO's own by reasons (docs/robust.md), not measured on published weights"
