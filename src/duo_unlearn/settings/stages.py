"""The settings of a run's stages but the training: how pairs are made, and what is sampled and judged."""

from __future__ import annotations

from pydantic import Field

from ..families.family import MOST_STEPS
from ..storage.forms import Strict
from .names import Names, PathName


class PairSettings(Strict):
    """How pairs are made, or where yours are."""

    folder: PathName | None = Field(None, description="Your own pairs: a folder with unsafe/ and safe/, or a manifest.")
    scale: float = Field(1.0, gt=0, description="Multiplies every count of the concept file.")
    guidance: float = Field(
        7.5, ge=0, description="Guidance scale for both images; unless given, the family's (authors: 7.5)."
    )
    steps: int = Field(50, ge=2, le=MOST_STEPS, description="Sampling steps.")
    strength: float | None = Field(None, gt=0, le=1, description="SDEdit strength; None: the concept's.")
    batch: int = Field(8, ge=1, description="Images sampled at once.")
    tries: int = Field(4, ge=1, description="Attempts a pair at most, on average over its kind.")
    trust: bool = Field(False, description="Take your own pairs also when their sides look swapped.")
    held_out: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Pairs that a training is measured on, as a share: made beside the others, or taken from yours.",
    )


class EvaluateSettings(Strict):
    """What is sampled and judged."""

    prompts: int = Field(300, ge=1, description="Attempts of each prompt set that asks for the concept.")
    keep_prompts: int = Field(300, ge=1, description="Prompts that must go on working.")
    neighbour_prompts: int = Field(150, ge=1, description="Prompts of each neighbour.")
    inversion_prompts: int = Field(100, ge=0, description="Prompts under the inverted token; 0 skips the inversion.")
    inversion_steps: int = Field(300, ge=1, description="Steps of the quick textual inversion.")
    inversion_batch: int = Field(8, ge=1, description="Images a step of the textual inversion.")
    guidance: float = Field(7.5, ge=0, description="Guidance scale; unless given, the family's.")
    steps: int = Field(25, ge=2, le=MOST_STEPS, description="Sampling steps.")
    batch: int = Field(8, ge=1, description="Images sampled at once.")
    fuse_adapters: bool = Field(
        False, description="Adapters are put into the weights where nothing but sampling is done."
    )
    judges: Names | None = Field(
        None,
        min_length=1,
        description="Which of the concept's detectors score, by name; the first heads every table. None: all of them.",
    )
    captions: PathName | None = Field(
        None, description="Captions that must go on working too: COCO's (.json), or a file of prompts; null: none."
    )
    caption_prompts: int = Field(1000, ge=1, description="How many captions; all of them where there are fewer.")
    reference: PathName | None = Field(
        None,
        description="A folder of images that FID, KID and CMMD are measured from: those of the captions, or of every "
        "prompt set where there are none. None: the original's images.",
    )

    @property
    def counts(self) -> set[str]:
        """The names of the settings that say how many prompts are asked."""
        return {name for name in type(self).model_fields if name.endswith("prompts")}
