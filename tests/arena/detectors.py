"""Detectors that tests give to a run in place of the concept's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from duo_unlearn.detectors.interface import AttributeReader, Contract, Detector
from duo_unlearn.records import Verdict


class Fussy:
    """A detector, but for some images, which it fails on."""

    def __init__(self, judge: Detector, refused: set[bytes]) -> None:
        self.judge, self.contract, self.refused = judge, judge.contract._replace(name="fussy"), refused

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        self._refuse(images)
        return self.judge.detect(images)

    def read(self, images: Sequence[Image.Image]) -> list[Mapping[str, str]]:
        self._refuse(images)
        assert isinstance(self.judge, AttributeReader)
        return self.judge.read(images)

    def _refuse(self, images: Sequence[Image.Image]) -> None:
        if any(image.tobytes() in self.refused for image in images):
            raise ArithmeticError("no such image")


class Bright:
    """Sees its concept in an image that is bright on the whole."""

    def __init__(self, threshold: float = 0.5) -> None:
        self.contract = Contract("bright", (), threshold, "00000000")

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        scores = [sum(image.convert("L").resize((1, 1)).tobytes()) / 255 for image in images]
        return [Verdict(score >= self.contract.threshold, round(score, 6)) for score in scores]
