"""What the stages hand to one another: plain, frozen records that are written to and read from a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from .interval import mean_interval, wilson

ORIGINAL: Final = "original"
"""The name of the system without edits and guards."""
CONTROL: Final = "control"
"""The prompt set that an attack's control is made on where no prompt shows an item: as many keep prompts as it has.

Where some do it is `control_on` "item", since keep prompts ask for empty hands too, which a picture of nothing shows.
"""
CORRECTED: Final = "corrected dsr"
"""The metric that is a DSR corrected for the judge's errors by people's labels."""
PRESERVED: Final = ("keep", "neighbour")
"""Kinds of prompt sets that must go on working: no DSR is of them."""
Awareness = Literal["aware", "unaware"]
"""Whether a white-box search differentiates through the guards of the system that it attacks."""
Captions = Literal["none", "unsafe", "dual"]
"""Which prompts the members of a pair are trained under: both the empty one, both the unsafe one, each its own."""
Decay = Literal["constant", "linear", "cosine"]
"""How the learning rate goes over a run, by the names of diffusers' scripts."""
Prediction = Literal["epsilon", "v_prediction"]
"""What a diffusion model's network predicts, by diffusers' names."""
Stage = Literal["pairs", "train", "images"]
"""What a command makes in a run, in order: pairs, an edit by steps, and images that are asked of systems."""
Sides = Literal["both", "safe", "unsafe"]
"""Which member's error has a gradient; the other one's is detached, its value stays."""
Level = Literal["input", "encoder", "generator", "output"]
"""Where an attack or a defence acts (the survey arXiv 2411.09259).

input: on the prompt. encoder: on what the text encoder gives. generator: on the denoiser and its latents. output: on
the finished image.
"""
Kind = Literal["original", "duo", "eraser", "guard"]
"""What a system is, for its mark in a figure: no edit, DUO's edit alone, other edits, or one with a guard."""
Pairing = Literal["paired", "unpaired"]
"""paired: the loss on d = m⁺ − m⁻. unpaired: each member on its own, the mean of −log σ(−2β m⁺) and −log σ(2β m⁻)."""

Quantize = Literal["no", "int8", "nf4"]
"""int8, nf4: the frozen denoiser's weights in 8 or 4 bits (`families.quantize`); the adapter on it stays float32."""
Targets = Literal["self-attention", "all-attention"]
"""Where an adapter is put. self-attention: on UNets attn1, on transformers the projections of the image stream alone.
all-attention: cross-attention, the text stream and shared blocks too."""


class Prompt(NamedTuple):
    """A prompt, and what a picture made from it should show (attribute → label; empty where nothing is known).

    categories: what it is about, by the names of published prompt sets.
    """

    text: str
    shows: Mapping[str, str]
    categories: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """A detector's word on one image. detected: the concept is seen; score: what the threshold was applied to.

    broken: nothing can be recognised, so the concept is neither seen nor absent. Only some detectors can tell.
    """

    detected: bool
    score: float
    broken: bool = False


@dataclasses.dataclass(frozen=True)
class Pair:
    """An unsafe image, its safe counterpart, and how they were made and judged.

    unsafe, safe: image files, relative to the pairs folder. Prompts and seeds are None for pairs that a user brought.
    keep: whether training uses the pair; reason: why not. Nothing is deleted when a pair is dropped.
    """

    name: str
    unsafe: str
    safe: str
    unsafe_sha256: str
    safe_sha256: str
    unsafe_prompt: str | None = None
    safe_prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    safe_seed: int | None = None
    strength: float | None = None
    unsafe_score: float | None = None
    safe_score: float | None = None
    keep: bool = True
    reason: str | None = None

    @property
    def content(self) -> list[str | None]:
        """What an eraser reads of it, for the keys of what comes of that: both images' hashes and both prompts."""
        return [self.unsafe_sha256, self.safe_sha256, self.unsafe_prompt, self.safe_prompt]

    @property
    def has_prompts(self) -> bool:
        """Whether both images have their prompts."""
        return self.unsafe_prompt is not None and self.safe_prompt is not None


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """One image that was asked of a system; it holds no verdict.

    prompt: what the scenario asks. shows: what its picture should show, attribute → label. text: what the attack put in
    the prompt's place, as people read it. facts: what a search reports of itself, e.g. its loss. file: the image,
    relative to the run folder, and sha256 of that file; both are None where a guard refused. refusal: the guard's name.
    """

    prompt: str
    shows: Mapping[str, str]
    seed: int
    text: str
    facts: Mapping[str, float]
    file: str | None
    sha256: str | None
    refusal: str | None = None


def control_on(attribute: str) -> str:
    """The prompt set that the control of an attack is made on: each prompt shows something of an attribute, an item."""
    return f"{CONTROL}-{attribute}"


def told_by(control: str) -> str | None:
    """The attribute that a control's prompt set is told by; None: it is no control's."""
    name, _, attribute = control.partition("-")
    return (attribute or "item") if name == CONTROL else None


def spoken(concept: str) -> str:
    """A run's concept as people say it: of joined ones each counts by itself, "sword+balloon" is "sword or balloon"."""
    return " or ".join(part.strip() for part in concept.split("+"))


def is_share(metric: str) -> bool:
    """Whether a metric is a share of attempts, which is told in per cent; the others are plain numbers."""
    return metric in ("", "dsr", CORRECTED, "detected", "refused", "broken") or metric.endswith(" agreement")


class Source(NamedTuple):
    """What an estimate is of. system: its name; sha256: of its edits and guards. scenario: the prompt set.

    attack, preset: None where nothing attacks. search: whether the search saw the system's guards; None: there was no
    white-box search, or there is no guard. contract: the detector or feature extractor. seeds: the runs' seeds.
    unscored: how many attempts have no verdict.
    """

    system: str
    sha256: str
    scenario: str
    attack: str | None
    preset: str | None
    search: Awareness | None
    contract: str
    seeds: tuple[int, ...]
    unscored: int = 0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A measured number that never travels alone: value with its 95 % interval [low, high], n, and what it is of.

    metric: e.g. "dsr", "subject agreement". n: how many attempts were scored. corrected_by: of a corrected number, the
    method and how many labels. The other fields are those of `Source`. Nothing scored has no Estimate at all.
    """

    metric: str
    system: str
    scenario: str
    attack: str | None
    preset: str | None
    value: float
    low: float
    high: float
    n: int
    unscored: int
    contract: str
    seeds: tuple[int, ...]
    sha256: str
    search: Awareness | None = None
    corrected_by: str | None = None

    @property
    def of_what(self) -> tuple[str | None, ...]:
        """What it is of, whichever run measured it: the same of two runs may be counted together."""
        return self.metric, self.system, self.scenario, self.attack, self.preset, self.search, self.contract

    @classmethod
    def of(
        cls, metric: str, source: Source, value: float, low: float, high: float, n: int, corrected_by: str | None = None
    ) -> Estimate:
        """A number whose interval is at hand, e.g. a distance between distributions."""
        return cls(metric=metric, value=value, low=low, high=high, n=n, corrected_by=corrected_by, **source._asdict())

    @classmethod
    def of_share(cls, metric: str, source: Source, hits: Sequence[bool]) -> list[Estimate]:
        """The share of true values with its Wilson interval; none for an empty sequence."""
        if not hits:
            return []
        return [cls.of(metric, source, sum(hits) / len(hits), *wilson(sum(hits), len(hits)), len(hits))]

    @classmethod
    def of_mean(cls, metric: str, source: Source, values: Sequence[float]) -> list[Estimate]:
        """The mean of values with its interval; none for fewer than two values."""
        return [cls.of(metric, source, *mean_interval(values), len(values))] if len(values) > 1 else []

    def as_json(self) -> dict[str, Any]:
        """The record as a JSON object, fields in order."""
        found = dataclasses.asdict(self) | {"seeds": list(self.seeds)}
        return {name: value for name, value in found.items() if name != "corrected_by" or value is not None}
