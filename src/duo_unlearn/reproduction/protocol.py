"""A protocol: what a publication did and found, and within which tolerance a reproduction must find the same.

It is data, one YAML file each. Tolerances stand in it before anything runs, and a results file has its hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ..attacks.registry import ATTACKS
from ..concepts.captions import CAPTIONS
from ..concepts.store import load_concept
from ..errors import DuoError
from ..storage.files import digest
from ..storage.forms import Frozen, faults, read_yaml

SHIPPED: Final = Path(__file__).parent / "protocols"
METRICS: Final = (
    "dsr", "detected", "refused", "broken", "prior preservation", "fid", "kid", "cmmd", "clip score", "lpips",
)  # fmt: skip
"""What is measured beside agreements, by the names of results.json."""


class AttackOf(Frozen):
    """An attack with a published or the quick budget, on so many prompts."""

    name: str
    preset: Literal["quick", "paper"] = "paper"
    prompts: int = Field(ge=1)


class CaptionsOf(Frozen):
    """COCO's captions that a publication asked, of the user's own copy. images: how many that file has captions of."""

    split: Literal["val", "train"] = "val"
    year: int
    images: int = Field(ge=1)
    prompts: int = Field(ge=1)


class Published(Frozen):
    """A number that a publication gives, and how far off a reproduction may be.

    beta: of which DUO it is; None: of the original model. change: the number is how much higher it is than the
    original's. judges: whose numbers may stand beside it, as contracts begin; [] for any.
    """

    metric: str
    scenario: str
    concept: str | None = Field(default=None, description="Of several, the one that was asked.")
    attack: str | None = None
    preset: Literal["quick", "paper"] | None = None
    beta: float | None = Field(default=None, gt=0)
    change: bool = False
    value: float
    tolerance: float = Field(gt=0)
    judges: tuple[str, ...] = ()
    source: str


class Protocol(Frozen):
    """What is done, with which settings, and what was published of it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    source: str
    model: str
    concepts: tuple[str, ...] = Field(min_length=1, description="Several: trained apart, and added up.")
    settings: dict[str, Any] = Field(default={}, description="Nested, as in a settings file.")
    seed: int = Field(default=0, ge=0)
    betas: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    attacks: tuple[AttackOf, ...] = ()
    captions: CaptionsOf | None = None
    departures: tuple[str, ...] = Field(default=(), description="What is not as it was published, a sentence each.")
    published: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        for one in self.attacks:
            if one.name not in ATTACKS.names():
                raise ValueError(f"attacks: {one.name} is none of `duo attacks`")
        for what, values in (("betas", self.betas), ("concepts", self.names)):
            if len(set(values)) < len(values):
                raise ValueError(f"{what}: one is named twice")
        return self

    @model_validator(mode="after")
    def _check_published(self) -> Self:
        concepts = [load_concept(name) for name in self.concepts]
        asked = {"keep", CAPTIONS, *(name for c in concepts for name in (*c.attacks, *c.neighbours))}
        attacks = {(one.name, one.preset) for one in self.attacks} | {(None, None)}
        for row in self.published:
            if row.metric not in METRICS and not row.metric.endswith(" agreement"):
                raise ValueError(f"published: {row.metric} is no metric ({', '.join(METRICS)}, or NAME agreement)")
            if row.scenario not in asked:
                raise ValueError(f"published: {row.scenario} is no prompt set of the concept")
            if row.beta not in (None, *self.betas):
                raise ValueError(f"published: β {row.beta:g} is not among betas")
            if (row.attack, row.preset) not in attacks:
                raise ValueError(f"published: {row.attack} ({row.preset}) is not among attacks")
            if len(self.concepts) > 1 and row.concept not in self.names and row.scenario != CAPTIONS:
                raise ValueError("published: of several concepts, one must be named")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts as folders, figures and numbers are named after them: a file's name without its ending."""
        return tuple(Path(concept).stem for concept in self.concepts)

    @property
    def digest(self) -> str:
        """The SHA-256 of all that it says, tolerances too."""
        return digest(self.model_dump(mode="json"))


def protocol_names() -> list[str]:
    """The protocols that there are, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_protocol(name: str) -> Protocol:
    """A shipped protocol by its name, or one of the user's in a .yaml file. DuoError: it is none, or has faults."""
    path = SHIPPED / f"{name}.yaml" if name in protocol_names() else Path(name)
    if path.suffix not in (".yaml", ".yml"):
        hint = f"one of {', '.join(protocol_names())}, or a .yaml file"
        raise DuoError("unknown protocol", got=repr(name[:100]), hint=hint)
    try:
        return Protocol.model_validate(read_yaml(path, "protocol"))
    except ValidationError as error:
        got = "; ".join(faults(error, Protocol.model_fields))[:400]
        raise DuoError(
            f"the protocol {path} has faults", got=got, hint="docs/reproduce.md describes the form"
        ) from error
