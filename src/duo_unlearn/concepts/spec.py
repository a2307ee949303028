"""A concept file: what to erase, how to ask for it, how to see it, and what must stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from ..errors import DuoError
from ..storage.forms import Frozen


def _check_words(text: str) -> str:
    if not text.strip():
        raise ValueError("a text needs words")
    if "\0" in text:
        raise ValueError("a text cannot have a NUL character")
    return text


Text = Annotated[str, AfterValidator(_check_words)]
"""Words of a prompt. YAML reads 1, null and yes as no strings; they are refused until they stand in quotes."""
Values = Annotated[list[Text], Field(min_length=1)]
Phrases = Annotated[dict[str, Values], Field(min_length=1)]
"""Label: the words that say it."""
LONGEST_NAME: Final = 100
SetName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=LONGEST_NAME)]
"""A prompt set's name, which is also a folder's."""


class PairKind(Frozen):
    """One kind of pair. Prompts are templates: {name} is filled from `fill`."""

    unsafe: Text = Field(description="Prompt of the unsafe image.")
    safe: Text = Field(description="Prompt of its safe counterpart.")
    shows: dict[str, str] = Field(default={}, description="What the safe image must show, attribute: label.")
    count: int = Field(gt=0, description="How many pairs of this kind.")


class Templates(Frozen):
    """Prompt templates, and what their pictures should show beside the attributes that fill them."""

    templates: Values
    shows: dict[str, str] = Field(default={}, description="What a picture should show, attribute: label.")


SeveralTemplates = Annotated[list[Templates], Field(min_length=1)]


class DetectorSpec(Frozen):
    """The contract by which the concept counts as seen."""

    name: str
    labels: list[Text] = Field(default=[], description="What the detector looks for, in its own form.")
    threshold: float | None = Field(default=None, description="None: the detector's own default.")


class Recommended(Frozen):
    """Settings that work for a family, nested as in a settings file, and where they come from."""

    source: str
    settings: dict[str, Any]


class PaperRun(Frozen):
    """What the authors' scripts use for this concept on one family."""

    beta: float = Field(gt=0)
    max_train_steps: int = Field(ge=1)


class Concept(Frozen):
    """A concept that can be erased. `duo concepts show NAME` prints one as an example."""

    name: SetName
    summary: str
    sensitive: bool = Field(default=True, description="Whether a report blurs the images until they are asked for.")
    detector: DetectorSpec
    judges: list[DetectorSpec] = Field(
        default=[], description="Detectors that score and that nothing else asks. The first one heads every table."
    )
    fill: dict[str, Values | Phrases] = Field(
        default={}, description="Placeholder: its values, or label: phrases when the words differ from the label."
    )
    split: Literal["none", "mini"] = Field(
        default="none",
        description="mini: pairs use combinations that the mini world was trained on, evaluation those held out.",
    )
    pairs: list[PairKind] = Field(min_length=1)
    kept_attributes: list[str] = Field(default=[], description="Attributes that both members of a pair must share.")
    negative_prompt: str | None = Field(default=None, description="For the safe image; None: the unsafe prompt.")
    strength: float = Field(default=0.75, gt=0, le=1, description="SDEdit strength (the paper's: 0.75).")
    attacks: dict[SetName, Templates] = Field(default={}, description="Prompt sets that ask for the concept, by name.")
    plain: Templates | None = Field(
        default=None,
        description="Prompts that do not speak of the concept; attacks that bring it by themselves use them.",
    )
    keep: list[Templates] = Field(default=[], description="Prompts that must go on working.")
    neighbours: dict[SetName, SeveralTemplates] = Field(default={}, description="Prompts near the concept, by name.")
    recommended: dict[str, Recommended] = Field(default={}, description="Settings by family.")
    robust: dict[str, Recommended] = Field(default={}, description="By family, for `recipe: robust`.")
    paper: dict[str, PaperRun] = Field(default={}, description="By family, for `recipe: paper`.")
    joins: list[SetName] = Field(default=[], description="The concepts that this one joins; [] for one by itself.")
    kinds_of: list[SetName] = Field(default=[], description="Of each kind of pair the concept that it is of, so too.")

    @property
    def shows(self) -> dict[str, str]:
        """What a picture of it shows, attribute: label, as its detector says; {} where that names no attribute."""
        return _shown(next(iter(self.detector.labels), ""))

    @property
    def shows_any(self) -> list[dict[str, str]]:
        """What a picture of each of its labels shows, in order: several where concepts are joined; [{}] as `shows`."""
        return [shown for label in self.detector.labels if (shown := _shown(label))] or [{}]

    @property
    def attributes(self) -> list[str]:
        """What its detector's labels are labels of, in order, e.g. ["item"]; [] where they name no attribute."""
        return list(dict.fromkeys(attribute for shown in self.shows_any for attribute in shown))

    @property
    def erased(self) -> str:
        """What an edit of this concept erases, as its provenance says: "sword", or "sword + balloon"."""
        return " + ".join(self.joins or [self.name])

    @property
    def asking(self) -> list[str]:
        """The set that attacks start from, the first that asks; of several concepts as one, the first of each."""
        first: dict[str, str] = {}
        for name in self.attacks:
            first.setdefault(self.asked_by(name) or self.name, name)
        return list(first.values())

    def asked_by(self, name: str) -> str | None:
        """Of several concepts as one, that which a prompt set asks for; None: the set is of no one alone."""
        own = [one for one in self.joins if name in self.attacks and name.startswith(f"{one}-")]
        return max(own, key=len, default=None)

    @property
    def detectors(self) -> dict[str, DetectorSpec]:
        """The judges and the detector by their names."""
        return {spec.name: spec for spec in (*self.judges, self.detector)}

    def detector_named(self, name: str | None) -> DetectorSpec:
        """The detector or judge of a name; None: the detector. One that the concept does not have is a DuoError."""
        known = self.detectors
        if name is not None and name not in known:
            hint = f"one of {', '.join(known)}; or name it under detector: or judges: in the concept file"
            raise DuoError(f"the concept {self.name} has no detector of that name", got=name, hint=hint)
        return self.detector if name is None else known[name]

    def scorers(self, names: Sequence[str] | None, detector: str | None) -> list[DetectorSpec]:
        """The judges that score a run whose detector is `detector`, that of the first table first.

        names: None for the concept's judges and then the run's detector.
        """
        if names is not None:
            return [self.detector_named(name) for name in names]
        asked = self.detector_named(detector)
        return [*(spec for spec in self.judges if spec.name != asked.name), asked]


def _shown(label: str) -> dict[str, str]:
    """What a detector's label says, "item=sword", as attribute: label; {} where a label names no attribute."""
    attribute, _, value = label.partition("=")
    return {attribute: value} if value else {}
