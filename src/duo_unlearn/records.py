"""What the stages hand to one another: plain, frozen records that are written to and read from a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

ModelName = Literal["original", "erased"]
Captions = Literal["none", "unsafe", "dual"]
"""Which prompts the members of a pair are trained under: both the empty one, both the unsafe one, each its own."""
Decay = Literal["constant", "linear", "cosine"]
"""How the learning rate goes over a run, by the names of diffusers' scripts."""
Prediction = Literal["epsilon", "v_prediction"]
"""What a diffusion model's network predicts, by diffusers' names."""
Sides = Literal["both", "safe", "unsafe"]
"""Which member's error has a gradient; the other one's is detached, its value stays."""
Pairing = Literal["paired", "unpaired"]
"""paired: the loss on d = m⁺ − m⁻. unpaired: each member on its own, the mean of −log σ(−2β m⁺) and −log σ(2β m⁻)."""

Quantize = Literal["no", "int8"]
"""int8: the frozen denoiser's weights in 8 bits (torchao, weight only); the adapter on it stays float32."""
Targets = Literal["self-attention", "all-attention"]
"""Where an adapter is put. self-attention: on UNets attn1, on transformers the projections of the image stream alone.
all-attention: cross-attention, the text stream and shared blocks too."""


class Prompt(NamedTuple):
    """A prompt, and what a picture made from it should show (attribute → label; empty where nothing is known)."""

    text: str
    shows: Mapping[str, str]


class Verdict(NamedTuple):
    """A detector's word on one image. detected: the concept is seen; score: what the threshold was applied to."""

    detected: bool
    score: float


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


def is_share(metric: str) -> bool:
    """Whether a metric is a share of attempts, which is told in per cent; the others are plain numbers."""
    return metric in ("", "dsr", "detected") or metric.endswith(" agreement")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A measured number that never travels alone.

    metric: what, e.g. "dsr", "subject agreement"; model: which; prompts: the prompt set, e.g. "direct"; value with
    its 95 % interval [low, high]; n: how many attempts were scored; contract: the detector or feature extractor,
    e.g. "mini-judge[item=sword]@1a2b3c4d". Nothing scored has no Estimate at all.
    """

    metric: str
    model: ModelName
    prompts: str
    value: float
    low: float
    high: float
    n: int
    contract: str

    def as_json(self) -> dict[str, Any]:
        """The record as a JSON object, fields in order."""
        return dataclasses.asdict(self)
