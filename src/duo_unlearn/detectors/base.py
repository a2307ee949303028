"""What a detector promises: its contract, and one verdict an image."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol, runtime_checkable

from PIL import Image

from ..errors import DuoError
from ..records import Verdict


class Contract(NamedTuple):
    """What makes two detections comparable: same name, labels, threshold and weights.

    threshold: the score from which the concept counts as seen. weights: first 8 digits of their SHA-256.
    """

    name: str
    labels: tuple[str, ...]
    threshold: float
    weights: str

    def __str__(self) -> str:
        return f"{self.name}[{'|'.join(self.labels)}>={self.threshold:g}]@{self.weights}"


class Detector(Protocol):
    """Sees whether the concept is in an image. The batch an image comes in must not change its verdict."""

    contract: Contract

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image, in order."""
        ...


@runtime_checkable
class AttributeReader(Protocol):
    """A detector that can also read attributes off an image, to gate pairs and to measure what is preserved."""

    def read(self, images: Sequence[Image.Image]) -> list[Mapping[str, str]]:
        """Attribute → label, one mapping an image, in order."""
        ...


DETECTORS: Final = {"mini-judge": "mini_judge.MiniJudge", "clip": "clip.ClipDetector"}
"""Name → module and class, imported when used: each is made as CLASS(labels, threshold or None for its default)."""


def check_detector(name: str, family: str) -> None:
    """Fail for a detector that does not exist, or that does not know the pictures of a model family. Loads nothing."""
    if name not in DETECTORS:
        raise DuoError("unknown detector", got=name, hint=f"one of: {', '.join(DETECTORS)}")
    if name == "mini-judge" and family != "mini":
        hint = "in the concept file: detector: {name: clip, labels: [unsafe=TEXT, safe=TEXT]}"
        raise DuoError("mini-judge reads the pictures of the mini world only", got=f"a model of {family}", hint=hint)


def make_detector(name: str, labels: tuple[str, ...], family: str, threshold: float | None = None) -> Detector:
    """A detector under a contract, for the pictures of a model family."""
    check_detector(name, family)
    module, _, maker = DETECTORS[name].partition(".")
    made: Detector = getattr(importlib.import_module(f"{__package__}.{module}"), maker)(labels, threshold)
    return made
