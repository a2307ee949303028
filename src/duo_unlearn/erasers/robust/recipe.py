"""The recipe `robust`: robust DUO on a floor. A concept file has its settings where they were searched for.

Elsewhere they are scaled from DUO's own there, by reasons and not by measurement. β, λ and the learning rate are DUO's:
the preference term is the same. The weight w of what must stay keeps its ratio to β that held on the mini model, as the
gradient of the preference is β/2 at its start and that of L_hold is 2w times the distance. The search has the mini
model's steps and rate, which are in units of an embedding's Adam step, and so depend on no width.

There is one round, on the mini model and elsewhere: each further one costs another training and its searches, and what
it brings is not measured. `erasers.robust-duo.rounds=2` on top of the recipe asks for two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ...concepts.spec import Concept

if TYPE_CHECKING:
    from ...families.family import Family
    from ..duo.settings import TrainSettings

HOLD: Final = 1.5
"""w / β on the mini model."""
SHARED: Final = (
    "beta", "prior_weight", "learning_rate", "lr_scheduler", "max_train_steps", "train_batch_size", "rank",
    "adapter_targets", "adam_weight_decay", "max_grad_norm", "max_timestep", "share_timestep", "sides", "pairing",
    "mixed_precision", "gradient_checkpointing", "compile",
)  # fmt: skip
"""What is DUO's own."""


def robust_settings(concept: Concept, family: Family, train: TrainSettings) -> dict[str, Any]:
    """Settings, nested as in a settings file. train: DUO's own for the concept and family.

    A family that does not read CLIP alone has no search, whose tokens are CLIP's. One without cross-attention has no
    floor.
    """
    if family.name in concept.robust:
        return concept.robust[family.name].settings
    options: dict[str, Any] = {name: getattr(train, name) for name in SHARED}
    options["hold_weight"] = HOLD * train.beta
    if not family.reads_clip_alone:
        options["captions"] = {"unsafe": 0.5, "own": 0.0, "empty": 0.2, "random": 0.3, "bank": 0.0, "search": 0.0}
    floor = {"floor": "uce"} if family.denoiser == "unet" else {}
    return {"eraser": "robust-duo", **floor, "erasers": {"robust-duo": options}}


def said_of_duo(concept: Concept, family: str, train: TrainSettings, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, nested, that follow from what is given of DUO's objective. train: that objective, checked.

    The weight of what must stay keeps its ratio to β.
    """
    options = {name: getattr(train, name) for name in SHARED if name in given}
    if "beta" in options and family not in concept.robust:
        options["hold_weight"] = HOLD * train.beta
    return {"erasers": {"robust-duo": options}} if options else {}


def source_of(concept: Concept, family: str) -> str:
    """Where the recipe's settings for a family come from."""
    if family in concept.robust:
        return concept.robust[family].source
    return "scaled from DUO's own by reasons (docs/robust.md), not measured on published weights"
