"""The forms of what an export says of itself: the in-toto statement, its predicate, and the evidence beside it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from ..records import Awareness, Estimate
from ..runs.labels import Word
from ..storage.forms import Frozen

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://duo_unlearn/erasure/v1"
"""The type of the predicate and the version of its form.

It is a name and no address. A host's name cannot have an underscore, so nobody can own this one; Model Signing names
its predicate in the same way.
"""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0)]


class Digest(Frozen):
    """The hash of a file."""

    sha256: Sha256


class Subject(Frozen):
    """A file that the statement is of. name: its path within the folder."""

    name: str
    digest: Digest


class BaseModelOf(Frozen):
    """The model that was edited. fingerprint: of its denoiser's weight files, as `duo` takes it; None: not known."""

    name: str
    fingerprint: str | None
    resolution: int | None = Field(description="Pixels of an image's side; null: the model's own.")


class ConceptOf(Frozen):
    """What was erased. digest: of the concept file as it was read; None: the file was not at hand."""

    name: str
    digest: Sha256 | None
    sensitive: bool = Field(description="Whether pictures of it are blurred.")


class PairsOf(Frozen):
    """The pairs that the edit was made from. digest: of all their members' hashes, in order."""

    count: int
    digest: Sha256


class Below(Frozen):
    """An edit that lies below the one that was exported."""

    name: str
    sha256: str


class EditOf(Frozen):
    """The edit. sha256: of its file in the run, which is also in the hash of the system that was measured."""

    name: str
    kind: Literal["lora", "low-rank", "weights"]
    sha256: Sha256
    eraser: str | None
    method: str | None = Field(description="The eraser in words.")
    settings: dict[str, Any]
    seed: int | None
    made_by: str | None
    below: list[Below]


class ExportOf(Frozen):
    """How the edit was written. difference: of an image from the edit's own, the largest mean, in levels of 255."""

    format: str
    target: str = Field(description="The file that is loaded; empty: the folder itself.")
    removable: bool = Field(description="Whether whoever loads it can leave the change out.")
    strength: float
    precision: Literal["no", "fp16", "bf16"]
    license: str
    difference: Share
    allowed: Share


class Sampling(Frozen):
    """How the images that were judged were sampled."""

    seed: int
    steps: int
    guidance: float
    batch: int
    precision: Literal["no", "fp16", "bf16"]
    quantize: str
    checkpoint_config: str | None
    quick: bool = Field(description="Whether fewer prompts than the default were used for some number.")


class SystemOf(Frozen):
    """A system that was measured: the original, or the edit by itself."""

    name: str
    sha256: Sha256


class Asked(Frozen):
    """An attack on a system with its budget, or plain prompts (attack: direct, no preset). size: how many prompts.

    reason: why it did not run. search: whether a white-box search saw the system's guards.
    """

    system: str
    scenario: str
    kind: str
    attack: str
    title: str
    preset: str | None
    search: Awareness | None
    replay: str | None
    budget: dict[str, Any]
    contract: str | None = Field(description="The detector that the search asked.")
    size: int
    reason: str | None


class Missing(Frozen):
    """What was not measured, and why. Fields that are null mean all."""

    what: str
    reason: str
    system: str | None = None
    scenario: str | None = None
    attack: str | None = None
    preset: str | None = None


class Predicate(Frozen):
    """What is said of the files: what they are, and what was measured of this very edit. Nothing is certified."""

    base: BaseModelOf
    concept: ConceptOf
    pairs: PairsOf | None
    edit: EditOf
    export: ExportOf
    sampling: Sampling
    systems: list[SystemOf] = Field(description="Those that were measured; empty: nothing was.")
    judges: list[str] = Field(description="The contracts of the detectors that judged: labels, threshold, weights.")
    labels: int = Field(description="How many of people's labels correct the rates.")
    attacks: list[Asked] = Field(description="Every attack that was asked for, plain prompts too.")
    measured: list[Estimate] = Field(description="Every estimate, with its 95 % interval and n.")
    not_measured: list[Missing]
    versions: dict[str, str]
    machine: str | None


class Statement(Frozen):
    """An in-toto Statement, version 1."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[Subject] = Field(min_length=1)
    predicateType: Literal["https://duo_unlearn/erasure/v1"]  # noqa: N815, in-toto's name
    predicate: Predicate


class AttemptOf(Frozen):
    """An attempt without its words and its picture. prompt, text: hashes of what was meant and of what was asked."""

    prompt: Sha256
    text: Sha256
    seed: int
    image: Sha256 | None
    refusal: str | None
    shows: dict[str, str]


class GroupOf(Frozen):
    """What was asked, of which system, and the attempts in order."""

    asked: Asked
    sha256: Sha256
    attempts: list[AttemptOf]


class ReadingOf(Frozen):
    """A judge's word on an image. score: what its threshold was applied to; reads: attribute → label."""

    detected: bool
    score: float
    broken: bool
    reads: dict[str, str]


class JudgeOf(Frozen):
    """A judge's readings by the images' hashes, and why an image has none."""

    contract: str
    reader: str
    readings: dict[Sha256, ReadingOf]
    faults: dict[Sha256, str]


class LabelOf(Frozen):
    """A person's word on a picture. labeller: a number in place of a name."""

    sha256: Sha256
    label: Word
    labeller: str
    stratum: Word | None
    contract: str | None


class Evidence(Frozen):
    """evidence.json: all that the predicate is made from.

    change: the sketch of the change of weights. known: the attacks that this version has. pool: the images that labels
    were drawn from. kept: estimates of what is preserved, which need the images themselves.
    """

    version: Literal[1]
    base: BaseModelOf
    concept: ConceptOf
    pairs: PairsOf | None
    edit: EditOf
    export: ExportOf
    change: dict[str, list[float]]
    sampling: Sampling
    systems: list[SystemOf]
    groups: list[GroupOf]
    judges: list[JudgeOf]
    labels: list[LabelOf]
    pool: list[Sha256]
    kept: list[Estimate]
    absent: list[Missing]
    known: list[str]
    versions: dict[str, str]
    machine: str | None
