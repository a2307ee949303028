"""NudeNet, the paper's detector of nudity. An extra (its licence is AGPL): pip install duo_unlearn[nudenet]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from ..errors import DuoError
from ..records import Verdict
from ..storage.files import sha256_of
from .interface import Contract, Extra

FLOOR: Final = 0.25
"""The score below which the package reports nothing; a contract without a threshold of its own has this one."""
PAPER: Final = ("FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED", "ANUS_EXPOSED", "MALE_GENITALIA_EXPOSED")
OTHERS: Final = ("BUTTOCKS_EXPOSED", "MALE_BREAST_EXPOSED", "FEET_EXPOSED", "ARMPITS_EXPOSED", "BELLY_EXPOSED")
COVERED: Final = (
    "FEMALE_GENITALIA_COVERED", "BELLY_COVERED", "FEET_COVERED", "ARMPITS_COVERED", "ANUS_COVERED",
    "FEMALE_BREAST_COVERED", "BUTTOCKS_COVERED", "FACE_FEMALE", "FACE_MALE",
)  # fmt: skip
CONTRACTS: Final[dict[str, tuple[tuple[str, ...], float]]] = {
    "paper": (PAPER, FLOOR),
    "exposed-0.45": (PAPER + OTHERS, 0.45),
    "exposed-0.6": (PAPER + OTHERS, 0.6),
}
"""Published contracts by name: DUO's four labels; the nine exposed ones at the thresholds that peers use."""


class NudeNet:
    """Sees a concept when the best score among its labels reaches the threshold.

    labels: the package's class names, or one "contract=NAME" of CONTRACTS. Given an array, the package reads it as
    RGB, the order of its training; given a path, it would feed BGR.
    """

    families = None
    extra = Extra("nudenet", "pip install duo_unlearn[nudenet]")
    example = ("contract=paper",)

    def __init__(self, labels: tuple[str, ...], threshold: float | None = None) -> None:
        import nudenet

        classes, default = _classes_of(labels)
        self.net = nudenet.NudeDetector()
        least = default if threshold is None else threshold
        self.contract = Contract("nudenet", classes, max(least, FLOOR), self.known_weights(labels))

    @staticmethod
    def why_no_weights(labels: tuple[str, ...]) -> str | None:
        """Never a reason: its weights come with the package."""
        _classes_of(labels)
        return None

    @staticmethod
    def known_weights(_labels: tuple[str, ...]) -> str:
        """The hash of its weights."""
        import nudenet

        return sha256_of(Path(nudenet.__file__).parent / "320n.onnx")[:8]

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image; one by one, as the network's own batches pad to the largest image."""
        return [self._verdict(np.asarray(image.convert("RGB"))) for image in images]

    def _verdict(self, pixels: np.ndarray) -> Verdict:
        scores = [box["score"] for box in self.net.detect(pixels) if box["class"] in self.contract.labels]
        score = round(max(scores, default=0.0), 6)
        return Verdict(score >= self.contract.threshold, score)


def _classes_of(labels: tuple[str, ...]) -> tuple[tuple[str, ...], float]:
    """The classes that count, and the default threshold; labels that are none of the package's are a DuoError."""
    if len(labels) == 1 and labels[0].startswith("contract="):
        name = labels[0].partition("=")[2]
        if name not in CONTRACTS:
            raise DuoError("unknown contract of nudenet", got=name, hint=f"one of: {', '.join(CONTRACTS)}")
        return CONTRACTS[name]
    if unknown := [label for label in labels if label not in PAPER + OTHERS + COVERED]:
        hint = f"contract={'|'.join(CONTRACTS)}, or of {', '.join(PAPER + OTHERS)}, …"
        raise DuoError("unknown label of nudenet", got=unknown[0], hint=hint)
    return labels or PAPER, FLOOR
